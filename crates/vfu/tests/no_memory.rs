//! Every allocation of the server fails once, each in its own run: the call or request fails with ENOMEM, nothing is lost, and
//! the same call or request works the next time.

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
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rig::{access, eventfd, fields, memfd, open_fds, unique, write};
use vfu::client::{Client, Hello};
use vfu::wire::Command;
use vfu::{
    Context, Device, Errno, IoEventFd, IrqIndex, MmapArea, Mode, RegionSetup, ResetKind, SharedFd,
};

thread_local! {
    /// Allocations until one fails; negative: none fails.
    static LEFT: Cell<isize> = const { Cell::new(-1) };
    static FAILED: Cell<usize> = const { Cell::new(0) };
}

struct Failing;

fn fails() -> bool {
    let left = LEFT.get();
    LEFT.set(if left > 0 { left - 1 } else { -1 });
    if left == 0 {
        FAILED.set(FAILED.get() + 1);
    }
    left == 0
}

// SAFETY: null, or what the system's allocator gives.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Lets allocation `nth` of the library's calls fail, counted over all of them.
struct Plan {
    nth: isize,
}

impl Plan {
    /// Makes a call of the library. If an allocation fails in it, it fails with ENOMEM, and works when made again.
    fn call<T>(&mut self, mut what: impl FnMut() -> vfu::Result<T>) -> T {
        match self.attempt(&mut what) {
            Ok(value) => value,
            Err(error) => {
                assert_eq!(error.errno(), Errno::ENOMEM, "{error}");
                assert_eq!(FAILED.get(), 1, "{error}");
                what().unwrap()
            }
        }
    }

    fn attempt<T>(&mut self, what: &mut impl FnMut() -> T) -> T {
        LEFT.set(self.nth);
        let value = what();
        self.nth = LEFT.replace(-1);
        value
    }

    /// Sends a request and serves it. If an allocation fails, it is answered with ENOMEM, or stays where it is until there is memory.
    fn request(
        &mut self,
        ctx: &Context,
        client: &mut Client,
        command: Command,
        payload: &[u8],
        fds: &[&OwnedFd],
    ) -> Vec<u8> {
        let raw: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        for _ in 0..2 {
            let ticket = client.send(command, payload, &raw).unwrap();
            let served = self.call(|| ctx.run(&mut Quiet));
            if served.requests == 0 && served.failed.is_none() {
                ctx.run(&mut Quiet).unwrap();
            }
            match client.receive(ticket) {
                Ok(reply) => return reply.payload,
                Err(error) => {
                    // descriptors that could not be kept are told from those that never came
                    let errno = error.errno().unwrap().get();
                    assert!(
                        errno == libc::ENOMEM || errno == libc::EFAULT,
                        "{command}: {error}"
                    );
                    assert_eq!(FAILED.get(), 1, "{command}: {error}");
                }
            }
        }
        panic!("{command} failed twice");
    }
}

struct Quiet;

impl Device for Quiet {
    fn region_read(&mut self, _: &Context, _: u32, _: u64, _: &mut [u8]) -> Result<(), Errno> {
        Ok(())
    }
    fn region_write(&mut self, _: &Context, _: u32, _: u64, _: &[u8]) -> Result<(), Errno> {
        Ok(())
    }
    fn reset(&mut self, _: &Context, _: ResetKind) -> Result<(), Errno> {
        Ok(())
    }
}

fn shared(fd: &OwnedFd) -> SharedFd {
    // SAFETY: the test keeps the descriptor open for longer than the context.
    SharedFd::Borrowed(unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) })
}

