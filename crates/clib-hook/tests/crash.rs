//! Fatal signals, exits and time limits become records with a backtrace and the right one to blame.

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

use std::time::Duration;

use clib_hook::{
    crash::{self, After},
    record::{Blame, End, EndKind, Record},
    symbolize::{symbolize, symbolize_return},
};
use common::{Loaded, alone, build, in_child, session};

const SOURCE: &str = r#"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <assert.h>
__attribute__((noinline)) int deref(volatile int *p) { int v = *p; __asm__ volatile(""); return v; }
int outer(volatile int *p) { int v = deref(p); __asm__ volatile(""); return v + 1; }
int in_libc(const char *p) { size_t n = strlen(p); __asm__ volatile(""); return (int)n; }
int by_null_call(void) { int (*volatile f)(void) = 0; return f() + 1; }
int overflows(int n) { volatile char big[4096]; big[0] = (char)n; return overflows(n + 1) + big[0]; }
void aborts(void) { abort(); }
void asserts(int x) { assert(x == 1); }
int divides(int a) { volatile int x = a, y = 0; return x / y; }
typedef int (*callback)(int);
int calls_back(callback f) { int v = f(3); __asm__ volatile(""); return v; }
int compare(const void *a, const void *b) { return *(int *)0 + (a < b); }
void sorts(void) { int x[3] = {3, 1, 2}; qsort(x, 3, sizeof *x, compare); }
void spins(void) { for (volatile int go = 1; go;) {} }
void waits(int fd) { char c; read(fd, &c, 1); __asm__ volatile(""); }
int sum(int n) { char *p = malloc((size_t)n); p[0] = 1; int v = p[0]; free(p); return v; }
"#;

struct Child {
    library: Loaded,
    record: Record,
    _session: clib_hook::Session,
}

impl Child {
    fn new(flags: &[&str]) -> Self {
        let library = build("crash", SOURCE, flags).load();
        let session = session(&[library.name()]);
        let record = Record::new().expect("a record");
        record.activate();
        Self {
            library,
            record,
            _session: session,
        }
    }

    /// Runs a function in a child that reports its crash, and returns what it reported.
    fn end(&self, name: &str, argument: usize) -> End {
        self.record.clear();
        let function: extern "C" fn(usize) -> i32 = self.library.function(name);
        let status = in_child(|| {
            crash::install(None, After::Exit(77)).expect("installed");
            function(argument);
            0
        });
        assert_eq!(status, 77, "{name}");
        self.record
            .snapshot()
            .end
            .unwrap_or_else(|| panic!("{name}: no end"))
    }
}

fn names(end: &End) -> Vec<String> {
    let frames = end
        .backtrace
        .iter()
        .enumerate()
        .map(|(number, address)| match number {
            0 => symbolize(*address),
            _ => symbolize_return(*address),
        });
    frames
        .map(|frames| frames[0].function.clone().unwrap_or_default())
        .collect()
}

#[test]
fn faults_in_the_library_have_its_frames() {
    let _alone = alone();
    for flags in [&["-O1"][..], &["-O2", "-fcf-protection=full"], &["-O0"]] {
        let child = Child::new(flags);
        let end = child.end("outer", 16);
        assert_eq!(
            (end.kind, end.signal, end.address, end.blame),
            (EndKind::Signal, libc::SIGSEGV, 16, Blame::Library)
        );
        let names = names(&end);
        assert_eq!(names[..2], ["deref", "outer"], "{flags:?}");
        assert!(
            names.iter().any(|name| name.contains("in_child")),
            "to the end: {names:?}"
        );
        assert!(
            end.modules
                .iter()
                .any(|module| module.path == child.library.path())
        );
    }
}

#[test]
fn faults_behind_libc_and_wild_calls_are_the_librarys() {
    let _alone = alone();
    let child = Child::new(&["-O1"]);
    for (function, caller, depth) in [
        ("in_libc", "in_libc", 1),
        ("by_null_call", "by_null_call", 1),
        ("sorts", "compare", 0),
    ] {
        let end = child.end(function, 16);
        assert_eq!(end.blame, Blame::Library, "{function}");
        let names = names(&end);
        assert_eq!(names[depth], caller, "{function}: {names:?}");
    }
    let end = child.end("divides", 5);
    assert_eq!((end.signal, end.blame), (libc::SIGFPE, Blame::Library));
    let end = child.end("aborts", 0);
    assert_eq!(
        (end.kind, end.signal, end.blame),
        (EndKind::Abort, libc::SIGABRT, Blame::Library)
    );
    assert!(
        names(&end).contains(&"aborts".to_owned()),
        "{:?}",
        names(&end)
    );
    let exit = child.record.snapshot().exit.expect("noted before");
    assert_eq!(exit.function, "abort");
    child.end("asserts", 2);
    assert_eq!(
        child.record.snapshot().exit.expect("noted").function,
        "__assert_fail"
    );
}

