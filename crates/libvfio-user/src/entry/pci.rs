//! PCI configuration space and capabilities.

use std::ffi::{c_int, c_void};

use libc::ssize_t;
use vfu::pci::RawData;
use vfu::{Context, Errno};

use crate::context::VfuCtx;
use crate::edge::{Failure, entry};

/// Makes configuration space for a `VFU_PCI_TYPE_*`: 256 bytes, or 4096 for PCI-X 2 and PCI Express. `hdr_type` must be
/// 0; `revision` goes to the revision id register.
///
/// Returns 0, or -1 and errno: EINVAL for wrong arguments, EEXIST if it exists already, ENOMEM.
///
/// # Safety
///
/// `ctx` is NULL (EINVAL) or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_pci_init(
    ctx: *mut VfuCtx,
    pci_type: c_int,
    hdr_type: c_int,
    revision: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        entry(ctx, "vfu_pci_init", |ctx| {
            ctx.core()
                .pci_init(pci_type, hdr_type, revision)
                .map_err(Failure::logged)?;
            Ok(0)
        })
    }
}

/// Stores vendor, device, subsystem vendor and subsystem id. Before configuration space exists, it only logs so.
///
/// # Safety
///
/// `ctx` is NULL or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_pci_set_id(
    ctx: *mut VfuCtx,
    vid: u16,
    did: u16,
    ssvid: u16,
    ssid: u16,
) {
    // SAFETY: the caller's promise.
    unsafe {
        entry(ctx, "vfu_pci_set_id", |ctx| {
            initialised(ctx.core())?.pci_set_id(vid, did, ssvid, ssid);
            Ok(())
        });
    }
}

/// Stores base class, sub-class and programming interface. Before configuration space exists, it only logs so.
///
/// # Safety
///
/// `ctx` is NULL or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_pci_set_class(ctx: *mut VfuCtx, base: u8, sub: u8, pi: u8) {
    // SAFETY: the caller's promise.
    unsafe {
        entry(ctx, "vfu_pci_set_class", |ctx| {
            initialised(ctx.core())?.pci_set_class(base, sub, pi);
            Ok(())
        });
    }
}

fn initialised(core: &Context) -> Result<&Context, Failure> {
    if core.config_space().0.is_null() {
        return Err(Failure::Use(
            "there is no configuration space: call vfu_pci_init first",
            Errno::EINVAL,
        ));
    }
    Ok(core)
}

/// Returns the address of configuration space, NULL before it exists (and EINVAL for a NULL context). It is valid and
/// the same until the context is destroyed; anyone may read and write there at any time.
///
/// # Safety
///
/// `ctx` is NULL or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_pci_get_config_space(ctx: *mut VfuCtx) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe {
        entry(ctx, "vfu_pci_get_config_space", |ctx| {
            Ok(ctx.core().config_space().0.cast::<c_void>())
        })
    }
}

/// Adds a capability, at `pos` or, if that is 0, behind those that are there, and returns its offset. `flags` are
/// `VFU_CAP_FLAG_*`; `data` begins with the capability's header and is copied.
///
/// Returns -1 and sets errno: EINVAL for wrong arguments, ENOTSUP for a capability that the library does not know, ENOSPC
/// when there is no place left, ENOMEM.
///
/// # Safety
///
/// `ctx` is NULL (EINVAL) or a live context, used by this thread only; `data` is NULL or has as many bytes as the
/// capability that it begins with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_pci_add_capability(
    ctx: *mut VfuCtx,
    pos: usize,
    flags: c_int,
    data: *mut c_void,
) -> ssize_t {
    let body = |ctx: &VfuCtx| {
        // SAFETY: the caller's promise; the data is read before this returns.
        let data = unsafe { RawData::new(data.cast_const().cast()) };
        let offset = ctx
            .core()
            .pci_add_capability(pos, flags.cast_unsigned(), &data)
            .map_err(Failure::logged)?;
        Ok(offset.cast_signed())
    };
    // SAFETY: the caller's promise.
    unsafe { entry(ctx, "vfu_pci_add_capability", body) }
}

/// Returns the offset of the first capability with this id, or 0 and errno: ENOENT if there is none, EINVAL without
/// (extended) configuration space.
///
/// # Safety
///
/// `ctx` is NULL (EINVAL) or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_pci_find_capability(
    ctx: *mut VfuCtx,
    extended: bool,
    cap_id: c_int,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        entry(ctx, "vfu_pci_find_capability", |ctx| {
            Ok(ctx.core().pci_find_capability(extended, 0, cap_id)?)
        })
    }
}

/// Returns the offset of the next capability with this id behind the one at `pos`, or of the first if `pos` is 0.
/// Otherwise as [`vfu_pci_find_capability`]; EINVAL also if `pos` is outside configuration space.
///
/// # Safety
///
/// `ctx` is NULL (EINVAL) or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_pci_find_next_capability(
    ctx: *mut VfuCtx,
    extended: bool,
    pos: usize,
    cap_id: c_int,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        entry(ctx, "vfu_pci_find_next_capability", |ctx| {
            Ok(ctx.core().pci_find_capability(extended, pos, cap_id)?)
        })
    }
}
