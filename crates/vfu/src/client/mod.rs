//! The other end: a vfio-user client, for tests, benchmarks and tools.
//!
//! 1. One [`Client`] is one connection. Calls block until the reply is there.
//! 2. While it waits it answers the server's `DMA_READ` and `DMA_WRITE` from its [`Memory`], on the connection and on the
//!    twin socket.
//! 3. Requests can be sent without waiting ([`Client::send`], [`Client::receive`]); replies may come in any order.
//! 4. This half allocates as programs usually do. It trusts the server no more than the server trusts it: lengths are
//!    checked, nothing panics.

mod commands;
mod connection;
mod dma;

pub use commands::{
    DeviceInfo, DmaMapping, IrqInfo, IrqSet, IrqSetAction, IrqSetData, RegionInfo, SubRegion, Write,
};
pub use connection::{Connection, Message};
pub use dma::{DmaServer, Memory, NoMemory};

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::Errno;
use crate::wire::{Command, ERROR, HEADER, Header, NO_REPLY, TYPE_COMMAND, TYPE_MASK, TYPE_REPLY};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection failed.
    #[error("the connection to the server failed")]
    Io(#[from] io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server answered with an error.
    #[error("the server refused {command}: {errno}")]
    Refused {
        /// The command.
        command: Command,
        /// The server's error number.
        errno: Errno,
        /// The payload of the reply, empty for most errors.
        payload: Vec<u8>,
    },
    /// The server answered with something else than the protocol says.
    #[error("the server's answer makes no sense: {0}")]
    Protocol(&'static str),
}

impl Error {
    /// The server's error number, if it sent one.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// Result of client calls.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What a client says about itself in its VERSION message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Minor number of the protocol.
    pub minor: u16,
    /// The JSON text; `None` sends none.
    pub text: Option<String>,
}

impl Default for Hello {
    /// Minor 2, eight descriptors a message, 1 MiB of data, several writes in one message, no twin socket.
    fn default() -> Self {
        Self::with("\"max_msg_fds\":8,\"max_data_xfer_size\":1048576,\"write_multiple\":true")
    }
}

impl Hello {
    /// With these members of `capabilities`.
    #[must_use]
    pub fn with(capabilities: &str) -> Self {
        Self {
            minor: 2,
            text: Some(format!("{{\"capabilities\":{{{capabilities}}}}}")),
        }
    }

    /// As the default, and with a twin socket.
    #[must_use]
    pub fn twin() -> Self {
        Self::with("\"max_msg_fds\":8,\"twin_socket\":{\"supported\":true}")
    }
}

/// What the server answered to VERSION.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Greeting {
    /// Major number of the protocol.
    pub major: u16,
    /// Minor number of the protocol.
    pub minor: u16,
    /// The JSON text, without the NUL byte at its end.
    pub text: String,
}

/// A request that was sent and whose reply was not received yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub struct Ticket {
    id: u16,
    command: u16,
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client<M = NoMemory> {
    connection: Connection,
    twin: Option<Connection>,
    memory: M,
    greeting: Greeting,
    next_id: u16,
    /// Replies that came before they were asked for.
    early: VecDeque<Message>,
}

impl Client {
    /// Connects and agrees on a version, waiting for the server to attach. Answers DMA commands with EINVAL.
    ///
    /// # Errors
    /// The socket's, or the server's answer to VERSION.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self> {
        Self::connect_with(path, &Hello::default(), NoMemory)
    }
}

impl<M: Memory> Client<M> {
    /// Connects and agrees on a version.
    ///
    /// # Errors
    /// As [`connect`](Client::connect).
    pub fn connect_with(path: impl AsRef<Path>, hello: &Hello, memory: M) -> Result<Self> {
        let mut client = Self::start(UnixStream::connect(path)?, hello, memory)?;
        client.greet()?;
        Ok(client)
    }

