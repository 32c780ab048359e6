//! The system as the DMA table needs it: fallible zeroed memory, mappings, file access. No policy.
//!
//! Every system call goes through the `libc` crate by its C name. Errors are errno values, read at once.

use core::ptr::{self, NonNull};
use std::alloc::Layout;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The errno of the call that has just failed.
fn errno() -> i32 {
    // SAFETY: the pointer that libc returns is valid for the calling thread, which alone uses it.
    unsafe { *libc::__errno_location() }
}

/// Zeroed memory, or `None` where the infallible functions would abort. `layout` must not have size 0.
pub(super) fn alloc_zeroed(layout: Layout) -> Option<NonNull<u8>> {
    debug_assert!(layout.size() != 0);
    // SAFETY: the size is not 0: all callers ask for a struct or for at least one element.
    NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })
}

/// Gives memory back.
///
/// # Safety
/// `memory` came from [`alloc_zeroed`] with this `layout` and is not used again.
pub(super) unsafe fn dealloc(memory: NonNull<u8>, layout: Layout) {
    // SAFETY: as promised by the caller.
    unsafe { std::alloc::dealloc(memory.as_ptr(), layout) }
}

/// The system's page size in bytes.
pub(super) fn page_size() -> u64 {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

/// What `fstat` says about a file, as far as a region cares.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileId {
    pub(super) dev: u64,
    pub(super) ino: u64,
    /// Preferred unit of access in bytes. The client's file system made it up: check before use.
    pub(super) block: i64,
}

pub(super) fn stat(fd: BorrowedFd<'_>) -> Result<FileId, i32> {
    let mut stat = core::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the descriptor is open, and `stat` is memory for one struct stat.
    if unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return Err(errno());
    }
    // SAFETY: fstat succeeded, so it filled the struct.
    let stat = unsafe { stat.assume_init() };
    Ok(FileId {
        dev: stat.st_dev,
        ino: stat.st_ino,
        block: stat.st_blksize,
    })
}

/// Whether two descriptors of this process share one open file description. `None` if the kernel cannot tell.
pub(super) fn same_description(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> Option<bool> {
    const KCMP_FILE: libc::c_int = 0;
    // SAFETY: getpid has no preconditions.
    let pid = unsafe { libc::getpid() };
    // SAFETY: kcmp reads its five integer arguments only.
    let order = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            pid,
            pid,
            KCMP_FILE,
            a.as_raw_fd(),
            b.as_raw_fd(),
        )
    };
    (order >= 0).then_some(order == 0)
}

/// Maps `len` bytes of a file from `offset` on (a multiple of the page size), shared, and keeps them out of core dumps.
pub(super) fn map(
    fd: BorrowedFd<'_>,
    offset: i64,
    len: usize,
    prot: libc::c_int,
) -> Result<NonNull<u8>, i32> {
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            prot,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            offset,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(errno());
    }
    // SAFETY: the range was mapped just now, and MADV_DONTDUMP changes nothing about its content. It is a courtesy: a
    // failure only makes core dumps larger.
    unsafe { libc::madvise(address, len, libc::MADV_DONTDUMP) };
    NonNull::new(address.cast::<u8>()).ok_or(libc::EFAULT)
}

/// Removes a mapping.
///
/// # Safety
/// `address` and `len` are those of a mapping from [`map`] that nobody uses any more.
pub(super) unsafe fn unmap(address: *mut u8, len: usize) {
    // SAFETY: as promised by the caller. It can fail only for arguments that are not a mapping.
    unsafe { libc::munmap(address.cast(), len) };
}

/// Reads up to `len` bytes at `offset`; retries when a signal interrupts. Returns the bytes read, 0 at the end of file.
///
/// # Safety
/// `to` is valid for writing `len` bytes.
pub(super) unsafe fn pread(
    fd: BorrowedFd<'_>,
    to: *mut u8,
    len: usize,
    offset: i64,
) -> Result<usize, i32> {
    loop {
        // SAFETY: the caller vouches for the buffer, and the descriptor is open.
        let n = unsafe { libc::pread(fd.as_raw_fd(), to.cast(), len, offset) };
        match usize::try_from(n) {
            Ok(n) => return Ok(n),
            Err(_) => match errno() {
                libc::EINTR => {}
                other => return Err(other),
            },
        }
    }
}

/// Writes up to `len` bytes at `offset`; retries when a signal interrupts. Returns the bytes written.
///
/// # Safety
/// `from` is valid for reading `len` bytes.
pub(super) unsafe fn pwrite(
    fd: BorrowedFd<'_>,
    from: *const u8,
    len: usize,
    offset: i64,
) -> Result<usize, i32> {
    loop {
        // SAFETY: the caller vouches for the buffer, and the descriptor is open.
        let n = unsafe { libc::pwrite(fd.as_raw_fd(), from.cast(), len, offset) };
        match usize::try_from(n) {
            Ok(n) => return Ok(n),
            Err(_) => match errno() {
                libc::EINTR => {}
                other => return Err(other),
            },
        }
    }
}
