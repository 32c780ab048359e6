//! A device that can be migrated: it keeps a journal in guest memory, and moves to another server while the guest runs.
//!
//! `cargo run -p vfu --example migration -- /tmp/journal.sock`. BAR 0 is 4 KiB of registers, little-endian, all of them state:
//!
//! | offset | register | |
//! |---|---|---|
//! | 0x00 | ring | 64-bit address of the journal in guest memory |
//! | 0x08 | lines | 32-bit, how many lines of 64 bytes the journal has |
//! | 0x0c | record | 32-bit; writing it appends a line: sequence number and value |
//! | 0x10 | sequence | 64-bit, how many lines were ever written |
//! | 0x40 to 0xfff | | memory of the guest's own |
//!
//! **Where the state is.** It belongs to the device, not to a connection: a client that goes away ends what it was migrating, and the device
//! runs on with all it had. `DEVICE_RESET` clears it.
//!
//! **The stream.** A magic number; then pieces of the registers, each with offset and length, in any number; in the end their
//! checksum. While the device still runs (pre-copy) it gives out everything once, and afterwards, standing still,
//! what has changed since. The receiver collects it all beside its own state, and takes it over only if it is complete and right.

use std::path::Path;
use std::process::ExitCode;

use vfu::builder::{Bar, BarIndex, Builder};
use vfu::{Context, Device, Errno, Level, MigrationState, Mode, ResetKind};

const RING: usize = 0x00;
const LINES: usize = 0x08;
const RECORD: usize = 0x0c;
const SEQUENCE: usize = 0x10;
const SIZE: usize = 0x1000;
/// Bytes of a journal line.
const LINE: usize = 64;

/// Changes are tracked in blocks, one bit each in 64 bits.
const BLOCK: usize = SIZE / 64;
const MAGIC: [u8; 8] = *b"journal1";
/// Offset and length in front of a piece.
const HEAD: usize = 8;
/// Offset of the last piece, which is the checksum.
const END: u32 = u32::MAX;

type Registers = [u8; SIZE];

/// FNV-1a, 64 bits.
#[derive(Debug, Clone, Copy)]
struct Checksum(u64);

impl Checksum {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// State on its way out.
#[derive(Debug)]
struct Outgoing {
    /// What the client has not read yet.
    bytes: Vec<u8>,
    checksum: Checksum,
}

impl Outgoing {
    fn new() -> Self {
        Self {
            bytes: MAGIC.to_vec(),
            checksum: Checksum::new(),
        }
    }

    fn piece(&mut self, offset: u32, data: &[u8]) {
        let length = u32::try_from(data.len()).unwrap_or(0); // at most SIZE
        let head = [offset.to_le_bytes(), length.to_le_bytes()].concat();
        for part in [head.as_slice(), data] {
            self.checksum.add(part);
            self.bytes.extend_from_slice(part);
        }
    }

    fn blocks(&mut self, registers: &Registers, which: u64) {
        for (number, block) in registers.chunks_exact(BLOCK).enumerate() {
            if which & 1 << number != 0 {
                self.piece(u32::try_from(number * BLOCK).unwrap_or(END), block); // below SIZE
            }
        }
    }

    fn finish(&mut self) {
        let sum = self.checksum.0;
        self.piece(END, &sum.to_le_bytes());
    }
}

/// State on its way in.
#[derive(Debug)]
struct Incoming {
    /// What is not a whole piece yet.
    bytes: Vec<u8>,
    started: bool,
    complete: bool,
    checksum: Checksum,
    registers: Box<Registers>,
}

impl Incoming {
    fn new() -> Self {
        Self {
            bytes: Vec::new(),
            started: false,
            complete: false,
            checksum: Checksum::new(),
            registers: Box::new([0; SIZE]),
        }
    }

    /// Whether nothing came at all.
    fn is_untouched(&self) -> bool {
        !self.started && self.bytes.is_empty()
    }