    /// Sends VERSION and does not wait for the answer; [`greet`](Self::greet) has to follow. For programs in which one thread is
    /// client and server by turns.
    ///
    /// # Errors
    /// The socket's.
    pub fn start(stream: UnixStream, hello: &Hello, memory: M) -> Result<Self> {
        let mut client = Self {
            connection: Connection::new(stream.into()),
            twin: None,
            memory,
            greeting: Greeting::default(),
            next_id: 0,
            early: VecDeque::new(),
        };
        let mut payload = vec![0, 0];
        payload.extend_from_slice(&hello.minor.to_le_bytes());
        if let Some(text) = &hello.text {
            payload.extend_from_slice(text.as_bytes());
            payload.push(0);
        }
        let _ = client.send(Command::Version, &payload, &[])?;
        Ok(client)
    }

    /// Receives the answer to VERSION.
    ///
    /// # Errors
    /// As [`connect`](Client::connect).
    pub fn greet(&mut self) -> Result<()> {
        let ticket = Ticket {
            id: 1,
            command: Command::Version as u16,
        };
        let mut reply = self.receive(ticket)?;
        let Some(([a, b, c, d], text)) = reply.payload.split_first_chunk() else {
            return Err(Error::Protocol("the answer to VERSION is too short"));
        };
        let text = text.strip_suffix(&[0]).ok_or(Error::Protocol(
            "the answer to VERSION does not end in a NUL byte",
        ))?;
        let text = String::from_utf8(text.to_vec())
            .map_err(|_| Error::Protocol("the answer to VERSION is not UTF-8"))?;
        let twin = text
            .contains("\"twin_socket\"")
            .then(|| reply.fds.pop())
            .flatten();
        self.twin = twin.map(Connection::new);
        self.greeting = Greeting {
            major: u16::from_le_bytes([*a, *b]),
            minor: u16::from_le_bytes([*c, *d]),
            text,
        };
        Ok(())
    }

    /// What the server answered to VERSION.
    #[must_use]
    pub const fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// The memory that DMA commands are answered from.
    pub const fn memory(&mut self) -> &mut M {
        &mut self.memory
    }

    /// Takes the twin socket out, to answer DMA commands on another thread. `None` if the server gave none.
    pub fn take_twin(&mut self) -> Option<DmaServer> {
        self.twin.take().map(DmaServer::new)
    }

    /// Sends a request without waiting for its reply.
    ///
    /// # Errors
    /// The socket's.
    pub fn send(&mut self, command: Command, payload: &[u8], fds: &[RawFd]) -> Result<Ticket> {
        self.send_flagged(command, payload, fds, TYPE_COMMAND)
    }

    /// Sends a request that gets no reply, also if it fails.
    ///
    /// # Errors
    /// The socket's.
    pub fn post(&mut self, command: Command, payload: &[u8], fds: &[RawFd]) -> Result<()> {
        let _ = self.send_flagged(command, payload, fds, TYPE_COMMAND | NO_REPLY)?;
        Ok(())
    }

    fn send_flagged(
        &mut self,
        command: Command,
        payload: &[u8],
        fds: &[RawFd],
        flags: u32,
    ) -> Result<Ticket> {
        self.next_id = self.next_id.wrapping_add(1);
        let header = Header {
            id: self.next_id,
            command: command as u16,
            size: u32::try_from(HEADER + payload.len())
                .map_err(|_| Error::Protocol("the request is too long"))?,
            flags,
            error: 0,
        };
        self.connection.send(&header, payload, fds)?;
        Ok(Ticket {
            id: header.id,
            command: header.command,
        })
    }

    /// Sends a message as it is, header and all; for tests.
    ///
    /// # Errors
    /// The socket's.
    pub fn send_raw(&mut self, bytes: &[u8], fds: &[RawFd]) -> Result<()> {
        self.connection.send_raw(bytes, fds)
    }

