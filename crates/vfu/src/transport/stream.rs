//! A connection as a stream of bytes with descriptors: a socket, or two pipes without descriptors.

use std::os::fd::RawFd;

use crate::region::SharedFd;
use crate::sys::socket::{self, FdSink, From, How, Into, Received, Sent};

/// The two ends that a pipe context was created with.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) input: SharedFd,
    pub(crate) output: SharedFd,
}

/// One of the two kinds of peer, without the differences. The link owns the descriptors.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Channel {
    Socket(RawFd),
    Pipe { input: RawFd, output: RawFd },
}

impl Channel {
    /// What to poll.
    pub(crate) const fn raw(self) -> RawFd {
        match self {
            Self::Socket(fd) => fd,
            Self::Pipe { input, .. } => input,
        }
    }

    #[inline]
    pub(crate) fn receive(
        self,
        buffers: &mut [Into<'_>],
        fds: &mut dyn FdSink,
        how: How,
    ) -> Received {
        match self {
            Self::Socket(fd) => socket::receive(fd, buffers, fds, how),
            Self::Pipe { input, .. } => socket::read(input, buffers, how),
        }
    }

    #[inline]
    pub(crate) fn send(self, buffers: &[From<'_>], fds: &[RawFd], wait: bool) -> Sent {
        match self {
            Self::Socket(fd) => socket::send(fd, buffers, fds, wait),
            Self::Pipe { output, .. } => socket::write(output, buffers, wait),
        }
    }
}