    fn take(&mut self, data: &[u8]) -> Option<()> {
        self.bytes.extend_from_slice(data);
        if !self.started && self.bytes.len() >= MAGIC.len() {
            self.started = self.bytes.starts_with(&MAGIC);
            self.started.then_some(())?;
            self.bytes.drain(..MAGIC.len());
        }
        while self.started && self.bytes.len() >= HEAD {
            let (offset, length) = (word(&self.bytes, 0), word(&self.bytes, 4) as usize);
            if self.complete || length > SIZE {
                return None;
            }
            let Some(piece) = self.bytes.get(HEAD..HEAD + length) else {
                break;
            };
            if offset == END {
                (piece == self.checksum.0.to_le_bytes()).then_some(())?;
                self.complete = true;
            } else {
                let start = offset as usize;
                self.registers
                    .get_mut(start..start.checked_add(length)?)?
                    .copy_from_slice(piece);
            }
            self.checksum.add(self.bytes.get(..HEAD + length)?);
            self.bytes.drain(..HEAD + length);
        }
        Some(())
    }
}

#[derive(Debug)]
struct Journal {
    registers: Box<Registers>,
    /// Blocks written since they were last given out, a bit each.
    changed: u64,
    outgoing: Option<Outgoing>,
    incoming: Option<Incoming>,
}

impl Journal {
    fn new() -> Self {
        Self {
            registers: Box::new([0; SIZE]),
            changed: 0,
            outgoing: None,
            incoming: None,
        }
    }

    fn long(&self, offset: usize) -> u64 {
        u64::from(word(&*self.registers, offset))
            | u64::from(word(&*self.registers, offset + 4)) << 32
    }

    fn store(&mut self, offset: usize, data: &[u8]) -> Result<(), Errno> {
        let place = self
            .registers
            .get_mut(offset..offset + data.len())
            .ok_or(Errno::EINVAL)?;
        place.copy_from_slice(data);
        for block in offset / BLOCK..(offset + data.len()).div_ceil(BLOCK) {
            self.changed |= 1 << block;
        }
        Ok(())
    }

    /// Appends a line to the journal. The guest's memory first: if that fails, nothing has happened.
    fn record(&mut self, ctx: &Context, value: &[u8]) -> Result<(), Errno> {
        let sequence = self.long(SEQUENCE);
        let lines = u64::from(word(&*self.registers, LINES));
        let index = sequence.checked_rem(lines).ok_or(Errno::EINVAL)?;
        let address = index
            .checked_mul(LINE as u64)
            .and_then(|offset| offset.checked_add(self.long(RING)))
            .ok_or(Errno::EINVAL)?;
        let mut line = [0; LINE];
        line[..8].copy_from_slice(&sequence.to_le_bytes());
        line[8..12].copy_from_slice(value);
        ctx.write_client(address, &line).map_err(|error| {
            ctx.log(
                Level::Warning,
                format_args!("no journal at {address:#x}: {error}"),
            );
            error.errno()
        })?;
        self.store(RECORD, value)?;
        self.store(SEQUENCE, &sequence.wrapping_add(1).to_le_bytes())
    }

    /// Takes over what came in, or leaves everything as it was.
    fn finish_incoming(&mut self, ctx: &Context) -> Result<(), Errno> {
        match &self.incoming {
            Some(incoming) if incoming.complete && incoming.bytes.is_empty() => {
                self.registers = incoming.registers.clone();
                self.changed = u64::MAX;
            }
            Some(incoming) if !incoming.is_untouched() => {
                ctx.log(
                    Level::Error,
                    format_args!("the state that came in is not complete"),
                );
                return Err(Errno::EINVAL);
            }
            _ => {}
        }
        self.incoming = None;
        Ok(())
    }
}

impl Device for Journal {
    fn region_read(
        &mut self,
        _: &Context,
        _: u32,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), Errno> {
        let start = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let bytes = self
            .registers
            .get(start..start + data.len())
            .ok_or(Errno::EINVAL)?;
        data.copy_from_slice(bytes);
        Ok(())
    }

