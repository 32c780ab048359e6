//! A copy engine: the guest says from where, to where and how much, and is told when it is done.
//!
//! `cargo run -p vfu --example dma -- /tmp/dma.sock`. Registers of BAR 0, little-endian, accessed by 4 aligned bytes:
//!
//! | offset | register | |
//! |---|---|---|
//! | 0x00, 0x08 | source, destination | 64-bit addresses in guest memory |
//! | 0x10 | length | 64-bit, in bytes |
//! | 0x18 | control | 1 starts a copy (reads as 0); 2 pauses it, and resumes it when written as 0 |
//! | 0x1c | status | 1 copying, 2 done, and errors (`ERROR_*`); done and errors are cleared by writing them as 1 |
//! | 0x20 | copied | 64-bit, bytes of the present or last copy |
//!
//! Done raises MSI-X vector 0, an error vector 1; the interrupt pin is asserted for as long as either is set. The vectors' table is in BAR 2.
//!
//! **Client memory and time.** The copy is not done in the callback that starts it: memory without a descriptor is reached by messages
//! to the client, and QEMU answers them only while no access of its guest waits for a reply. So callbacks only note what to do, and the loop in
//! [`serve`] does it between requests, a piece at a time. For the same reason a guest should wait for the
//! interrupt rather than poll the status register.

use std::mem::MaybeUninit;
use std::path::Path;
use std::process::ExitCode;

use vfu::builder::{Bar, BarIndex, Builder, Bus, Capability};
use vfu::dma::{PROT_READ, PROT_WRITE, Segment};
use vfu::{Context, Device, Errno, IrqIndex, Level, Mode, ResetKind};

const SOURCE: u64 = 0x00;
const DESTINATION: u64 = 0x08;
const LENGTH: u64 = 0x10;
const CONTROL: u64 = 0x18;
const STATUS: u64 = 0x1c;
const COPIED: u64 = 0x20;

const CONTROL_START: u32 = 1;
const CONTROL_PAUSE: u32 = 2;

const BUSY: u32 = 1;
const DONE: u32 = 2;
/// The length is 0, or address and length are more than 64 bits can say.
const ERROR_LENGTH: u32 = 0x100;
/// Part of the source is no memory that the device may read.
const ERROR_SOURCE: u32 = 0x200;
/// Part of the destination is no memory that the device may write.
const ERROR_DESTINATION: u32 = 0x400;
/// Source and destination overlap.
const ERROR_OVERLAP: u32 = 0x800;
/// A start, or a new address or length, while a copy was under way. That copy goes on.
const ERROR_BUSY: u32 = 0x1000;
/// An access that was not to 4 aligned bytes, or to no register.
const ERROR_ACCESS: u32 = 0x2000;
const ERRORS: u32 = 0x3f00;

const VECTOR_DONE: u32 = 0;
const VECTOR_ERROR: u32 = 1;

/// Bytes copied between two looks for requests.
const PIECE: usize = 64 << 10;
/// Pieces of client memory that there may be, and that one copy may touch.
const REGIONS: usize = 64;

/// Configuration space: the status register's bit that says that the interrupt pin is asserted.
const PCI_STATUS: usize = 6;
const PCI_STATUS_INTERRUPT: u16 = 8;
const CAPABILITY_MSIX: i32 = 0x11;
const MSIX_ENABLED: u16 = 1 << 15;

#[derive(Debug)]
struct DmaEngine {
    source: u64,
    destination: u64,
    length: u64,
    status: u32,
    paused: bool,
    copied: u64,
    /// Between client memory and client memory.
    buffer: Box<[u8]>,
}

impl DmaEngine {
    fn new() -> Self {
        Self {
            source: 0,
            destination: 0,
            length: 0,
            status: 0,
            paused: false,
            copied: 0,
            buffer: vec![0; PIECE].into(),
        }
    }

    /// Whether [`step`](Self::step) has something to do.
    const fn is_running(&self) -> bool {
        self.status & BUSY != 0 && !self.paused
    }

    fn read_register(&self, register: u64) -> Option<u32> {
        let [low, high] = match register & !7 {
            SOURCE => halves(self.source),
            DESTINATION => halves(self.destination),
            LENGTH => halves(self.length),
            CONTROL => [if self.paused { CONTROL_PAUSE } else { 0 }, self.status],
            COPIED => halves(self.copied),
            _ => return None,
        };
        Some(if register & 4 == 0 { low } else { high })
    }

