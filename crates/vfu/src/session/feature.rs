//! `DEVICE_FEATURE` (migration state, dirty page logging), `MIG_DATA_READ` and `MIG_DATA_WRITE`.
//!
//! All of this exists only for devices that can be migrated; the caller has checked.

use crate::context::Context;
use crate::device::Device;
use crate::dma::{Dma, LogRange};
use crate::error::{Error, Result};
use crate::log::Level;
use crate::migration::MigrationState;
use crate::sys::memory::out_of_memory;
use crate::transport::outbox::Outbox;
use crate::wire::request::{
    FEATURE, FEATURE_GET, FEATURE_MASK, FEATURE_PROBE, FEATURE_SET, Feature, MIG_DATA, at_least,
    at_most, field,
};
use crate::wire::{Command, MAX_DATA, u32_at, u64_at, wire_len};

const MIGRATION: u32 = 1;
const MIG_DEVICE_STATE: u32 = 2;
const DMA_LOGGING_START: u32 = 6;
const DMA_LOGGING_STOP: u32 = 7;
const DMA_LOGGING_REPORT: u32 = 8;

/// Bytes of each feature's structure, behind the common 8.
const FLAGS: usize = 8;
const STATE: usize = 8;
const CONTROL: usize = 16;
const RANGE: usize = 16;
const REPORT: usize = 24;

const COMMAND: Command = Command::DeviceFeature;

/// Serves `DEVICE_FEATURE`.
pub(super) fn feature(
    ctx: &Context,
    device: &mut dyn Device,
    request: &Feature<'_>,
    out: &mut Outbox,
) -> Result<()> {
    let ops = request.flags & !FEATURE_MASK;
    let number = request.flags & FEATURE_MASK;
    let supported = match number {
        MIGRATION | DMA_LOGGING_REPORT => FEATURE_GET | FEATURE_PROBE,
        MIG_DEVICE_STATE => FEATURE_GET | FEATURE_SET | FEATURE_PROBE,
        DMA_LOGGING_START | DMA_LOGGING_STOP => FEATURE_SET | FEATURE_PROBE,
        _ => 0,
    };
    if ops == 0 || ops & !supported != 0 {
        return Err(field(COMMAND, "flags", request.flags.into()));
    }
    let data = request.payload.get(FEATURE..).unwrap_or_default();
    match ops {
        FEATURE_GET => get(ctx, request, number, data, out),
        _ if ops & FEATURE_PROBE != 0 || ops == FEATURE_SET => {
            at_least(
                COMMAND,
                "argsz",
                request.argsz.into(),
                request.payload.len() as u64,
            )?;
            out.payload(request.payload.len())?
                .copy_from_slice(request.payload);
            if ops == FEATURE_SET {
                out.keep_on_error();
                set(ctx, device, number, data)?;
            }
            Ok(())
        }
        _ => Err(field(COMMAND, "flags", request.flags.into())),
    }
}

fn get(
    ctx: &Context,
    request: &Feature<'_>,
    number: u32,
    data: &[u8],
    out: &mut Outbox,
) -> Result<()> {
    const STOP_COPY: u64 = 1;
    const PRE_COPY: u64 = 4;
    if number == DMA_LOGGING_REPORT {
        return report(ctx, request, data, out);
    }
    let length = FEATURE + if number == MIGRATION { FLAGS } else { STATE };
    at_least(COMMAND, "argsz", request.argsz.into(), length as u64)?;
    let value = match ctx.migration.get() {
        Some(state) if number == MIG_DEVICE_STATE => u64::from(state.to_wire()), // and data_fd 0
        _ => STOP_COPY | PRE_COPY,
    };
    let payload = out.payload(length)?;
    put_head(payload, request.flags);
    if let Some(place) = payload.get_mut(FEATURE..) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    Ok(())
}

/// argsz, which is the length, and flags.
fn put_head(payload: &mut [u8], flags: u32) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX); // replies are below MAX_MESSAGE
    if let Some(place) = payload.first_chunk_mut::<FEATURE>() {
        place[..4].copy_from_slice(&length.to_le_bytes());
        place[4..].copy_from_slice(&flags.to_le_bytes());
    }
}

fn set(ctx: &Context, device: &mut dyn Device, number: u32, data: &[u8]) -> Result<()> {
    match number {
        MIG_DEVICE_STATE => {
            at_least(COMMAND, "data", data.len() as u64, STATE as u64)?;
            let wanted = u32_at(data, 0);
            let target = MigrationState::from_wire(wanted).ok_or(field(
                COMMAND,
                "device state",
                wanted.into(),
            ))?;
            go_to(ctx, device, target)
        }
        DMA_LOGGING_START => start_logging(ctx, data),
        _ => match ctx.dma.get() {
            Some(dma) => Ok(dma.stop_logging()?),
            None => Ok(()),
        },
    }
}

