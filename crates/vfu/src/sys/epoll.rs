//! An epoll set: the one descriptor that stands for those of a context.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::failed;
use crate::error::Error;

/// Ready for reading, or closed.
pub(crate) const READ: u32 = libc::EPOLLIN.cast_unsigned();
/// Has room.
pub(crate) const WRITE: u32 = libc::EPOLLOUT.cast_unsigned();

/// Nobody receives events from this set: it is itself polled, and is readable while one of its members is ready.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    pub(crate) fn new() -> Result<Self, Error> {
        // SAFETY: no pointers.
        let raw = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if raw < 0 {
            return Err(failed("epoll_create1"));
        }
        // SAFETY: a descriptor that was just created, owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    /// Watches another descriptor.
    pub(crate) fn add(&self, fd: RawFd, events: u32) -> Result<(), Error> {
        self.control(libc::EPOLL_CTL_ADD, fd, events)
    }

    /// Changes what a member is watched for. With 0, a closed connection still makes it ready.
    pub(crate) fn modify(&self, fd: RawFd, events: u32) -> Result<(), Error> {
        self.control(libc::EPOLL_CTL_MOD, fd, events)
    }

    /// Forgets a member. Failure is no matter: it is not there then.
    pub(crate) fn remove(&self, fd: RawFd) {
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0);
    }

    fn control(&self, operation: i32, fd: RawFd, events: u32) -> Result<(), Error> {
        let mut event = libc::epoll_event { events, u64: 0 };
        // SAFETY: the event is a live structure.
        if unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &raw mut event) } != 0 {
            return Err(failed("epoll_ctl"));
        }
        Ok(())
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
