//! The types of `libvfio-user.h`, as C lays them out.
//!
//! Enums arrive as plain integers, since C callers may pass any value; they are checked where they are
//! used. Function pointers are nullable. A pointer here says nothing about ownership: that stands with
//! each entry point.

use std::ffi::{c_char, c_int, c_void};

use libc::{loff_t, ssize_t};
use vfu::dma::DmaInfo;

use crate::context::VfuCtx;

/// `vfu_log_fn_t`: receives each message, without a newline at its end.
pub type LogFn = unsafe extern "C" fn(ctx: *mut VfuCtx, level: c_int, text: *const c_char);

/// `vfu_region_access_cb_t`: an access to a region. Returns the bytes moved, or -1 and errno.
pub type RegionAccessFn = unsafe extern "C" fn(
    ctx: *mut VfuCtx,
    buf: *mut c_char,
    count: usize,
    offset: loff_t,
    is_write: bool,
) -> ssize_t;

/// `vfu_reset_cb_t`: the device is to be reset. Returns 0, or -1 and errno.
pub type ResetFn = unsafe extern "C" fn(ctx: *mut VfuCtx, kind: c_int) -> c_int;

/// `vfu_device_quiesce_cb_t`: stop using client memory. Returns 0, or -1 and errno; EBUSY means later.
pub type QuiesceFn = unsafe extern "C" fn(ctx: *mut VfuCtx) -> c_int;

/// `vfu_dma_register_cb_t` and `vfu_dma_unregister_cb_t`: client memory came or goes.
pub type DmaFn = unsafe extern "C" fn(ctx: *mut VfuCtx, info: *mut DmaInfo);

/// `vfu_dev_irq_state_cb_t`: the client masked or unmasked interrupts.
pub type IrqStateFn = unsafe extern "C" fn(ctx: *mut VfuCtx, start: u32, count: u32, mask: bool);

/// The `transition` member of `vfu_migration_callbacks_t`. Returns 0, or -1 and errno.
pub type TransitionFn = unsafe extern "C" fn(ctx: *mut VfuCtx, state: c_int) -> c_int;

/// The `read_data` and `write_data` members of `vfu_migration_callbacks_t`. They return the bytes moved,
/// or -1 and errno.
pub type MigrationDataFn =
    unsafe extern "C" fn(ctx: *mut VfuCtx, buf: *mut c_void, count: u64) -> ssize_t;

/// `vfu_migration_callbacks_t`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct MigrationCallbacks {
    /// Must be [`MIGR_CALLBACKS_VERS`].
    pub version: c_int,
    /// One step of the migration state machine.
    pub transition: Option<TransitionFn>,
    /// Device state, to the client.
    pub read_data: Option<MigrationDataFn>,
    /// Device state, from the client.
    pub write_data: Option<MigrationDataFn>,
}

/// `VFU_MIGR_CALLBACKS_VERS`.
pub const MIGR_CALLBACKS_VERS: c_int = 2;

const _: () =
    assert!(size_of::<MigrationCallbacks>() == 32 && align_of::<MigrationCallbacks>() == 8);
