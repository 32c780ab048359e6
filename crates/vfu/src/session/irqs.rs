//! `DEVICE_SET_IRQS`: eventfds come and go, interrupts are masked, or triggered from outside.

use crate::context::Context;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::irq::IrqIndex;
use crate::log::Level;
use crate::transport::inbox::Tagged;
use crate::wire::Command;
use crate::wire::request::{IrqAction, IrqData, SetIrqs, at_most, field};

const COMMAND: Command = Command::DeviceSetIrqs;

/// Serves `DEVICE_SET_IRQS`.
pub(super) fn set(
    ctx: &Context,
    device: &mut dyn Device,
    request: &SetIrqs<'_>,
    fds: &mut [Tagged],
) -> Result<()> {
    let irq = check(ctx, request, fds.len())?;
    let SetIrqs { start, count, .. } = *request;
    match (request.action, request.data) {
        (IrqAction::Trigger, IrqData::None) if count == 0 => {
            ctx.irqs.disable(irq, 0, ctx.irq_counts.get()[irq as usize]);
            ctx.log(Level::Debug, format_args!("interrupts {irq:?} disabled"));
        }
        (IrqAction::Trigger, IrqData::None) => {
            for subindex in start..start + count {
                ctx.irqs.loop_back(irq, subindex)?;
            }
        }
        (IrqAction::Trigger, IrqData::Bool(bools)) => {
            for (subindex, _) in chosen(start, bools) {
                ctx.irqs.loop_back(irq, subindex)?;
            }
        }
        (IrqAction::Trigger, IrqData::Eventfd) if fds.is_empty() => {
            ctx.irqs.disable(irq, start, count);
            ctx.log(
                Level::Debug,
                format_args!("interrupts {irq:?} from {start}, {count}, disabled"),
            );
        }
        (IrqAction::Trigger, IrqData::Eventfd) => {
            for (position, (subindex, tagged)) in (start..).zip(fds).enumerate() {
                let Some(fd) = tagged.fd.take() else { continue };
                ctx.irqs
                    .install(irq, subindex, fd)
                    .map_err(|_| Error::NotEventfd { position })?;
            }
            ctx.log(
                Level::Debug,
                format_args!("interrupts {irq:?} from {start}, {count}, have eventfds"),
            );
        }
        (action, IrqData::None) => {
            device.irq_state(ctx, irq, start, count, action == IrqAction::Mask);
        }
        (action, IrqData::Bool(bools)) => {
            for (subindex, run) in chosen(start, bools) {
                device.irq_state(ctx, irq, subindex, run, action == IrqAction::Mask);
            }
        }
        (_, IrqData::Eventfd) => {
            return Err(Error::Unsupported {
                command: COMMAND,
                what: "eventfds that mask or unmask",
            });
        }
    }
    Ok(())
}

/// Interrupts whose byte is 1, one by one.
fn chosen(start: u32, bools: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    (start..)
        .zip(bools)
        .filter(|(_, byte)| **byte == 1)
        .map(|(subindex, _)| (subindex, 1))
}

fn check(ctx: &Context, request: &SetIrqs<'_>, fds: usize) -> Result<IrqIndex> {
    let SetIrqs { start, count, .. } = *request;
    let irq = IrqIndex::new(request.index).ok_or(field(COMMAND, "index", request.index.into()))?;
    let configured = ctx.irq_counts.get()[irq as usize];
    if start >= configured {
        return Err(field(COMMAND, "start", start.into()));
    }
    at_most(
        COMMAND,
        "start + count",
        u64::from(start) + u64::from(count),
        configured.into(),
    )?;
    if irq.is_single() {
        if request.action != IrqAction::Trigger {
            return Err(field(
                COMMAND,
                "mask or unmask of index",
                request.index.into(),
            ));
        }
        at_most(COMMAND, "count", count.into(), 1)?;
    }
    if fds > 0 && (request.data != IrqData::Eventfd || fds as u64 != u64::from(count)) {
        return Err(field(COMMAND, "number of descriptors", fds as u64));
    }
    Ok(irq)
}
