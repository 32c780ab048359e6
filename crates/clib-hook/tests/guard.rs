//! Overflows and uses after free stop at the instruction that makes them.

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

use clib_hook::{
    Options,
    crash::{self, After},
    guard::{self, GuardOptions, Side},
    record::{EndKind, GuardFault, Record},
    symbolize::symbolize_return,
};
use common::{Loaded, alone, build, in_child, session_with};

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
char *make(size_t n) { return malloc(n); }
void drop(void *p) { free(p); }
int get(const char *p, long at) { return p[at]; }
void put(char *p, long at) { p[at] = 1; }
void *grow(void *p, size_t n) { return realloc(p, n); }
size_t room(void *p) { return malloc_usable_size(p); }
char *copy(const char *s) { return strdup(s); }
char *copy_part(const char *s, size_t n) { return strndup(s, n); }
void *zeroed(size_t n, size_t m) { return calloc(n, m); }
void *aligned(size_t a, size_t n) { void *p = NULL; return posix_memalign(&p, a, n) ? NULL : p; }
long lines(const char *path) {
    FILE *f = fopen(path, "r");
    size_t size = 4;
    char *line = malloc(size);
    long n = 0;
    while (getline(&line, &size, f) >= 0) n++;
    free(line);
    fclose(f);
    return n;
}
"#;

struct Fixture {
    library: Loaded,
    _session: clib_hook::Session,
    record: Record,
}

impl Fixture {
    fn new(options: GuardOptions) -> Self {
        let library = build("guard", SOURCE, &["-O0", "-fno-builtin"]).load();
        let session = session_with(
            &[library.name()],
            Options {
                guard: Some(options),
                ..Options::default()
            },
        );
        let record = Record::new().expect("a record");
        record.activate();
        Self {
            library,
            _session: session,
            record,
        }
    }

    fn call(&self, name: &str, a: usize, b: usize) -> usize {
        let function: extern "C" fn(usize, usize) -> usize = self.library.function(name);
        function(a, b)
    }

    fn fault(&self, work: impl FnOnce()) -> GuardFault {
        self.record.clear();
        let status = in_child(|| {
            crash::install(None, After::Exit(77)).expect("installed");
            work();
            0
        });
        assert_eq!(status, 77, "it must fault");
        self.record
            .snapshot()
            .end
            .and_then(|end| end.guard)
            .expect("the guard knows")
    }
}

fn function_at(address: usize) -> String {
    symbolize_return(address)[0]
        .function
        .clone()
        .unwrap_or_default()
}

#[test]
fn an_access_past_the_end_faults() {
    let _alone = alone();
    let fixture = Fixture::new(GuardOptions::default());
    for size in [16, 32, 4096, 10_000, 70_000] {
        let block = fixture.call("make", size, 0);
        fixture.call("put", block, size - 1);
        assert_eq!(
            fixture.call("get", block, 0) as u8,
            if size == 1 { 1 } else { 0xa5 }
        );
        let fault = fixture.fault(|| {
            fixture.call("put", block, size.next_multiple_of(16));
        });
        let expected = ("overflow", block, size, size.next_multiple_of(16) as isize);
        assert_eq!(
            (fault.kind.as_str(), fault.block, fault.size, fault.offset),
            expected
        );
        assert_eq!(function_at(fault.allocated[0]), "make");
        assert_eq!(fault.freed, []);
        fixture.call("drop", block, 0);
    }
    assert_eq!(guard::check(), []);
}

#[test]
fn an_access_before_the_start_faults() {
    let _alone = alone();
    let fixture = Fixture::new(GuardOptions {
        side: Side::Under,
        ..GuardOptions::default()
    });
    let block = fixture.call("make", 33, 0);
    let fault = fixture.fault(|| {
        fixture.call("get", block, usize::MAX);
    });
    assert_eq!(
        (fault.kind.as_str(), fault.block, fault.offset),
        ("underflow", block, -1)
    );
    fixture.call("drop", block, 0);
}

#[test]
fn small_overflows_are_noticed_at_release_and_on_request() {
    let _alone = alone();
    let fixture = Fixture::new(GuardOptions::default());
    let block = fixture.call("make", 13, 0);
    fixture.call("put", block, 13);
    let found = guard::check();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (
            found[0].fault.kind.as_str(),
            found[0].fault.offset,
            found[0].noticed.len()
        ),
        ("overflow", 13, 0)
    );
    assert_eq!(guard::check(), [], "once");
    fixture.call("put", block, usize::MAX);
    fixture.call("drop", block, 0);
    let found = guard::check();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].fault.kind.as_str(), found[0].fault.offset),
        ("underflow", -1)
    );
    assert_eq!(
        (
            function_at(found[0].noticed[0]),
            function_at(found[0].fault.allocated[0])
        ),
        ("drop".into(), "make".into())
    );
}

