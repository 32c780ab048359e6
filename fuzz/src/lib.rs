//! What the fuzz targets share: a device with every feature, and a client that may send anything.
//!
//! 1. One thread: the client sends, the server runs, replies are thrown away.
//! 2. What is asserted: nothing panics (also under ASAN), the server always comes back, and at the end of each input every DMA region
//!    was unregistered as often as it was registered and no descriptor more is open than before.

use std::fs::File;
use std::io::Read;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use arbitrary::Arbitrary;
use vfu::builder::{Bar, BarIndex, Builder, Bus, Capability};
use vfu::client::Connection;
use vfu::dma::{Direct, RegionInfo, Segment};
use vfu::wire::NO_REPLY;
use vfu::{
    Access, Context, Device, Errno, IoEventFd, IrqIndex, MigrationState, Mode, Quiesce, ResetKind,
};

pub use vfu::wire::{Command, HEADER, Header};

/// Uses everything that a client can reach, and counts.
#[derive(Debug, Default)]
pub struct Everything {
    /// DMA regions registered and not unregistered.
    pub regions: usize,
    /// What quiesce answers next: 0 done, 1 pending, 2 an error.
    pub quiesce: u8,
    /// The last address written to BAR 0; the next access copies to and from there.
    pub address: u64,
    /// The client sends no more, so that a question to it is answered at once, by the end of the stream.
    pub may_ask: bool,
    state: Vec<u8>,
}

impl Everything {
    /// Copies between client memory and `data`, asking the client only if that cannot take long.
    fn copy(&self, ctx: &Context, data: &mut [u8], write: bool) -> Result<(), Errno> {
        if self.may_ask {
            let result = if write {
                ctx.write_client(self.address, data)
            } else {
                ctx.read_client(self.address, data)
            };
            return result.map_err(|error| error.errno());
        }
        let dma = ctx.dma().ok_or(Errno::EINVAL)?;
        let mut segments = [Segment::default(); 4];
        let prot = if write {
            vfu::dma::PROT_WRITE
        } else {
            vfu::dma::PROT_READ
        };
        let count = dma
            .translate_into(self.address, data.len() as u64, prot, &mut segments)
            .map_err(|e| Errno::new(e.errno()))?;
        let mut start = 0;
        for segment in segments.iter().take(count) {
            let end = start + segment.length as usize;
            let piece = data.get_mut(start..end).ok_or(Errno::EIO)?;
            let done = if write {
                dma.write(segment, piece)
            } else {
                dma.read(segment, piece)
            };
            if done.map_err(|error| Errno::new(error.errno()))? != Direct::Done {
                return Err(Errno::EIO);
            }
            start = end;
        }
        Ok(())
    }
}

impl Device for Everything {
    fn region_access(
        &mut self,
        ctx: &Context,
        region: u32,
        offset: u64,
        access: Access<'_>,
    ) -> Result<(), Errno> {
        match access {
            Access::Read(data) => {
                data.fill(offset as u8);
                if region == 0 {
                    self.copy(ctx, data, false)?;
                }
            }
            Access::Write(data) => {
                if let Ok(address) = <[u8; 8]>::try_from(&*data) {
                    self.address = u64::from_le_bytes(address);
                } else if region == 0 {
                    self.copy(ctx, data, true)?;
                }
                let _ = ctx.irqs().trigger(offset as u32);
            }
        }
        Ok(())
    }

    fn reset(&mut self, ctx: &Context, kind: ResetKind) -> Result<(), Errno> {
        if kind == ResetKind::LostConnection {
            assert_eq!(
                self.regions, 0,
                "reset after a lost connection comes after the regions"
            );
        }
        let _ = ctx.irqs().notify(IrqIndex::Err);
        Ok(())
    }

    fn quiesce(&mut self, _: &Context) -> Result<Quiesce, Errno> {
        match std::mem::take(&mut self.quiesce) {
            1 => Ok(Quiesce::Pending),
            2 => Err(Errno::EIO),
            _ => Ok(Quiesce::Done),
        }
    }

