//! Calls fail as planned, once and no other, and what happened is known to the parent.

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
    Error,
    plan::{Action, EventLog, Plan, Repeat, Target, arm, disarm, outcome},
    record::{EndKind, Record},
    table::Group,
};
use common::{alone, build, build_with, in_child, session};

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
__attribute__((noinline)) static void *inner(size_t n) { void *p = malloc(n); __asm__ volatile(""); return p; }
int two_sites(void) {
    void *a = inner(10), *b;
    int result = (a == NULL);
    b = inner(20);
    result |= (b == NULL) << 1;
    free(a);
    free(b);
    return result;
}
int many(int n) { int failed = 0; while (n-- > 0) { void *p = malloc(8); failed = failed * 2 + !p; free(p); } return failed; }
int errno_of_open(void) { errno = 0; int fd = open("/dev/null", O_RDONLY); int e = errno; if (fd >= 0) close(fd); return fd < 0 ? e : 0; }
int close_it(int fd) { return close(fd) == 0 ? 0 : errno; }
int lock_init(pthread_mutex_t *m) { errno = 99; int r = pthread_mutex_init(m, NULL); return r * 1000 + errno; }
long read_it(int fd, void *p, size_t n) { return read(fd, p, n); }
long readv_it(int fd, char *p) { struct iovec v[2] = {{p, 3}, {p + 3, 5}}; return readv(fd, v, 2); }
long recv_it(int fd, char *p, struct msghdr *m) {
    struct iovec v[2] = {{p, 3}, {p + 3, 5}};
    memset(m, 0, sizeof *m);
    m->msg_iov = v;
    m->msg_iovlen = 2;
    long n = recvmsg(fd, m, 0);
    return m->msg_iov == v && m->msg_iovlen == 2 ? n : -100;
}
long send_it(int fd, char *p, size_t n) {
    struct iovec v[2] = {{p, n / 2}, {p + n / 2, n - n / 2}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
    return sendmsg(fd, &m, 0);
}
int map_fails(void) { return mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno : 0; }
int read_stream(FILE *f) { char c; size_t n = fread(&c, 1, 1, f); return (int)n * 10 + (ferror(f) != 0); }
void crash_unchecked(void) { char *p = strdup("x"); p[0] = 'y'; free(p); }
void leave(void) { void *p = malloc(1); if (p == NULL) exit(3); free(p); }
int print(char *out, double a) {
    return snprintf(out, 100, "%.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f", a, a + 1, a + 2, a + 3, a + 4, a + 5, a + 6, a + 7,
                    a + 8);
}
"#;

fn library() -> (common::Loaded, clib_hook::Session) {
    let library = build("plan", SOURCE, &["-O1", "-fno-builtin", "-pthread"]).load();
    let session = session(&[library.name()]);
    (library, session)
}

#[test]
fn the_nth_call_fails_once_times_or_for_ever() {
    let _alone = alone();
    let (library, _session) = library();
    let many: extern "C" fn(i32) -> i32 = library.function("many");
    for (nth, repeat, failed, injected) in [
        (1, Repeat::Once, 0b10000, 1),
        (3, Repeat::Once, 0b00100, 1),
        (2, Repeat::Times(2), 0b01100, 2),
        (4, Repeat::Forever, 0b00011, 2),
        (6, Repeat::Once, 0, 0),
    ] {
        let id = arm(&Plan {
            repeat,
            ..Plan::fail("malloc", nth)
        })
        .expect("armed");
        assert_eq!(many(5), failed, "{nth} {repeat:?}");
        assert_eq!(outcome(id).map(|outcome| outcome.matched), Some(5));
        let outcome = disarm(id).expect("was armed");
        assert_eq!((outcome.matched, outcome.injected), (5, injected));
        assert_eq!(
            outcome
                .first
                .map(|first| (first.function, first.errno, first.call)),
            (injected > 0).then(|| ("malloc".to_owned(), libc::ENOMEM, nth))
        );
        assert_eq!(disarm(id), None);
        assert_eq!(many(5), 0);
    }
}

#[test]
fn counting_tells_sites_and_stacks_and_each_can_fail() {
    let _alone = alone();
    let (library, _session) = library();
    let two_sites: extern "C" fn() -> i32 = library.function("two_sites");
    let log = EventLog::new(100).expect("a log");
    log.start(&[Group::Memory], true).expect("started");
    assert_eq!(two_sites(), 0);
    log.stop();
    assert_eq!(two_sites(), 0);
    let events = log.events();
    assert_eq!(events.len(), 2, "{events:#?}");
    assert_eq!(events[0].site, events[1].site, "one call instruction");
    assert_ne!(events[0].stack, events[1].stack, "reached in two ways");
    assert_eq!(
        (
            events[1].function,
            events[1].call,
            events[1].ordinal,
            events[1].at_stack
        ),
        ("malloc", 2, 2, 1)
    );
    for (event, expected) in events.iter().zip([1, 2]) {
        let plan = Plan {
            stack: Some(event.stack),
            ..Plan::fail("malloc", event.at_stack)
        };
        let id = arm(&plan).expect("armed");
        assert_eq!(two_sites(), expected);
        let first = disarm(id)
            .and_then(|outcome| outcome.first)
            .expect("failed");
        assert_eq!(first.backtrace.len(), 2, "inner and two_sites: {first:?}");
        assert!(first.object.ends_with("libplan.so") && first.offset < 0x10000);
        let by_ordinal = Plan {
            target: Target::Groups(vec![Group::Memory]),
            ..Plan::fail("", event.ordinal)
        };
        let id = arm(&by_ordinal).expect("armed");
        assert_eq!(two_sites(), expected);
        disarm(id);
    }
    log.clear();
    assert_eq!(log.events(), []);
}

#[test]
fn a_full_log_says_what_it_lost() {
    let _alone = alone();
    let (library, _session) = library();
    let many: extern "C" fn(i32) -> i32 = library.function("many");
    let log = EventLog::new(3).expect("a log");
    log.start(&[Group::Memory], false).expect("started");
    many(5);
    assert_eq!((log.events().len(), log.dropped()), (3, 2));
    log.clear();
    many(1);
    assert_eq!((log.events().len(), log.dropped()), (1, 0));
    log.stop();
}

#[test]
fn each_kind_of_failure_is_the_functions_own() {
    let _alone = alone();
    let (library, session) = library();
    let call = |name: &str| -> i32 { library.function::<extern "C" fn() -> i32>(name)() };
    let with = |function: &str, action: Action, work: &dyn Fn()| {
        let id = arm(&Plan {
            action,
            ..Plan::fail(function, 1)
        })
        .expect("armed");
        work();
        assert_eq!(disarm(id).expect("armed").injected, 1, "{function}");
    };
    with("open", Action::Fail(None), &|| {
        assert_eq!(call("errno_of_open"), libc::EMFILE);
    });
    with("open", Action::Fail(Some(libc::EACCES)), &|| {
        assert_eq!(call("errno_of_open"), libc::EACCES);
    });
    with("mmap", Action::Fail(None), &|| {
        assert_eq!(call("map_fails"), libc::ENOMEM);
    });
    let lock_init: extern "C" fn(*mut u64) -> i32 = library.function("lock_init");
    with("pthread_mutex_init", Action::Fail(None), &|| {
        assert_eq!(
            lock_init([0_u64; 8].as_mut_ptr()),
            libc::EAGAIN * 1000 + 99,
            "errno is left alone"
        );
    });
    // A close that fails has closed.
    let close_it: extern "C" fn(i32) -> i32 = library.function("close_it");
    // SAFETY: an own descriptor; afterwards only its number is used.
    let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) };
    with("close", Action::Fail(None), &|| {
        assert_eq!(close_it(fd), libc::EIO);
    });
    // SAFETY: F_GETFD only asks.
    assert_eq!(unsafe { libc::fcntl(fd, libc::F_GETFD) }, -1);
    let read_stream: extern "C" fn(usize) -> i32 = library.function("read_stream");
    // SAFETY: a stream that this test closes.
    let stream = unsafe { libc::fopen(c"/dev/zero".as_ptr(), c"r".as_ptr()) };
    with("fread", Action::Fail(None), &|| {
        assert_eq!(read_stream(stream as usize), 1, "ferror says so");
    });
    // SAFETY: as above.
    unsafe { libc::fclose(stream) };
    assert_eq!(session.held_since(clib_hook::session::Mark(0)), []);
    with("malloc", Action::Return(0, Some(libc::EPERM)), &|| {
        assert_eq!(call("two_sites"), 1);
    });
}

