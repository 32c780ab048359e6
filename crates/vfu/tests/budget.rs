//! What a request costs: system calls and allocations, counted.
//!
//! The counters stand where the library calls: this program defines the C functions that it uses, so that they are
//! found before the C library's. The list of them is checked against the library's source.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    clippy::items_after_statements,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use rig::{BAR, Rig, access, fields, memfd, write as put};
use vfu::Mode;
use vfu::wire::Command;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Defines C functions that count and then make the system call.
macro_rules! counted {
    ($($name:ident = $number:ident ($($arg:ident),*);)*) => {
        const COUNTED: &[&str] = &[$(stringify!($name)),*];
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name($($arg: libc::c_long),*) -> libc::c_long {
                CALLS.with(|count| count.set(count.get() + 1));
                // SAFETY: the arguments are those of the C function, which are the system call's.
                let result = unsafe { libc::syscall(libc::$number, $($arg),*) };
                result
            }
        )*
    };
}

counted! {
    recvmsg = SYS_recvmsg(a, b, c);
    sendmsg = SYS_sendmsg(a, b, c);
    readv = SYS_readv(a, b, c);
    writev = SYS_writev(a, b, c);
    write = SYS_write(a, b, c);
    pread = SYS_pread64(a, b, c, d);
    pwrite = SYS_pwrite64(a, b, c, d);
    fstat = SYS_fstat(a, b);
    poll = SYS_poll(a, b, c);
    mmap = SYS_mmap(a, b, c, d, e, f);
    munmap = SYS_munmap(a, b);
    madvise = SYS_madvise(a, b, c);
    fcntl = SYS_fcntl(a, b, c);
    readlink = SYS_readlink(a, b, c);
    setsockopt = SYS_setsockopt(a, b, c, d, e);
    accept4 = SYS_accept4(a, b, c, d);
    close = SYS_close(a);
    epoll_ctl = SYS_epoll_ctl(a, b, c, d);
}

/// System calls and allocations of `what`.
fn cost(what: impl FnOnce()) -> (usize, usize) {
    let before = (CALLS.get(), ALLOCATIONS.get());
    what();
    (CALLS.get() - before.0, ALLOCATIONS.get() - before.1)
}

#[test]
fn the_counters_count() {
    // SAFETY: no such descriptor; the call fails.
    let (calls, allocations) = cost(|| drop((unsafe { libc::close(-1) }, Box::new(1_u8))));
    assert_eq!((calls, allocations), (1, 1));
}

/// Calls in the source that are not counted: they make no system call, or only where a context is made, a region is mapped
/// again (kcmp, through `syscall`), or in unit tests.
const NOT_COUNTED: [&str; 16] = [
    "CMSG_DATA",
    "CMSG_FIRSTHDR",
    "CMSG_NXTHDR",
    "__errno_location",
    "sysconf",
    "bind",
    "listen",
    "socket",
    "socketpair",
    "unlink",
    "getpid",
    "syscall",
    "eventfd",
    "ftruncate",
    "memfd_create",
    "epoll_create1",
];

fn sources(folder: &std::path::Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if !path.ends_with("tests.rs") {
            into.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_system_call_of_the_library_is_counted() {
    let mut text = String::new();
    sources(
        &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut text,
    );
    let calls = text.split("libc::").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        rest[end..].starts_with('(').then(|| &rest[..end])
    });
    let mut found = 0;
    for call in calls {
        found += 1;
        assert!(
            COUNTED.contains(&call) || NOT_COUNTED.contains(&call),
            "{call} is not counted"
        );
    }
    assert!(found > 10);
}

#[test]
fn small_requests_cost_two_system_calls_and_no_allocation() {
    small_requests(false);
}

#[test]
fn they_cost_the_same_when_an_event_loop_waits_for_them() {
    small_requests(true);
}

