//! Messages on their way to the device's log handler, and `vfu_log`.
//!
//! The handler and its level are atomics: any thread may log while another sets them. errno is the same
//! after a message as before it, whatever the handler did. Nothing here allocates or panics.

use std::arch::{global_asm, naked_asm};
use std::ffi::{c_char, c_int};
use std::fmt::{self, Write as _};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};

use crate::abi::LogFn;
use crate::context::VfuCtx;
use crate::edge::{errno, set_errno};

/// Longest message that the library itself writes, with its NUL.
const TEXT_SIZE: usize = 1024;

/// Where messages go, and how many of them.
#[derive(Debug)]
pub(crate) struct Log {
    /// A [`LogFn`], or NULL for none.
    handler: AtomicPtr<()>,
    level: AtomicI32,
    /// How many calls of the handler are under way.
    running: AtomicU32,
}

impl Log {
    pub(crate) const fn new() -> Self {
        Self {
            handler: AtomicPtr::new(ptr::null_mut()),
            level: AtomicI32::new(libc::LOG_ERR),
            running: AtomicU32::new(0),
        }
    }

    /// Takes a new handler, or none, and the highest level that it wants (`LOG_EMERG` 0 to `LOG_DEBUG` 7).
    pub(crate) fn set(&self, handler: Option<LogFn>, level: c_int) {
        self.level.store(level, Ordering::Relaxed);
        let handler = handler.map_or(ptr::null_mut(), |handler| handler as *mut ());
        self.handler.store(handler, Ordering::Release);
    }

    /// Whether anyone wants messages of this level.
    pub(crate) fn wanted(&self, level: c_int) -> bool {
        !self.handler.load(Ordering::Relaxed).is_null()
            && level <= self.level.load(Ordering::Relaxed)
    }

    /// Whether the handler is running, on any thread.
    pub(crate) fn is_busy(&self) -> bool {
        self.running.load(Ordering::Relaxed) != 0
    }

    /// Hands `text` to the handler. errno is kept.
    ///
    /// # Safety
    ///
    /// `ctx` is the context that owns this log; `text` is NUL-terminated.
    pub(crate) unsafe fn emit(&self, ctx: *mut VfuCtx, level: c_int, text: *const c_char) {
        let handler = self.handler.load(Ordering::Acquire);
        if handler.is_null() {
            return;
        }
        let saved = errno();
        // SAFETY: only `set` stores here, and only `LogFn`s besides NULL.
        let handler = unsafe { std::mem::transmute::<*mut (), LogFn>(handler) };
        self.running.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the device gave this function for exactly these arguments.
        unsafe { handler(ctx, level, text) };
        self.running.fetch_sub(1, Ordering::Relaxed);
        set_errno(saved);
    }
}

/// A NUL-terminated message on the stack. What does not fit is cut off at a character.
pub(crate) struct Text {
    bytes: [u8; TEXT_SIZE],
    len: usize,
}

impl Text {
    pub(crate) fn new(message: fmt::Arguments<'_>) -> Self {
        let mut text = Self {
            bytes: [0; TEXT_SIZE],
            len: 0,
        };
        let _ = text.write_fmt(message); // fails where the message is cut off
        text
    }

    pub(crate) const fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = TEXT_SIZE - 1 - self.len; // the NUL stays
        let mut take = part.len().min(room);
        while !part.is_char_boundary(take) {
            take -= 1;
        }
        self.bytes[self.len..self.len + take].copy_from_slice(&part.as_bytes()[..take]);
        self.len += take;
        if take == part.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

unsafe extern "C" {
    /// `csrc/vfu_log.c`; with arguments there, but only jumped to here.
    fn vfu_log_format();
}

/// Logs a message, printf style, with the handler of `vfu_setup_log`.
///
/// Nothing happens, and nothing is formatted, if there is no handler, if `level` is above the one that was
/// set up, or if `ctx` or `fmt` is NULL. At most 8191 bytes of text are passed on. `%m` shows errno as it
/// was on entry, and errno is kept. Any thread may call this.
///
/// # Safety
///
/// `ctx` is NULL or a live context; `fmt` and the arguments after it are as printf(3) wants them.
// Variadic functions cannot be defined in stable Rust, and symbols of C objects are not exported from a
// Rust cdylib. So this is the exported name, and the arguments pass through it untouched.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_log(ctx: *mut VfuCtx, level: c_int, fmt: *const c_char) {
    naked_asm!("jmp {format}", format = sym vfu_log_format)
}

#[cfg(not(target_arch = "x86_64"))]
compile_error!("vfu_log is written for x86-64");

// What the C file calls, under names that are global for the linker and hidden from the dynamic symbols
// (`no_mangle` would export them).
global_asm!(
    ".macro hidden_alias name, target",
    ".globl \\name",
    ".hidden \\name",
    ".type \\name, @function",
    "\\name: jmp \\target",
    ".size \\name, . - \\name",
    ".endm",
    ".text",
    "hidden_alias vfu_log_wanted, {wanted}",
    "hidden_alias vfu_log_emit, {emit}",
    ".purgem hidden_alias",
    wanted = sym log_wanted,
    emit = sym log_emit,
);

unsafe extern "C" fn log_wanted(ctx: *mut VfuCtx, level: c_int) -> bool {
    // SAFETY: NULL or a live context, by the contract of `vfu_log`.
    unsafe { VfuCtx::shared_of(ctx) }.is_some_and(|shared| shared.log_wanted(level))
}

unsafe extern "C" fn log_emit(ctx: *mut VfuCtx, level: c_int, text: *const c_char) {
    // SAFETY: NULL or a live context, by the contract of `vfu_log`.
    if let Some(shared) = unsafe { VfuCtx::shared_of(ctx) } {
        // SAFETY: the C file terminates `text`.
        unsafe { shared.emit(level, text) };
    }
}