#[test]
fn short_counts_really_are_short() {
    use std::{
        io::{Read, Write},
        os::{fd::AsRawFd, unix::net::UnixStream},
    };
    let _alone = alone();
    let (library, _session) = library();
    let (mut ours, theirs) = UnixStream::pair().expect("sockets");
    let fd = theirs.as_raw_fd();
    let mut buffer = [0_u8; 8];
    let read_it: extern "C" fn(i32, *mut u8, usize) -> isize = library.function("read_it");
    let readv_it: extern "C" fn(i32, *mut u8) -> isize = library.function("readv_it");
    let recv_it: extern "C" fn(i32, *mut u8, *mut u64) -> isize = library.function("recv_it");
    let send_it: extern "C" fn(i32, *const u8, usize) -> isize = library.function("send_it");
    let mut header = [u64::MAX; 7];
    for (function, short) in [("read", 1), ("readv", 4), ("recvmsg", 4)] {
        ours.write_all(b"abcdefgh").expect("sent");
        let id = arm(&Plan {
            action: Action::Short(short),
            ..Plan::fail(function, 1)
        })
        .expect("armed");
        let mut got: Vec<u8> = Vec::new();
        while got.len() < 8 {
            let at = buffer.as_mut_ptr();
            let read = match function {
                "read" => read_it(fd, at, 8 - got.len()),
                "readv" => readv_it(fd, at),
                _ => recv_it(fd, at, header.as_mut_ptr()),
            };
            assert!(read > 0, "{function} {read}");
            if got.is_empty() {
                assert_eq!(read, short as isize, "{function}");
            }
            got.extend(&buffer[..read as usize]);
        }
        assert_eq!(got, b"abcdefgh", "nothing is lost");
        disarm(id);
    }
    let id = arm(&Plan {
        action: Action::Short(5),
        ..Plan::fail("sendmsg", 1)
    })
    .expect("armed");
    assert_eq!(send_it(fd, b"12345678".as_ptr(), 8), 5);
    assert_eq!(send_it(fd, b"678".as_ptr(), 3), 3);
    disarm(id);
    ours.read_exact(&mut buffer).expect("received");
    assert_eq!(&buffer, b"12345678");
    let id = arm(&Plan {
        action: Action::EndOfFile,
        ..Plan::fail("recvmsg", 1)
    })
    .expect("armed");
    assert_eq!(recv_it(fd, buffer.as_mut_ptr(), header.as_mut_ptr()), 0);
    disarm(id);
    // What cannot be short is left alone, and that is said.
    let id = arm(&Plan {
        action: Action::Short(8),
        ..Plan::fail("sendmsg", 1)
    })
    .expect("armed");
    assert_eq!(send_it(fd, b"1234".as_ptr(), 4), 4);
    let outcome = disarm(id).expect("armed");
    assert_eq!((outcome.matched, outcome.injected), (1, 0));
}