    fn write_register(&mut self, ctx: &Context, register: u64, value: u32) {
        let place = match register & !7 {
            SOURCE => &mut self.source,
            DESTINATION => &mut self.destination,
            LENGTH => &mut self.length,
            _ => match register {
                CONTROL => return self.control(ctx, value),
                STATUS => return self.acknowledge(ctx, value),
                _ => {
                    return self.fail(
                        ctx,
                        ERROR_ACCESS,
                        "it wrote a register that cannot be written",
                    );
                }
            },
        };
        if self.status & BUSY != 0 {
            return self.fail(ctx, ERROR_BUSY, "it changed a register of a copy under way");
        }
        let [low, high] = halves(*place);
        *place = if register & 4 == 0 {
            u64::from(high) << 32 | u64::from(value)
        } else {
            u64::from(value) << 32 | u64::from(low)
        };
    }

    fn control(&mut self, ctx: &Context, value: u32) {
        self.paused = value & CONTROL_PAUSE != 0;
        if value & CONTROL_START == 0 {
            return;
        }
        if self.status & BUSY != 0 {
            return self.fail(ctx, ERROR_BUSY, "it started a copy while one was under way");
        }
        self.copied = 0;
        let (source, destination, length) = (self.source, self.destination, self.length);
        let (Some(source_end), Some(destination_end)) =
            (source.checked_add(length), destination.checked_add(length))
        else {
            return self.fail(ctx, ERROR_LENGTH, "the length goes beyond the last address");
        };
        if length == 0 {
            self.fail(ctx, ERROR_LENGTH, "the length is 0");
        } else if source < destination_end && destination < source_end {
            self.fail(ctx, ERROR_OVERLAP, "source and destination overlap");
        } else if let Err(error) = check_range(ctx, source, length, PROT_READ) {
            self.fail(ctx, ERROR_SOURCE, error);
        } else if let Err(error) = check_range(ctx, destination, length, PROT_WRITE) {
            self.fail(ctx, ERROR_DESTINATION, error);
        } else {
            ctx.log(
                Level::Info,
                format_args!("copy of {length:#x} bytes from {source:#x} to {destination:#x}"),
            );
            self.status |= BUSY;
        }
    }

    /// Copies the next piece.
    fn step(&mut self, ctx: &Context) {
        let left = self.length - self.copied;
        let count = self
            .buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece = &mut self.buffer[..count];
        // neither sum is more than was checked at the start
        if let Err(error) = ctx.read_client(self.source + self.copied, piece) {
            self.status &= !BUSY;
            return self.fail(ctx, ERROR_SOURCE, error);
        }
        if let Err(error) = ctx.write_client(self.destination + self.copied, piece) {
            self.status &= !BUSY;
            return self.fail(ctx, ERROR_DESTINATION, error);
        }
        self.copied += count as u64;
        if self.copied == self.length {
            self.status = self.status & !BUSY | DONE;
            ctx.log(
                Level::Info,
                format_args!("copy done: {:#x} bytes", self.copied),
            );
            self.interrupt(ctx, VECTOR_DONE);
        }
    }

    /// The guest did something that makes no sense, or its memory cannot be used: it can read which, and so can the log's reader.
    fn fail(&mut self, ctx: &Context, error: u32, why: impl std::fmt::Display) {
        ctx.log(
            Level::Warning,
            format_args!(
                "the guest's mistake ({error:#x}): {why}; copy of {:#x} bytes from {:#x} to {:#x}",
                self.length, self.source, self.destination
            ),
        );
        self.status |= error;
        self.interrupt(ctx, VECTOR_ERROR);
    }

    fn acknowledge(&mut self, ctx: &Context, bits: u32) {
        self.status &= !(bits & (DONE | ERRORS));
        self.update_pin_status(ctx);
    }

    const fn is_pin_asserted(&self) -> bool {
        self.status & (DONE | ERRORS) != 0
    }

    fn update_pin_status(&self, ctx: &Context) {
        let mut status = [0; 2];
        ctx.config_read(PCI_STATUS, &mut status);
        let mut status = u16::from_le_bytes(status) & !PCI_STATUS_INTERRUPT;
        if self.is_pin_asserted() {
            status |= PCI_STATUS_INTERRUPT;
        }
        ctx.config_write(PCI_STATUS, &status.to_le_bytes());
    }

    fn interrupt(&self, ctx: &Context, vector: u32) {
        self.update_pin_status(ctx);
        let vector = if msix_is_enabled(ctx) { vector } else { 0 };
        if let Err(error) = ctx.irqs().trigger(vector) {
            ctx.log(
                Level::Debug,
                format_args!("nobody waits for interrupts: {error}"),
            );
        }
    }

