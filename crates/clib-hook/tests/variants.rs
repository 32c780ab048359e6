//! Slots are found and hooked however a library was compiled and linked, before and during a session, and put back.

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

use std::sync::atomic::{AtomicUsize, Ordering};

use clib_hook::{
    Session,
    plan::{Plan, arm, disarm},
    session::Mark,
};
use common::{Loaded, alone, build, build_with, in_child, session};

const SOURCE: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
/* Three ways to reach a function: a call, an address taken, a table. */
void *called(size_t n) { return malloc(n); }
void (*volatile address)(void *);
void released(void *p) { address = free; address(p); }
struct calls { ssize_t (*read)(int, void *, size_t); int (*close)(int); void *(*calloc)(size_t, size_t); };
struct calls table = {read, close, calloc};
void *tabled(size_t n) { return table.calloc(1, n); }
void *twice(size_t n) { void *p = malloc(n); free(p); return malloc(n); }
long fortified(int fd, size_t n) { char buffer[16]; return read(fd, buffer, n); }
"#;

/// What a library of this source must show under a session, whatever its form.
fn check(library: &Loaded, session: &Session) {
    let mark = session.mark();
    let call = |name: &str, argument: usize| -> usize {
        let function: extern "C" fn(usize) -> usize = library.function(name);
        function(argument)
    };
    let count = |name: &str| session.calls(name).expect("known");
    let (mallocs, frees, callocs) = (count("malloc"), count("free"), count("calloc"));
    let blocks = [call("called", 10), call("tabled", 20), call("twice", 30)];
    let held: Vec<_> = session
        .held_since(mark)
        .iter()
        .map(|held| (held.function, held.key, held.size))
        .collect();
    assert_eq!(
        held,
        [
            ("malloc", blocks[0], 10),
            ("calloc", blocks[1], 20),
            ("malloc", blocks[2], 30)
        ]
    );
    for block in blocks {
        call("released", block);
    }
    assert_eq!(session.held_since(mark), []);
    let counts = (
        count("malloc") - mallocs,
        count("free") - frees,
        count("calloc") - callocs,
    );
    assert_eq!(counts, (3, 4, 1));
    let id = arm(&Plan::fail("calloc", 1)).expect("armed");
    assert_eq!(call("tabled", 20), 0);
    assert_eq!(disarm(id).map(|outcome| outcome.injected), Some(1));
}

/// What maps say about a library's pages, and the words of its writable and read-only data.
fn protections(library: &Loaded) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    maps.lines()
        .filter(|line| line.contains(library.path()))
        .map(str::to_owned)
        .collect()
}

fn variants() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("lazy", vec!["-Wl,-z,lazy"]),
        ("now", vec!["-Wl,-z,now"]),
        ("no RELRO", vec!["-Wl,-z,norelro", "-Wl,-z,lazy"]),
        ("partial RELRO", vec!["-Wl,-z,relro", "-Wl,-z,lazy"]),
        ("full RELRO", vec!["-Wl,-z,relro", "-Wl,-z,now"]),
        ("no PLT", vec!["-fno-plt", "-Wl,-z,relro", "-Wl,-z,now"]),
        ("RELR", vec!["-Wl,-z,pack-relative-relocs"]),
        ("CET", vec!["-fcf-protection=full", "-Wl,-z,ibtplt"]),
        ("fortified", vec!["-O2", "-D_FORTIFY_SOURCE=2"]),
        ("optimised", vec!["-O3"]),
        ("not optimised", vec!["-O0"]),
        ("lld", vec!["-fuse-ld=lld"]),
        ("lld, full RELRO", vec!["-fuse-ld=lld", "-Wl,-z,now"]),
        ("lld, no PLT", vec!["-fuse-ld=lld", "-fno-plt"]),
        ("bound to itself", vec!["-Wl,-Bsymbolic"]),
        ("stripped", vec!["-s"]),
        ("old hash", vec!["-Wl,--hash-style=sysv"]),
    ]
}

