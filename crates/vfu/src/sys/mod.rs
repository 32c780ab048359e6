//! System calls and fallible memory: the only unsafe code of the server outside `dma` and `pci`.
//!
//! 1. Every system call goes through the `libc` crate, by its C name, so that a hook can make it fail.
//! 2. A descriptor that the kernel hands over is an `OwnedFd` from that moment on.
//! 3. No call here allocates, except [`memory`], whose allocations are fallible.
//! 4. EINTR is retried only where it would lose a message ([`Interrupt`]).

pub(crate) mod event;
pub(crate) mod memory;
pub(crate) mod scatter;
pub(crate) mod shared;
pub(crate) mod socket;

use crate::error::{Errno, Error};

/// What to do when a signal interrupts a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// Fail with EINTR: the caller's caller wants to see signals.
    Return,
    /// Call again.
    Retry,
}

/// The errno of the calling thread.
pub(crate) fn errno() -> Errno {
    // SAFETY: __errno_location has no preconditions and returns a valid pointer to this thread's errno.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: the pointer above is valid, aligned and only used by this thread.
    Errno::new(unsafe { *location })
}

/// The error of a system call that has just failed.
pub(crate) fn failed(call: &'static str) -> Error {
    Error::System { call, errno: errno() }
}

/// The system's page size in bytes.
pub(crate) fn page_size() -> u64 {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

/// Removes a socket's file. Failure is no matter: it may be gone already.
pub(crate) fn unlink(path: &core::ffi::CStr) {
    // SAFETY: the path is a NUL-terminated string that outlives the call.
    unsafe { libc::unlink(path.as_ptr()) };
}
