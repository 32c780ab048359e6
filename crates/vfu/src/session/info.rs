//! What clients ask about a device: `DEVICE_GET_INFO`, `GET_REGION_INFO`, `GET_REGION_IO_FDS`, `GET_IRQ_INFO`.

use std::os::fd::AsRawFd;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::irq::IrqIndex;
use crate::pci::region::{COUNT, FLAG_RW};
use crate::region::{FdList, IoEventFd, SharedFd, Slot};
use crate::transport::Limits;
use crate::transport::outbox::Outbox;
use crate::wire::request::{DEVICE_INFO, IO_FDS, IRQ_INFO, REGION_INFO, field};
use crate::wire::{Command, HEADER, MAX_MESSAGE, wire_len};

/// Little-endian fields, one after another.
struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        let rest = core::mem::take(&mut self.0);
        if let Some((place, rest)) = rest.split_at_mut_checked(bytes.len()) {
            place.copy_from_slice(bytes);
            self.0 = rest;
        }
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }
}

/// Serves `DEVICE_GET_INFO`.
pub(super) fn device(out: &mut Outbox) -> Result<()> {
    const RESET: u32 = 1;
    const PCI: u32 = 2;
    let payload = out.payload(DEVICE_INFO)?;
    Writer(payload)
        .u32(wire_len(DEVICE_INFO))
        .u32(RESET | PCI)
        .u32(wire_len(COUNT))
        .u32(IrqIndex::COUNT);
    Ok(())
}

/// Serves `DEVICE_GET_IRQ_INFO`.
pub(super) fn irq(ctx: &Context, index: u32, out: &mut Outbox) -> Result<()> {
    const EVENTFD: u32 = 1;
    let irq =
        IrqIndex::new(index).ok_or(field(Command::DeviceGetIrqInfo, "index", index.into()))?;
    let count = ctx.irq_counts.get()[irq as usize];
    let payload = out.payload(IRQ_INFO)?;
    Writer(payload)
        .u32(wire_len(IRQ_INFO))
        .u32(EVENTFD)
        .u32(index)
        .u32(count);
    Ok(())
}

/// Bytes before the areas of a sparse mmap capability, and of one area.
const SPARSE: usize = 16;
const AREA: usize = 16;

/// Serves `DEVICE_GET_REGION_INFO`: with the mappable areas and the descriptor if the client left room for all of them.
pub(super) fn region(ctx: &Context, argsz: u32, index: u32, out: &mut Outbox) -> Result<()> {
    let command = Command::DeviceGetRegionInfo;
    ctx.regions
        .with(index, |slot| {
            region_info(slot, argsz, index, ctx.link.limits.get(), out)
        })
        .unwrap_or(Err(field(command, "index", index.into())))
}

fn region_info(
    slot: &Slot,
    argsz: u32,
    index: u32,
    client: Limits,
    out: &mut Outbox,
) -> Result<()> {
    const MMAP: u32 = 4;
    const CAPS: u32 = 8;
    const SPARSE_MMAP_ID: [u8; 4] = [1, 0, 1, 0]; // id 1, version 1
    let command = Command::DeviceGetRegionInfo;
    let areas: &[_] = if slot.size > 0 { &slot.areas } else { &[] };
    let caps = if areas.is_empty() {
        0
    } else {
        SPARSE + areas.len() * AREA
    };
    let full = REGION_INFO + caps;
    if full > MAX_MESSAGE - HEADER {
        return Err(Error::Unsupported {
            command,
            what: "the mappable areas do not fit into one message",
        });
    }
    // the areas make no sense without the descriptor
    let with_caps = caps > 0 && argsz as usize >= full && client.max_fds > 0;
    let mut flags = slot.flags & FLAG_RW;
    if slot.size > 0 && slot.fd.is_some() {
        flags |= MMAP;
    }
    if with_caps {
        flags |= CAPS;
    }
    let payload = out.payload(full.min(argsz as usize))?;
    let mut writer = Writer(payload);
    writer
        .u32(wire_len(full))
        .u32(flags)
        .u32(index)
        .u32(if with_caps { wire_len(REGION_INFO) } else { 0 });
    writer.u64(slot.size).u64(slot.offset);
    if with_caps {
        writer
            .put(&SPARSE_MMAP_ID)
            .u32(0)
            .u32(wire_len(areas.len()))
            .u32(0);
        for area in areas {
            writer.u64(area.base).u64(area.len);
        }
        if let Some(fd) = &slot.fd {
            out.attach(&[fd.as_raw_fd()])?;
        }
    }
    Ok(())
}

/// Bytes of one sub-region.
const SUB_REGION: usize = 48;

/// Serves `DEVICE_GET_REGION_IO_FDS`: all sub-regions, newest first, or none if the client left too little room.
pub(super) fn io_fds(ctx: &Context, argsz: u32, index: u32, out: &mut Outbox) -> Result<()> {
    let command = Command::DeviceGetRegionIoFds;
    ctx.regions
        .with(index, |slot| {
            if slot.flags == 0 {
                return Err(Error::Unsupported {
                    command,
                    what: "the region was not set up",
                });
            }
            sub_regions(slot, argsz, index, ctx.link.limits.get().max_fds, out)
        })
        .unwrap_or(Err(field(command, "index", index.into())))
}

fn sub_regions(
    slot: &Slot,
    argsz: u32,
    index: u32,
    max_fds: usize,
    out: &mut Outbox,
) -> Result<()> {
    let command = Command::DeviceGetRegionIoFds;
    let full = IO_FDS + slot.io_events.len() * SUB_REGION;
    if full > MAX_MESSAGE - HEADER {
        return Err(Error::Unsupported {
            command,
            what: "the sub-regions do not fit into one message",
        });
    }
    let all = argsz as usize >= full;
    let payload = out.payload(if all { full } else { IO_FDS })?;
    let mut writer = Writer(payload);
    writer
        .u32(wire_len(full))
        .u32(0)
        .u32(index)
        .u32(wire_len(slot.io_events.len()));
    if all {
        let mut fds = FdList::new(max_fds);
        for event in slot.io_events.iter().rev() {
            sub_region(event, &mut fds, &mut writer)?;
        }
        out.attach(fds.as_slice())?;
    }
    Ok(())
}

fn sub_region(event: &IoEventFd, fds: &mut FdList, writer: &mut Writer<'_>) -> Result<()> {
    const IOEVENTFD: u32 = 0;
    const IOEVENTFD_SHADOW: u32 = 2;
    let too_many = Error::Unsupported {
        command: Command::DeviceGetRegionIoFds,
        what: "more descriptors than the client takes, or one message can carry",
    };
    let mut position = |fd: &Option<SharedFd>, absent: u32| match fd {
        None => Ok(absent),
        Some(fd) => fds.position(fd.as_raw_fd()).ok_or(too_many),
    };
    let fd_index = position(&event.fd, u32::MAX)?;
    let shadow_index = position(&event.shadow, 0)?;
    let kind = if event.shadow.is_some() {
        IOEVENTFD_SHADOW
    } else {
        IOEVENTFD
    };
    writer
        .u64(event.offset)
        .u64(event.size.into())
        .u32(fd_index)
        .u32(kind)
        .u32(event.flags)
        .u32(shadow_index);
    writer.u64(event.shadow_offset).u64(event.datamatch);
    Ok(())
}
