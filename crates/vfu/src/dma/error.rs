//! What can go wrong with the DMA table, with the values that made it so, and the errno that stands for it.

use core::fmt;

use super::types::Access;

/// Why an operation on the DMA table was refused or failed. Nothing was changed unless a variant says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// An allocation failed (ENOMEM).
    NoMemory,
    /// Another thread is changing the table; only one thread may (EBUSY).
    Busy,
    /// The region is larger than the limit (ENOSPC).
    TooLarge {
        /// Bytes asked for.
        size: u64,
    },
    /// The region has no bytes (EINVAL).
    Empty {
        /// First address asked for.
        iova: u64,
    },
    /// The region would pass the end of the address space, or of the file (EINVAL).
    Wraps {
        /// First address, or offset in the file.
        start: u64,
        /// Bytes asked for.
        size: u64,
    },
    /// Protection bits that do not exist (EINVAL).
    BadProt {
        /// As given.
        prot: u32,
    },
    /// A descriptor is missing, or present for a message region (EINVAL).
    BadFd {
        /// The access asked for.
        access: Access,
    },
    /// The range overlaps a region that is there (EINVAL).
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
    Differs {
        /// First address.
        iova: u64,
        /// Bytes.
        size: u64,
    },
    /// The table is full (EINVAL).
    TooMany {
        /// Regions it can hold.
        max: usize,
    },
    /// The file could not be examined (its errno).
    Stat {
        /// From `fstat`.
        errno: i32,
    },
    /// The file could not be mapped (its errno).
    Map {
        /// Bytes of the mapping.
        len: usize,
        /// From `mmap`.
        errno: i32,
    },
    /// No region has this base and size (ENOENT).
    NoRegion {
        /// First address.
        iova: u64,
        /// Bytes.
        size: u64,
    },
    /// A byte of the range lies in no region (ENOENT).
    NotCovered {
        /// The first such address.
        iova: u64,
    },
    /// The region's protection forbids the access (EACCES).
    Forbidden {
        /// First address of the region.
        region: u64,
        /// The region's protection.
        prot: u32,
    },
    /// The entry's or identifier's region is gone, or never was (EINVAL).
    Stale {
        /// As given.
        handle: u64,
    },
    /// The entry reaches past its region (EINVAL).
    OutOfBounds {
        /// Distance from the region's start.
        offset: u64,
        /// Bytes of the entry.
        length: u64,
        /// Bytes of the region.
        size: u64,
    },
    /// The region is not mapped, hence has no address (EFAULT).
    NotMapped {
        /// First address of the entry.
        iova: u64,
    },
    /// A write through an entry that was translated for reading (EPERM).
    ReadOnlySegment {
        /// First address of the entry.
        iova: u64,
    },
    /// The caller's buffer does not have the size of the segment (EINVAL).
    BufferSize {
        /// Bytes of the segment.
        expected: u64,
        /// Bytes of the buffer.
        found: u64,
    },
    /// Reading or writing the region's file failed or ended early; some bytes may have been transferred (EIO).
    Io {
        /// Where in the file.
        offset: u64,
        /// The system's errno, 0 at the end of the file.
        errno: i32,
    },
    /// Not a page size for logging: a power of two from 512 on (EINVAL).
    PageSize {
        /// As given.
        page_size: u64,
    },
    /// Logging runs with another page size (EINVAL).
    PageSizeDiffers {
        /// As given.
        page_size: u64,
        /// The one in use.
        current: u64,
    },
    /// A region is smaller than a page of the log (EINVAL).
    SmallerThanPage {
        /// First address of the region.
        iova: u64,
        /// Bytes of the region.
        size: u64,
        /// Bytes of a page.
        page_size: u64,
    },
    /// The bitmaps would take more memory than allowed (ENOMEM).
    BitmapLimit {
        /// Bytes that all bitmaps would have.
        bytes: u64,
    },
    /// A range to log is empty or passes the end of the address space (EINVAL).
    BadRange {
        /// First address.
        iova: u64,
        /// Bytes.
        length: u64,
    },
    /// Dirty pages are not being logged (EINVAL).
    NotLogging,
    /// No region of the range is logged: message regions, or outside the ranges asked for (EINVAL).
    NotLogged {
        /// First address of the range.
        iova: u64,
    },
    /// A report has to start at a region's base, or at a multiple of its page size (ENOTSUP).
    ReportStart {
        /// First address of the range.
        iova: u64,
        /// Bytes of a page, as asked for.
        page_size: u64,
    },
    /// A report shorter than a page of the log or of the report (EINVAL).
    ReportTooShort {
        /// Bytes of the range.
        length: u64,
        /// Bytes of the larger page.
        page_size: u64,
    },
    /// The bitmap would not fit into a reply: ask for less at a time (EINVAL).
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoMemory => f.write_str("out of memory"),
            Self::Busy => f.write_str("DMA table is being changed by another thread"),
            Self::TooLarge { size } => {
                write!(
                    f,
                    "DMA region of {size:#x} bytes exceeds the limit of {:#x} bytes",
                    super::MAX_REGION_SIZE
                )
            }
            Self::Empty { iova } => write!(f, "DMA region at {iova:#x} has size 0"),
            Self::Wraps { start, size } => {
                write!(
                    f,
                    "{start:#x} plus {size:#x} bytes passes the end of the address space or file"
                )
            }
            Self::BadProt { prot } => write!(
                f,
                "protection {prot:#x} has bits other than read (1) and write (2)"
            ),
            Self::BadFd {
                access: Access::Message,
            } => f.write_str("a DMA region that is accessed by message takes no file descriptor"),
            Self::BadFd { access } => write!(
                f,
                "DMA region with access {access:?} needs a file descriptor"
            ),
            Self::Overlap {
                iova,
                size,
                other_iova,
                other_size,
            } => write!(
                f,
                "DMA region {iova:#x} (size {size:#x}) overlaps region {other_iova:#x} (size {other_size:#x})"
            ),
            Self::Differs { iova, size } => write!(
                f,
                "DMA region {iova:#x} (size {size:#x}) is mapped already with another offset, file or protection"
            ),
            Self::TooMany { max } => write!(f, "all {max} DMA regions are in use"),
            Self::Stat { errno } => write!(f, "cannot examine the region's file: errno {errno}"),
            Self::Map { len, errno } => write!(
                f,
                "cannot map {len:#x} bytes of the region's file: errno {errno}"
            ),
            Self::NoRegion { iova, size } => {
                write!(f, "no DMA region at {iova:#x} with size {size:#x}")
            }
            Self::NotCovered { iova } => write!(f, "address {iova:#x} is in no DMA region"),
            Self::Forbidden { region, prot } => {
                write!(
                    f,
                    "DMA region {region:#x} has protection {prot:#x}, which forbids this access"
                )
            }
            Self::Stale { handle } => write!(
                f,
                "scatter entry {handle:#x} refers to no DMA region that is mapped now"
            ),
            Self::OutOfBounds {
                offset,
                length,
                size,
            } => {
                write!(
                    f,
                    "scatter entry at {offset:#x} of {length:#x} bytes passes the end of its region ({size:#x})"
                )
            }
            Self::NotMapped { iova } => {
                write!(f, "DMA address {iova:#x} is not mapped into this process")
            }
            Self::ReadOnlySegment { iova } => {
                write!(
                    f,
                    "write to {iova:#x} through a scatter entry that was translated for reading"
                )
            }
            Self::BufferSize { expected, found } => {
                write!(
                    f,
                    "buffer of {found:#x} bytes where {expected:#x} are needed"
                )
            }
            Self::Io { offset, errno: 0 } => write!(f, "the region's file ends before {offset:#x}"),
            Self::Io { offset, errno } => write!(
                f,
                "access to the region's file at {offset:#x} failed: errno {errno}"
            ),
            Self::PageSize { page_size } => write!(
                f,
                "page size {page_size:#x} for dirty logging is not a power of two from {:#x} on",
                super::MIN_LOG_PAGE_SIZE
            ),
            Self::PageSizeDiffers { page_size, current } => {
                write!(
                    f,
                    "dirty logging with page size {page_size:#x} asked for while it runs with {current:#x}"
                )
            }
            Self::SmallerThanPage {
                iova,
                size,
                page_size,
            } => {
                write!(
                    f,
                    "DMA region {iova:#x} (size {size:#x}) is smaller than the logging page size {page_size:#x}"
                )
            }
            Self::BitmapLimit { bytes } => {
                write!(
                    f,
                    "dirty bitmaps of {bytes:#x} bytes exceed the limit of {:#x}",
                    super::MAX_BITMAP_BYTES
                )
            }
            Self::BadRange { iova, length } => {
                write!(
                    f,
                    "range {iova:#x} (length {length:#x}) is empty or passes the end of the address space"
                )
            }
            Self::NotLogging => f.write_str("dirty pages are not being logged"),
            Self::NotLogged { iova } => {
                write!(f, "no DMA region in the range from {iova:#x} on is logged")
            }
            Self::ReportStart { iova, page_size } => write!(
                f,
                "dirty report from {iova:#x} on starts neither at a region nor at a multiple of {page_size:#x}"
            ),
            Self::ReportTooShort { length, page_size } => {
                write!(
                    f,
                    "dirty report of {length:#x} bytes is shorter than a page of {page_size:#x}"
                )
            }
            Self::ReportTooLong { length, page_size } => write!(
                f,
                "dirty report of {length:#x} bytes in pages of {page_size:#x} needs more than {:#x} bytes of bitmap",
                super::MAX_REPORT_BYTES
            ),
        }
    }
}

impl core::error::Error for Error {}
