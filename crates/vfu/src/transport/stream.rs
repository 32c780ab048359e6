//! A connection as a stream of bytes with descriptors: a socket, or two pipes without descriptors.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::region::SharedFd;
use crate::sys::socket::{self, FdSink, From, How, Into, Received, Sent};

/// The two ends that a pipe context was created with.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) input: SharedFd,
    pub(crate) output: SharedFd,
}

/// One of the two kinds of peer, without the differences.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Channel<'a> {
    Socket(BorrowedFd<'a>),
    Pipe(&'a Ends),
}

impl Channel<'_> {
    /// What to poll.
    pub(crate) fn raw(&self) -> RawFd {
        match self {
            Self::Socket(fd) => fd.as_raw_fd(),
            Self::Pipe(ends) => ends.input.as_raw_fd(),
        }
    }

    #[inline]
    pub(crate) fn receive(
        &self,
        buffers: &mut [Into<'_>],
        fds: &mut dyn FdSink,
        how: How,
    ) -> Received {
        match self {
            Self::Socket(fd) => socket::receive(*fd, buffers, fds, how),
            Self::Pipe(ends) => {
                let input = ends.input.as_fd();
                if !how.wait && !socket::is_ready(input, false) {
                    return Received::Nothing;
                }
                socket::read(input, buffers, how.interrupt)
            }
        }
    }

    #[inline]
    pub(crate) fn send(&self, buffers: &[From<'_>], fds: &[RawFd], wait: bool) -> Sent {
        match self {
            Self::Socket(fd) => socket::send(*fd, buffers, fds, wait),
            Self::Pipe(ends) => {
                let output = ends.output.as_fd();
                if !wait && !socket::is_ready(output, true) {
                    return Sent::Nothing;
                }
                socket::write(output, buffers)
            }
        }
    }
}
