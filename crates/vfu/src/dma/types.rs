//! Plain values of the DMA table: what goes in, what comes out.
//!
//! Everything here is `Copy` data or owns at most one descriptor; nothing here knows the table. [`Segment`] and
//! [`DmaInfo`] have C layouts (`dma_sg_t`, `vfu_dma_info_t`), because the C face hands them to its callers unchanged.

use core::ffi::c_void;
use core::mem::{offset_of, size_of};
use core::num::NonZeroU64;
use core::ptr::NonNull;
use std::os::fd::OwnedFd;

/// The device may read this memory (`PROT_READ`).
pub const PROT_READ: u32 = 1;
/// The device may write this memory (`PROT_WRITE`).
pub const PROT_WRITE: u32 = 2;

/// How the server reaches the memory of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Mapped into this process: loads and stores.
    Mapped,
    /// A file that is read and written with `pread` and `pwrite`.
    File,
    /// No descriptor: only the client can read and write it, when asked by message.
    Message,
}

/// A region as `DMA_MAP` announces it.
#[derive(Debug)]
pub struct NewRegion {
    /// First I/O virtual address.
    pub iova: u64,
    /// Bytes; 1 up to [`MAX_REGION_SIZE`](super::MAX_REGION_SIZE).
    pub size: u64,
    /// [`PROT_READ`] and [`PROT_WRITE`], in any combination.
    pub prot: u32,
    /// Where the region begins in the file.
    pub offset: u64,
    /// How to reach it. `Mapped` and `File` need `fd`; `Message` must not have one.
    pub access: Access,
    /// The file. The table closes it at once after mapping it, or with the region, and on every error.
    pub fd: Option<OwnedFd>,
}

/// Names one region from its addition to its removal, and never another one (a generation is part of it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegionId(pub(super) NonZeroU64);

/// A copy of what the table knows about a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// The name to use in other calls.
    pub id: RegionId,
    /// First I/O virtual address.
    pub iova: u64,
    /// Bytes.
    pub size: u64,
    /// [`PROT_READ`] and [`PROT_WRITE`].
    pub prot: u32,
    /// How the memory is reached.
    pub access: Access,
    /// Where the region begins in the file; 0 for message regions unless the client said otherwise.
    pub offset: u64,
    /// Address of the first byte in this process, if mapped; valid until the region is removed.
    pub vaddr: Option<NonNull<u8>>,
    /// Start of the whole mapping, if mapped; at or below `vaddr`.
    pub mapping: Option<NonNull<u8>>,
    /// Bytes of the whole mapping, a multiple of `page_size`; 0 unless mapped.
    pub mapping_len: usize,
    /// Bytes: the system's page size, or the file's preferred block size if that is a larger power of two.
    pub page_size: usize,
}

/// What became of an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The region is in the table from now on: call the register callback.
    New(RegionInfo),
    /// The same region (base, size, offset, protection, file) was there already. Nothing changed; its register
    /// callback has run before and must not be called again.
    Same(RegionInfo),
}

/// `vfu_dma_info_t`: a region as C callbacks see it. 56 bytes at an address that is stable until the removal.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DmaInfo {
    /// `iova.iov_base`: the I/O virtual address, not a pointer into this process.
    pub iova_base: *mut c_void,
    /// `iova.iov_len`: bytes of the region.
    pub iova_len: usize,
    /// Address of the first byte; NULL unless mapped.
    pub vaddr: *mut c_void,
    /// `mapping.iov_base`: start of the mapping; NULL unless mapped.
    pub mapping_base: *mut c_void,
    /// `mapping.iov_len`: bytes of the mapping; 0 unless mapped.
    pub mapping_len: usize,
    /// Bytes; see [`RegionInfo::page_size`].
    pub page_size: usize,
    /// `PROT_READ`, `PROT_WRITE`.
    pub prot: u32,
}

/// `dma_sg_t`: one entry of a scatter-gather list, made by [`translate`](super::Dma::translate).
///
/// It lives in the caller's memory and is not trusted when it comes back: a stale, forged or scribbled entry is
/// refused by whatever takes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// First I/O virtual address *of the region*.
    pub dma_addr: u64,
    /// The region and its generation; never 0 in the low 32 bits. An all-zero entry is invalid.
    pub handle: u64,
    /// Bytes of this entry.
    pub length: u64,
    /// Distance of the first byte from the region's start.
    pub offset: u64,
    /// Not 0: the translation asked for [`PROT_WRITE`]. A C `bool` that is read as a number, since its owner may scribble.
    pub writeable: u8,
    /// Padding, written as zero.
    pub reserved: [u8; 7],
}

/// One range of addresses to log, of feature `DMA_LOGGING_START`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRange {
    /// First I/O virtual address.
    pub iova: u64,
    /// Bytes, not 0.
    pub length: u64,
}

/// A segment that was checked against the table: where it lies and how to reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// I/O virtual address of the segment's first byte.
    pub iova: u64,
    /// Bytes.
    pub length: u64,
    /// How the region's memory is reached.
    pub access: Access,
    /// The region's protection.
    pub prot: u32,
}

/// How a direct access ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direct {
    /// All bytes were copied (and marked dirty, if written while logging).
    Done,
    /// A message region: nothing was done; ask the client for this range by message.
    ByMessage(Located),
}

const _: () = {
    assert!(size_of::<Segment>() == 40);
    assert!(offset_of!(Segment, handle) == 8);
    assert!(offset_of!(Segment, length) == 16);
    assert!(offset_of!(Segment, offset) == 24);
    assert!(offset_of!(Segment, writeable) == 32);
    assert!(size_of::<DmaInfo>() == 56);
    assert!(offset_of!(DmaInfo, vaddr) == 16);
    assert!(offset_of!(DmaInfo, mapping_base) == 24);
    assert!(offset_of!(DmaInfo, page_size) == 40);
    assert!(offset_of!(DmaInfo, prot) == 48);
};
