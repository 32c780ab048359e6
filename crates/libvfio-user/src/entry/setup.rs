//! Describing the device: log, regions, interrupts, callbacks, client memory, migration, ioeventfds.

use std::ffi::c_int;

use libc::iovec;
use vfu::{IoEventFd, IrqIndex, MmapArea, RegionSetup};

use crate::abi::{
    DmaFn, IrqStateFn, LogFn, MIGR_CALLBACKS_VERS, MigrationCallbacks, QuiesceFn, RegionAccessFn,
    ResetFn,
};
use crate::context::VfuCtx;
use crate::edge::{Failure, entry};
use crate::entry::borrowed_fd;

/// Sends messages up to `level` (`LOG_EMERG` to `LOG_DEBUG`) to `log`; NULL switches the log off.
///
/// Returns 0, or -1 and errno: EINVAL for another level (the old settings stay), ENOMEM.
///
/// # Safety
///
/// `ctx` is NULL or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_setup_log(
    ctx: *mut VfuCtx,
    log: Option<LogFn>,
    level: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        entry(ctx, "vfu_setup_log", |ctx| {
            ctx.set_log(log, level)?;
            Ok(0)
        })
    }
}

/// Sets up region `region_idx` of `size` bytes, replacing what was set up for it before, except ioeventfds. A size of
/// 0 takes the region away.
///
/// `flags` are `VFU_REGION_FLAG_*`. With `fd`, clients may map the `nr_mmap_areas` parts of it that `mmap_areas` names
/// (`iov_base` is an offset in the region), or all of it; it starts at `offset` in the file. The array is copied; `fd`
/// stays the caller's, and open for as long as the region refers to it.
///
/// Returns 0, or -1 and errno: EINVAL for wrong arguments, named in the log; ENOMEM.
///
/// # Safety
///
/// `ctx` is NULL or a live context, used by this thread only; `mmap_areas` is NULL or has `nr_mmap_areas` elements; `fd`
/// is negative or open, as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_setup_region(
    ctx: *mut VfuCtx,
    region_idx: c_int,
    size: usize,
    region_access: Option<RegionAccessFn>,
    flags: c_int,
    mmap_areas: *const iovec,
    nr_mmap_areas: u32,
    fd: c_int,
    offset: u64,
) -> c_int {
    let body = |ctx: &VfuCtx| {
        if mmap_areas.is_null() != (nr_mmap_areas == 0) {
            let what = "nr_mmap_areas, which must be 0 exactly if mmap_areas is NULL";
            return Err(Failure::Argument {
                what,
                value: nr_mmap_areas.into(),
            });
        }
        let areas: &[iovec] = if mmap_areas.is_null() {
            &[]
        } else {
            // SAFETY: not NULL, hence an array of that length by the caller's promise, and nobody changes it now.
            unsafe { std::slice::from_raw_parts(mmap_areas, nr_mmap_areas as usize) }
        };
        let setup = RegionSetup {
            index: region_idx,
            size: size as u64,
            flags: flags.cast_unsigned(),
            callback: region_access.is_some(),
            // SAFETY: the caller's promise.
            fd: unsafe { borrowed_fd("fd", fd) }?,
            offset,
        };
        let areas = areas.iter().map(|area| MmapArea {
            base: area.iov_base.addr() as u64,
            len: area.iov_len as u64,
        });
        ctx.core()
            .setup_region(setup, areas)
            .map_err(Failure::logged)?;
        if let Some(slot) = usize::try_from(region_idx)
            .ok()
            .and_then(|index| ctx.callbacks().regions.get(index))
        {
            slot.set(region_access);
        }
        Ok(0)
    };
    // SAFETY: the caller's promise.
    unsafe { entry(ctx, "vfu_setup_region", body) }
}

/// The interrupt kind with this number.
fn irq_index(number: c_int) -> Result<IrqIndex, Failure> {
    u32::try_from(number)
        .ok()
        .and_then(IrqIndex::new)
        .ok_or(Failure::Argument {
            what: "type of interrupt",
            value: number.into(),
        })
}

/// Sets how many interrupts of a kind (`VFU_DEV_*_IRQ`) the device has. A new context has one ERR and one REQ.
///
/// Returns 0, or -1 and errno: EINVAL for an unknown kind, more than one ERR or REQ, or more than 65,536 of the others; ENOMEM.
///
/// # Safety
///
/// `ctx` is NULL or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_setup_device_nr_irqs(
    ctx: *mut VfuCtx,
    kind: c_int,
    count: u32,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        entry(ctx, "vfu_setup_device_nr_irqs", |ctx| {
            ctx.core()
                .set_irq_count(irq_index(kind)?, count)
                .map_err(Failure::logged)?;
            Ok(0)
        })
    }
}