#[test]
fn every_form_is_hooked_and_put_back() {
    let _alone = alone();
    for (number, (form, flags)) in variants().into_iter().enumerate() {
        let mut all = vec!["-fno-builtin"];
        all.extend(flags);
        let name = format!("form{number}");
        let library = build(&name, SOURCE, &all).load_as(libc::RTLD_LAZY);
        let before = protections(&library);
        println!("{form}");
        let session = session(&[library.name()]);
        assert_eq!(
            protections(&library),
            before,
            "{form}: protections while hooked"
        );
        check(&library, &session);
        // Lazy slots that the calls above would have bound must still be ours.
        check(&library, &session);
        let info = &session.libraries()[0];
        assert!(
            info.functions >= 5 && info.slots > info.functions.min(5),
            "{form}: {info:?}"
        );
        session.stop().expect("stopped");
        assert_eq!(
            protections(&library),
            before,
            "{form}: protections afterwards"
        );
        let called: extern "C" fn(usize) -> usize = library.function("called");
        let released: extern "C" fn(usize) = library.function("released");
        released(called(10));
    }
}

#[test]
fn clang_and_fortified_reads() {
    let _alone = alone();
    let library = build_with("clang", "c", "clang", SOURCE, &["-O2", "-fno-builtin"]).load();
    let session1 = session(&[library.name()]);
    check(&library, &session1);
    drop(session1);
    let library = build("fortified", SOURCE, &["-O2", "-D_FORTIFY_SOURCE=2"]).load();
    let session = session(&[library.name()]);
    let fortified: extern "C" fn(i32, usize) -> isize = library.function("fortified");
    assert_eq!(fortified(-1, 4), -1);
    assert_eq!(
        session.calls("read").expect("known"),
        1,
        "read by its other name: {:?}",
        session.functions()
    );
}

#[test]
fn libraries_loaded_during_a_session_are_found() {
    let _alone = alone();
    let session = session(&["liblate*.so"]);
    assert_eq!(
        (session.matched(), session.libraries().len()),
        (vec![false], 0)
    );
    for name in ["late1", "late2"] {
        let library = build(name, SOURCE, &["-fno-builtin"]).load();
        let new = session.rescan().expect("scanned");
        assert_eq!(new.len(), 1, "{new:?}");
        assert_eq!(new[0].path, library.path());
        assert_eq!(session.rescan().expect("scanned"), []);
        check(&library, &session);
        // Pinned: closing does not unload what may hold our pointers.
        let path = library.path().to_owned();
        library.close();
        assert!(
            clib_hook::objects::loaded()
                .iter()
                .any(|object| object.path == path)
        );
    }
    assert_eq!(session.matched(), [true]);
}

/// A library that loads another with dlopen from its own folder, as plug-in hosts do.
#[test]
fn a_library_loaded_by_a_hooked_one_is_found_by_itself() {
    let _alone = alone();
    let plugin = build("plugin", SOURCE, &["-fno-builtin"]);
    let host = r#"
        #include <dlfcn.h>
        #include <stdlib.h>
        void *load(const char *name) { void *h = dlopen(name, RTLD_NOW); free(malloc(1)); return h; }
    "#;
    let directory = plugin
        .path
        .parent()
        .expect("a directory")
        .display()
        .to_string();
    let host = build(
        "host",
        host,
        &["-fno-builtin", &format!("-Wl,-rpath,{directory}")],
    )
    .load();
    let session = session(&["libhost.so", "libplugin.so"]);
    let load: extern "C" fn(*const libc::c_char) -> usize = host.function("load");
    // Found through the caller's own search path: dlopen must still see who calls it.
    assert_ne!(load(c"libplugin.so".as_ptr()), 0);
    assert_eq!(session.matched(), [true, true], "without a rescan by hand");
    let plugin = plugin.load();
    check(&plugin, &session);
}

