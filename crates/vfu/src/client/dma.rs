//! The client's answers to `DMA_READ` and `DMA_WRITE`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::connection::{Connection, Message};
use super::{Error, Result};
use crate::error::Errno;
use crate::wire::{
    Command, ERROR, HEADER, Header, MAX_DATA, TYPE_COMMAND, TYPE_MASK, TYPE_REPLY, u64_at,
};

/// Bytes of address and count.
const ACCESS: usize = 16;

/// Memory that the server may ask for.
pub trait Memory {
    /// Fills `data` from address `addr`.
    ///
    /// # Errors
    /// The error number that the server gets.
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Errno>;

    /// Stores `data` at address `addr`.
    ///
    /// # Errors
    /// The error number that the server gets.
    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Errno>;
}

/// Refuses everything with EINVAL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoMemory;

impl Memory for NoMemory {
    fn read(&mut self, _: u64, _: &mut [u8]) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
}

/// Memory from address 0 on.
impl Memory for Vec<u8> {
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Errno> {
        let start = usize::try_from(addr).map_err(|_| Errno::EINVAL)?;
        let end = start.checked_add(data.len()).ok_or(Errno::EINVAL)?;
        data.copy_from_slice(self.get(start..end).ok_or(Errno::EINVAL)?);
        Ok(())
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Errno> {
        let start = usize::try_from(addr).map_err(|_| Errno::EINVAL)?;
        let end = start.checked_add(data.len()).ok_or(Errno::EINVAL)?;
        self.get_mut(start..end)
            .ok_or(Errno::EINVAL)?
            .copy_from_slice(data);
        Ok(())
    }
}

impl<M: Memory + ?Sized> Memory for &mut M {
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Errno> {
        (**self).read(addr, data)
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Errno> {
        (**self).write(addr, data)
    }
}

/// The client's end of a twin socket.
#[derive(Debug)]
pub struct DmaServer(Connection);

impl DmaServer {
    pub(super) const fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// The socket itself.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0.into()
    }

    /// Waits for one command and answers it.
    ///
    /// # Errors
    /// [`Error::Closed`] when the server has closed its end; the socket's.
    pub fn serve_one(&mut self, memory: &mut impl Memory) -> Result<()> {
        let message = self.0.receive()?;
        answer(&mut self.0, memory, &message)
    }

    /// Answers commands until the server closes its end.
    ///
    /// # Errors
    /// The socket's.
    pub fn run(&mut self, memory: &mut impl Memory) -> Result<()> {
        loop {
            match self.serve_one(memory) {
                Ok(()) => {}
                Err(Error::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for DmaServer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Answers one command of the server.
pub(super) fn answer(
    connection: &mut Connection,
    memory: &mut impl Memory,
    message: &Message,
) -> Result<()> {
    let header = message.header;
    let command = Command::new(header.command);
    if header.flags & TYPE_MASK != TYPE_COMMAND || message.payload.len() < ACCESS {
        return Err(Error::Protocol("a command of the server is malformed"));
    }
    let (addr, count) = (u64_at(&message.payload, 0), u64_at(&message.payload, 8));
    let mut reply = message.payload.get(..ACCESS).unwrap_or_default().to_vec();
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let result = match command {
        Some(Command::DmaRead) if count <= MAX_DATA => {
            reply.resize(ACCESS + count, 0);
            memory.read(addr, reply.get_mut(ACCESS..).unwrap_or_default())
        }
        Some(Command::DmaWrite) if message.payload.len() - ACCESS == count => {
            memory.write(addr, message.payload.get(ACCESS..).unwrap_or_default())
        }
        _ => Err(Errno::EINVAL),
    };
    if result.is_err() {
        reply.clear();
    }
    let header = Header {
        size: u32::try_from(HEADER + reply.len()).unwrap_or(u32::MAX), // at most MAX_DATA and what describes it
        flags: if result.is_ok() {
            TYPE_REPLY
        } else {
            TYPE_REPLY | ERROR
        },
        error: result.err().map_or(0, Errno::get).cast_unsigned(),
        ..header
    };
    connection.send(&header, &reply, &[])
}