#[test]
fn only_streams_are_said_to_be_short() {
    use std::os::{
        fd::AsRawFd,
        unix::net::{UnixDatagram, UnixStream},
    };
    let _alone = alone();
    let (library, _session) = library();
    let send_it: extern "C" fn(i32, *const u8, usize) -> isize = library.function("send_it");
    let (stream, _peer) = UnixStream::pair().expect("sockets");
    let (datagram, _other) = UnixDatagram::pair().expect("sockets");
    stream.set_nonblocking(true).expect("set");
    let log = EventLog::new(10).expect("a log");
    log.start(&[Group::Socket], true).expect("started");
    send_it(stream.as_raw_fd(), b"ab".as_ptr(), 2);
    send_it(datagram.as_raw_fd(), b"ab".as_ptr(), 2);
    log.stop();
    let seen: Vec<_> = log
        .events()
        .iter()
        .map(|event| (event.partial, event.nonblocking))
        .collect();
    assert_eq!(seen, [(true, true), (false, false)]);
}

#[test]
fn operator_new_throws_through_the_thunk() {
    let _alone = alone();
    let source = r#"
        #include <new>
        struct Guard { int *p; ~Guard() { *p += 100; } };
        extern "C" int make(int *unwound) {
            try { Guard g{unwound}; int *p = new int[5]; delete[] p; return 1; } catch (const std::bad_alloc &) { return 2; }
        }
        extern "C" int make_nothrow(void) { int *p = new (std::nothrow) int; int r = p == nullptr; delete p; return r; }
        extern "C" void pass_on(int *unwound) { Guard g{unwound}; throw 5; }
        extern "C" int huge(int *unwound) {
            try { Guard g{unwound}; return new char[1ul << 62] != nullptr; } catch (const std::bad_alloc &) { return 7; }
        }
    "#;
    let library = build_with("g++", "cc", "throws", source, &["-O0"]).load();
    let session = session(&[library.name()]);
    let make: extern "C" fn(*mut i32) -> i32 = library.function("make");
    let make_nothrow: extern "C" fn() -> i32 = library.function("make_nothrow");
    let mut unwound = 0;
    assert_eq!((make(&raw mut unwound), unwound), (1, 100));
    let id = arm(&Plan::fail("operator new[]", 1)).expect("armed");
    assert_eq!((make(&raw mut unwound), unwound), (2, 200));
    assert_eq!(
        disarm(id)
            .and_then(|outcome| outcome.first)
            .expect("failed")
            .action,
        "throw"
    );
    assert_eq!(make_nothrow(), 0);
    let id = arm(&Plan::fail("operator new nothrow", 1)).expect("armed");
    assert_eq!(make_nothrow(), 1);
    disarm(id);
    // A real failure is thrown by the original, through the frame of the thunk that called it.
    let huge: extern "C" fn(*mut i32) -> i32 = library.function("huge");
    assert_eq!((huge(&raw mut unwound), unwound), (7, 300));
    assert_eq!(session.held_since(clib_hook::session::Mark(0)), []);
}

