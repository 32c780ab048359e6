//! The C callbacks, seen by the core as a [`Device`].
//!
//! A callback is copied out of its cell, called with nothing borrowed, and errno is read before anything else can
//! change it. errno is 0 when a callback starts, so that a failure without errno is seen as one.

use std::cell::Cell;
use std::ffi::c_int;
use std::fmt;

use libc::ssize_t;
use vfu::dma::RegionInfo;
use vfu::{Access, Context, Device, Errno, IrqIndex, MigrationState, Quiesce, ResetKind};

use crate::abi::{
    DmaFn, IrqStateFn, MigrationCallbacks, MigrationDataFn, QuiesceFn, RegionAccessFn, ResetFn,
};
use crate::context::VfuCtx;
use crate::edge::{errno, set_errno};

/// What the device wants to be told.
#[derive(Default)]
pub(crate) struct Callbacks {
    pub(crate) regions: [Cell<Option<RegionAccessFn>>; vfu::region::REGION_COUNT],
    pub(crate) reset: Cell<Option<ResetFn>>,
    pub(crate) quiesce: Cell<Option<QuiesceFn>>,
    pub(crate) dma_register: Cell<Option<DmaFn>>,
    pub(crate) dma_unregister: Cell<Option<DmaFn>>,
    pub(crate) irq_state: [Cell<Option<IrqStateFn>>; IrqIndex::COUNT as usize],
    pub(crate) migration: Cell<Option<MigrationCallbacks>>,
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").finish_non_exhaustive()
    }
}

/// Makes errno fit to be looked at after `callback`, see [`left`], and calls it.
#[inline(always)]
fn call<T>(callback: impl FnOnce() -> T) -> T {
    set_errno(0);
    callback()
}

/// What a callback that failed has left in errno. Call this before anything else.
#[cold]
fn left() -> Errno {
    Errno::new(errno())
}

/// For callbacks that return 0, or tell failure with -1 and errno. Positive values were never failures.
fn status(result: c_int) -> Result<(), Errno> {
    if result >= 0 { Ok(()) } else { Err(left()) }
}

/// For callbacks that return how many bytes they moved, or -1 and errno.
#[inline(always)]
fn moved(result: ssize_t) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| left())
}

/// The device behind a context, for the time of one call into the core.
pub(crate) struct CDevice<'a>(pub(crate) &'a VfuCtx);

impl CDevice<'_> {
    fn dma(&self, ctx: &Context, callback: Option<DmaFn>, region: &RegionInfo) {
        let Some(callback) = callback else { return };
        let Some(info) = ctx.dma().and_then(|dma| dma.c_info(region.id).ok()) else {
            return;
        };
        // SAFETY: the device gave this function for these arguments; `info` is valid until the region is removed,
        // which happens after its unregister callback.
        unsafe { callback(self.0.this(), info.as_ptr()) };
    }

    fn migration(&self) -> Result<MigrationCallbacks, Errno> {
        self.0.callbacks().migration.get().ok_or(Errno::ENOTSUP)
    }

    fn migration_data(
        &self,
        callback: Option<MigrationDataFn>,
        data: &mut [u8],
    ) -> Result<usize, Errno> {
        let callback = callback.ok_or(Errno::ENOTSUP)?;
        let (buf, len) = (data.as_mut_ptr(), data.len());
        // SAFETY: the device gave this function for these arguments; `buf` has `len` bytes.
        let result = call(|| unsafe { callback(self.0.this(), buf.cast(), len as u64) });
        moved(result)
    }
}

impl Device for CDevice<'_> {
    #[inline(always)]
    fn region_access(
        &mut self,
        _: &Context,
        region: u32,
        offset: u64,
        access: Access<'_>,
    ) -> Result<(), Errno> {
        let callback = usize::try_from(region)
            .ok()
            .and_then(|region| self.0.callbacks().regions.get(region)?.get());
        let callback = callback.ok_or(Errno::EINVAL)?;
        let is_write = access.is_write();
        let (Access::Read(data) | Access::Write(data)) = access;
        let (buf, count) = (data.as_mut_ptr(), data.len());
        // SAFETY: the device gave this function for these arguments; `buf` has `count` bytes.
        let result = call(|| unsafe {
            callback(
                self.0.this(),
                buf.cast(),
                count,
                offset.cast_signed(),
                is_write,
            )
        });
        if moved(result)? == count {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    fn reset(&mut self, _: &Context, kind: ResetKind) -> Result<(), Errno> {
        let Some(callback) = self.0.callbacks().reset.get() else {
            return Ok(());
        };
        let kind = kind as c_int;
        // SAFETY: the device gave this function for these arguments.
        let result = call(|| unsafe { callback(self.0.this(), kind) });
        status(result)
    }

    fn quiesce(&mut self, _: &Context) -> Result<Quiesce, Errno> {
        let Some(callback) = self.0.callbacks().quiesce.get() else {
            return Ok(Quiesce::Done);
        };
        // SAFETY: the device gave this function for this argument.
        let result = call(|| unsafe { callback(self.0.this()) });
        match status(result) {
            Ok(()) => Ok(Quiesce::Done),
            Err(Errno::EBUSY) => Ok(Quiesce::Pending),
            Err(errno) => Err(errno),
        }
    }

    fn dma_register(&mut self, ctx: &Context, region: &RegionInfo) -> Result<(), Errno> {
        self.dma(ctx, self.0.callbacks().dma_register.get(), region);
        Ok(())
    }

    fn dma_unregister(&mut self, ctx: &Context, region: &RegionInfo) {
        self.dma(ctx, self.0.callbacks().dma_unregister.get(), region);
    }

    fn irq_state(&mut self, _: &Context, irq: IrqIndex, start: u32, count: u32, masked: bool) {
        if let Some(callback) = self.0.callbacks().irq_state[irq as usize].get() {
            // SAFETY: the device gave this function for these arguments.
            unsafe { callback(self.0.this(), start, count, masked) };
        }
    }

    fn migration_transition(&mut self, _: &Context, state: MigrationState) -> Result<(), Errno> {
        let callback = self.migration()?.transition.ok_or(Errno::ENOTSUP)?;
        let state = state as c_int;
        // SAFETY: the device gave this function for these arguments.
        let result = call(|| unsafe { callback(self.0.this(), state) });
        if result == 0 { Ok(()) } else { Err(left()) }
    }

    fn migration_read(&mut self, _: &Context, data: &mut [u8]) -> Result<usize, Errno> {
        self.migration_data(self.migration()?.read_data, data)
    }

    fn migration_write(&mut self, _: &Context, data: &mut [u8]) -> Result<(), Errno> {
        let count = data.len();
        let taken = self.migration_data(self.migration()?.write_data, data)?;
        if taken == count {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }
}
