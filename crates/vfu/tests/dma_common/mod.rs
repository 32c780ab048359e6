//! What the tests of the DMA table share: files as a client would send them, and short forms of calls.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use vfu::dma::{
    Access, Added, Dma, Error, NewRegion, PROT_READ, PROT_WRITE, RegionId, RegionInfo, Segment,
};

pub const PAGE: u64 = 4096;
pub const RW: u32 = PROT_READ | PROT_WRITE;

/// A new anonymous file of `len` bytes.
pub fn memfd(len: u64) -> OwnedFd {
    let name = CString::new(file_name()).unwrap();
    // SAFETY: the name is a NUL-terminated string.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: a descriptor that was just opened, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let len = i64::try_from(len).unwrap();
    // SAFETY: the descriptor is open.
    let result = unsafe { libc::ftruncate(fd.as_raw_fd(), len) };
    assert_eq!(result, 0);
    fd
}

/// The bytes of a file, read behind the table's back.
pub fn file_bytes(fd: &OwnedFd, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let offset = i64::try_from(offset).unwrap();
    // SAFETY: the buffer has `len` bytes.
    let n = unsafe { libc::pread(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), len, offset) };
    bytes.truncate(usize::try_from(n).unwrap());
    bytes
}

/// The name of this thread's files, so that tests that run side by side count their own.
fn file_name() -> String {
    format!("dma-{:?}.", std::thread::current().id())
}

/// Descriptors of this thread's files that are open.
pub fn open_fds() -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().contains(&file_name()))
        .count()
}

/// Mappings of this thread's files.
pub fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter(|line| line.contains(&file_name()))
        .count()
}

/// Another description of the same file, for reading only.
pub fn reopen_read_only(fd: &OwnedFd) -> OwnedFd {
    std::fs::File::open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .unwrap()
        .into()
}

pub fn mapped(iova: u64, size: u64) -> NewRegion {
    with_file(iova, size, 0, Access::Mapped, memfd(size))
}

pub fn with_file(iova: u64, size: u64, offset: u64, access: Access, fd: OwnedFd) -> NewRegion {
    NewRegion {
        iova,
        size,
        prot: RW,
        offset,
        access,
        fd: Some(fd),
    }
}

pub fn message(iova: u64, size: u64) -> NewRegion {
    NewRegion {
        iova,
        size,
        prot: RW,
        offset: 0,
        access: Access::Message,
        fd: None,
    }
}

/// Adds a region that is new.
#[track_caller]
pub fn add(dma: &Dma, region: NewRegion) -> RegionInfo {
    match dma.add(region) {
        Ok(Added::New(info)) => info,
        other => panic!("not new: {other:?}"),
    }
}

#[track_caller]
pub fn remove(dma: &Dma, iova: u64, size: u64) {
    dma.remove(dma.find_exact(iova, size).unwrap()).unwrap();
}

/// Translates into at most 64 entries; all of them have to fit.
pub fn translate(dma: &Dma, iova: u64, len: u64, prot: u32) -> Result<Vec<Segment>, Error> {
    let mut out = [MaybeUninit::uninit(); 64];
    let n = dma.translate(iova, len, prot, &mut out)?;
    assert!(n <= out.len());
    // SAFETY: the first `n` entries were filled.
    Ok(out[..n]
        .iter()
        .map(|entry| unsafe { entry.assume_init() })
        .collect())
}

/// The one entry of a range within a region, for writing.
#[track_caller]
pub fn one(dma: &Dma, iova: u64, len: u64) -> Segment {
    let list = translate(dma, iova, len, RW).unwrap();
    assert_eq!(list.len(), 1);
    list[0]
}

/// Writes a byte on each of some pages, directly.
#[track_caller]
pub fn touch(dma: &Dma, pages: &[u64]) {
    for page in pages {
        dma.write(&one(dma, page * PAGE, 1), &[1]).unwrap();
    }
}

/// Fetches a report.
pub fn report(dma: &Dma, iova: u64, len: u64, page_size: u64) -> Result<Vec<u8>, Error> {
    let mut out = vec![0xaa; dma.check_report(iova, len, page_size)?];
    dma.report(iova, len, page_size, &mut out)?;
    Ok(out)
}

/// The numbers of the bits that are set.
pub fn bits(bitmap: &[u8]) -> Vec<u64> {
    (0..bitmap.len() as u64 * 8)
        .filter(|bit| bitmap[usize::try_from(bit / 8).unwrap()] >> (bit % 8) & 1 != 0)
        .collect()
}

pub fn all_regions(dma: &Dma) -> Vec<RegionId> {
    let mut ids = Vec::new();
    let mut next = dma.first();
    while let Some(id) = next {
        ids.push(id);
        next = dma.next(id);
    }
    ids
}
