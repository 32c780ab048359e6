//! A context, a device that records what happens to it, and a client, on one thread by turns.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test file uses its part of the rig"
)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vfu::client::{Client, Hello, Memory, NoMemory, Result as ClientResult};
use vfu::dma::RegionInfo;
use vfu::wire::{Command, Header};
use vfu::{
    Access, Context, Device, Errno, IrqIndex, Level, MigrationState, Mode, Quiesce, RegionSetup,
    ResetKind, Served,
};

/// What happened to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Read(u32, u64, usize),
    Write(u32, u64, Vec<u8>),
    Reset(ResetKind),
    Quiesce,
    Register(u64, u64),
    Unregister(u64, u64),
    IrqState(IrqIndex, u32, u32, bool),
    Transition(MigrationState),
}

type Hook = Box<dyn FnMut(&Context, &Event) -> Result<(), Errno>>;

/// Records events; reads give bytes that count up from the offset.
#[derive(Default)]
pub struct Recorder {
    pub events: Vec<Event>,
    /// What quiesce answers; `Done` when empty.
    pub quiesce: Vec<Result<Quiesce, Errno>>,
    /// Called for every event but `Quiesce`.
    pub hook: Option<Hook>,
    pub migration_out: Vec<u8>,
    pub migration_in: Vec<u8>,
}

impl Recorder {
    fn note(&mut self, ctx: &Context, event: Event) -> Result<(), Errno> {
        let result = match self.hook.take() {
            Some(mut hook) => {
                let result = hook(ctx, &event);
                self.hook = Some(hook);
                result
            }
            None => Ok(()),
        };
        self.events.push(event);
        result
    }

    pub fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

impl Device for Recorder {
    fn region_access(
        &mut self,
        ctx: &Context,
        region: u32,
        offset: u64,
        access: Access<'_>,
    ) -> Result<(), Errno> {
        match access {
            Access::Read(data) => {
                for (index, byte) in data.iter_mut().enumerate() {
                    *byte = (offset as usize + index) as u8;
                }
                self.note(ctx, Event::Read(region, offset, data.len()))
            }
            Access::Write(data) => self.note(ctx, Event::Write(region, offset, data.to_vec())),
        }
    }

    fn reset(&mut self, ctx: &Context, kind: ResetKind) -> Result<(), Errno> {
        self.note(ctx, Event::Reset(kind))
    }

    fn quiesce(&mut self, _: &Context) -> Result<Quiesce, Errno> {
        self.events.push(Event::Quiesce);
        if self.quiesce.is_empty() {
            Ok(Quiesce::Done)
        } else {
            self.quiesce.remove(0)
        }
    }

    fn dma_register(&mut self, ctx: &Context, region: &RegionInfo) -> Result<(), Errno> {
        self.note(ctx, Event::Register(region.iova, region.size))
    }

    fn dma_unregister(&mut self, ctx: &Context, region: &RegionInfo) {
        let _ = self.note(ctx, Event::Unregister(region.iova, region.size));
    }

    fn irq_state(&mut self, ctx: &Context, irq: IrqIndex, start: u32, count: u32, masked: bool) {
        let _ = self.note(ctx, Event::IrqState(irq, start, count, masked));
    }

    fn migration_transition(&mut self, ctx: &Context, state: MigrationState) -> Result<(), Errno> {
        self.note(ctx, Event::Transition(state))
    }

    fn migration_read(&mut self, _: &Context, data: &mut [u8]) -> Result<usize, Errno> {
        let count = data.len().min(self.migration_out.len());
        data[..count].copy_from_slice(&self.migration_out[..count]);
        self.migration_out.drain(..count);
        Ok(count)
    }

    fn migration_write(&mut self, _: &Context, data: &mut [u8]) -> Result<(), Errno> {
        self.migration_in.extend_from_slice(data);
        Ok(())
    }
}

pub type Lines = Arc<Mutex<Vec<(Level, String)>>>;

/// A context with a device, not attached yet. There is one at a time in a process, so that tests can count descriptors.
pub struct Rig {
    pub ctx: Context,
    pub device: Recorder,
    pub path: PathBuf,
    pub lines: Lines,
    alone: Option<MutexGuard<'static, ()>>,
}

static ALONE: Mutex<()> = Mutex::new(());

pub const BAR: u32 = 1;
pub const BAR_SIZE: u64 = 4 << 20;
pub const RW: u32 = 3;
pub const MEM: u32 = 4;

/// Numbers sockets and temporary files, so that they are unique in the process.
static COUNTER: AtomicU32 = AtomicU32::new(0);

pub fn unique(name: &str) -> PathBuf {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("vfu-{name}-{}-{number}", std::process::id()))
}

impl Rig {
    /// A device with one memory BAR of 4 MiB, 8 MSI-X vectors and client memory, realized.
    pub fn new(mode: Mode) -> Self {
        let rig = Self::bare(mode);
        rig.ctx.pci_init(3, 0, 0).unwrap();
        rig.bar(BAR, BAR_SIZE);
        rig.ctx.set_irq_count(IrqIndex::Msix, 8).unwrap();
        rig.ctx.setup_dma(64).unwrap();
        rig.ctx.realize().unwrap();
        rig
    }