fn set_up(plan: &mut Plan, memory: &OwnedFd) -> Context {
    let path = unique("memory");
    let ctx = plan.call(|| Context::listen(&path, Mode::NonBlocking));
    plan.call(|| ctx.readiness()); // the context keeps it
    plan.call(|| ctx.pci_init(3, 0, 0));
    let setup = || RegionSetup {
        index: 1,
        size: 1 << 20,
        flags: 7,
        callback: true,
        fd: Some(shared(memory)),
        offset: 0,
    };
    let areas = [
        MmapArea { base: 0, len: 4096 },
        MmapArea {
            base: 8192,
            len: 4096,
        },
    ];
    plan.call(|| ctx.setup_region(setup(), areas));
    for offset in 0..10 {
        let event = || IoEventFd {
            region: 1,
            fd: Some(shared(memory)),
            offset,
            size: 1,
            flags: 0,
            datamatch: 0,
            shadow: None,
            shadow_offset: 0,
        };
        plan.call(|| ctx.create_ioeventfd(event()));
    }
    plan.call(|| ctx.pci_add_capability(0, 0, &[1, 0, 3, 0, 0, 0, 0, 0][..]));
    plan.call(|| ctx.setup_dma(100));
    ctx.setup_migration();
    plan.call(|| ctx.set_irq_count(IrqIndex::Msix, 64));
    plan.call(|| ctx.realize());
    plan.call(|| ctx.set_irq_count(IrqIndex::Msix, 1000));
    ctx
}

fn attach(plan: &mut Plan, ctx: &Context) -> Client {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::OsStr::from_bytes(ctx.path().to_bytes()).to_owned();
    let start = || {
        let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        Client::start(stream, &Hello::twin(), vfu::client::NoMemory).unwrap()
    };
    let mut client = start();
    if let Err(error) = plan.attempt(&mut || ctx.attach()) {
        assert_eq!((error.errno(), FAILED.get()), (Errno::ENOMEM, 1));
        client = start(); // the connection was closed; the context takes another one
        ctx.attach().unwrap();
    }
    client.greet().unwrap();
    client
}

fn requests(plan: &mut Plan, ctx: &Context, client: &mut Client, memory: &OwnedFd) {
    let mut request = |command, payload: &[u8], fds: &[&OwnedFd]| {
        plan.request(ctx, client, command, payload, fds)
    };
    request(Command::RegionRead, &access(1, 0, 4), &[]);
    request(Command::RegionRead, &access(1, 0, 100_000), &[]);
    request(Command::RegionWrite, &write(1, 0, &[0; 100_000]), &[]);
    request(Command::DeviceGetRegionInfo, &fields(&[1024, 1, 0, 0]), &[]);
    request(Command::DeviceGetRegionIoFds, &fields(&[1024, 1]), &[]);
    let event = eventfd(0);
    let mut irqs = fields(&[20 | 36 << 32, 2]);
    irqs.extend(3_u32.to_le_bytes());
    request(Command::DeviceSetIrqs, &irqs, &[&event, &event, &event]);
    let log = fields(&[40 | (1 << 17 | 6) << 32, 4096, 1, 0, 1 << 40]);
    request(Command::DeviceFeature, &log, &[]);
    for iova in (0..40).map(|index| index * 0x10000) {
        request(
            Command::DmaMap,
            &fields(&[32 | 7 << 32, 0, iova, 0x10000]),
            &[memory],
        );
    }
    let report = fields(&[u64::from(u32::MAX) | (1 << 16 | 8) << 32, 0, 0x10000, 4096]);
    request(Command::DeviceFeature, &report, &[]);
    for iova in (0..40).map(|index| index * 0x10000) {
        request(Command::DmaUnmap, &fields(&[24, iova, 0x10000]), &[]);
    }
}

#[test]
fn every_allocation_fails_once() {
    let memory = memfd(1 << 20);
    let fds = open_fds();
    let mut nth = 0;
    loop {
        FAILED.set(0);
        let mut plan = Plan { nth };
        let ctx = set_up(&mut plan, &memory);
        let mut client = attach(&mut plan, &ctx);
        requests(&mut plan, &ctx, &mut client, &memory);
        drop(client);
        assert_eq!(ctx.run(&mut Quiet).unwrap_err().errno(), Errno::ENOTCONN);
        ctx.shutdown(&mut Quiet).unwrap();
        drop(ctx);
        assert_eq!(open_fds(), fds, "after allocation {nth} failed");
        if FAILED.get() == 0 {
            break;
        }
        nth += 1;
    }
    assert!(nth > 30, "only {nth} allocations were seen");
}
