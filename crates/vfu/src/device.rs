//! What a device author writes: the [`Device`] trait.
//!
//! 1. Every callback runs on the thread that called [`run`](crate::Context::run), [`device_quiesced`](crate::Context::device_quiesced)
//!    or [`shutdown`](crate::Context::shutdown), one at a time.
//! 2. A callback gets the context back and may call anything on it. Only `attach`, `run`, `device_quiesced` and `shutdown`
//!    are refused there (EBUSY; `device_quiesced` EINVAL).
//! 3. The library holds no lock and no borrow that a callback could need.

use crate::Context;
use crate::dma;
use crate::error::Errno;
use crate::irq::IrqIndex;
use crate::migration::MigrationState;

/// Why [`Device::reset`] is called. The numbers are those of `vfu_reset_type_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ResetKind {
    /// The client asked with `DEVICE_RESET`.
    Device = 0,
    /// The connection was lost, or the context is being shut down. All DMA regions are gone already.
    LostConnection = 1,
    /// Function level reset, by a write to the PCI Express capability.
    FunctionLevel = 2,
}

/// Answer of [`Device::quiesce`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quiesce {
    /// The device touches no client memory from now until the operation is over, except from callbacks.
    Done,
    /// Not yet. The request waits, and [`run`](crate::Context::run) fails with EBUSY until the device calls
    /// [`device_quiesced`](crate::Context::device_quiesced).
    Pending,
}

/// One access to a region.
#[derive(Debug)]
pub enum Access<'a> {
    /// The client reads: fill all of it. It arrives zeroed.
    Read(&'a mut [u8]),
    /// The client writes these bytes. They are the device's to change, nobody reads them afterwards.
    Write(&'a mut [u8]),
}

impl Access<'_> {
    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Read(data) | Self::Write(data) => data.len(),
        }
    }

    /// True for an access of no bytes (which never reaches a device).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if the client writes.
    #[must_use]
    pub const fn is_write(&self) -> bool {
        matches!(self, Self::Write(_))
    }
}

/// An emulated PCI device. All methods have defaults; a device without client memory, migration or state
/// implements [`region_read`](Self::region_read) and [`region_write`](Self::region_write).
///
/// Errors of callbacks become the error number of the client's reply, whatever the number.
#[expect(
    unused_variables,
    reason = "the defaults ignore their arguments, whose names are documentation"
)]
pub trait Device {
    /// The client accesses `region` (an index of [`region`](crate::region)) at byte `offset`; bounds are checked already.
    ///
    /// The default calls [`region_read`](Self::region_read) or [`region_write`](Self::region_write).
    ///
    /// # Errors
    /// The error number that the client gets.
    fn region_access(
        &mut self,
        ctx: &Context,
        region: u32,
        offset: u64,
        access: Access<'_>,
    ) -> Result<(), Errno> {
        match access {
            Access::Read(data) => self.region_read(ctx, region, offset, data),
            Access::Write(data) => self.region_write(ctx, region, offset, data),
        }
    }

    /// The client reads `data.len()` bytes at `offset` of `region`. `data` arrives zeroed; fill all of it.
    ///
    /// # Errors
    /// The error number that the client gets. The default is EINVAL.
    fn region_read(
        &mut self,
        ctx: &Context,
        region: u32,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// The client writes `data` at `offset` of `region`.
    ///
    /// # Errors
    /// The error number that the client gets. The default is EINVAL.
    fn region_write(
        &mut self,
        ctx: &Context,
        region: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// Go back to the state after power on. For [`ResetKind::LostConnection`] the result is logged and otherwise ignored.
    ///
    /// # Errors
    /// The error number that the client gets.
    fn reset(&mut self, ctx: &Context, kind: ResetKind) -> Result<(), Errno> {
        Ok(())
    }

    /// Stop touching client memory: a DMA region is about to come or go, the device to be reset, or its migration state
    /// to change.
    ///
    /// # Errors
    /// The request fails with this error number. EBUSY is no failure but the same as [`Quiesce::Pending`].
    fn quiesce(&mut self, ctx: &Context) -> Result<Quiesce, Errno> {
        Ok(Quiesce::Done)
    }

    /// A DMA region was added. It can be used from now until [`dma_unregister`](Self::dma_unregister) returns.
    ///
    /// # Errors
    /// The region is taken out again without `dma_unregister`, and the client gets the error number.
    fn dma_register(&mut self, ctx: &Context, region: &dma::RegionInfo) -> Result<(), Errno> {
        Ok(())
    }

    /// A DMA region is about to go. It can still be used inside this call.
    fn dma_unregister(&mut self, ctx: &Context, region: &dma::RegionInfo) {}

    /// The client masked or unmasked interrupts `start..start + count` of `irq`.
    fn irq_state(&mut self, ctx: &Context, irq: IrqIndex, start: u32, count: u32, masked: bool) {}

    /// Go to migration state `state`, one step away from the present one. Called only after
    /// [`setup_migration`](crate::Context::setup_migration).
    ///
    /// # Errors
    /// The device stays in its state, and the client gets the error number. The default is ENOTSUP.
    fn migration_transition(&mut self, ctx: &Context, state: MigrationState) -> Result<(), Errno> {
        Err(Errno::ENOTSUP)
    }

    /// Give the client up to `data.len()` bytes of migration data, and return how many; 0 means that there is no more.
    /// `data` arrives zeroed.
    ///
    /// # Errors
    /// The error number that the client gets. The default is ENOTSUP.
    fn migration_read(&mut self, ctx: &Context, data: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::ENOTSUP)
    }

    /// Take migration data. The bytes are the device's to change, nobody reads them afterwards.
    ///
    /// # Errors
    /// The error number that the client gets. The default is ENOTSUP.
    fn migration_write(&mut self, ctx: &Context, data: &mut [u8]) -> Result<(), Errno> {
        Err(Errno::ENOTSUP)
    }
}
