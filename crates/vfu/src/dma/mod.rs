//! The client's memory: its DMA regions, translation of I/O virtual addresses, direct access, and the dirty page log.
//!
//! # Threads
//!
//! A [`Dma`] may be cloned and used from any thread. It has two kinds of functions:
//!
//! * *Changes* (`add`, `remove`, `start_logging`, `stop_logging`, `check_report`, `report`) belong to one thread, that of
//!   the context. A second thread that tries at the same time gets [`Error::Busy`]; nothing breaks.
//! * Everything else may run on any thread at any time, also while another changes the table. It takes no lock,
//!   and translation writes to no memory that another thread reads, so that it scales.
//!
//! No function calls back. Removal has two phases for that reason: find the region, run its unregister callback (the
//! region still translates), then [`remove`](Dma::remove) it by its [`RegionId`].
//!
//! # Design, and what keeps it sound
//!
//! Three parts, each with its own argument in its file:
//!
//! 1. `tree`: a B+ tree from addresses to region handles, read under a sequence lock. Nodes consist of atomics and are
//!    never given back while the table lives, so a reader that races with a change reads stale numbers, never freed
//!    memory; it follows a pointer only after it has validated that nothing changed since it began.
//! 2. `slots`: one slot per region, recycled but never given back. Its state word holds a generation, so that a stale
//!    handle is recognised, and a count of pins. Whoever touches the region's memory, file or bitmap on the table's behalf
//!    holds a pin; a removed region's resources are released by the last pin, so neither side waits for the other.
//! 3. `bitmap` and `logging`: words of dirty bits, set with an atomic OR and fetched with an atomic AND, or, while a
//!    region has no pins, with plain copies under a short freeze that keeps new pins away.
//!
//! # Memory of the client
//!
//! It can change at any time. It is only ever touched through raw pointers; no reference to it is made. A client that
//! truncates a mapped file makes the next access a SIGBUS: no library can prevent that, and the copy functions
//! here are the only place where this crate touches mapped memory.

mod access;
mod bitmap;
mod error;
mod logging;
mod slots;
mod sys;
mod table;
#[cfg(test)]
mod tests;
mod tree;
mod types;

use core::mem::MaybeUninit;
use core::ptr::NonNull;

use table::Table;

use crate::sys::shared::Shared;

pub use error::Error;
pub use types::{
    Access, Added, Direct, DmaInfo, Located, LogRange, NewRegion, PROT_READ, PROT_WRITE, RegionId,
    RegionInfo, Segment,
};

/// Largest region, in bytes: 8 TiB.
pub const MAX_REGION_SIZE: u64 = 8 << 40;
/// Smallest page size of the dirty log, in bytes.
pub const MIN_LOG_PAGE_SIZE: u64 = 512;
/// Most bytes that the dirty bitmaps of one table may take together: enough for 32 TiB in pages of 4 KiB.
pub const MAX_BITMAP_BYTES: u64 = 1 << 30;
/// Most bytes of bitmap in one report, so that the reply with its headers stays below 1 MiB.
pub const MAX_REPORT_BYTES: usize = (1 << 20) - 64;

/// The DMA regions of one context. A handle: clones share the table; the last one releases it.
#[derive(Clone)]
pub struct Dma {
    table: Shared<Table>,
}

impl core::fmt::Debug for Dma {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.table.fmt(f)
    }
}

