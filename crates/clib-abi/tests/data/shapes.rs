//! What a Rust library with a C face declares.
#![crate_type = "cdylib"]
#![allow(dead_code)]

use std::ffi::{c_char, c_int, c_void};

#[repr(C)]
pub struct Point {
    pub x: i32,
    pub y: i32,
}

pub mod api {
    #[repr(C)]
    pub struct Options {
        pub size: usize,
        pub name: *const super::c_char,
        pub callback: Option<unsafe extern "C" fn(*mut super::c_void, usize) -> isize>,
        pub colour: Colour,
        pub on: bool,
    }

    #[repr(C)]
    #[derive(Clone, Copy)]
    pub enum Colour {
        Red = 1,
        Blue = 40,
    }
}

#[repr(C)]
pub union Value {
    pub number: u64,
    pub pointer: *mut c_void,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn options_new(point: *const Point, value: *mut Value) -> *mut api::Options {
    let x = unsafe { (*point).x };
    unsafe { (*value).number = x as u64 };
    Box::into_raw(Box::new(api::Options {
        size: 3,
        name: std::ptr::null(),
        callback: None,
        colour: api::Colour::Blue,
        on: true,
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn options_call(
    options: *mut api::Options,
    callback: Option<unsafe extern "C" fn(*mut c_void, usize) -> isize>,
    context: *mut c_void,
) -> c_int {
    let called = callback.map_or(0, |call| unsafe { call(context, (*options).size) });
    called as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn options_free(options: *mut api::Options) {
    drop(unsafe { Box::from_raw(options) });
}