fn small_requests(watched: bool) {
    let rig = Rig::new(Mode::NonBlocking);
    struct Quiet;
    impl vfu::Device for Quiet {
        fn region_read(
            &mut self,
            _: &vfu::Context,
            _: u32,
            _: u64,
            data: &mut [u8],
        ) -> Result<(), vfu::Errno> {
            data.fill(1);
            Ok(())
        }
        fn region_write(
            &mut self,
            _: &vfu::Context,
            _: u32,
            _: u64,
            _: &[u8],
        ) -> Result<(), vfu::Errno> {
            Ok(())
        }
    }
    rig.ctx.set_log(None, vfu::Level::Error);
    let _readiness = watched.then(|| rig.ctx.readiness().unwrap());
    let mut client = rig.connect();
    let mut device = Quiet;
    for (command, payload) in [
        (Command::RegionRead, access(BAR, 0, 4)),
        (Command::RegionWrite, put(BAR, 0, &[1; 4])),
        (Command::RegionRead, access(BAR, 0, 4096)),
        (Command::RegionWrite, put(BAR, 0, &[1; 4000])),
        (Command::RegionRead, access(7, 0, 4)),
        (Command::RegionWrite, put(7, 4, &[2, 0])),
        (Command::DeviceGetInfo, fields(&[16, 0])),
        (Command::DeviceGetIrqInfo, fields(&[16, 2])),
        (Command::RegionRead, access(BAR, u64::MAX, 4)), // also when it fails
    ] {
        for round in 0..3 {
            let ticket = client.send(command, &payload, &[]).unwrap();
            let counts = cost(|| assert_eq!(rig.ctx.run(&mut device).unwrap().requests, 1));
            // the first page of data costs its buffer
            if payload != access(BAR, 0, 4096) || round > 0 {
                assert_eq!(counts, (2, 0), "{command}, round {round}");
            }
            let _ = client.receive(ticket);
        }
    }
    // nothing to do: one call that fails
    assert_eq!(
        cost(|| assert_eq!(rig.ctx.run(&mut device).unwrap().requests, 0)),
        (1, 0)
    );
    // a burst: one receive
    for _ in 0..64 {
        client.region_write_posted(BAR, 0, &[1; 4]).unwrap();
    }
    assert_eq!(
        cost(|| assert_eq!(rig.ctx.run(&mut device).unwrap().requests, 64)),
        (1, 0)
    );
    let tickets: Vec<_> = (0..10)
        .map(|_| {
            client
                .send(Command::RegionRead, &access(BAR, 0, 4), &[])
                .unwrap()
        })
        .collect();
    assert_eq!(
        cost(|| assert_eq!(rig.ctx.run(&mut device).unwrap().requests, 10)),
        (11, 0)
    );
    for ticket in tickets {
        client.receive(ticket).unwrap();
    }
}

#[test]
fn a_large_request_costs_its_buffer_once() {
    let mut rig = Rig::new(Mode::NonBlocking);
    rig.ctx.set_log(None, vfu::Level::Error);
    let mut client = rig.connect();
    for round in 0..3 {
        let payload = put(BAR, 0, &[1; 100_000]);
        let ticket = client.send(Command::RegionWrite, &payload, &[]).unwrap();
        rig.device.events.reserve(1);
        let (_, allocations) = cost(|| assert_eq!(rig.run().unwrap().requests, 1));
        // the recorder copies what is written
        assert_eq!(allocations, if round == 0 { 2 } else { 1 }, "round {round}");
        client.receive(ticket).unwrap();
    }
}

#[test]
fn a_map_and_unmap_pair_costs_ten_system_calls_at_most() {
    let mut rig = Rig::new(Mode::NonBlocking);
    rig.ctx.set_log(None, vfu::Level::Error);
    let mut client = rig.connect();
    let memory = memfd(0x10000);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&memory);
    for _ in 0..3 {
        let map = client
            .send(
                Command::DmaMap,
                &fields(&[32 | 7 << 32, 0, 0, 0x10000]),
                &[fd],
            )
            .unwrap();
        let unmap = client
            .send(Command::DmaUnmap, &fields(&[24, 0, 0x10000]), &[])
            .unwrap();
        let (calls, _) = cost(|| {
            for _ in 0..2 {
                assert_eq!(rig.run().unwrap().requests, 1); // the descriptor ends the first receive
            }
        });
        assert!(calls <= 10, "{calls}");
        client.receive(map).unwrap();
        client.receive(unmap).unwrap();
    }
}
