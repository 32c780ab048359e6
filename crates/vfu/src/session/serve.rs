//! One request, from its header to its reply.
//!
//! Order: header, descriptors, migration state, quiesce, handler, reply. Errors of the first three and of the quiesce do
//! not count as served requests.

use super::{Flow, Pending, Session, dma, feature, info, irqs, regions};
use crate::context::{Context, Mode};
use crate::device::{Device, Quiesce, ResetKind};
use crate::error::{Errno, Error, Result};
use crate::log::Level;
use crate::migration::MigrationState;
use crate::pci::region::FLAG_ALWAYS_CB;
use crate::region::CONFIG_INDEX;
use crate::transport::inbox::{Tagged, insane};
use crate::transport::outbox::{Outbox, Progress};
use crate::wire::request::{
    FEATURE, FEATURE_PROBE, FEATURE_SET, Request, WRITE_MULTI, WRITE_ONE, region_access,
    region_write,
};
use crate::wire::{
    Command, HEADER, Header, MAX_MESSAGE, REGION_ACCESS, TYPE_COMMAND, TYPE_MASK, u32_at, u64_at,
};

impl Session {
    /// Serves the first message of the inbox, which is complete.
    #[inline]
    pub(super) fn serve(
        &mut self,
        ctx: &Context,
        device: &mut dyn Device,
        header: &Header,
    ) -> Result<Flow> {
        if self.is_doubtful(ctx, header)
            && let Err(error) = self.admit(ctx, header)
        {
            let flow = self.refuse(ctx, device, header, &error, false)?;
            if flow == Flow::Next && insane(header).is_some() {
                ctx.link.kill(error); // no telling where the next message starts
            }
            return Ok(flow);
        }
        if header.command != Command::RegionRead as u16
            && needs_quiesce(ctx, header, self.inbox.contents(header).0)
        {
            match device.quiesce(ctx) {
                Ok(Quiesce::Done) => {}
                Ok(Quiesce::Pending) | Err(Errno::EBUSY) => {
                    ctx.log(
                        Level::Debug,
                        format_args!("message {:#06x} waits for the device to quiesce", header.id),
                    );
                    self.pending = Pending::Request;
                    return Ok(Flow::Parked);
                }
                Err(errno) => {
                    let error = Error::Callback {
                        callback: "quiesce",
                        errno,
                    };
                    return self.refuse(ctx, device, header, &error, false);
                }
            }
        }
        self.handle(ctx, device, header, false)
    }

    /// Whether any of the rules of [`admit`](Self::admit) may be broken.
    #[inline]
    pub(super) fn is_doubtful(&self, ctx: &Context, header: &Header) -> bool {
        header.flags & TYPE_MASK != TYPE_COMMAND
            || header.len() <= HEADER
            || header.len() > MAX_MESSAGE
            || self.inbox.first_lost_descriptors()
            || ctx.migration.get().is_some_and(MigrationState::is_stopped)
    }