    fn dma_register(&mut self, ctx: &Context, region: &RegionInfo) -> Result<(), Errno> {
        self.regions += 1;
        assert!(
            ctx.dma()
                .is_some_and(|dma| dma.find_exact(region.iova, region.size).is_ok())
        );
        Ok(())
    }

    fn dma_unregister(&mut self, ctx: &Context, region: &RegionInfo) {
        self.regions = self
            .regions
            .checked_sub(1)
            .expect("unregistered more often than registered");
        assert!(
            ctx.dma()
                .is_some_and(|dma| dma.find_exact(region.iova, region.size).is_ok())
        );
    }

    fn migration_transition(&mut self, _: &Context, state: MigrationState) -> Result<(), Errno> {
        if state == MigrationState::Resume {
            self.state.clear();
        }
        Ok(())
    }

    fn migration_read(&mut self, _: &Context, data: &mut [u8]) -> Result<usize, Errno> {
        let count = data.len().min(self.state.len());
        data[..count].copy_from_slice(&self.state[..count]);
        self.state.drain(..count);
        Ok(count)
    }

    fn migration_write(&mut self, _: &Context, data: &mut [u8]) -> Result<(), Errno> {
        if self.state.len() + data.len() > 1 << 16 {
            return Err(Errno::EINVAL);
        }
        self.state.extend_from_slice(data);
        Ok(())
    }
}

/// One step of a client or of the device.
#[derive(Debug, Clone, Arbitrary)]
pub enum Op {
    /// A message with a right header, and some of the client's descriptors.
    Message {
        command: u8,
        payload: Vec<u8>,
        fds: u8,
        silent: bool,
    },
    /// Bytes as they are, descriptors too.
    Raw { bytes: Vec<u8>, fds: u8 },
    /// DMA_MAP of pages that exist, so that more of the rest is reached.
    Map {
        slot: u8,
        pages: u8,
        offset: u16,
        flags: u8,
        fds: u8,
    },
    /// DMA_UNMAP of such pages, or with other flags.
    Unmap {
        slot: u8,
        pages: u8,
        flags: u8,
        page_size: u16,
        bitmap: u16,
    },
    /// A register access.
    Access {
        region: u8,
        offset: u16,
        data: Vec<u8>,
        read: Option<u16>,
    },
    /// DEVICE_FEATURE.
    Feature {
        flags: u8,
        operation: u8,
        data: [u64; 3],
        length: u8,
    },
    /// SET_IRQS.
    Irqs {
        index: u8,
        flags: u8,
        start: u8,
        count: u8,
        fds: u8,
    },
    /// The server runs.
    Run,
    /// What quiesce answers next.
    Quiesce(u8),
    /// The device is quiet, or cannot be.
    Quiesced(bool),
    /// The client sends no more, and another one may come.
    HangUp,
    /// The next client.
    Connect,
    /// The device raises an interrupt.
    Trigger(u8),
}

/// A server with its device and, mostly, a client.
#[derive(Debug)]
pub struct Rig {
    /// The server.
    pub ctx: Context,
    /// Its device.
    pub device: Everything,
    client: Option<UnixStream>,
    /// Files of the client: memory twice, eventfds, something that is neither.
    files: [OwnedFd; 6],
    fds_before: usize,
}