#[test]
fn objects_that_are_unloaded_and_replaced_do_no_harm() {
    let _alone = alone();
    let other = |name: &str| {
        build(
            name,
            "#include <stdlib.h>\nvoid give_back(void *p) { free(p); }\n",
            &[],
        )
    };
    let library = build("owner", SOURCE, &["-fno-builtin"]).load();
    let session = session(&["libowner.so"]);
    let called: extern "C" fn(usize) -> usize = library.function("called");
    for name in ["one", "two", "three"] {
        let other = other(name).load();
        session.rescan().expect("scanned");
        let mark = session.mark();
        let give_back: extern "C" fn(usize) = other.function("give_back");
        give_back(called(10));
        assert_eq!(
            session.held_since(mark),
            [],
            "freed by an object that is not under test"
        );
        other.close();
        session.rescan().expect("scanned");
    }
    session.stop().expect("stopped");
}

#[test]
fn frees_by_looked_up_address_are_seen() {
    let _alone = alone();
    let library = build("owner2", SOURCE, &["-fno-builtin"]).load();
    let binding = r#"
        #include <dlfcn.h>
        void give_back(void *p) { ((void (*)(void *))dlsym(dlopen("libc.so.6", RTLD_NOW), "free"))(p); }
    "#;
    let binding = build("binding", binding, &[]).load();
    let session = session(&["libowner2.so"]);
    let called: extern "C" fn(usize) -> usize = library.function("called");
    let give_back: extern "C" fn(usize) = binding.function("give_back");
    give_back(called(10));
    assert_eq!(session.held_since(Mark(0)), []);
}

#[test]
fn a_rust_library_is_like_any_other() {
    let _alone = alone();
    let source = r#"
        #[no_mangle]
        pub extern "C" fn held() -> *mut u8 { Box::into_raw(vec![1_u8; 100].into_boxed_slice()) as *mut u8 }
        #[no_mangle]
        pub unsafe extern "C" fn give_back(p: *mut u8) { drop(Vec::from_raw_parts(p, 100, 100)) }
        #[no_mangle]
        pub extern "C" fn file() -> i32 {
            use std::os::fd::IntoRawFd;
            std::fs::File::open("/dev/null").map(|f| f.into_raw_fd()).unwrap_or(-1)
        }
    "#;
    let library = build_with("rustc", "rs", "rusty", source, &["-O"]).load();
    let session = session(&[library.name()]);
    let mark = session.mark();
    let held: extern "C" fn() -> usize = library.function("held");
    let block = held();
    let all = session.held_since(mark);
    let ours: Vec<_> = all.iter().filter(|held| held.size == 100).collect();
    assert_eq!((ours.len(), ours[0].key), (1, block), "{all:#?}");
    let give_back: extern "C" fn(usize) = library.function("give_back");
    give_back(block);
    let file: extern "C" fn() -> i32 = library.function("file");
    let fd = file();
    assert!(
        session
            .held_since(mark)
            .iter()
            .any(|held| held.key == fd as usize && held.function == "open")
    );
    // SAFETY: this test's own.
    unsafe { libc::close(fd) };
    let id = arm(&Plan::fail("open", 1)).expect("armed");
    assert_eq!(file(), -1);
    disarm(id);
}

#[test]
fn four_threads_are_counted_exactly_and_hold_nothing() {
    const CALLS: usize = 20_000;
    let _alone = alone();
    let library = build("threads", SOURCE, &["-fno-builtin"]).load();
    let session = session(&[library.name()]);
    let twice: extern "C" fn(usize) -> usize = library.function("twice");
    let released: extern "C" fn(usize) = library.function("released");
    let sum = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for size in 0..CALLS {
                    let block = twice(size % 300);
                    sum.fetch_add(usize::from(block != 0), Ordering::Relaxed);
                    released(block);
                }
            });
        }
    });
    assert_eq!(sum.load(Ordering::Relaxed), 4 * CALLS);
    assert_eq!(session.calls("malloc"), Ok(8 * CALLS as u64));
    assert_eq!(session.calls("free"), Ok(8 * CALLS as u64));
    assert_eq!(session.held_since(Mark(0)), []);
}

