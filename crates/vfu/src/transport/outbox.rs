//! The reply under construction, and what of it the client has not taken yet.
//!
//! 1. A reply leaves with one send, header and payload together, descriptors beside the first byte.
//! 2. What does not fit into a non-blocking socket stays here; no other reply begins before it is gone.
//! 3. Payloads start zeroed, so that nothing of an earlier reply can leak into one that is not filled.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::inbox::SMALL;
use super::stream::Channel;
use crate::error::{Errno, Error, Result};
use crate::sys::memory::{out_of_memory, try_zeroed};
use crate::sys::socket::{From, Sent};
use crate::wire::{ERROR, HEADER, Header, NO_REPLY, TYPE_REPLY};

/// Replies without need for a large buffer until it is given back.
const CALM: u32 = 256;

/// Bytes of the first buffer: enough for all but data, so that an idle connection costs little.
const FIRST: usize = 512;
/// Payloads up to this long are zeroed without a call.
const SHORT: usize = 48;

/// How far a reply got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All of it is sent.
    Sent,
    /// Part of it waits for the client to read.
    Waits,
    /// The client is gone.
    Closed,
    /// The system's error.
    Failed(Errno),
}

impl Progress {
    /// The error of a send that failed.
    #[cold]
    pub(crate) const fn failed(errno: Errno) -> Error {
        Error::System {
            call: "sendmsg",
            errno,
        }
    }
}

/// One reply.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    buffer: Vec<u8>,
    /// Bytes of payload.
    payload: usize,
    /// The payload is sent also with an error.
    keep: bool,
    /// Bytes to send, header included; 0 when nothing waits.
    length: usize,
    sent: usize,
    fds: Vec<RawFd>,
    owned: Option<OwnedFd>,
    calm: u32,
}

impl Outbox {
    pub(crate) const fn new() -> Self {
        Self {
            buffer: Vec::new(),
            payload: 0,
            keep: false,
            length: 0,
            sent: 0,
            fds: Vec::new(),
            owned: None,
            calm: 0,
        }
    }