fn memory() -> OwnedFd {
    // SAFETY: a literal with a NUL byte.
    let fd = unsafe { libc::memfd_create(c"client".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: the call above made it, and nobody else has it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // As long as can be: what a client maps beyond the end of its file raises SIGBUS, at the device's expense.
    file.set_len(i64::MAX as u64 & !0xfff)
        .expect("room in the address space of files");
    file.into()
}

fn eventfd() -> OwnedFd {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: the call above made it, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("procfs is mounted")
        .count()
}

/// The message VERSION with this text.
pub fn version(text: &[u8]) -> Vec<u8> {
    message(1, &[&[0, 0, 2, 0], text].concat(), false)
}

fn message(command: u16, payload: &[u8], silent: bool) -> Vec<u8> {
    let header = Header {
        id: 7,
        command,
        size: (HEADER + payload.len()) as u32,
        flags: if silent { NO_REPLY } else { 0 },
        error: 0,
    };
    [&header.encode()[..], payload].concat()
}

fn words(values: &[u32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn longs(values: &[u64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

impl Rig {
    /// Everything set up, nobody connected.
    pub fn new() -> Self {
        let fds_before = open_descriptors();
        let capabilities = [
            Capability::PowerManagement,
            Capability::Msi { vectors: 4 },
            Capability::Express {
                function_level_reset: true,
            },
            Capability::MsiX {
                vectors: 8,
                table: (BarIndex::Bar4, 0),
                pending: (BarIndex::Bar4, 0x800),
            },
            Capability::Vendor(&[1, 2, 3, 4, 5]),
            Capability::SerialNumber(1),
        ];
        let areas = [vfu::MmapArea {
            base: 0x1000,
            len: 0x1000,
        }];
        let ctx = Builder::new(0x1234, 0x5678)
            .bus(Bus::Express)
            .bar(BarIndex::Bar0, Bar::memory32(4096))
            .bar(BarIndex::Bar1, Bar::io(16))
            .bar(
                BarIndex::Bar2,
                Bar::memory64(16384).mappable(memory(), &areas),
            )
            .bar(BarIndex::Bar4, Bar::memory32(4096).without_callback())
            .config_callback()
            .capabilities(&capabilities)
            .intx()
            .dma(16)
            .migration()
            .build("", Mode::NonBlocking)
            .expect("the description is right");
        for index in 0..3 {
            ctx.create_ioeventfd(IoEventFd {
                region: 0,
                fd: (index > 0).then(|| eventfd().into()),
                offset: index * 8,
                size: 4,
                flags: 0,
                datamatch: 0,
                shadow: (index > 1).then(|| memory().into()),
                shadow_offset: 0,
            })
            .expect("it is inside");
        }
        let pipe = UnixStream::pair().expect("descriptors are left").0.into();
        Self {
            ctx,
            device: Everything::default(),
            client: None,
            files: [memory(), memory(), eventfd(), eventfd(), memory(), pipe],
            fds_before,
        }
    }

    /// A client connects and sends `bytes`, VERSION as a rule.
    pub fn connect(&mut self, bytes: &[u8]) {
        if self.client.is_some() || self.ctx.is_attached() {
            return;
        }
        let (client, server) = UnixStream::pair().expect("descriptors are left");
        client.set_nonblocking(true).expect("it is a socket");
        self.client = Some(client);
        self.send(bytes, 0);
        if self.ctx.attach_accepted(server.into()).is_err() && !self.ctx.is_attached() {
            // Half a VERSION may be awaited; there will not be more.
            self.client = None;
            let _ = self.ctx.attach();
        }
    }

    /// A client that keeps to the protocol so far.
    pub fn connect_well(&mut self) {
        self.connect(&version(
            b"{\"capabilities\":{\"max_msg_fds\":8,\"write_multiple\":true}}\0",
        ));
    }

    fn send(&mut self, bytes: &[u8], fds: u8) {
        let Some(client) = &self.client else { return };
        let fds: Vec<RawFd> = (0..6)
            .filter(|bit| fds >> bit & 1 != 0)
            .filter_map(|bit| Some(self.files.get(bit)?.as_raw_fd()))
            .collect();
        // A full socket takes less; the server then sees the beginning of a message.
        let _ = Connection::new(client.try_clone().expect("descriptors are left").into())
            .send_raw(bytes, &fds);
    }

    /// Does it.
    pub fn step(&mut self, op: &Op) {
        match op {
            Op::Message {
                command,
                payload,
                fds,
                silent,
            } => {
                self.send(&message((*command % 20).into(), payload, *silent), *fds);
            }
            Op::Raw { bytes, fds } => self.send(bytes, *fds),
            Op::Map {
                slot,
                pages,
                offset,
                flags,
                fds,
            } => {
                let mut payload = words(&[32, (*flags).into()]);
                payload.extend(longs(&[
                    u64::from(*offset),
                    u64::from(*slot) << 12,
                    u64::from(*pages) << 12,
                ]));
                self.send(&message(Command::DmaMap as u16, &payload, false), *fds);
            }
            Op::Unmap {
                slot,
                pages,
                flags,
                page_size,
                bitmap,
            } => {
                let mut payload = words(&[24 + 16 + u32::from(*bitmap), (*flags).into()]);
                payload.extend(longs(&[u64::from(*slot) << 12, u64::from(*pages) << 12]));
                payload.extend(longs(&[(*page_size).into(), (*bitmap).into()]));
                self.send(&message(Command::DmaUnmap as u16, &payload, false), 0);
            }
            Op::Access {
                region,
                offset,
                data,
                read,
            } => self.access(*region, *offset, data, *read),
            Op::Feature {
                flags,
                operation,
                data,
                length,
            } => {
                let data = longs(data);
                let data = data.get(..(*length).into()).unwrap_or(&data);
                let flags = u32::from(*flags) | u32::from(*operation) << 16;
                let payload = [words(&[4096, flags]), data.to_vec()].concat();
                self.send(&message(Command::DeviceFeature as u16, &payload, false), 0);
            }
            Op::Irqs {
                index,
                flags,
                start,
                count,
                fds,
            } => {
                let payload = words(&[
                    20,
                    (*flags).into(),
                    (*index).into(),
                    (*start).into(),
                    (*count).into(),
                ]);
                self.send(
                    &message(Command::DeviceSetIrqs as u16, &payload, false),
                    *fds,
                );
            }
            Op::Run => self.run(),
            Op::Quiesce(answer) => self.device.quiesce = *answer,
            Op::Quiesced(well) => {
                let outcome = if *well { Ok(()) } else { Err(Errno::EIO) };
                let pending = self.ctx.is_quiescing();
                let result = self.ctx.device_quiesced(&mut self.device, outcome);
                assert!(pending || result.is_err());
                self.drain();
            }
            Op::HangUp => {
                if let Some(client) = &self.client {
                    let _ = client.shutdown(Shutdown::Write);
                    self.device.may_ask = true;
                }
            }
            Op::Connect => self.connect_well(),
            Op::Trigger(vector) => drop(self.ctx.irqs().trigger((*vector).into())),
        }
    }

    /// A read of `read` bytes, or a write of `data`.
    pub fn access(&mut self, region: u8, offset: u16, data: &[u8], read: Option<u16>) {
        let (command, data) = match read {
            Some(_) => (Command::RegionRead, &[][..]),
            None => (Command::RegionWrite, data),
        };
        let mut payload = longs(&[offset.into()]);
        payload.extend(words(&[
            region.into(),
            read.map_or(data.len() as u32, Into::into),
        ]));
        payload.extend_from_slice(data);
        self.send(&message(command as u16, &payload, false), 0);
    }

    /// The server serves what there is.
    pub fn run(&mut self) {
        for _ in 0..100 {
            let served = self.ctx.run(&mut self.device);
            self.drain();
            if !self.ctx.is_attached() {
                self.client = None;
                self.device.may_ask = false;
            }
            match served {
                // Requests that were refused before they reached their handler count as failed only.
                Ok(served) if served.requests > 0 || served.failed.is_some() => {}
                _ => return,
            }
        }
    }

    /// Throws replies away, and closes the descriptors that came with them.
    fn drain(&mut self) {
        let Some(client) = &self.client else { return };
        let mut sink = [0; 1 << 16];
        let mut client = client;
        while matches!(client.read(&mut sink), Ok(count) if count > 0) {}
    }

    /// The end: the client goes, the device ends, and nothing is left.
    pub fn finish(mut self) {
        self.client = None;
        for _ in 0..3 {
            self.run();
            if self.ctx.is_quiescing() {
                let _ = self.ctx.device_quiesced(&mut self.device, Ok(()));
            }
        }
        assert!(
            !self.ctx.is_attached(),
            "a client that has gone is still attached"
        );
        assert_eq!(self.device.regions, 0);
        self.ctx
            .shutdown(&mut self.device)
            .expect("no callback is running");
        let before = self.fds_before;
        drop(self);
        assert_eq!(open_descriptors(), before, "descriptors are left open");
    }
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}