/// Tells threads to stop, also when the test fails.
struct StopAtEnd<'a>(&'a AtomicUsize);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

/// Sessions come and go while other threads call: no call is lost or goes wrong.
#[test]
fn hooking_is_safe_while_others_call() {
    let _alone = alone();
    let library = build("busy", SOURCE, &["-fno-builtin", "-Wl,-z,now"]).load();
    let twice: extern "C" fn(usize) -> usize = library.function("twice");
    let released: extern "C" fn(usize) = library.function("released");
    let stop = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while stop.load(Ordering::Relaxed) == 0 {
                    let block = twice(40);
                    assert_ne!(block, 0);
                    released(block);
                }
            });
        }
        let _stop = StopAtEnd(&stop);
        for _ in 0..30 {
            session(&[library.name()]).stop().expect("stopped");
        }
    });
}

#[test]
fn forks_go_on_with_their_own_ledger() {
    let _alone = alone();
    let library = build("forks", SOURCE, &["-fno-builtin"]).load();
    let session = session(&[library.name()]);
    let called: extern "C" fn(usize) -> usize = library.function("called");
    let released: extern "C" fn(usize) = library.function("released");
    let block = called(10);
    // Threads that are inside hooks when the process forks must not leave a lock behind.
    let stop = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while stop.load(Ordering::Relaxed) == 0 {
                    released(called(24));
                }
            });
        }
        let _stop = StopAtEnd(&stop);
        for _ in 0..20 {
            let status = in_child(|| {
                released(block);
                let mine = called(77);
                let held = session.held_since(Mark(0));
                let right = held
                    .iter()
                    .filter(|held| held.size == 77)
                    .all(|held| held.key == mine)
                    && held.iter().all(|held| held.key != block)
                    && held.iter().any(|held| {
                        held.key == mine && i64::from(held.thread) == i64::from(std::process::id())
                    });
                i32::from(!right)
            });
            assert_eq!(status, 0);
        }
    });
    let held = session.held_since(Mark(0));
    assert_eq!(
        held.iter().map(|held| held.key).collect::<Vec<_>>(),
        [block]
    );
    released(block);
}

/// A signal that comes in the middle of hooked calls, with a handler that makes hooked calls itself.
#[test]
fn signals_may_interrupt_hooks() {
    let _alone = alone();
    let source = r#"
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <signal.h>
        #include <sys/time.h>
        #include <time.h>
        #include <unistd.h>
        static volatile int ticks;
        static void tick(int s) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); getppid(); ticks++; }
        long run(int wanted) {
            struct sigaction action = {.sa_handler = tick}, before;
            struct itimerval every = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
            long calls = 0;
            sigaction(SIGVTALRM, &action, &before);
            setitimer(ITIMER_VIRTUAL, &every, NULL);
            while (ticks < wanted) { getppid(); calls++; }
            setitimer(ITIMER_VIRTUAL, &never, NULL);
            sigaction(SIGVTALRM, &before, NULL);
            return calls + ticks;
        }
    "#;
    let library = build("signals", source, &[]).load();
    let session = session(&[library.name()]);
    let run: extern "C" fn(i32) -> i64 = library.function("run");
    let calls = run(20);
    assert_eq!(
        session.calls("getppid"),
        Ok(u64::try_from(calls).expect("positive"))
    );
    assert!(session.calls("clock_gettime").expect("known") >= 20);
}

#[test]
fn only_one_session_at_a_time() {
    let _alone = alone();
    let first = session(&["libnothing.so"]);
    let error =
        Session::start(Vec::new(), clib_hook::Options::default()).expect_err("one is running");
    assert_eq!(error, clib_hook::Error::AlreadyStarted);
    drop(first);
    drop(session(&["libnothing.so"]));
}
