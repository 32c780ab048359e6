//! Functions that a library calls are replaced for a while.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::mem_forget,
    clippy::too_many_lines,
    reason = "a test says what is wrong by failing"
)]

mod common;

use clib_hook::{Error, mock};
use common::{alone, build, session};

const SOURCE: &str = r"
#include <time.h>
#include <unistd.h>
#include <stdlib.h>
long now(void) { struct timespec t = {0, 0}; return clock_gettime(CLOCK_REALTIME, &t) == 0 ? (long)t.tv_sec : -1; }
int exported(int a) { return a + 1; }
int calls_own(int a) { return exported(a) * 2; }
typedef int (*member)(int);
member table[] = {exported};
int by_table(int a) { return table[0](a); }
int process(void) { return getpid(); }
";

extern "C" fn noon(_: i32, time: *mut libc::timespec) -> i32 {
    // SAFETY: the library's own structure.
    unsafe { (*time).tv_sec = 12 };
    0
}

extern "C" fn ten(_: i32) -> i32 {
    10
}

extern "C" fn twenty(_: i32) -> i32 {
    20
}

#[test]
fn functions_of_others_and_own_ones_are_replaced_and_put_back() {
    let _alone = alone();
    let library = build("mock", SOURCE, &["-O0"]).load();
    let session = session(&[library.name()]);
    let now: extern "C" fn() -> i64 = library.function("now");
    // SAFETY: the replacement has clock_gettime's signature and lives for ever.
    let mock = unsafe { mock::install("clock_gettime", None, noon as *const () as usize) }
        .expect("installed");
    assert_eq!((now(), mock.calls()), (12, 1));
    let original: extern "C" fn(i32, *mut libc::timespec) -> i32 =
        // SAFETY: the address of clock_gettime.
        unsafe { std::mem::transmute(mock.original()) };
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    assert_eq!(original(libc::CLOCK_REALTIME, &raw mut time), 0);
    assert!(time.tv_sec > 1_000_000 && mock.calls() == 1);
    assert!(clib_hook::quiet(|| now()) > 1_000_000);
    drop(mock);
    assert!(now() > 1_000_000);
    assert_eq!(session.calls("clock_gettime").expect("known"), 2);

    let calls_own: extern "C" fn(i32) -> i32 = library.function("calls_own");
    let by_table: extern "C" fn(i32) -> i32 = library.function("by_table");
    assert_eq!((calls_own(1), by_table(1)), (4, 2));
    // SAFETY: the replacements have that signature and live for ever.
    let (outer, inner) = unsafe {
        let outer = mock::install("exported", None, ten as *const () as usize).expect("installed");
        assert_eq!((calls_own(1), by_table(1)), (20, 10));
        (
            outer,
            mock::install("exported", None, twenty as *const () as usize).expect("installed"),
        )
    };
    assert_eq!(calls_own(1), 40);
    drop(outer);
    assert_eq!(calls_own(1), 40, "the last one made stays in force");
    drop(inner);
    assert_eq!((calls_own(1), by_table(1)), (4, 2));
}

#[test]
fn ending_a_session_ends_its_mocks() {
    let _alone = alone();
    let library = build("ended", SOURCE, &["-O0"]).load();
    let session = session(&[library.name()]);
    let calls_own: extern "C" fn(i32) -> i32 = library.function("calls_own");
    // SAFETY: the replacement has that signature and lives for ever.
    let mock =
        unsafe { mock::install("exported", None, ten as *const () as usize) }.expect("installed");
    assert_eq!(calls_own(1), 20);
    session.stop().expect("stopped");
    assert_eq!(calls_own(1), 4);
    drop(mock);
    assert_eq!(calls_own(1), 4);
}

#[test]
fn what_cannot_be_replaced_is_said() {
    let _alone = alone();
    let install = |name: &str, address: usize| {
        // SAFETY: never installed.
        unsafe { mock::install(name, None, address) }
            .map(drop)
            .expect_err("refused")
    };
    assert_eq!(install("getpid", 1), Error::NotStarted);
    let library = build("refused", SOURCE, &["-O0"]).load();
    let _session = session(&[library.name()]);
    assert!(
        matches!(install("getpit", 1), Error::UnknownFunction { near, .. } if near[0] == "getpid")
    );
    assert_eq!(
        install("sendmsg", 1),
        Error::NotCalled("sendmsg".to_owned())
    );
    assert_eq!(
        install("longjmp", 1),
        Error::NeverHooked("longjmp".to_owned())
    );
    assert!(matches!(install("getpid", 0), Error::BadArgument(_)));
}