/// Walks to a migration state; stops where the device refuses a step.
fn go_to(ctx: &Context, device: &mut dyn Device, target: MigrationState) -> Result<()> {
    while let Some(state) = ctx.migration.get()
        && state != target
    {
        let next =
            state
                .step_to(target)
                .ok_or(field(COMMAND, "device state", target.to_wire().into()))?;
        device
            .migration_transition(ctx, next)
            .map_err(|errno| Error::Callback {
                callback: "migration transition",
                errno,
            })?;
        ctx.log(
            Level::Debug,
            format_args!("migration state {state:?} -> {next:?}"),
        );
        ctx.migration.set(Some(next));
    }
    Ok(())
}

fn client_memory(ctx: &Context) -> Result<&Dma> {
    ctx.dma.get().ok_or(Error::Unsupported {
        command: COMMAND,
        what: "the device uses no client memory",
    })
}

fn start_logging(ctx: &Context, data: &[u8]) -> Result<()> {
    at_least(COMMAND, "data", data.len() as u64, CONTROL as u64)?;
    let dma = client_memory(ctx)?;
    let (page_size, count) = (u64_at(data, 0), u32_at(data, 8));
    let ranges = data.get(CONTROL..).unwrap_or_default();
    // a count without ranges behind it was always taken for the whole address space
    let count = (count as usize).min(ranges.len() / RANGE);
    let mut list = Vec::new();
    list.try_reserve_exact(count).map_err(out_of_memory(
        "ranges to log",
        count * size_of::<LogRange>(),
    ))?;
    for range in ranges.chunks_exact(RANGE).take(count) {
        list.push(LogRange {
            iova: u64_at(range, 0),
            length: u64_at(range, 8),
        }); // within the capacity reserved above
    }
    Ok(dma.start_logging(page_size, &list)?)
}

/// `DMA_LOGGING_REPORT`: which pages of a range are dirty. They are clean afterwards.
fn report(ctx: &Context, request: &Feature<'_>, data: &[u8], out: &mut Outbox) -> Result<()> {
    at_least(COMMAND, "data", data.len() as u64, REPORT as u64)?;
    let dma = client_memory(ctx)?;
    let (iova, length, page_size) = (u64_at(data, 0), u64_at(data, 8), u64_at(data, 16));
    at_least(COMMAND, "length", length, page_size)?;
    let full = FEATURE + REPORT + Dma::report_size(length, page_size)?;
    at_least(COMMAND, "argsz", request.argsz.into(), full as u64)?;
    dma.check_report(iova, length, page_size)?;
    let payload = out.payload(full)?;
    put_head(payload, request.flags);
    if let Some((head, bitmap)) = payload.split_at_mut_checked(FEATURE + REPORT) {
        if let (Some(to), Some(from)) = (head.get_mut(FEATURE..), data.get(..REPORT)) {
            to.copy_from_slice(from);
        }
        dma.report(iova, length, page_size, bitmap)?;
    }
    Ok(())
}

/// Serves `MIG_DATA_READ`.
pub(super) fn data_read(
    ctx: &Context,
    device: &mut dyn Device,
    argsz: u32,
    size: u32,
    out: &mut Outbox,
) -> Result<()> {
    let command = Command::MigDataRead;
    check_data(
        ctx,
        command,
        &[MigrationState::PreCopy, MigrationState::StopCopy],
        argsz,
        size,
    )?;
    let payload = out.payload(MIG_DATA + size as usize)?;
    let (head, data) = payload.split_at_mut_checked(MIG_DATA).unwrap_or_default();
    let count = device
        .migration_read(ctx, data)
        .map_err(|errno| Error::Callback {
            callback: "migration read",
            errno,
        })?;
    if count > data.len() {
        return Err(field(
            command,
            "number of bytes that the device's callback returned",
            count as u64,
        ));
    }
    let count = u32::try_from(count).unwrap_or(u32::MAX); // at most `size`
    if let Some((argsz, size)) = head.split_at_mut_checked(4) {
        argsz.copy_from_slice(&(wire_len(MIG_DATA) + count).to_le_bytes());
        size.copy_from_slice(&count.to_le_bytes());
    }
    Ok(())
}

/// Serves `MIG_DATA_WRITE`.
pub(super) fn data_write(
    ctx: &Context,
    device: &mut dyn Device,
    argsz: u32,
    size: u32,
    data: &mut [u8],
) -> Result<()> {
    let command = Command::MigDataWrite;
    check_data(ctx, command, &[MigrationState::Resume], argsz, size)?;
    at_least(command, "data", data.len() as u64, size.into())?;
    let data = data.get_mut(..size as usize).unwrap_or_default();
    device
        .migration_write(ctx, data)
        .map_err(|errno| Error::Callback {
            callback: "migration write",
            errno,
        })
}

fn check_data(
    ctx: &Context,
    command: Command,
    states: &[MigrationState],
    argsz: u32,
    size: u32,
) -> Result<()> {
    if let Some(state) = ctx.migration.get()
        && !states.contains(&state)
    {
        return Err(Error::MigrationState {
            command,
            state: state.to_wire(),
        });
    }
    at_most(
        command,
        "size",
        size.into(),
        ctx.link.limits.get().max_data.into(),
    )?;
    at_most(
        command,
        "size",
        size.into(),
        (MAX_DATA - MIG_DATA) as u64 + 8,
    )?;
    at_least(
        command,
        "argsz",
        argsz.into(),
        size as u64 + MIG_DATA as u64,
    )
}
