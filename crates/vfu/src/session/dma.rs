//! `DMA_MAP` and `DMA_UNMAP`, and the end of all regions with their connection.
//!
//! A region is in the table before its register callback and until after its unregister callback, so that it can be used
//! inside both.

use crate::context::Context;
use crate::device::Device;
use crate::dma::{self, Access, Added, Dma, NewRegion, PROT_READ, PROT_WRITE, RegionId};
use crate::error::{Error, Result};
use crate::log::Level;
use crate::transport::inbox::Tagged;
use crate::transport::outbox::Outbox;
use crate::wire::Command;
use crate::wire::request::{
    BITMAP, DMA_FILE_IO, DMA_MMAP, DMA_READ, DMA_UNMAP, DMA_WRITE, DmaMap, DmaUnmap, field,
};

/// Serves `DMA_MAP`.
pub(super) fn map(
    ctx: &Context,
    device: &mut dyn Device,
    request: &DmaMap,
    fds: &mut [Tagged],
) -> Result<()> {
    let dma = ctx.client_memory()?;
    let fd = fds.first_mut().and_then(|tagged| tagged.fd.take());
    let access = match (request.flags & (DMA_MMAP | DMA_FILE_IO), &fd) {
        (DMA_FILE_IO, Some(_)) => Access::File,
        (_, Some(_)) => Access::Mapped,
        (0, None) => Access::Message,
        (_, None) => {
            return Err(field(
                Command::DmaMap,
                "flags, without a descriptor,",
                request.flags.into(),
            ));
        }
    };
    let mut prot = 0;
    if request.flags & DMA_READ != 0 {
        prot |= PROT_READ;
    }
    if request.flags & DMA_WRITE != 0 {
        prot |= PROT_WRITE;
    }
    let region = NewRegion {
        iova: request.addr,
        size: request.size,
        prot,
        offset: request.offset,
        access,
        fd,
    };
    match dma.add(region)? {
        Added::Same(_) => {} // the device knows it
        Added::New(info) => {
            ctx.log(
                Level::Debug,
                format_args!(
                    "DMA region {:#x}, {:#x} bytes, {access:?}, protection {prot}",
                    info.iova, info.size
                ),
            );
            if let Err(errno) = device.dma_register(ctx, &info) {
                dma.remove(info.id)?;
                return Err(Error::Callback {
                    callback: "DMA register",
                    errno,
                });
            }
        }
    }
    Ok(())
}

/// Serves `DMA_UNMAP`. `payload` is the request, which is echoed.
pub(super) fn unmap(
    ctx: &Context,
    device: &mut dyn Device,
    request: DmaUnmap,
    payload: &[u8],
    out: &mut Outbox,
) -> Result<()> {
    let dma = ctx.client_memory()?;
    match request {
        DmaUnmap::All => {
            echo(payload, DMA_UNMAP, out.payload(DMA_UNMAP)?);
            remove_all(ctx, device);
        }
        DmaUnmap::One { addr, size } => {
            let id = dma
                .find_exact(addr, size)
                .map_err(Error::from)
                .inspect_err(|error| {
                    ctx.log(Level::Warning, format_args!("DMA_UNMAP: {error}"));
                })?;
            echo(payload, DMA_UNMAP, out.payload(DMA_UNMAP)?);
            remove(ctx, dma, device, id)?;
        }
        DmaUnmap::Dirty {
            addr,
            size,
            page_size,
            bitmap,
        } => {
            let id = dma.find_exact(addr, size)?;
            let needed = dma.check_report(addr, size, page_size)?;
            if bitmap != needed as u64 {
                return Err(field(Command::DmaUnmap, "size of the bitmap", bitmap));
            }
            let reply = out.payload(DMA_UNMAP + BITMAP + needed)?;
            echo(payload, DMA_UNMAP + BITMAP, reply);
            dma.report(
                addr,
                size,
                page_size,
                reply.get_mut(DMA_UNMAP + BITMAP..).unwrap_or_default(),
            )?;
            remove(ctx, dma, device, id)?;
        }
    }
    Ok(())
}

fn echo(payload: &[u8], length: usize, reply: &mut [u8]) {
    if let (Some(from), Some(to)) = (payload.get(..length), reply.get_mut(..length)) {
        to.copy_from_slice(from);
    }
}

fn remove(ctx: &Context, dma: &Dma, device: &mut dyn Device, id: RegionId) -> Result<()> {
    let info = dma.info(id)?;
    device.dma_unregister(ctx, &info);
    match dma.remove(id) {
        Ok(()) | Err(dma::Error::Stale { .. }) => {} // the device may have removed it itself
        Err(error) => return Err(error.into()),
    }
    ctx.log(
        Level::Debug,
        format_args!(
            "DMA region {:#x}, {:#x} bytes, is gone",
            info.iova, info.size
        ),
    );
    Ok(())
}

/// Removes every region, in ascending order.
pub(super) fn remove_all(ctx: &Context, device: &mut dyn Device) {
    let Some(dma) = ctx.dma.get() else { return };
    while let Some(id) = dma.first() {
        if let Err(error) = remove(ctx, dma, device, id) {
            ctx.log(
                Level::Error,
                format_args!("DMA region cannot be removed: {error}"),
            );
            return;
        }
    }
}