impl Dma {
    /// An empty table for at most `max_regions` regions (0: no region can ever be added). Memory grows with use.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn new(max_regions: usize) -> Result<Self, Error> {
        let table = Shared::try_new(Table::new(max_regions)).map_err(|_| Error::NoMemory)?;
        Ok(Self { table })
    }

    /// Most regions that the table takes.
    #[must_use]
    pub fn max_regions(&self) -> usize {
        self.table.max_regions()
    }

    /// Regions in the table now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are no regions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    // ---- changes: the context's thread ----

    /// Adds a region and maps it if its access says so. The descriptor is consumed, also on errors.
    ///
    /// Blocks as long as `fstat` and `mmap` on the client's file do.
    ///
    /// # Errors
    /// In this order: [`Error::TooLarge`] (ENOSPC); [`Error::Empty`], [`Error::Wraps`], [`Error::BadProt`],
    /// [`Error::BadFd`] (EINVAL); [`Error::Differs`] or [`Error::Overlap`] (EINVAL); [`Error::TooMany`] (EINVAL);
    /// [`Error::Stat`]; [`Error::SmallerThanPage`] (EINVAL) and [`Error::BitmapLimit`] (ENOMEM) while logging;
    /// [`Error::Map`] with the errno of `mmap`; [`Error::NoMemory`]. [`Error::Busy`] first of all.
    pub fn add(&self, region: NewRegion) -> Result<Added, Error> {
        self.table.change()?.add(region)
    }

    /// Removes a region: it no longer translates, entries that refer to it are stale, and its mapping, descriptor
    /// and bitmap are released, now or by the last access that is under way on another thread.
    ///
    /// # Errors
    /// [`Error::Stale`] if it is gone already; [`Error::Busy`].
    pub fn remove(&self, id: RegionId) -> Result<(), Error> {
        self.table.change()?.remove(id)
    }

    // ---- look-up: any thread ----

    /// The region with exactly this base and size.
    ///
    /// # Errors
    /// [`Error::NoRegion`] (ENOENT).
    pub fn find_exact(&self, iova: u64, size: u64) -> Result<RegionId, Error> {
        self.table.find_exact(iova, size)
    }

    /// The region with the lowest address.
    #[must_use]
    pub fn first(&self) -> Option<RegionId> {
        self.table.first()
    }

    /// The region with the next higher address; also when `after` has just been removed by another thread: then `None`.
    #[must_use]
    pub fn next(&self, after: RegionId) -> Option<RegionId> {
        self.table.next(after)
    }

    /// What is known about a region.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn info(&self, id: RegionId) -> Result<RegionInfo, Error> {
        self.table.info(id)
    }

    /// The region's `vfu_dma_info_t`, at an address that is valid and unchanging until the region is removed. For C
    /// callbacks; the table does not read what a callback may scribble into it, except the mapping's address and length
    /// at removal.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn c_info(&self, id: RegionId) -> Result<NonNull<DmaInfo>, Error> {
        self.table.c_info(id)
    }

    // ---- scatter-gather: any thread ----

    /// Translates `[iova, iova + len)` into one entry per region touched, in ascending order.
    ///
    /// Returns how many entries the range needs. If that is more than `out` holds, the first `out.len()` are
    /// filled (C: `-(n) - 1`). `len == 0` needs none, wherever it is. With [`PROT_WRITE`] in `prot`, the regions
    /// that got an entry must allow writing; [`PROT_READ`] is not checked here.
    ///
    /// # Errors
    /// [`Error::NotCovered`] (ENOENT) or [`Error::Forbidden`] (EACCES), whichever comes at the lower address.
    pub fn translate(
        &self,
        iova: u64,
        len: u64,
        prot: u32,
        out: &mut [MaybeUninit<Segment>],
    ) -> Result<usize, Error> {
        // SAFETY: an exclusively borrowed slice of entries that may be uninitialised, of that length.
        unsafe {
            self.table
                .translate(iova, len, prot, out.as_mut_ptr().cast(), out.len())
        }
    }

    /// The entry for a range that lies in one region: what nearly every translation is about, without the rest. `None` says
    /// nothing: [`translate`](Self::translate) then tells whether there is such an entry, or why not. Does not panic.
    #[inline]
    #[must_use]
    pub fn translate_one(&self, iova: u64, len: u64, prot: u32) -> Option<Segment> {
        self.table.translate_one(iova, len, prot)
    }

    /// [`translate`](Self::translate) over entries that hold something already; those that are not needed keep it.
    ///
    /// # Errors
    /// As `translate`.
    pub fn translate_into(
        &self,
        iova: u64,
        len: u64,
        prot: u32,
        out: &mut [Segment],
    ) -> Result<usize, Error> {
        // SAFETY: an exclusively borrowed slice of entries, of that length.
        unsafe {
            self.table
                .translate(iova, len, prot, out.as_mut_ptr(), out.len())
        }
    }

    /// [`translate`](Self::translate) into memory of a C caller.
    ///
    /// # Errors
    /// As `translate`.
    ///
    /// # Safety
    /// `out` must be valid for writing `max` entries, aligned to 8, and used by nobody else during the call. It may be
    /// null or dangling if `max` is 0.
    pub unsafe fn translate_raw(
        &self,
        iova: u64,
        len: u64,
        prot: u32,
        out: *mut Segment,
        max: usize,
    ) -> Result<usize, Error> {
        // SAFETY: as promised by the caller.
        unsafe { self.table.translate(iova, len, prot, out, max) }
    }

    /// Address and length of an entry's memory in this process. Valid until the region is removed: the caller has
    /// to stop using it when its unregister callback returns.
    ///
    /// # Errors
    /// [`Error::Stale`], [`Error::OutOfBounds`] (EINVAL); [`Error::NotMapped`] (EFAULT).
    pub fn segment_to_iovec(&self, segment: &Segment) -> Result<(NonNull<u8>, usize), Error> {
        self.table.segment_to_iovec(segment)
    }

    /// Whether the entry's region is mapped. False for stale entries.
    #[must_use]
    pub fn is_mappable(&self, segment: &Segment) -> bool {
        self.table.is_mappable(segment)
    }

    /// Checks an entry and says where it lies, to ask the client for it by message.
    ///
    /// # Errors
    /// [`Error::Stale`], [`Error::OutOfBounds`] (EINVAL).
    pub fn locate(&self, segment: &Segment) -> Result<Located, Error> {
        self.table.locate(segment)
    }

    // ---- direct access: any thread ----

    /// Reads an entry's bytes into `to`, which has exactly the entry's length.
    ///
    /// A region that is removed meanwhile stays readable until the call is done. Blocks as long as the client's file
    /// does.
    ///
    /// # Errors
    /// [`Error::BufferSize`], [`Error::Stale`], [`Error::OutOfBounds`] (EINVAL); [`Error::Forbidden`] (EACCES) if a
    /// mapped region cannot be read; [`Error::Io`] (EIO).
    pub fn read(&self, segment: &Segment, to: &mut [u8]) -> Result<Direct, Error> {
        check_buffer(segment, to.len())?;
        // SAFETY: exclusively borrowed, and as long as the segment.
        unsafe { self.table.read(segment, to.as_mut_ptr()) }
    }

    /// [`read`](Self::read) into memory of a C caller, which may itself be shared with the client.
    ///
    /// # Errors
    /// As `read`.
    ///
    /// # Safety
    /// `to` must be valid for writing `segment.length` bytes.
    pub unsafe fn read_raw(&self, segment: &Segment, to: *mut u8) -> Result<Direct, Error> {
        // SAFETY: as promised by the caller.
        unsafe { self.table.read(segment, to) }
    }

    /// Writes `from`, which has exactly the entry's length, to the entry's memory, then marks it dirty if logging.
    ///
    /// # Errors
    /// As [`read`](Self::read), and first [`Error::ReadOnlySegment`] (EPERM) if the entry was translated without
    /// [`PROT_WRITE`].
    pub fn write(&self, segment: &Segment, from: &[u8]) -> Result<Direct, Error> {
        check_buffer(segment, from.len())?;
        // SAFETY: borrowed, and as long as the segment.
        unsafe { self.table.write(segment, from.as_ptr()) }
    }

    /// [`write`](Self::write) from memory of a C caller, which may itself be shared with the client.
    ///
    /// # Errors
    /// As `write`.
    ///
    /// # Safety
    /// `from` must be valid for reading `segment.length` bytes.
    pub unsafe fn write_raw(&self, segment: &Segment, from: *const u8) -> Result<Direct, Error> {
        // SAFETY: as promised by the caller.
        unsafe { self.table.write(segment, from) }
    }

    /// Marks an entry's pages dirty, after they were written through [`segment_to_iovec`](Self::segment_to_iovec).
    /// Nothing to do, hence success, if the entry is not writeable, its region not logged (message regions never
    /// are), or logging off.
    ///
    /// # Errors
    /// While logging: [`Error::Stale`], [`Error::OutOfBounds`] (EINVAL).
    pub fn mark_dirty(&self, segment: &Segment) -> Result<(), Error> {
        self.table.mark_dirty(segment)
    }

    // ---- dirty page log: the context's thread ----

    /// Starts to log pages of `page_size` bytes in `ranges` (none: everywhere), also for regions added later.
    ///
    /// Message regions are not logged: their writes pass through the client. While logging, the same page size
    /// adds its ranges to those logged.
    ///
    /// # Errors
    /// [`Error::PageSize`], [`Error::PageSizeDiffers`], [`Error::BadRange`], [`Error::SmallerThanPage`] (EINVAL);
    /// [`Error::BitmapLimit`], [`Error::NoMemory`] (ENOMEM); [`Error::Busy`].
    pub fn start_logging(&self, page_size: u64, ranges: &[LogRange]) -> Result<(), Error> {
        self.table.change()?.start_logging(page_size, ranges)
    }

    /// Stops logging and forgets all dirty pages. Succeeds also when logging is off.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub fn stop_logging(&self) -> Result<(), Error> {
        self.table.change()?.stop_logging();
        Ok(())
    }

    /// Bytes of a logged page; `None` when logging is off.
    #[must_use]
    pub fn logging_page_size(&self) -> Option<u64> {
        let shift = self.table.logging_shift();
        (shift != 0).then(|| 1 << shift)
    }

    /// Bytes of bitmap that a report of `length` bytes in pages of `page_size` has: a bit a page, in whole 64-bit words.
    /// Pure arithmetic, so that a request can be checked before anything else is known.
    ///
    /// # Errors
    /// [`Error::PageSize`] if it is 0; [`Error::ReportTooLong`] above [`MAX_REPORT_BYTES`].
    pub fn report_size(length: u64, page_size: u64) -> Result<usize, Error> {
        logging::report_size(length, page_size)
    }

    /// All checks of [`report`](Self::report) except that of the buffer; returns the bytes that its buffer needs.
    ///
    /// # Errors
    /// In this order: [`Error::NotCovered`] (ENOENT); [`Error::ReportStart`] (ENOTSUP); [`Error::NotLogging`],
    /// [`Error::PageSize`], [`Error::ReportTooShort`], [`Error::ReportTooLong`], [`Error::NotLogged`] (EINVAL).
    pub fn check_report(&self, iova: u64, length: u64, page_size: u64) -> Result<usize, Error> {
        Ok(self
            .table
            .change()?
            .check_report(iova, length, page_size, None)?
            .bytes)
    }

    /// Fetches and clears the dirty bits of `[iova, iova + length)`: bit k of `out` (little-endian words) stands for the
    /// `page_size` bytes from `iova + k * page_size` on. `out` is overwritten whole.
    ///
    /// The range may span regions, start in the middle of one (at a multiple of `page_size`), and `page_size` may be
    /// smaller or larger than the log's. Message and unlogged regions in it contribute zeros. A report from a region's
    /// base within that region also returns (and clears) the pages after the range that share its last 64-bit word.
    /// A logged page that is only partly in the range stays dirty.
    ///
    /// # Errors
    /// As [`check_report`](Self::check_report); [`Error::BufferSize`] (EINVAL) if `out` is not as long as it says,
    /// before `NotLogged`.
    pub fn report(
        &self,
        iova: u64,
        length: u64,
        page_size: u64,
        out: &mut [u8],
    ) -> Result<(), Error> {
        self.table.change()?.report(iova, length, page_size, out)
    }
}

fn check_buffer(segment: &Segment, found: usize) -> Result<(), Error> {
    let found = found as u64;
    if found != segment.length {
        return Err(Error::BufferSize {
            expected: segment.length,
            found,
        });
    }
    Ok(())
}
