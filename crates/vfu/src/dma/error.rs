//! What can go wrong with the DMA table, with the values that made it so, and the errno that stands for it.

use thiserror::Error as Describe;

use super::types::Access;
use super::{MAX_BITMAP_BYTES, MAX_REGION_SIZE, MAX_REPORT_BYTES, MIN_LOG_PAGE_SIZE};

/// Why an operation on the DMA table was refused or failed. Nothing was changed unless a variant says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Describe)]
#[non_exhaustive]
pub enum Error {
    /// An allocation failed (ENOMEM).
    #[error("out of memory")]
    NoMemory,
    /// Another thread is changing the table; only one thread may (EBUSY).
    #[error("the DMA table is being changed by another thread")]
    Busy,
    /// The region is larger than the limit (ENOSPC).
    #[error("DMA region of {size:#x} bytes exceeds the limit of {MAX_REGION_SIZE:#x} bytes")]
    TooLarge {
        /// Bytes asked for.
        size: u64,
    },
    /// The region has no bytes (EINVAL).
    #[error("DMA region at {iova:#x} has size 0")]
    Empty {
        /// First address asked for.
        iova: u64,
    },
    /// The region would pass the end of the address space, or of the file (EINVAL).
    #[error("{start:#x} plus {size:#x} bytes passes the end of the address space or file")]
    Wraps {
        /// First address, or offset in the file.
        start: u64,
        /// Bytes asked for.
        size: u64,
    },
    /// Protection bits that do not exist (EINVAL).
    #[error("protection {prot:#x} has bits other than read (1) and write (2)")]
    BadProt {
        /// As given.
        prot: u32,
    },
    /// A descriptor is missing, or present for a message region (EINVAL).
    #[error(
        "a DMA region needs a file descriptor unless it is accessed by message; this one is {access:?}"
    )]
    BadFd {
        /// The access asked for.
        access: Access,
    },
    /// The range overlaps a region that is there (EINVAL).
    #[error(
        "DMA region {iova:#x} (size {size:#x}) overlaps region {other_iova:#x} (size {other_size:#x})"
    )]
    Overlap {
        /// First address asked for.
        iova: u64,
        /// Bytes asked for.
        size: u64,
        /// First address of the region that is there.
        other_iova: u64,
        /// Bytes of the region that is there.
        other_size: u64,
    },
    /// The same range is there with another offset, file or protection (EINVAL).
    #[error(
        "DMA region {iova:#x} (size {size:#x}) is there with another offset, file or protection"
    )]
    Differs {
        /// First address.
        iova: u64,
        /// Bytes.
        size: u64,
    },
    /// The table is full (EINVAL).
    #[error("all {max} DMA regions are in use")]
    TooMany {
        /// Regions it can hold.
        max: usize,
    },
    /// The file could not be examined (its errno).
    #[error("cannot examine the region's file: errno {errno}")]
    Stat {
        /// From `fstat`.
        errno: i32,
    },
    /// The file could not be mapped (its errno).
    #[error("cannot map {len:#x} bytes of the region's file: errno {errno}")]
    Map {
        /// Bytes of the mapping.
        len: usize,
        /// From `mmap`.
        errno: i32,
    },
    /// No region has this base and size (ENOENT).
    #[error("no DMA region at {iova:#x} with size {size:#x}")]
    NoRegion {
        /// First address.
        iova: u64,
        /// Bytes.
        size: u64,
    },
    /// A byte of the range lies in no region (ENOENT).
    #[error("address {iova:#x} is in no DMA region")]
    NotCovered {
        /// The first such address.
        iova: u64,
    },
    /// The region's protection forbids the access (EACCES).
    #[error("DMA region {region:#x} has protection {prot:#x}, which forbids this access")]
    Forbidden {
        /// First address of the region.
        region: u64,
        /// The region's protection.
        prot: u32,
    },
    /// The entry's or identifier's region is gone, or never was (EINVAL).
    #[error("scatter entry {handle:#x} refers to no DMA region that is there now")]
    Stale {
        /// As given.
        handle: u64,
    },
    /// The entry reaches past its region (EINVAL).
    #[error(
        "scatter entry at {offset:#x} of {length:#x} bytes passes the end of its region ({size:#x})"
    )]
    OutOfBounds {
        /// Distance from the region's start.
        offset: u64,
        /// Bytes of the entry.
        length: u64,
        /// Bytes of the region.
        size: u64,
    },
    /// The region is not mapped, hence has no address (EFAULT).
    #[error("DMA address {iova:#x} is not mapped into this process")]
    NotMapped {
        /// First address of the entry.
        iova: u64,
    },
    /// A write through an entry that was translated for reading (EPERM).
    #[error("write to {iova:#x} through a scatter entry that was translated for reading")]
    ReadOnlySegment {
        /// First address of the entry.
        iova: u64,
    },
    /// The caller's buffer does not have the size of the segment (EINVAL).
    #[error("buffer of {found:#x} bytes where {expected:#x} are needed")]
    BufferSize {
        /// Bytes of the segment.
        expected: u64,
        /// Bytes of the buffer.
        found: u64,
    },
    /// Reading or writing the region's file failed or ended early; some bytes may have been transferred (EIO).
    #[error("access to the region's file at {offset:#x} failed: errno {errno} (0: end of file)")]
    Io {
        /// Where in the file.
        offset: u64,
        /// The system's errno, 0 at the end of the file.
        errno: i32,
    },
    /// Not a page size for logging: a power of two from 512 on (EINVAL).
    #[error(
        "page size {page_size:#x} for dirty pages is not a power of two from {MIN_LOG_PAGE_SIZE:#x} on"
    )]
    PageSize {
        /// As given.
        page_size: u64,
    },
    /// Logging runs with another page size (EINVAL).
    #[error("dirty logging with pages of {page_size:#x} asked for while it runs with {current:#x}")]
    PageSizeDiffers {
        /// As given.
        page_size: u64,
        /// The one in use.
        current: u64,
    },
    /// A region is smaller than a page of the log (EINVAL).
    #[error(
        "DMA region {iova:#x} (size {size:#x}) is smaller than a logged page of {page_size:#x}"
    )]
    SmallerThanPage {
        /// First address of the region.
        iova: u64,
        /// Bytes of the region.
        size: u64,
        /// Bytes of a page.
        page_size: u64,
    },
    /// The bitmaps would take more memory than allowed (ENOMEM).
    #[error("dirty bitmaps of {bytes:#x} bytes exceed the limit of {MAX_BITMAP_BYTES:#x}")]
    BitmapLimit {
        /// Bytes that all bitmaps would have.
        bytes: u64,
    },
    /// A range to log is empty or passes the end of the address space (EINVAL).
    #[error("range {iova:#x} (length {length:#x}) is empty or passes the end of the address space")]
    BadRange {
        /// First address.
        iova: u64,
        /// Bytes.
        length: u64,
    },
    /// Dirty pages are not being logged (EINVAL).
    #[error("dirty pages are not being logged")]
    NotLogging,
    /// No region of the range is logged: message regions, or outside the ranges asked for (EINVAL).
    #[error("no DMA region in the range from {iova:#x} on is logged")]
    NotLogged {
        /// First address of the range.
        iova: u64,
    },
    /// A report has to start at a region's base, or at a multiple of its page size (ENOTSUP).
    #[error(
        "dirty report from {iova:#x} on starts neither at a region nor at a multiple of {page_size:#x}"
    )]
    ReportStart {
        /// First address of the range.
        iova: u64,
        /// Bytes of a page, as asked for.
        page_size: u64,
    },
    /// A report shorter than a page of the log or of the report (EINVAL).
    #[error("dirty report of {length:#x} bytes is shorter than a page of {page_size:#x}")]
    ReportTooShort {
        /// Bytes of the range.
        length: u64,
        /// Bytes of the larger page.
        page_size: u64,
    },
    /// The bitmap would not fit into a reply: ask for less at a time (EINVAL).
    #[error(
        "dirty report of {length:#x} bytes in pages of {page_size:#x} needs over {MAX_REPORT_BYTES:#x} bytes"
    )]
    ReportTooLong {
        /// Bytes of the range.
        length: u64,
        /// Bytes of a page, as asked for.
        page_size: u64,
    },
}