#[test]
fn a_stack_that_is_used_up_can_still_be_told() {
    let _alone = alone();
    let child = Child::new(&["-O0"]);
    let end = child.end("overflows", 0);
    assert_eq!((end.signal, end.blame), (libc::SIGSEGV, Blame::Library));
    assert!(
        names(&end)
            .iter()
            .filter(|name| *name == "overflows")
            .count()
            > 50
    );
}

extern "C" fn faulty(_: i32) -> i32 {
    // SAFETY: none; the fault is the point, and ends the child that does this.
    unsafe { std::ptr::read_volatile(std::hint::black_box(24) as *const i32) }
}

#[test]
fn faults_of_others_are_not_the_librarys() {
    let _alone = alone();
    let child = Child::new(&["-O1"]);
    let end = child.end("calls_back", faulty as *const () as usize);
    assert_eq!(end.blame, Blame::Behind, "{:?}", names(&end));
    child.record.clear();
    let status = in_child(|| {
        crash::install(None, After::Exit(77)).expect("installed");
        faulty(1)
    });
    assert_eq!(status, 77);
    assert_eq!(
        child.record.snapshot().end.expect("an end").blame,
        Blame::Elsewhere
    );
}

#[test]
fn a_time_limit_tells_who_hangs() {
    let _alone = alone();
    let child = Child::new(&["-O1"]);
    let mut pipe = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    for (function, argument) in [("spins", 0), ("waits", pipe[0] as usize)] {
        child.record.clear();
        let work: extern "C" fn(usize) = child.library.function(function);
        let status = in_child(|| {
            crash::deadline(Some(Duration::from_millis(50)), 66).expect("set");
            work(argument);
            0
        });
        assert_eq!(status, 66);
        let end = child.record.snapshot().end.expect("an end");
        assert_eq!(
            (end.kind, end.blame),
            (EndKind::Hang, Blame::Library),
            "{function} {:?}",
            names(&end)
        );
        assert!(names(&end).contains(&function.to_owned()));
    }
    // Cleared, it does nothing.
    let status = in_child(|| {
        crash::deadline(Some(Duration::from_secs(3600)), 66).expect("set");
        crash::deadline(None, 0).expect("cleared");
        5
    });
    assert_eq!(status, 5);
    pipe.iter().for_each(|fd| {
        // SAFETY: this test's own.
        unsafe { libc::close(*fd) };
    });
}

#[test]
fn the_handler_before_still_runs_and_text_is_written() {
    use std::io::Read;
    let _alone = alone();
    let child = Child::new(&["-O1"]);
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let function: extern "C" fn(usize) -> i32 = child.library.function("outer");
    extern "C" fn before(_: i32) {
        // SAFETY: ends the child.
        unsafe { libc::_exit(55) };
    }
    let status = in_child(|| {
        use std::os::fd::AsRawFd;
        // SAFETY: installs a handler in the child.
        unsafe { libc::signal(libc::SIGSEGV, before as *const () as usize) };
        crash::install(Some(writer.as_raw_fd()), After::Chain).expect("installed");
        function(16);
        0
    });
    assert_eq!(status, 55);
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("text");
    assert!(
        text.starts_with("signal 11, address 0x10, at 0x") && text.contains("libcrash.so"),
        "{text}"
    );
    assert!(child.record.snapshot().end.is_some());
    // Without a handler before, the signal does what it always did.
    let status = in_child(|| {
        crash::install(None, After::Chain).expect("installed");
        function(16);
        0
    });
    assert_eq!(status, -libc::SIGSEGV);
}

#[test]
fn what_was_counted_is_written_before_the_end() {
    use std::{
        io::Read,
        sync::atomic::{AtomicI32, Ordering},
    };
    let _alone = alone();
    let child = Child::new(&["-O1"]);
    static TO: AtomicI32 = AtomicI32::new(-1);
    extern "C" fn writes() {
        // SAFETY: the bytes of a literal.
        unsafe { libc::write(TO.load(Ordering::Relaxed), c"counts ".as_ptr().cast(), 7) };
    }
    extern "C" fn crashes() {
        faulty(1);
    }
    let ends: [(&str, usize, i32); 3] = [("outer", 16, 77), ("aborts", 0, 77), ("spins", 0, 66)];
    for (name, argument, status) in ends {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let function: extern "C" fn(usize) -> i32 = child.library.function(name);
        let ended = in_child(|| {
            use std::os::fd::AsRawFd;
            TO.store(writer.as_raw_fd(), Ordering::Relaxed);
            let functions = [writes as *const () as usize, crashes as *const () as usize];
            // SAFETY: functions without arguments; that the last one crashes changes nothing for this process.
            assert_eq!(unsafe { clib_hook::flush::set(&functions) }, 2);
            crash::install(None, After::Exit(77)).expect("installed");
            if name == "spins" {
                crash::deadline(Some(Duration::from_millis(50)), 66).expect("set");
            }
            function(argument);
            0
        });
        assert_eq!(ended, status, "{name}");
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        assert_eq!(text, "counts ", "{name}: once, by the copy");
    }
}
