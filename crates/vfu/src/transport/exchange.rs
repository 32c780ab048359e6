//! Our own commands to the client: `DMA_READ` and `DMA_WRITE`, and their replies.
//!
//! 1. They go over the second socket if there is one, else over the connection, where requests of the client may
//!    cross them: these wait in [`Link::crossing`] until the session serves them.
//! 2. No callback is made here, and the context is never reset here: a connection that died is remembered
//!    ([`Link::kill`]) and reset by the next run.
//! 3. Data travel between the kernel and the caller's memory directly, unless requests cross.

use super::Link;
use super::inbox::{Fill, Inbox};
use super::outbox::Progress;
use super::stream::Channel;
use crate::error::{Errno, Error, Result};
use crate::sys::socket::{FdSink, From, How, Into, Received, Sent};
use crate::wire::{
    Command, ERROR, HEADER, Header, MAX_CLIENT_ERRNO, REGION_ACCESS, TYPE_MASK, TYPE_REPLY, u64_at,
};
use std::os::fd::OwnedFd;

/// Bytes before the data.
const PREFIX: usize = HEADER + REGION_ACCESS;
/// Most bytes of requests that wait until a reply has come.
const CROSSING_LIMIT: usize = 8 << 20;

/// The caller's memory for one command.
#[derive(Debug)]
pub(crate) enum Data<'a> {
    /// `DMA_READ`: the client's bytes go here.
    Read(&'a mut [u8]),
    /// `DMA_WRITE`: these bytes go to the client.
    Write(&'a [u8]),
}

impl Data<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Read(data) => data.len(),
            Self::Write(data) => data.len(),
        }
    }
}

/// Sends one command for `data` at `addr` and waits for its reply.
pub(crate) fn exchange(link: &Link, addr: u64, mut data: Data<'_>) -> Result<()> {
    link.disturb(); // requests may cross
    let id = link.next_id();
    let (channel, inbox, is_twin) = match (link.twin(), link.channel()) {
        (Some(twin), _) => (twin, &link.twin_inbox, true),
        (None, Some(channel)) => (channel, &link.crossing, false),
        (None, None) => return Err(Error::NotConnected),
    };
    let mut inbox = inbox.try_borrow_mut().map_err(|_| Error::ExchangeBusy)?;
    let result = Exchange {
        channel,
        inbox: &mut inbox,
        id,
        addr,
        is_twin,
    }
    .run(&mut data);
    if let Err(error) = &result
        && is_fatal(error)
    {
        link.kill(*error);
        if matches!(error, Error::ConnectionReset { .. }) {
            return Err(Error::NotConnected);
        }
    }
    result
}

/// Whether the stream of messages has lost its order, or its other end.
const fn is_fatal(error: &Error) -> bool {
    matches!(
        error,
        Error::ConnectionReset { .. }
            | Error::CrossingLimit { .. }
            | Error::TimedOut
            | Error::OutOfMemory { .. }
            | Error::Header { .. }
            | Error::System { .. }
    )
}

const GONE: Error = Error::ConnectionReset {
    state: "while a DMA command waited for its reply",
};

struct Exchange<'a> {
    channel: Channel,
    inbox: &'a mut Inbox,
    id: u16,
    addr: u64,
    is_twin: bool,
}

/// Descriptors that come while a reply is expected.
struct Fds(Vec<OwnedFd>);

impl FdSink for Fds {
    fn take(&mut self, fd: OwnedFd) {
        // without memory for it, the descriptor is closed
        let _ = crate::sys::memory::try_push(&mut self.0, fd, "descriptors");
    }
}

