//! Messages over one socket, client side.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{Error, Result};
use crate::error::Errno;
use crate::sys::socket::{self, FdSink, From as Out, How, Into as In, Received, Sent};
use crate::wire::{HEADER, Header, MAX_MESSAGE};

/// Bytes that one receive asks for at least.
const BUFFER: usize = 64 << 10;

/// A message as it came.
#[derive(Debug)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// Its descriptors.
    pub fds: Vec<OwnedFd>,
}

/// One socket to a server.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    fds: Vec<OwnedFd>,
}

struct Sink<'a>(&'a mut Vec<OwnedFd>);

impl FdSink for Sink<'_> {
    fn take(&mut self, fd: OwnedFd) {
        self.0.push(fd);
    }
}

impl Connection {
    /// Over a connected socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            fds: Vec::new(),
        }
    }

    /// Whether bytes wait here that polling the socket does not tell of.
    #[must_use]
    pub const fn has_buffered(&self) -> bool {
        self.start != self.end
    }

    /// Sends a message with one call.
    ///
    /// # Errors
    /// The socket's; [`Error::Closed`].
    pub fn send(&mut self, header: &Header, payload: &[u8], fds: &[RawFd]) -> Result<()> {
        self.send_parts(&header.encode(), payload, fds)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_raw(&mut self, bytes: &[u8], fds: &[RawFd]) -> Result<()> {
        self.send_parts(bytes, &[], fds)
    }

    fn send_parts(&mut self, head: &[u8], tail: &[u8], fds: &[RawFd]) -> Result<()> {
        let mut sent = 0;
        while sent < head.len() + tail.len() {
            let first = head.get(sent..).unwrap_or_default();
            let second = tail
                .get(sent.saturating_sub(head.len())..)
                .unwrap_or_default();
            let fds = if sent == 0 { fds } else { &[] };
            match socket::send(
                self.socket.as_raw_fd(),
                &[Out::slice(first), Out::slice(second)],
                fds,
                true,
            ) {
                Sent::Bytes(count) => sent += count,
                Sent::Closed => return Err(Error::Closed),
                Sent::Nothing => return Err(io::Error::from(io::ErrorKind::WouldBlock).into()),
                Sent::Failed(errno) => return Err(system(errno)),
            }
        }
        Ok(())
    }

    /// Receives the next message.
    ///
    /// # Errors
    /// The socket's; [`Error::Closed`]; [`Error::Protocol`] for a size that cannot be.
    pub fn receive(&mut self) -> Result<Message> {
        self.fill(HEADER)?;
        let header = Header::decode(self.waiting()).unwrap_or_default();
        if header.is_empty() || header.len() > MAX_MESSAGE {
            return Err(Error::Protocol("the size of a message cannot be"));
        }
        self.fill(header.len())?;
        let payload = self
            .waiting()
            .get(HEADER..header.len())
            .unwrap_or_default()
            .to_vec();
        self.start += header.len();
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        Ok(Message {
            header,
            payload,
            fds: core::mem::take(&mut self.fds),
        })
    }

    fn waiting(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Receives until `needed` bytes wait.
    fn fill(&mut self, needed: usize) -> Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.buffer.len() < needed.max(BUFFER) {
            self.buffer.resize(needed.max(BUFFER), 0);
        }
        while self.end < needed {
            let place = self.buffer.get_mut(self.end..).unwrap_or_default();
            match socket::receive(
                self.socket.as_raw_fd(),
                &mut [In::slice(place)],
                &mut Sink(&mut self.fds),
                How::WAIT,
            ) {
                Received::Bytes { count, .. } => self.end += count,
                Received::Closed => return Err(Error::Closed),
                Received::Nothing => return Err(io::Error::from(io::ErrorKind::WouldBlock).into()),
                Received::Failed(errno) => return Err(system(errno)),
            }
        }
        Ok(())
    }
}

fn system(errno: Errno) -> Error {
    io::Error::from_raw_os_error(errno.get()).into()
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> Self {
        connection.socket
    }
}

/// Waits until at least one of `fds` is readable, or `patience` is over; says which are.
pub(super) fn wait_readable(
    fds: &[BorrowedFd<'_>],
    patience: Option<Duration>,
) -> Result<Vec<bool>> {
    crate::sys::wait_readable(fds, patience).map_err(|error| system(error.errno()))
}