#[test]
fn a_use_after_free_and_a_second_free_end_with_three_places() {
    let _alone = alone();
    let fixture = Fixture::new(GuardOptions::default());
    let block = fixture.call("make", 100, 0);
    fixture.call("drop", block, 0);
    let fault = fixture.fault(|| {
        fixture.call("get", block, 7);
    });
    assert_eq!((fault.kind.as_str(), fault.offset), ("use-after-free", 7));
    assert_eq!(
        (function_at(fault.allocated[0]), function_at(fault.freed[0])),
        ("make".into(), "drop".into())
    );
    let fault = fixture.fault(|| {
        fixture.call("drop", block, 0);
    });
    assert_eq!(fault.kind, "double-free");
    assert_eq!(
        fixture.record.snapshot().end.map(|end| end.kind),
        Some(EndKind::Abort)
    );
    let other = fixture.call("make", 100, 0);
    let fault = fixture.fault(|| {
        fixture.call("drop", other + 16, 0);
    });
    assert_eq!((fault.kind.as_str(), fault.offset), ("invalid-free", 16));
    fixture.call("drop", other, 0);
}

#[test]
fn all_allocators_agree_about_a_block() {
    let _alone = alone();
    let fixture = Fixture::new(GuardOptions::default());
    let block = fixture.call("make", 5, 0);
    assert_eq!(fixture.call("room", block, 0), 5);
    for at in 0..5 {
        fixture.call("put", block, at);
    }
    let grown = fixture.call("grow", block, 5000);
    assert_eq!(
        (
            fixture.call("get", grown, 4),
            fixture.call("room", grown, 0)
        ),
        (1, 5000)
    );
    assert_eq!(fixture.call("grow", grown, 0), 0);
    let from_nothing = fixture.call("grow", 0, 10);
    fixture.call("drop", from_nothing, 0);
    let zeroed = fixture.call("zeroed", 10, 10);
    assert!((0..100).all(|at| fixture.call("get", zeroed, at) == 0));
    fixture.call("drop", zeroed, 0);
    for alignment in [16, 64, 4096, 65536] {
        let block = fixture.call("aligned", alignment, 100);
        assert!(block != 0 && block.is_multiple_of(alignment));
        fixture.call("put", block, 99);
        fixture.call("drop", block, 0);
    }
    for (name, length) in [("copy", 10), ("copy_part", 4)] {
        let copy = fixture.call(name, c"some words".as_ptr() as usize, 4);
        // SAFETY: a C string of the library's.
        let text = unsafe { std::ffi::CStr::from_ptr(copy as *const libc::c_char) };
        assert_eq!(text.count_bytes(), length);
        fixture.call("drop", copy, 0);
    }
    let empty = fixture.call("make", 0, 0);
    assert_ne!(empty, 0);
    fixture.call("drop", empty, 0);
    let lines = fixture.call("lines", c"/proc/self/status".as_ptr() as usize, 0);
    assert_eq!(
        lines,
        std::fs::read_to_string("/proc/self/status")
            .expect("status")
            .lines()
            .count()
    );
    assert_eq!(guard::check(), []);
    assert_eq!(fixture._session.held_since(clib_hook::session::Mark(0)), []);
}

#[test]
fn the_quarantine_is_bounded_and_blocks_are_used_again() {
    let _alone = alone();
    let fixture = Fixture::new(GuardOptions {
        quarantine: 64 << 10,
        ..GuardOptions::default()
    });
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1000 {
        let block = fixture.call("make", 64, 0);
        seen.insert(block);
        fixture.call("put", block, 63);
        fixture.call("drop", block, 0);
    }
    assert!((8..40).contains(&seen.len()), "{}", seen.len());
    assert_eq!(guard::unguarded(), 0);
}

#[test]
fn blocks_outlive_the_session() {
    let _alone = alone();
    let fixture = Fixture::new(GuardOptions::default());
    let block = fixture.call("make", 64, 0);
    let Fixture {
        library,
        _session: session,
        ..
    } = fixture;
    session.stop().expect("stopped");
    let drop: extern "C" fn(usize) = library.function("drop");
    drop(block);
    let make: extern "C" fn(usize) -> usize = library.function("make");
    let plain = make(64);
    assert!(guard::explain(plain).is_none());
    drop(plain);
}
