//! `REGION_READ`, `REGION_WRITE` and `REGION_WRITE_MULTI`.
//!
//! Replies of accesses that fail inside the region keep their payload: a client that is in wide use reads that many
//! bytes whatever the header says.

use crate::context::Context;
use crate::device::{Access, Device, ResetKind};
use crate::error::{Errno, Error, Result};
use crate::migration::MigrationState;
use crate::pci::{Event, Events, Step};
use crate::region::CONFIG_INDEX;
use crate::transport::outbox::Outbox;
use crate::wire::request::{RegionAccess, WRITE_MULTI, WRITE_ONE, write_one};
use crate::wire::{Command, MAX_DATA, REGION_ACCESS};

/// Serves `REGION_READ`.
#[inline(always)]
pub(super) fn read(
    ctx: &Context,
    device: &mut dyn Device,
    access: RegionAccess,
    out: &mut Outbox,
) -> Result<()> {
    let callback = check(ctx, Command::RegionRead, access)?;
    if access.count == 0 {
        return Ok(());
    }
    let payload = out.payload(REGION_ACCESS + access.count as usize)?;
    echo(access, payload);
    let data = payload.get_mut(REGION_ACCESS..).unwrap_or_default();
    let result = perform(
        ctx,
        device,
        Command::RegionRead,
        access,
        callback,
        Access::Read(data),
    );
    out.keep_on_error();
    result
}

/// Serves `REGION_WRITE`.
#[inline(always)]
pub(super) fn write(
    ctx: &Context,
    device: &mut dyn Device,
    access: RegionAccess,
    data: &mut [u8],
    out: &mut Outbox,
) -> Result<()> {
    let callback = check(ctx, Command::RegionWrite, access)?;
    if access.count == 0 {
        return Ok(());
    }
    echo(access, out.payload(REGION_ACCESS)?);
    out.keep_on_error();
    perform(
        ctx,
        device,
        Command::RegionWrite,
        access,
        callback,
        Access::Write(data),
    )
}

/// Serves `REGION_WRITE_MULTI`: the writes in order, up to the first that fails. The reply says how many were done.
pub(super) fn write_multi(
    ctx: &Context,
    device: &mut dyn Device,
    writes: &mut [u8],
    out: &mut Outbox,
) -> Result<()> {
    let command = Command::RegionWriteMulti;
    let mut done = 0_u64;
    let mut result = Ok(());
    for write in writes.chunks_exact_mut(WRITE_ONE) {
        result = write_one(write).and_then(|(access, data)| {
            let callback = check(ctx, command, access)?;
            if access.count == 0 {
                return Ok(());
            }
            perform(ctx, device, command, access, callback, Access::Write(data))
        });
        if result.is_err() {
            break;
        }
        done += 1;
    }
    out.payload(WRITE_MULTI)?
        .copy_from_slice(&done.to_le_bytes());
    out.keep_on_error();
    result
}

#[inline]
fn echo(access: RegionAccess, payload: &mut [u8]) {
    if let Some(place) = payload.first_chunk_mut::<REGION_ACCESS>() {
        place[0..8].copy_from_slice(&access.offset.to_le_bytes());
        place[8..12].copy_from_slice(&access.region.to_le_bytes());
        place[12..16].copy_from_slice(&access.count.to_le_bytes());
    }
}

/// Checks bounds and state; says whether the region has a callback.
#[inline]
fn check(ctx: &Context, command: Command, access: RegionAccess) -> Result<bool> {
    let RegionAccess {
        offset,
        region,
        count,
    } = access;
    debug_assert!(count as usize <= MAX_DATA);
    let Some((size, callback)) = ctx.regions.with(region, |slot| (slot.size, slot.callback)) else {
        return Err(Error::Field {
            command,
            field: "region",
            value: region.into(),
        });
    };
    if offset.saturating_add(count.into()) > size {
        return Err(Error::RegionBounds {
            region,
            offset,
            count,
            size,
        });
    }
    if ctx.migration.get() == Some(MigrationState::StopCopy) {
        return Err(Error::MigrationState {
            command,
            state: MigrationState::StopCopy.to_wire(),
        });
    }
    Ok(callback)
}

#[inline(always)]
fn perform(
    ctx: &Context,
    device: &mut dyn Device,
    command: Command,
    access: RegionAccess,
    callback: bool,
    data: Access<'_>,
) -> Result<()> {
    if access.region == CONFIG_INDEX {
        return match data {
            Access::Read(data) => config_read(ctx, device, access.offset, data),
            Access::Write(data) => config_write(ctx, device, access.offset, data),
        };
    }
    if !callback {
        return Err(Error::Unsupported {
            command,
            what: "the region has no callback",
        });
    }
    device
        .region_access(ctx, access.region, access.offset, data)
        .map_err(region_failed)
}

#[cold]
fn region_failed(errno: Errno) -> Error {
    Error::Callback {
        callback: "region access",
        errno,
    }
}

/// Reads configuration space, step by step; no borrow outlives a step.
fn config_read(ctx: &Context, device: &mut dyn Device, offset: u64, data: &mut [u8]) -> Result<()> {
    let mut done = 0;
    while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let position = offset + done as u64;
        let step = ctx
            .function
            .borrow()
            .read_step(&ctx.regions, position, rest)?;
        done += match step {
            Step::Done { len } | Step::FunctionReset { len } => len,
            Step::Callback { len } => {
                let part = rest.get_mut(..len).unwrap_or_default();
                device
                    .region_access(ctx, CONFIG_INDEX, position, Access::Read(part))
                    .map_err(region_failed)?;
                len
            }
        };
    }
    Ok(())
}

/// Writes configuration space, step by step; no borrow outlives a step.
fn config_write(
    ctx: &Context,
    device: &mut dyn Device,
    offset: u64,
    data: &mut [u8],
) -> Result<()> {
    let mut done = 0;
    while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let position = offset + done as u64;
        let mut events = Events::new();
        let step = ctx
            .function
            .borrow()
            .write_step(&ctx.regions, position, rest, &mut events);
        ctx.log_events(&events);
        done += match step? {
            Step::Done { len } => len,
            Step::Callback { len } => {
                let part = rest.get_mut(..len).unwrap_or_default();
                device
                    .region_access(ctx, CONFIG_INDEX, position, Access::Write(part))
                    .map_err(region_failed)?;
                len
            }
            Step::FunctionReset { len } => {
                ctx.log(
                    Event::FunctionResetAsked.level().into(),
                    format_args!("{}", Event::FunctionResetAsked),
                );
                device
                    .reset(ctx, ResetKind::FunctionLevel)
                    .map_err(|errno| Error::Callback {
                        callback: "reset",
                        errno,
                    })?;
                len
            }
        };
    }
    Ok(())
}