/// Sets what is called when the client masks or unmasks interrupts of a kind; NULL for nothing.
///
/// Returns 0, or -1 and errno: EINVAL for an unknown kind.
///
/// # Safety
///
/// `ctx` is NULL or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_setup_irq_state_callback(
    ctx: *mut VfuCtx,
    kind: c_int,
    callback: Option<IrqStateFn>,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        entry(ctx, "vfu_setup_irq_state_callback", |ctx| {
            ctx.callbacks().irq_state[irq_index(kind)? as usize].set(callback);
            Ok(0)
        })
    }
}

/// Sets what is called to reset the device; NULL for nothing. Returns 0.
///
/// # Safety
///
/// `ctx` is NULL (EINVAL) or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_setup_device_reset_cb(
    ctx: *mut VfuCtx,
    reset: Option<ResetFn>,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        entry(ctx, "vfu_setup_device_reset_cb", |ctx| {
            ctx.callbacks().reset.set(reset);
            Ok(0)
        })
    }
}

/// Sets what is called before client memory, device state or migration state change; NULL for nothing.
///
/// # Safety
///
/// `ctx` is NULL (EINVAL) or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_setup_device_quiesce_cb(ctx: *mut VfuCtx, quiesce: Option<QuiesceFn>) {
    // SAFETY: the caller's promise.
    unsafe {
        entry(ctx, "vfu_setup_device_quiesce_cb", |ctx| {
            ctx.callbacks().quiesce.set(quiesce);
            Ok(())
        });
    }
}

/// Lets the device use client memory, in at most `max_regions` regions, and sets what is called when one comes and
/// before one goes; both may be NULL. Mappings are handed out only if there is a `dma_unregister`. Further calls change
/// the callbacks only.
///
/// Returns 0, or -1 and errno: ENOMEM.
///
/// # Safety
///
/// `ctx` is NULL (EINVAL) or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_setup_device_dma(
    ctx: *mut VfuCtx,
    max_regions: usize,
    dma_register: Option<DmaFn>,
    dma_unregister: Option<DmaFn>,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        entry(ctx, "vfu_setup_device_dma", |ctx| {
            ctx.setup_dma(max_regions, dma_register, dma_unregister)?;
            Ok(0)
        })
    }
}

/// Lets clients migrate the device, which is in state RUNNING then. The structure is copied.
///
/// Returns 0, or -1 and errno: EINVAL if it is NULL, has another version, or lacks one of its callbacks.
///
/// # Safety
///
/// `ctx` is NULL (EINVAL) or a live context, used by this thread only; `callbacks` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_setup_device_migration_callbacks(
    ctx: *mut VfuCtx,
    callbacks: *const MigrationCallbacks,
) -> c_int {
    let body = |ctx: &VfuCtx| {
        // SAFETY: NULL or valid, by the caller's promise.
        let Some(callbacks) = (unsafe { callbacks.as_ref() }) else {
            return Err(Failure::Argument {
                what: "callbacks (NULL)",
                value: 0,
            });
        };
        if callbacks.version != MIGR_CALLBACKS_VERS {
            return Err(Failure::Argument {
                what: "version of the callbacks",
                value: callbacks.version.into(),
            });
        }
        let (Some(_), Some(_), Some(_)) = (
            callbacks.transition,
            callbacks.read_data,
            callbacks.write_data,
        ) else {
            return Err(Failure::Argument {
                what: "transition, read_data or write_data (NULL)",
                value: 0,
            });
        };
        ctx.callbacks().migration.set(Some(*callbacks));
        ctx.core().setup_migration();
        Ok(0)
    };
    // SAFETY: the caller's promise.
    unsafe { entry(ctx, "vfu_setup_device_migration_callbacks", body) }
}

/// Lets clients turn writes of `size` bytes at `gpa_offset` of a region into an event on `fd`; -1 describes the place
/// without one. With a `shadow_fd` other than -1, the value written is left at `shadow_offset` of that memory. Both
/// descriptors stay the caller's, and open as long as the context.
///
/// Returns 0, or -1 and errno: EINVAL for a region that does not exist, a place outside it, or another negative
/// descriptor; ENOMEM.
///
/// # Safety
///
/// `ctx` is NULL (EINVAL) or a live context, used by this thread only; the descriptors are negative or open, as above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_create_ioeventfd(
    ctx: *mut VfuCtx,
    region_idx: u32,
    fd: c_int,
    gpa_offset: usize,
    size: u32,
    flags: u32,
    datamatch: u64,
    shadow_fd: c_int,
    shadow_offset: usize,
) -> c_int {
    let body = |ctx: &VfuCtx| {
        let event = IoEventFd {
            region: region_idx,
            // SAFETY: the caller's promise.
            fd: unsafe { borrowed_fd("fd", fd) }?,
            offset: gpa_offset as u64,
            size,
            flags,
            datamatch,
            // SAFETY: the caller's promise.
            shadow: unsafe { borrowed_fd("shadow_fd", shadow_fd) }?,
            shadow_offset: shadow_offset as u64,
        };
        ctx.core()
            .create_ioeventfd(event)
            .map_err(Failure::logged)?;
        Ok(0)
    };
    // SAFETY: the caller's promise.
    unsafe { entry(ctx, "vfu_create_ioeventfd", body) }
}