    /// A context without anything.
    pub fn bare(mode: Mode) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            alone: Some(alone),
            ..Self::second(mode)
        }
    }

    /// Another context without anything, beside one that is there.
    pub fn second(mode: Mode) -> Self {
        let path = unique("test");
        let ctx = Context::listen(&path, mode).unwrap();
        let lines = Lines::default();
        let copy = Arc::clone(&lines);
        ctx.set_log(
            Some(Box::new(move |level, text: &str| {
                copy.lock().unwrap().push((level, text.to_owned()));
            })),
            Level::Debug,
        );
        Self {
            ctx,
            device: Recorder::default(),
            path,
            lines,
            alone: None,
        }
    }

    pub fn bar(&self, index: u32, size: u64) {
        let setup = RegionSetup {
            index: index as i32,
            size,
            flags: RW | MEM,
            callback: true,
            ..RegionSetup::default()
        };
        self.ctx.setup_region(setup, []).unwrap();
    }

    /// Connects a client and attaches it.
    pub fn connect(&self) -> Client {
        self.connect_with(&Hello::default(), NoMemory)
    }

    pub fn connect_with<M: Memory>(&self, hello: &Hello, memory: M) -> Client<M> {
        let stream = UnixStream::connect(&self.path).unwrap();
        let mut client = Client::start(stream, hello, memory).unwrap();
        self.ctx.attach().unwrap();
        client.greet().unwrap();
        client
    }

    pub fn run(&mut self) -> vfu::Result<Served> {
        self.ctx.run(&mut self.device)
    }

    /// Sends a request, serves it, receives the reply's payload.
    pub fn round_trip<M: Memory>(
        &mut self,
        client: &mut Client<M>,
        command: Command,
        payload: &[u8],
    ) -> ClientResult<Vec<u8>> {
        self.round_trip_fds(client, command, payload, &[])
    }

    pub fn round_trip_fds<M: Memory>(
        &mut self,
        client: &mut Client<M>,
        command: Command,
        payload: &[u8],
        fds: &[&OwnedFd],
    ) -> ClientResult<Vec<u8>> {
        let raw: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        let ticket = client.send(command, payload, &raw).unwrap();
        self.run().unwrap();
        client.receive(ticket).map(|reply| reply.payload)
    }

    /// The error number that a request is answered with.
    pub fn refused<M: Memory>(
        &mut self,
        client: &mut Client<M>,
        command: Command,
        payload: &[u8],
    ) -> i32 {
        match self.round_trip(client, command, payload) {
            Ok(payload) => panic!("{command} succeeded with {payload:?}"),
            Err(error) => error.errno().unwrap_or_else(|| panic!("{error}")).get(),
        }
    }

    /// Announces client memory.
    pub fn map<M: Memory>(
        &mut self,
        client: &mut Client<M>,
        iova: u64,
        size: u64,
        fd: Option<&OwnedFd>,
    ) -> ClientResult<()> {
        let flags = if fd.is_some() { 7 } else { 3 };
        let payload = fields(&[32 | flags << 32, 0, iova, size]);
        let fds: Vec<&OwnedFd> = fd.into_iter().collect();
        self.round_trip_fds(client, Command::DmaMap, &payload, &fds)
            .map(|_| ())
    }

    pub fn unmap<M: Memory>(
        &mut self,
        client: &mut Client<M>,
        iova: u64,
        size: u64,
    ) -> ClientResult<()> {
        self.round_trip(client, Command::DmaUnmap, &fields(&[24, iova, size]))
            .map(|_| ())
    }

    pub fn logged(&self, level: Level, part: &str) -> bool {
        self.lines
            .lock()
            .unwrap()
            .iter()
            .any(|(at, line)| *at == level && line.contains(part))
    }
}

/// 64-bit fields of a payload, little-endian; pairs of 32-bit ones are `low | high << 32`.
pub fn fields(fields: &[u64]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|field| field.to_le_bytes())
        .collect()
}

pub fn access(region: u32, offset: u64, count: u32) -> Vec<u8> {
    fields(&[offset, u64::from(region) | u64::from(count) << 32])
}

pub fn write(region: u32, offset: u64, data: &[u8]) -> Vec<u8> {
    let mut payload = access(region, offset, data.len() as u32);
    payload.extend_from_slice(data);
    payload
}

pub fn message(id: u16, command: Command, flags: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        id,
        command: command as u16,
        size: 16 + payload.len() as u32,
        flags,
        error: 0,
    };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// Anonymous memory with a descriptor.
pub fn memfd(size: u64) -> OwnedFd {
    // SAFETY: a NUL-terminated name.
    let fd = unsafe { libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: a descriptor that was just created.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::ftruncate(fd.as_raw_fd(), size as i64) }, 0);
    fd
}

pub fn eventfd(flags: i32) -> OwnedFd {
    // SAFETY: no pointers.
    let fd = unsafe { libc::eventfd(0, flags | libc::EFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: a descriptor that was just created.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The counter of an eventfd, which is 0 afterwards; `None` if it was 0.
pub fn drain(fd: &OwnedFd) -> Option<u64> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd.
    if unsafe { libc::poll(&raw mut poll, 1, 0) } == 0 {
        return None;
    }
    let mut bytes = [0; 8];
    // SAFETY: room for 8 bytes.
    let count = unsafe { libc::read(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), 8) };
    assert_eq!(count, 8);
    Some(u64::from_ne_bytes(bytes))
}

/// Open descriptors of this process, without the one that lists them.
pub fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// The lowest number that a new descriptor gets.
pub fn next_fd() -> i32 {
    let fd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    fd.as_raw_fd()
}