    fn clear(&mut self, ctx: &Context) {
        let buffer = std::mem::take(&mut self.buffer);
        *self = Self {
            buffer,
            ..Self::new()
        };
        self.update_pin_status(ctx);
    }
}

impl Device for DmaEngine {
    fn region_read(
        &mut self,
        ctx: &Context,
        region: u32,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), Errno> {
        if region != BarIndex::Bar0 as u32 {
            return Ok(()); // the table of vectors is kept by the client
        }
        let value = match data.len() {
            4 if offset.is_multiple_of(4) => self.read_register(offset),
            _ => None,
        };
        match value {
            Some(value) => data.copy_from_slice(&value.to_le_bytes()),
            None => self.fail(
                ctx,
                ERROR_ACCESS,
                format_args!("it read {} bytes at {offset:#x}", data.len()),
            ),
        }
        Ok(())
    }

    fn region_write(
        &mut self,
        ctx: &Context,
        region: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Errno> {
        if region != BarIndex::Bar0 as u32 {
            return Ok(());
        }
        match data.try_into() {
            Ok(value) if offset.is_multiple_of(4) => {
                self.write_register(ctx, offset, u32::from_le_bytes(value));
            }
            _ => self.fail(
                ctx,
                ERROR_ACCESS,
                format_args!("it wrote {} bytes at {offset:#x}", data.len()),
            ),
        }
        Ok(())
    }

    fn reset(&mut self, ctx: &Context, kind: ResetKind) -> Result<(), Errno> {
        ctx.log(Level::Info, format_args!("reset ({kind:?})"));
        self.clear(ctx);
        Ok(())
    }

    /// The pin is a level: after an unmask it is still there unless the guest has acknowledged.
    fn irq_state(&mut self, ctx: &Context, irq: IrqIndex, _: u32, _: u32, masked: bool) {
        if irq == IrqIndex::Intx && !masked && self.is_pin_asserted() {
            self.interrupt(ctx, VECTOR_DONE);
        }
    }
}

const fn halves(value: u64) -> [u32; 2] {
    [(value & 0xffff_ffff) as u32, (value >> 32) as u32]
}

/// Whether all of a range is client memory that can be used so.
fn check_range(ctx: &Context, address: u64, length: u64, prot: u32) -> Result<(), vfu::dma::Error> {
    let mut segments = [MaybeUninit::<Segment>::uninit(); REGIONS];
    match ctx.dma() {
        Some(dma) => dma
            .translate(address, length, prot, &mut segments)
            .map(|_| ()),
        None => Ok(()), // set up below
    }
}

fn msix_is_enabled(ctx: &Context) -> bool {
    let Ok(capability) = ctx.pci_find_capability(false, 0, CAPABILITY_MSIX) else {
        return false;
    };
    let mut control = [0; 2];
    ctx.config_read(capability + 2, &mut control);
    u16::from_le_bytes(control) & MSIX_ENABLED != 0
}

/// Makes the device, which listens at `path`.
pub(crate) fn build(path: impl AsRef<Path>, log: Box<dyn vfu::Log>) -> vfu::Result<Context> {
    Builder::new(0x1af4, 0xd3a0)
        .bus(Bus::Express)
        .class(0x08, 0x01, 0) // a system's DMA controller
        .bar(BarIndex::Bar0, Bar::memory32(4096))
        .bar(BarIndex::Bar2, Bar::memory32(4096))
        .intx()
        .capabilities(&[
            Capability::Express {
                function_level_reset: false,
            },
            Capability::MsiX {
                vectors: 2,
                table: (BarIndex::Bar2, 0),
                pending: (BarIndex::Bar2, 0x800),
            },
        ])
        .dma(REGIONS)
        .log(log, Level::Info)
        .build(path, Mode::NonBlocking)
}

/// Serves one client after another.
pub(crate) fn serve(ctx: &Context) -> vfu::Result<()> {
    let mut engine = DmaEngine::new();
    loop {
        ctx.wait(None)?;
        if !ctx.is_attached() {
            let _ = ctx.attach(); // what fails is in the log, and the next client may do better
            continue;
        }
        loop {
            match ctx.run(&mut engine) {
                Err(error) if error.errno() == Errno::ENOTCONN => break, // wait for the next one
                result => result.map(|_| ())?,
            }
            if !engine.is_running() {
                break;
            }
            engine.step(ctx);
        }
    }
}

#[expect(clippy::print_stderr, reason = "an example says what happens")]
fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: dma SOCKET");
        return ExitCode::FAILURE;
    };
    let served = build(&path, Box::new(|_: Level, line: &str| eprintln!("{line}")))
        .and_then(|ctx| serve(&ctx));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dma: {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
