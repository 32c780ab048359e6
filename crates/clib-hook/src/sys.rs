//! The few system primitives that hooks may use: they never allocate from the C heap and are safe in a forked child.
//!
//! Everything here goes to libc directly; calls of this crate are never redirected.

use std::{
    cell::Cell,
    ptr,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};

/// Bytes in a page; x86-64 has no other size for ordinary mappings.
pub(crate) const PAGE: usize = 4096;

/// The C `int` in the low half of a register.
#[inline]
pub(crate) const fn int(register: usize) -> i32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the upper half of such a register means nothing"
    )]
    let low = register as u32;
    low.cast_signed()
}

/// Sets the calling thread's `errno`.
pub(crate) fn set_errno(value: i32) {
    // SAFETY: __errno_location returns the calling thread's own valid int.
    unsafe { *libc::__errno_location() = value };
}

/// The calling thread's `errno`.
pub(crate) fn errno() -> i32 {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() }
}

struct Thread {
    disabled: Cell<bool>,
    loading: Cell<bool>,
    tid: Cell<i32>,
    epoch: Cell<u32>,
}

thread_local! {
    // Const and without a destructor, so that it works at any time in a thread's life and never allocates itself.
    static THREAD: Thread = const {
        Thread { disabled: Cell::new(false), loading: Cell::new(false), tid: Cell::new(0), epoch: Cell::new(0) }
    };
}

/// Counts forks, so that cached thread ids are read anew in children.
static EPOCH: AtomicU32 = AtomicU32::new(1);

/// Notes that this is a new process.
pub(crate) fn forked() {
    EPOCH.fetch_add(1, Ordering::Relaxed);
}

/// Whether hooks work for the calling thread.
#[inline]
pub(crate) fn enabled() -> bool {
    THREAD.with(|thread| !thread.disabled.get())
}

/// Switches them; returns how it was.
pub(crate) fn set_enabled(enabled: bool) -> bool {
    THREAD.with(|thread| !thread.disabled.replace(!enabled))
}

/// Notes whether the calling thread called `dlopen` lately; returns what was noted.
pub(crate) fn set_loading(loading: bool) -> bool {
    THREAD.with(|thread| thread.loading.replace(loading))
}

/// The kernel's id of the calling thread.
#[inline]
pub(crate) fn thread_id() -> i32 {
    THREAD.with(|thread| {
        let epoch = EPOCH.load(Ordering::Relaxed);
        if thread.epoch.get() != epoch {
            // SAFETY: gettid has no preconditions.
            thread.tid.set(unsafe { libc::gettid() });
            thread.epoch.set(epoch);
        }
        thread.tid.get()
    })
}

/// Our own mappings (start, bytes), so that a reachability scan leaves them out.
static OWN: [(AtomicUsize, AtomicUsize); 2048] =
    [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; 2048];

/// The mappings made by [`map`] that are still there.
pub(crate) fn own_mappings() -> impl Iterator<Item = (usize, usize)> {
    OWN.iter()
        .map(|(start, size)| (start.load(Ordering::Acquire), size.load(Ordering::Acquire)))
        .filter(|(start, size)| *start != 0 && *size != 0)
}

/// Maps zeroed private memory outside the C heap, or `None`. `errno` is kept.
pub(crate) fn map(size: usize) -> Option<usize> {
    map_as(size, libc::MAP_PRIVATE)
}

/// Maps zeroed memory that is shared with children.
pub(crate) fn map_shared(size: usize) -> Option<usize> {
    map_as(size, libc::MAP_SHARED)
}

fn map_as(size: usize, sharing: i32) -> Option<usize> {
    let before = errno();
    let flags = sharing | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        )
    };
    set_errno(before);
    if address == libc::MAP_FAILED {
        return None;
    }
    let address = address as usize;
    for (start, bytes) in &OWN {
        if start
            .compare_exchange(0, address, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
        {
            bytes.store(size, Ordering::Release);
            return Some(address);
        }
    }
    // No room to note it: the scan would find disguised addresses only, which is harmless.
    Some(address)
}

/// Gives memory from [`map`] back. The caller owns it and has dropped every reference into it.
pub(crate) fn unmap(address: usize, size: usize) {
    for (start, bytes) in &OWN {
        if start.load(Ordering::Relaxed) == address {
            bytes.store(0, Ordering::Release);
            start.store(0, Ordering::Release);
            break;
        }
    }
    let before = errno();
    // SAFETY: the caller owns the mapping, see above.
    unsafe { libc::munmap(address as *mut libc::c_void, size) };
    set_errno(before);
}

/// Sets the protection of whole pages.
pub(crate) fn protect(start: usize, size: usize, protection: i32) -> Result<(), crate::Error> {
    // SAFETY: callers pass pages of an object's own data, or of our own mappings, and only add or restore rights.
    if unsafe { libc::mprotect(start as *mut libc::c_void, size, protection) } == 0 {
        return Ok(());
    }
    Err(crate::Error::last_os(format!(
        "changing the protection of {size} bytes at {start:#x}"
    )))
}

/// Copies memory that may not be there: reads up to `into.len()` bytes from `address`, and returns how many could be read.
/// Safe in signal handlers.
pub(crate) fn read_memory(address: usize, into: &mut [u8]) -> usize {
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: into.len(),
    };
    let before = errno();
    // SAFETY: `local` describes `into`; the kernel checks `remote` and fails instead of faulting.
    let done = unsafe {
        libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
    };
    set_errno(before);
    usize::try_from(done).unwrap_or(0)
}

/// One word of memory that may not be there.
pub(crate) fn read_word(address: usize) -> Option<usize> {
    let mut bytes = [0; 8];
    (read_memory(address, &mut bytes) == 8).then(|| usize::from_ne_bytes(bytes))
}