    /// Rules that need no payload.
    #[cold]
    fn admit(&self, ctx: &Context, header: &Header) -> Result<()> {
        if header.flags & TYPE_MASK != TYPE_COMMAND {
            return Err(Error::Header {
                id: header.id,
                field: "flags",
                value: header.flags,
            });
        }
        if let Some(error) = insane(header) {
            return Err(error);
        }
        if header.len() == HEADER && header.command != Command::DeviceReset as u16 {
            return Err(Error::Header {
                id: header.id,
                field: "size",
                value: header.size,
            });
        }
        if self.inbox.first_lost_descriptors() {
            return Err(Error::DescriptorsLost);
        }
        match ctx.migration.get() {
            Some(state) if state.is_stopped() => match Command::new(header.command) {
                Some(command) if !is_allowed_when_stopped(command) => Err(Error::MigrationState {
                    command,
                    state: state.to_wire(),
                }),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Runs the handler of the first message and replies. `pending`: the device was quiesced for it a while ago.
    #[inline]
    pub(super) fn handle(
        &mut self,
        ctx: &Context,
        device: &mut dyn Device,
        header: &Header,
        pending: bool,
    ) -> Result<Flow> {
        if self.inbox.has_tail() {
            self.expose_tail(ctx)?;
        }
        self.outbox.begin();
        let (payload, fds) = self.inbox.contents(header);
        let result = dispatch(ctx, device, header, payload, fds, &mut self.outbox);
        self.served.requests += 1;
        match result {
            Ok(()) => {
                let wait = ctx.mode == Mode::Blocking;
                let outbox = &mut self.outbox;
                let sent = ctx
                    .link
                    .with(|channel| outbox.reply(channel, header, None, wait));
                if let Some(Progress::Sent | Progress::Waits) = sent {
                    self.inbox.consume(header);
                    Ok(Flow::Next)
                } else {
                    self.reply_failed(ctx, device, header, None, pending, sent)
                }
            }
            Err(error) => self.fail(ctx, device, header, &error, pending),
        }
    }

    /// Answers a request that does not reach its handler.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        ctx: &Context,
        device: &mut dyn Device,
        header: &Header,
        error: &Error,
        pending: bool,
    ) -> Result<Flow> {
        self.outbox.begin();
        self.fail(ctx, device, header, error, pending)
    }

    #[cold]
    pub(super) fn fail(
        &mut self,
        ctx: &Context,
        device: &mut dyn Device,
        header: &Header,
        error: &Error,
        pending: bool,
    ) -> Result<Flow> {
        ctx.log(
            Level::Error,
            format_args!(
                "message {:#06x}, command {}: {error} ({})",
                header.id,
                header.command,
                error.errno()
            ),
        );
        let errno = error.errno();
        self.served.failed = Some(errno);
        let wait = ctx.mode == Mode::Blocking;
        let outbox = &mut self.outbox;
        let sent = ctx
            .link
            .with(|channel| outbox.reply(channel, header, Some(errno.get()), wait));
        if let Some(Progress::Sent | Progress::Waits) = sent {
            self.inbox.consume(header);
            return Ok(Flow::Next);
        }
        self.reply_failed(ctx, device, header, Some(errno), pending, sent)
    }

    /// The reply could not be sent: an error is tried instead, or the client is gone.
    #[cold]
    pub(super) fn reply_failed(
        &mut self,
        ctx: &Context,
        device: &mut dyn Device,
        header: &Header,
        error: Option<Errno>,
        pending: bool,
        sent: Option<Progress>,
    ) -> Result<Flow> {
        if let Some(Progress::Failed(errno)) = sent {
            let failure = Progress::failed(errno);
            if error.is_none() {
                // descriptors that cannot be sent, or no memory
                return self.fail(ctx, device, header, &failure, pending);
            }
            self.inbox.consume(header);
            return Err(failure);
        }
        self.inbox.consume(header);
        let why = Error::ConnectionReset {
            state: "before it had read a reply",
        };
        if pending {
            ctx.log(Level::Info, format_args!("context is reset: {why}"));
            self.reset(ctx, device);
            return Ok(Flow::Lost);
        }
        match self.lose(ctx, device, &why) {
            Error::NotConnected => Ok(Flow::Lost),
            other => Err(other),
        }
    }
}

/// What a device that stands still lets a client do: look, read, copy, and give up.
const fn is_allowed_when_stopped(command: Command) -> bool {
    matches!(
        command,
        Command::RegionRead
            | Command::RegionWrite
            | Command::RegionWriteMulti
            | Command::DeviceFeature
            | Command::MigDataRead
            | Command::DeviceReset
            | Command::DmaUnmap
            | Command::DeviceGetInfo
            | Command::DeviceGetRegionInfo
            | Command::DeviceGetRegionIoFds
            | Command::DeviceGetIrqInfo
    )
}

/// Whether the device has to be quiet for a request, of which only the header is checked yet.
#[inline]
pub(super) fn needs_quiesce(ctx: &Context, header: &Header, payload: &[u8]) -> bool {
    if header.command == Command::RegionWrite as u16 {
        return write_needs_quiesce(ctx, payload);
    }
    command_needs_quiesce(ctx, header, payload)
}

fn command_needs_quiesce(ctx: &Context, header: &Header, payload: &[u8]) -> bool {
    match Command::new(header.command) {
        Some(Command::DmaMap | Command::DmaUnmap) => ctx.dma.get().is_some(),
        Some(Command::DeviceReset) => true,
        Some(Command::RegionWriteMulti) => payload.get(WRITE_MULTI..).is_some_and(|writes| {
            writes
                .chunks_exact(WRITE_ONE)
                .any(|write| write_needs_quiesce(ctx, write))
        }),
        Some(Command::DeviceFeature) => {
            payload.len() >= FEATURE
                && u32_at(payload, 4) & (FEATURE_PROBE | FEATURE_SET) == FEATURE_SET
        }
        _ => false,
    }
}

#[inline]
fn write_needs_quiesce(ctx: &Context, access: &[u8]) -> bool {
    if u32_at(access, 8) != CONFIG_INDEX || access.len() < REGION_ACCESS {
        return false;
    }
    let delegated = ctx.regions.with(CONFIG_INDEX, |region| {
        region.callback && region.flags & FLAG_ALWAYS_CB != 0
    });
    delegated != Some(true)
        && ctx
            .function
            .borrow()
            .needs_quiesce(u64_at(access, 0), u32_at(access, 12) as usize)
}

/// Reads the payload and calls the handler.
#[inline(always)]
pub(super) fn dispatch(
    ctx: &Context,
    device: &mut dyn Device,
    header: &Header,
    payload: &mut [u8],
    fds: &mut [Tagged],
    out: &mut Outbox,
) -> Result<()> {
    if header.command == Command::RegionRead as u16 {
        return regions::read(
            ctx,
            device,
            region_access(Command::RegionRead, payload)?,
            out,
        );
    }
    if header.command == Command::RegionWrite as u16 {
        let (access, data) = region_write(payload)?;
        return regions::write(ctx, device, access, data, out);
    }
    dispatch_rare(ctx, device, header, payload, fds, out)
}

/// Everything that no device is asked for a million times a second.
#[inline(never)]
fn dispatch_rare(
    ctx: &Context,
    device: &mut dyn Device,
    header: &Header,
    payload: &mut [u8],
    fds: &mut [Tagged],
    out: &mut Outbox,
) -> Result<()> {
    let unknown = Error::UnknownCommand {
        number: header.command,
    };
    let command = Command::new(header.command).ok_or(unknown)?;
    match command {
        Command::DmaMap | Command::DmaUnmap if ctx.dma.get().is_none() => return Ok(()),
        Command::RegionWriteMulti if !ctx.link.limits.get().write_multiple => return Err(unknown),
        Command::DeviceFeature | Command::MigDataRead | Command::MigDataWrite
            if ctx.migration.get().is_none() =>
        {
            return Err(Error::Unsupported {
                command,
                what: "the device cannot be migrated",
            });
        }
        _ => {}
    }
    match Request::parse(command, payload)? {
        Request::RegionWriteMulti(writes) => regions::write_multi(ctx, device, writes, out),
        Request::DmaMap(map) => dma::map(ctx, device, &map, fds),
        Request::DmaUnmap(unmap) => dma::unmap(ctx, device, unmap, payload, out),
        Request::DeviceGetInfo => info::device(out),
        Request::RegionInfo { argsz, index } => info::region(ctx, argsz, index, out),
        Request::RegionIoFds { argsz, index } => info::io_fds(ctx, argsz, index, out),
        Request::IrqInfo { index } => info::irq(ctx, index, out),
        Request::SetIrqs(request) => irqs::set(ctx, device, &request, fds),
        Request::DeviceReset => {
            ctx.log(Level::Info, format_args!("the client resets the device"));
            device
                .reset(ctx, ResetKind::Device)
                .map_err(|errno| Error::Callback {
                    callback: "reset",
                    errno,
                })
        }
        Request::Feature(request) => feature::feature(ctx, device, &request, out),
        Request::MigDataRead { argsz, size } => feature::data_read(ctx, device, argsz, size, out),
        Request::MigDataWrite { argsz, size, data } => {
            feature::data_write(ctx, device, argsz, size, data)
        }
    }
}