impl Exchange<'_> {
    fn run(&mut self, data: &mut Data<'_>) -> Result<()> {
        self.send(data)?;
        let expected = PREFIX
            + if let Data::Read(data) = data {
                data.len()
            } else {
                0
            };
        if self.inbox.is_empty() && self.receive_directly(data, expected)? {
            return Ok(());
        }
        self.receive_among_requests(data, expected)
    }

    fn send(&self, data: &Data<'_>) -> Result<()> {
        let (command, bytes): (_, &[u8]) = match data {
            Data::Read(_) => (Command::DmaRead, &[]),
            Data::Write(data) => (Command::DmaWrite, data),
        };
        let size = PREFIX + bytes.len();
        let header = Header {
            id: self.id,
            command: command as u16,
            size: u32::try_from(size).unwrap_or(u32::MAX), // chunks are at most MAX_DATA
            flags: 0,
            error: 0,
        };
        let mut prefix = [0; PREFIX];
        prefix[..HEADER].copy_from_slice(&header.encode());
        prefix[HEADER..HEADER + 8].copy_from_slice(&self.addr.to_le_bytes());
        prefix[HEADER + 8..].copy_from_slice(&(data.len() as u64).to_le_bytes());

        let mut sent = 0;
        while sent < size {
            let head = prefix.get(sent..).unwrap_or_default();
            let tail = bytes.get(sent.saturating_sub(PREFIX)..).unwrap_or_default();
            match self
                .channel
                .send(&[From::slice(head), From::slice(tail)], &[], true)
            {
                Sent::Bytes(count) => sent += count,
                Sent::Nothing => return Err(Error::TimedOut),
                Sent::Closed => return Err(GONE),
                Sent::Failed(errno) => return Err(Progress::failed(errno)),
            }
        }
        Ok(())
    }

    /// Receives into the caller's memory as long as what comes is the reply. False if it is something else, all of which is
    /// in the inbox then.
    fn receive_directly(&mut self, data: &mut Data<'_>, expected: usize) -> Result<bool> {
        let mut prefix = [0; PREFIX];
        let mut fds = Fds(Vec::new());
        let target: &mut [u8] = match data {
            Data::Read(data) => data,
            Data::Write(_) => &mut [],
        };
        let mut count = 0;
        let mut any_lost = false;
        while count < expected {
            let known = count >= PREFIX;
            let how = if known { How::FILL } else { How::WAIT };
            let head = prefix.get_mut(count..).unwrap_or_default();
            let tail = target
                .get_mut(count.saturating_sub(PREFIX)..)
                .unwrap_or_default();
            match self
                .channel
                .receive(&mut [Into::slice(head), Into::slice(tail)], &mut fds, how)
            {
                Received::Bytes { count: more, lost } => {
                    count += more;
                    any_lost |= lost;
                }
                Received::Nothing => return Err(Error::TimedOut),
                Received::Closed => return Err(GONE),
                Received::Failed(errno) => return Err(Fill::failed(errno)),
            }
            if !known && !self.is_reply(&prefix, count, expected) {
                let head = prefix.get(..count).unwrap_or(&prefix);
                self.inbox.append(head, &mut Vec::new())?;
                let tail = target
                    .get(..count.saturating_sub(PREFIX))
                    .unwrap_or_default();
                self.inbox.append(tail, &mut fds.0)?;
                return Ok(false);
            }
        }
        self.check(
            &prefix,
            target.len().max(if let Data::Write(data) = data {
                data.len()
            } else {
                0
            }),
        )?;
        if any_lost || !fds.0.is_empty() {
            return Err(Error::DmaReplyDescriptors { addr: self.addr });
        }
        Ok(true)
    }

    /// Whether the bytes so far begin a good reply to our command.
    fn is_reply(&self, prefix: &[u8; PREFIX], count: usize, expected: usize) -> bool {
        count >= PREFIX
            && Header::decode(prefix).is_some_and(|header| {
                header.flags & (TYPE_MASK | ERROR) == TYPE_REPLY
                    && header.id == self.id
                    && header.len() == expected
            })
    }

    /// Receives into the inbox until the reply is there, and takes it out.
    fn receive_among_requests(&mut self, data: &mut Data<'_>, expected: usize) -> Result<()> {
        loop {
            if let Some((position, header)) = self.inbox.find_reply()? {
                let bytes = self.inbox.bytes_of(position, &header);
                if bytes.len() == header.len() {
                    let result = if self.inbox.has_descriptors(position) {
                        Err(Error::DmaReplyDescriptors { addr: self.addr })
                    } else {
                        self.judge(&header, bytes, data, expected)
                    };
                    self.inbox.remove(position, &header);
                    return result;
                }
            } else if self.is_twin && self.inbox.first().is_some() {
                let header = self.inbox.first().unwrap_or_default();
                self.inbox.consume(&header); // nobody may send requests there
                return Err(Error::DmaReply {
                    addr: self.addr,
                    field: "type",
                    value: header.flags.into(),
                });
            }
            if self.inbox.len() > CROSSING_LIMIT {
                return Err(Error::CrossingLimit {
                    limit: CROSSING_LIMIT,
                });
            }
            match self.inbox.fill(self.channel, How::WAIT, false) {
                Fill::More => {}
                Fill::Nothing => return Err(Error::TimedOut),
                Fill::Closed => return Err(GONE),
                Fill::Failed(errno) => return Err(Fill::failed(errno)),
            }
        }
    }

    /// What a whole reply means. Bytes beyond the expected ones are dropped with it.
    fn judge(
        &self,
        header: &Header,
        bytes: &[u8],
        data: &mut Data<'_>,
        expected: usize,
    ) -> Result<()> {
        if header.id != self.id {
            return Err(Error::DmaReplyId {
                got: header.id,
                expected: self.id,
            });
        }
        if header.flags & ERROR != 0 {
            let known = header.error != 0 && header.error <= MAX_CLIENT_ERRNO;
            let errno = if known {
                Errno::new(header.error.cast_signed())
            } else {
                Errno::EINVAL
            };
            return Err(Error::DmaRefused {
                addr: self.addr,
                errno,
            });
        }
        let Some(prefix) = bytes
            .first_chunk::<PREFIX>()
            .filter(|_| bytes.len() >= expected)
        else {
            return Err(Error::DmaReply {
                addr: self.addr,
                field: "size",
                value: bytes.len() as u64,
            });
        };
        self.check(prefix, data.len())?;
        if let Data::Read(data) = data {
            data.copy_from_slice(bytes.get(PREFIX..expected).unwrap_or_default());
        }
        Ok(())
    }

    /// Whether the reply is about what we asked for.
    fn check(&self, prefix: &[u8; PREFIX], length: usize) -> Result<()> {
        let (addr, count) = (u64_at(prefix, HEADER), u64_at(prefix, HEADER + 8));
        if addr != self.addr {
            return Err(Error::DmaReply {
                addr: self.addr,
                field: "address",
                value: addr,
            });
        }
        if count != length as u64 {
            return Err(Error::DmaReply {
                addr: self.addr,
                field: "count",
                value: count,
            });
        }
        Ok(())
    }
}