    /// Gives memory and descriptors back.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Begins a reply without payload.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.payload = 0;
        self.keep = false;
        self.forget_fds();
    }

    /// Gives the reply `length` zeroed bytes of payload.
    #[inline(always)]
    pub(crate) fn payload(&mut self, length: usize) -> Result<&mut [u8]> {
        if length > SHORT || self.buffer.len() > SMALL || self.buffer.len() < HEADER + SHORT {
            return self.long_payload(length);
        }
        let Some(place) = self.buffer.first_chunk_mut::<{ HEADER + SHORT }>() else {
            return Ok(&mut []); // there is, as was just checked
        };
        self.payload = length;
        *place = [0; HEADER + SHORT]; // a few stores
        Ok(place.get_mut(HEADER..HEADER + length).unwrap_or_default())
    }

    #[inline(never)]
    fn long_payload(&mut self, length: usize) -> Result<&mut [u8]> {
        let needed = HEADER + length;
        if self.buffer.len() < needed || self.buffer.len() > SMALL {
            self.resize(needed)?;
        }
        self.payload = length;
        let place = self.buffer.get_mut(HEADER..needed).unwrap_or_default();
        place.fill(0);
        Ok(place)
    }

    /// Sends the payload also if the request fails from here on.
    #[inline]
    pub(crate) fn keep_on_error(&mut self) {
        self.keep = true;
    }

    /// Sends descriptors with the reply. They have to stay open until it is sent.
    pub(crate) fn attach(&mut self, fds: &[RawFd]) -> Result<()> {
        self.fds
            .try_reserve(fds.len())
            .map_err(out_of_memory("descriptors", size_of_val(fds)))?;
        self.fds.extend_from_slice(fds); // within the capacity reserved above
        Ok(())
    }

    /// Sends a descriptor with the reply, and closes it then.
    pub(crate) fn attach_owned(&mut self, fd: OwnedFd) -> Result<()> {
        self.attach(&[fd.as_raw_fd()])?;
        self.owned = Some(fd);
        Ok(())
    }

    /// Sends the reply to `request`: the payload, or `error`. A request that wants no reply gets none.
    #[inline(always)]
    pub(crate) fn reply(
        &mut self,
        channel: Channel,
        request: &Header,
        error: Option<i32>,
        wait: bool,
    ) -> Progress {
        if request.flags & NO_REPLY != 0 {
            self.begin();
            return Progress::Sent;
        }
        if error.is_some() {
            self.forget_fds();
            if !self.keep {
                self.payload = 0;
            }
        }
        let size = HEADER + self.payload;
        if self.buffer.len() < size && self.resize(size).is_err() {
            return Progress::Failed(Errno::ENOMEM);
        }
        let header = Header {
            id: request.id,
            command: request.command,
            size: u32::try_from(size).unwrap_or(u32::MAX), // replies are checked to stay below MAX_MESSAGE
            flags: if error.is_some() {
                TYPE_REPLY | ERROR
            } else {
                TYPE_REPLY
            },
            error: error.unwrap_or(0).cast_unsigned(),
        };
        if let Some(place) = self.buffer.first_chunk_mut::<HEADER>() {
            *place = header.encode();
        }
        let message = self.buffer.get(..size).unwrap_or_default();
        match channel.send(&[From::slice(message)], &self.fds, wait) {
            Sent::Bytes(count) if count == size => {
                self.forget_fds();
                Progress::Sent
            }
            Sent::Bytes(count) => self.send_rest(channel, size, count, wait),
            Sent::Nothing => self.send_rest(channel, size, 0, wait),
            Sent::Closed => Progress::Closed,
            Sent::Failed(errno) => Progress::Failed(errno),
        }
    }

    #[cold]
    fn send_rest(&mut self, channel: Channel, size: usize, sent: usize, wait: bool) -> Progress {
        self.length = size;
        self.sent = sent;
        if !wait && sent == 0 {
            return Progress::Waits;
        }
        match self.flush(channel, wait) {
            Progress::Failed(_) if self.is_waiting() => Progress::Waits, // the next flush tells, if it fails again
            progress => progress,
        }
    }

    #[inline]
    fn forget_fds(&mut self) {
        if !self.fds.is_empty() {
            self.fds.clear();
            self.owned = None;
        }
    }

    /// Sends what waits. If that fails, a reply of which something was sent waits on: without its rest, nothing that follows would
    /// make sense to the client. One of which nothing was sent is dropped.
    pub(crate) fn flush(&mut self, channel: Channel, wait: bool) -> Progress {
        while self.sent < self.length {
            let rest = self.buffer.get(self.sent..self.length).unwrap_or_default();
            let fds = if self.sent == 0 {
                self.fds.as_slice()
            } else {
                &[]
            };
            match channel.send(&[From::slice(rest)], fds, wait) {
                Sent::Bytes(count) => self.sent += count,
                Sent::Nothing => return Progress::Waits,
                Sent::Closed => {
                    self.length = 0;
                    return Progress::Closed;
                }
                Sent::Failed(errno) => {
                    if self.sent == 0 {
                        self.length = 0;
                    }
                    return Progress::Failed(errno);
                }
            }
        }
        self.length = 0;
        self.forget_fds();
        Progress::Sent
    }

    /// True if nothing waits, and the buffer is no larger than it is between replies.
    pub(crate) fn is_calm(&self) -> bool {
        self.length == 0 && self.fds.is_empty() && self.buffer.len() <= SMALL
    }

    /// Whether part of a reply waits.
    #[inline]
    pub(crate) const fn is_waiting(&self) -> bool {
        self.length != 0
    }

    #[cold]
    fn resize(&mut self, needed: usize) -> Result<()> {
        if needed > SMALL {
            self.calm = 0;
        } else if self.buffer.len() > SMALL {
            self.calm += 1;
            if self.calm > CALM {
                self.buffer = try_zeroed(SMALL, "replies")?;
            }
        }
        if self.buffer.len() < needed {
            self.buffer = Vec::new(); // the old one first: two large ones are not needed at a time
            let size = if needed <= FIRST {
                FIRST
            } else {
                needed.max(SMALL)
            };
            self.buffer = try_zeroed(size, "replies")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::pair;

    /// A reply of a megabyte, of which the client has got the beginning.
    fn half_sent(channel: Channel) -> Outbox {
        let mut outbox = Outbox::new();
        outbox.begin();
        outbox.payload(1 << 20).unwrap().fill(7);
        let sent = outbox.reply(channel, &Header::default(), None, false);
        assert_eq!(sent, Progress::Waits);
        assert!(outbox.sent > 0);
        outbox
    }

    #[test]
    fn what_was_begun_waits_until_it_is_sent() {
        let (ours, theirs) = pair().unwrap();
        let mut outbox = half_sent(Channel::Socket(ours.as_raw_fd()));
        let begun = outbox.sent;
        // Any errno will do that does not mean that the client has gone.
        let failed = outbox.flush(Channel::Socket(-1), false);
        assert_eq!(failed, Progress::Failed(Errno::new(libc::EBADF)));
        assert!(outbox.is_waiting());
        assert_eq!(outbox.sent, begun);
        drop(theirs);
        let closed = outbox.flush(Channel::Socket(ours.as_raw_fd()), false);
        assert_eq!(closed, Progress::Closed);
        assert!(!outbox.is_waiting());
    }

    #[test]
    fn what_was_not_begun_is_dropped_if_it_cannot_be_sent() {
        let mut outbox = Outbox::new();
        outbox.begin();
        let sent = outbox.reply(Channel::Socket(-1), &Header::default(), None, false);
        assert_eq!(sent, Progress::Failed(Errno::new(libc::EBADF)));
        assert!(!outbox.is_waiting());
    }
}
