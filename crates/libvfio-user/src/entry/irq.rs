//! Interrupts.

use std::ffi::c_int;

use crate::context::VfuCtx;
use crate::edge::entry_any_thread_io;

/// Triggers interrupt `subindex`: of INTX, MSI or MSI-X, whichever the client has set up. Any thread may call this.
///
/// Returns 0, or -1 and errno: EINVAL if there is no such interrupt, also before [`vfu_realize_ctx`](super::life::vfu_realize_ctx);
/// ENOENT if the client gave no eventfd for it; EAGAIN if the eventfd's counter is full.
///
/// # Safety
///
/// `ctx` is NULL (EINVAL) or a live context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_irq_trigger(ctx: *mut VfuCtx, subindex: u32) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        entry_any_thread_io(ctx, "vfu_irq_trigger", |shared| {
            shared.irqs().trigger(subindex)?;
            Ok(0)
        })
    }
}