    fn region_write(
        &mut self,
        ctx: &Context,
        _: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Errno> {
        let start = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
        match (start, data.len()) {
            (RECORD, 4) => self.record(ctx, data),
            (RING, 4 | 8) | (4 | LINES, 4) => self.store(start, data),
            _ if start >= LINE => self.store(start, data),
            _ => Err(Errno::EINVAL),
        }
    }

    fn reset(&mut self, _: &Context, kind: ResetKind) -> Result<(), Errno> {
        if kind == ResetKind::LostConnection {
            (self.outgoing, self.incoming) = (None, None);
        } else {
            *self = Self::new();
        }
        Ok(())
    }

    fn migration_transition(&mut self, ctx: &Context, state: MigrationState) -> Result<(), Errno> {
        match state {
            MigrationState::PreCopy => {
                let mut outgoing = Outgoing::new();
                outgoing.blocks(&self.registers, u64::MAX);
                self.changed = 0;
                self.outgoing = Some(outgoing);
            }
            MigrationState::StopCopy => {
                if self.outgoing.is_none() {
                    self.changed = u64::MAX; // no pre-copy: everything now
                }
                let outgoing = self.outgoing.get_or_insert_with(Outgoing::new);
                outgoing.blocks(&self.registers, self.changed);
                outgoing.finish();
                self.changed = 0;
            }
            MigrationState::Resume => self.incoming = Some(Incoming::new()),
            MigrationState::Stop | MigrationState::Running => {
                self.finish_incoming(ctx)?;
                self.outgoing = None;
            }
        }
        ctx.log(
            Level::Info,
            format_args!("{state:?}, {} lines", self.long(SEQUENCE)),
        );
        Ok(())
    }

    fn migration_read(&mut self, _: &Context, data: &mut [u8]) -> Result<usize, Errno> {
        let outgoing = self.outgoing.as_mut().ok_or(Errno::EINVAL)?;
        let count = data.len().min(outgoing.bytes.len());
        data[..count].copy_from_slice(&outgoing.bytes[..count]);
        outgoing.bytes.drain(..count);
        Ok(count)
    }

    fn migration_write(&mut self, _: &Context, data: &mut [u8]) -> Result<(), Errno> {
        let incoming = self.incoming.as_mut().ok_or(Errno::EINVAL)?;
        incoming.take(data).ok_or(Errno::EINVAL)
    }
}

/// The 32-bit number at `offset`; 0 outside.
fn word(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |word| u32::from_le_bytes(*word))
}

/// Makes the device, which listens at `path`.
#[expect(clippy::print_stderr, reason = "an example says what happens")]
pub(crate) fn build(path: impl AsRef<Path>) -> vfu::Result<Context> {
    Builder::new(0x1af4, 0xd3a1)
        .class(0x05, 0x80, 0)
        .bar(BarIndex::Bar0, Bar::memory32(0x1000))
        .dma(64)
        .migration()
        .log(
            Box::new(|_: Level, line: &str| eprintln!("{line}")),
            Level::Info,
        )
        .build(path, Mode::Blocking)
}

/// Serves one client after another.
pub(crate) fn serve(ctx: &Context) -> vfu::Result<()> {
    let mut journal = Journal::new();
    loop {
        if ctx.attach().is_err() {
            continue; // the log says why; the next client may do better
        }
        match ctx.run(&mut journal) {
            Err(error) if error.errno() == Errno::ENOTCONN => {} // the client has gone: wait for the next one
            result => result.map(|_| ())?,
        }
    }
}

#[expect(clippy::print_stderr, reason = "an example says what happens")]
fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: migration SOCKET");
        return ExitCode::FAILURE;
    };
    let served = build(&path).and_then(|ctx| serve(&ctx));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("migration: {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