    /// Waits for the reply to a request.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's error number; the socket's; [`Error::Closed`].
    pub fn receive(&mut self, ticket: Ticket) -> Result<Message> {
        let reply = match self
            .early
            .iter()
            .position(|reply| reply.header.id == ticket.id)
        {
            Some(position) => self.early.remove(position),
            None => None,
        };
        let reply = match reply {
            Some(reply) => reply,
            None => self.wait_for(ticket.id)?,
        };
        if reply.header.command != ticket.command {
            return Err(Error::Protocol("the reply is for another command"));
        }
        if reply.header.flags & ERROR != 0 {
            return Err(Error::Refused {
                command: Command::new(ticket.command).unwrap_or(Command::Version),
                errno: Errno::new(reply.header.error.cast_signed()),
                payload: reply.payload,
            });
        }
        Ok(reply)
    }

    /// Waits for the next message from the server, whatever it is.
    ///
    /// # Errors
    /// The socket's; [`Error::Closed`].
    pub fn receive_any(&mut self) -> Result<Message> {
        self.connection.receive()
    }

    fn wait_for(&mut self, id: u16) -> Result<Message> {
        loop {
            if self.twin.is_some() {
                self.answer_twin_until_readable()?;
            }
            let message = self.connection.receive()?;
            match message.header.flags & TYPE_MASK {
                TYPE_REPLY if message.header.id == id => return Ok(message),
                TYPE_REPLY => self.early.push_back(message),
                TYPE_COMMAND => dma::answer(&mut self.connection, &mut self.memory, &message)?,
                _ => return Err(Error::Protocol("a message is neither command nor reply")),
            }
        }
    }

    /// Answers DMA commands on the twin socket until there is something on the connection.
    fn answer_twin_until_readable(&mut self) -> Result<()> {
        while let Some(twin) = &mut self.twin {
            if self.connection.has_buffered() {
                return Ok(());
            }
            let ready = connection::wait_readable(&[self.connection.as_fd(), twin.as_fd()], None)?;
            if ready.get(1) == Some(&true) {
                match twin.receive() {
                    Ok(message) => dma::answer(twin, &mut self.memory, &message)?,
                    Err(Error::Closed) => self.twin = None,
                    Err(error) => return Err(error),
                }
            }
            if ready.first() == Some(&true) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Answers the server's DMA commands, on both sockets, for as long as `patience` or until a reply arrives. Returns how
    /// many were answered.
    ///
    /// # Errors
    /// The socket's; [`Error::Closed`].
    pub fn serve_memory(&mut self, patience: Duration) -> Result<usize> {
        let end = Instant::now() + patience;
        let mut answered = 0;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = vec![self.connection.as_fd()];
            fds.extend(self.twin.as_ref().map(AsFd::as_fd));
            let ready = connection::wait_readable(&fds, Some(left))?;
            if !ready.contains(&true) && !self.connection.has_buffered() {
                return Ok(answered);
            }
            if ready.get(1) == Some(&true)
                && let Some(twin) = &mut self.twin
            {
                let message = twin.receive()?;
                dma::answer(twin, &mut self.memory, &message)?;
                answered += 1;
            }
            if ready.first() == Some(&true) || self.connection.has_buffered() {
                let message = self.connection.receive()?;
                if message.header.flags & TYPE_MASK == TYPE_REPLY {
                    self.early.push_back(message);
                    return Ok(answered);
                }
                dma::answer(&mut self.connection, &mut self.memory, &message)?;
                answered += 1;
            }
        }
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn request(&mut self, command: Command, payload: &[u8], fds: &[RawFd]) -> Result<Message> {
        let ticket = self.send(command, payload, fds)?;
        self.receive(ticket)
    }
}

impl<M> AsFd for Client<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl<M> AsRawFd for Client<M> {
    fn as_raw_fd(&self) -> RawFd {
        self.connection.as_fd().as_raw_fd()
    }
}

impl<M> From<Client<M>> for OwnedFd {
    fn from(client: Client<M>) -> Self {
        client.connection.into()
    }
}