#[test]
fn what_a_child_did_is_known_however_it_ends() {
    let _alone = alone();
    let (library, _session) = library();
    let record = Record::new().expect("a record");
    record.activate();
    let crash: extern "C" fn() = library.function("crash_unchecked");
    let status = in_child(|| {
        arm(&Plan::fail("strdup", 1)).expect("armed");
        crash();
        0
    });
    assert_eq!(status, -libc::SIGSEGV);
    let snapshot = record.snapshot();
    assert_eq!(snapshot.injections, 1);
    assert_eq!(snapshot.injected[0].function, "strdup");
    assert!(snapshot.end.is_none(), "nobody watched for signals");
    let here = clib_hook::symbolize::symbolize_return(snapshot.injected[0].site);
    assert_eq!(here[0].function.as_deref(), Some("crash_unchecked"));
    record.clear();
    let leave: extern "C" fn() = library.function("leave");
    let status = in_child(|| {
        arm(&Plan::fail("malloc", 1)).expect("armed");
        leave();
        0
    });
    assert_eq!(status, 3);
    let exit = record.snapshot().exit.expect("an exit");
    assert_eq!(
        (exit.kind, exit.code, exit.function.as_str()),
        (EndKind::Exit, 3, "exit")
    );
    assert_eq!(
        clib_hook::symbolize::symbolize_return(exit.pc)[0]
            .function
            .as_deref(),
        Some("leave")
    );
    // In the parent nothing is armed.
    crash();
}

#[test]
fn threads_and_quiet_code_are_left_alone() {
    let _alone = alone();
    let (library, session) = library();
    let many: extern "C" fn(i32) -> i32 = library.function("many");
    let before = session.calls("malloc").expect("known");
    let id = arm(&Plan {
        this_thread: true,
        repeat: Repeat::Forever,
        ..Plan::fail("malloc", 1)
    })
    .expect("armed");
    assert_eq!(
        std::thread::spawn(move || many(4))
            .join()
            .expect("no panic"),
        0
    );
    assert_eq!(clib_hook::quiet(|| many(4)), 0);
    assert_eq!(many(2), 0b11);
    assert_eq!(disarm(id).map(|outcome| outcome.matched), Some(2));
    assert_eq!(session.calls("malloc").expect("known") - before, 6);
}

#[test]
fn floating_point_arguments_pass() {
    let _alone = alone();
    let (library, session) = library();
    let print: extern "C" fn(*mut u8, f64) -> i32 = library.function("print");
    // A plan for another function makes the hooks look closely at each call.
    let id = arm(&Plan {
        stack: Some(1),
        ..Plan::fail("malloc", 1)
    })
    .expect("armed");
    let mut text = [0_u8; 100];
    let length = print(text.as_mut_ptr(), 0.5);
    assert_eq!(
        &text[..length as usize],
        b"0.5 1.5 2.5 3.5 4.5 5.5 6.5 7.5 8.5"
    );
    disarm(id);
    assert_eq!(session.calls("snprintf").expect("known"), 1);
}

#[test]
fn bad_plans_are_refused() {
    let _alone = alone();
    assert_eq!(arm(&Plan::fail("malloc", 1)), Err(Error::NotStarted));
    let (_library, _session) = library();
    let refused = |plan: Plan, words: &str| {
        let error = arm(&plan).expect_err("bad").to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(Plan::fail("mallco", 1), "malloc");
    refused(Plan::fail("malloc", 0), "from 1");
    refused(Plan::fail("free", 1), "cannot fail");
    refused(Plan::fail("snprintf", 1), "which value");
    refused(
        Plan {
            action: Action::Fail(Some(0)),
            ..Plan::fail("malloc", 1)
        },
        "errno 0",
    );
    refused(
        Plan {
            action: Action::Short(3),
            ..Plan::fail("malloc", 1)
        },
        "no bytes",
    );
    refused(
        Plan {
            action: Action::Short(0),
            ..Plan::fail("read", 1)
        },
        "end of file",
    );
    refused(
        Plan {
            action: Action::EndOfFile,
            ..Plan::fail("write", 1)
        },
        "does not read",
    );
    refused(
        Plan {
            repeat: Repeat::Times(0),
            ..Plan::fail("malloc", 1)
        },
        "at least once",
    );
    let ids: Vec<_> = (0..16)
        .map(|_| arm(&Plan::fail("malloc", 9)).expect("room"))
        .collect();
    refused(Plan::fail("malloc", 1), "16 plans");
    ids.into_iter().for_each(|id| drop(disarm(id)));
}
