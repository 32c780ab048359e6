//! System calls and fallible memory: the only unsafe code of the server outside `dma` and `pci`.
//!
//! 1. Every system call goes through the `libc` crate, by its C name, so that a hook can make it fail.
//! 2. A descriptor that the kernel hands over is an `OwnedFd` from that moment on.
//! 3. No call here allocates, except [`memory`], whose allocations are fallible.
//! 4. EINTR is retried only where it would lose a message ([`Interrupt`]).

pub(crate) mod epoll;
pub(crate) mod event;
pub(crate) mod memory;
pub(crate) mod scatter;
pub(crate) mod shared;
pub(crate) mod socket;

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

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
    Error::System {
        call,
        errno: errno(),
    }
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

/// Waits until `fd` is readable or closed, or, if `write`, has room, or `patience` is over; says which of the two.
pub(crate) fn wait(fd: RawFd, write: bool, patience: Option<Duration>) -> Result<bool, Error> {
    let events = libc::POLLIN | if write { libc::POLLOUT } else { 0 };
    let mut poll = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    let timeout = patience.map_or(-1, |patience| {
        i32::try_from(patience.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
    });
    // SAFETY: one pollfd, which lives over the call.
    match unsafe { libc::poll(&raw mut poll, 1, timeout) } {
        -1 => Err(failed("poll")),
        ready => Ok(ready != 0),
    }
}

/// Waits until at least one of `fds` is readable or closed, or `patience` is over; says which are. For the client side: it
/// allocates, and retries on EINTR.
pub(crate) fn wait_readable(
    fds: &[BorrowedFd<'_>],
    patience: Option<Duration>,
) -> Result<Vec<bool>, Error> {
    let mut polls: Vec<libc::pollfd> = fds
        .iter()
        .map(|fd| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let timeout = patience.map_or(-1, |patience| {
        i32::try_from(patience.as_millis()).unwrap_or(i32::MAX)
    });
    loop {
        // SAFETY: the vector holds as many pollfds as passed, and lives over the call.
        if unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, timeout) } >= 0 {
            return Ok(polls.iter().map(|poll| poll.revents != 0).collect());
        }
        if errno().get() != libc::EINTR {
            return Err(failed("poll"));
        }
    }
}