impl Error {
    /// The errno that the C interface and the wire have for this error.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match *self {
            Self::NoMemory | Self::BitmapLimit { .. } => libc::ENOMEM,
            Self::Busy => libc::EBUSY,
            Self::TooLarge { .. } => libc::ENOSPC,
            Self::NoRegion { .. } | Self::NotCovered { .. } => libc::ENOENT,
            Self::Forbidden { .. } => libc::EACCES,
            Self::NotMapped { .. } => libc::EFAULT,
            Self::ReadOnlySegment { .. } => libc::EPERM,
            Self::Io { .. } => libc::EIO,
            Self::ReportStart { .. } => libc::ENOTSUP,
            Self::Stat { errno } | Self::Map { errno, .. } => errno,
            Self::Empty { .. }
            | Self::Wraps { .. }
            | Self::BadProt { .. }
            | Self::BadFd { .. }
            | Self::Overlap { .. }
            | Self::Differs { .. }
            | Self::TooMany { .. }
            | Self::Stale { .. }
            | Self::OutOfBounds { .. }
            | Self::BufferSize { .. }
            | Self::PageSize { .. }
            | Self::PageSizeDiffers { .. }
            | Self::SmallerThanPage { .. }
            | Self::BadRange { .. }
            | Self::NotLogging
            | Self::NotLogged { .. }
            | Self::ReportTooShort { .. }
            | Self::ReportTooLong { .. } => libc::EINVAL,
        }
    }
}
