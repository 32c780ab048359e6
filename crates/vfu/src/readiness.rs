//! One descriptor for event loops, the same for the whole life of a context.
//!
//! 1. It is readable whenever [`attach`](crate::Context::attach) or [`run`](crate::Context::run) has something to do, and not
//!    otherwise: also when that something waits in memory, and not while a quiesce is pending or the client has to read first.
//! 2. It is an epoll set of the context's own descriptors, which come and go. It belongs to its handles together with the context, so
//!    nothing that the context does closes it: that is what makes `AsFd` sound, which it would not be for the connection.
//! 3. A context that was never asked for one has none, and pays nothing.

use core::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::error::Result;
use crate::sys::epoll::{Epoll, READ, WRITE};
use crate::sys::shared::Shared;

/// Says when a non-blocking context has something to do. See [`Context::readiness`](crate::Context::readiness).
///
/// All clones are one descriptor. It stays open as long as one of them, or the context, is there, and is never readable after the context
/// has gone.
#[derive(Clone)]
pub struct Readiness(Shared<Epoll>);

impl core::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Readiness").field(&self.as_raw_fd()).finish()
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Readiness {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// What a context has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// A client may come.
    Accept,
    /// The client's next message.
    Receive,
    /// What is waiting here, as soon as the client takes more bytes.
    Proceed,
    /// Nothing, until the device is quiet.
    Rest,
}

/// The context's part: keeps the set up to date.
#[derive(Debug)]
pub(crate) struct Watch {
    set: Readiness,
    /// The connection that is in the set, and what it is watched for.
    connection: Cell<Option<(RawFd, u32)>>,
    /// What the listening socket, which is always in the set, is watched for.
    listener: Cell<u32>,
}

impl Watch {
    pub(crate) fn new(listener: BorrowedFd<'_>) -> Result<Self> {
        let set = Epoll::new()?;
        set.add(listener.as_raw_fd(), 0)?;
        Ok(Self {
            set: Readiness(Shared::try_new(set)?),
            connection: Cell::new(None),
            listener: Cell::new(0),
        })
    }

    pub(crate) fn handle(&self) -> Readiness {
        self.set.clone()
    }

    /// Brings the set in line with what there is. Only a connection that was not in it needs memory; everything else is done before that.
    pub(crate) fn update(
        &self,
        listener: Option<RawFd>,
        connection: Option<RawFd>,
        next: Next,
    ) -> Result<()> {
        let accepts = if next == Next::Accept { READ } else { 0 };
        if let Some(listener) = listener
            && self.listener.get() != accepts
        {
            self.set.0.modify(listener, accepts)?;
            self.listener.set(accepts);
        }
        let wanted = match (connection, next) {
            (Some(fd), Next::Receive) => Some((fd, READ)),
            (Some(fd), Next::Proceed) => Some((fd, WRITE)),
            _ => None,
        };
        if self.connection.get() == wanted {
            return Ok(());
        }
        match (self.connection.get(), wanted) {
            (Some((old, _)), Some((fd, events))) if old == fd => self.set.0.modify(fd, events)?,
            (old, wanted) => {
                if let Some((old, _)) = old {
                    self.forget(old);
                }
                if let Some((fd, events)) = wanted {
                    self.set.0.add(fd, events)?;
                }
            }
        }
        self.connection.set(wanted);
        Ok(())
    }

    /// A descriptor is about to be closed. The set would lose it then, but not if another process has it, too.
    pub(crate) fn forget(&self, fd: RawFd) {
        self.set.0.remove(fd);
        if self
            .connection
            .get()
            .is_some_and(|(watched, _)| watched == fd)
        {
            self.connection.set(None);
        }
    }
}
