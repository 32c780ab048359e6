//! Received bytes, cut into messages, with the descriptors of each.
//!
//! 1. `start <= scan <= end <= buffer.len()`. `start..scan` are complete messages, `scan..end` is the beginning of one (or
//!    nothing).
//! 2. A receive that brings descriptors ends with the bytes they were sent with, so they belong to the last message that
//!    has begun. Every descriptor is owned from the moment it arrives, and closed with its message if nobody took it.
//! 3. A header whose size cannot be right ends the cutting: it counts as a complete message of 16 bytes, and what follows
//!    has no meaning.
//! 4. The buffer is small between messages; it grows for one that needs it, and shrinks when such messages stay away.

use std::os::fd::{OwnedFd, RawFd};

use super::stream::Channel;
use crate::error::{Errno, Error, Result};
use crate::sys::memory::{try_push, try_zeroed};
use crate::sys::socket::{self, FdSink, How, Into, Received};
use crate::wire::{HEADER, Header, MAX_MESSAGE};

/// Bytes of the buffer between messages: a page of data and what describes it.
pub(crate) const SMALL: usize = 4096 + 64;
/// Most descriptors that wait in one inbox.
const MAX_WAITING_FDS: usize = 1024;
/// Receives without need for a large buffer until it is given back.
const CALM: u32 = 256;

/// A descriptor and where the message that it came with starts.
#[derive(Debug)]
pub(crate) struct Tagged {
    message: usize,
    pub(crate) fd: Option<OwnedFd>,
}

/// Position of a descriptor whose message is not known yet.
const UNKNOWN: usize = usize::MAX;

/// What a receive brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Bytes.
    More,
    /// Nothing there now.
    Nothing,
    /// The peer will send nothing more.
    Closed,
    /// The system's error.
    Failed(Errno),
}

impl Fill {
    /// The error of a receive that failed.
    #[cold]
    pub(crate) const fn failed(errno: Errno) -> Error {
        Error::System {
            call: "recvmsg",
            errno,
        }
    }
}

/// The bytes of one connection that wait to be served.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    scan: usize,
    end: usize,
    /// Start of the last message that has begun.
    last: usize,
    /// A header with an impossible size is in `start..scan`, as its last message.
    broken: bool,
    fds: Vec<Tagged>,
    /// Start of a message that lost descriptors on the way.
    lost: Option<usize>,
    calm: u32,
}

/// What [`Inbox::receive_calmly`] brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calm {
    /// A message that came alone: its header. It is not taken in, see [`Inbox::lone`].
    Lone(Header),
    /// Anything else, as after [`Inbox::fill`].
    Fill(Fill),
}

/// Descriptors of one receive.
#[derive(Debug, Clone, Copy)]
struct Came {
    /// There were some.
    any: bool,
    /// There was no place for all of them.
    refused: bool,
}

impl Came {
    const NONE: Self = Self {
        any: false,
        refused: false,
    };
}

struct Sink<'a> {
    fds: &'a mut Vec<Tagged>,
    came: Came,
}

impl<'a> Sink<'a> {
    const fn new(fds: &'a mut Vec<Tagged>) -> Self {
        Self {
            fds,
            came: Came::NONE,
        }
    }
}

impl FdSink for Sink<'_> {
    fn take(&mut self, fd: OwnedFd) {
        self.came.any = true;
        if self.fds.len() >= MAX_WAITING_FDS
            || try_push(
                self.fds,
                Tagged {
                    message: UNKNOWN,
                    fd: Some(fd),
                },
                "descriptors",
            )
            .is_err()
        {
            self.came.refused = true; // and closed
        }
    }
}

impl Inbox {
    pub(crate) const fn new() -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            scan: 0,
            end: 0,
            last: 0,
            broken: false,
            fds: Vec::new(),
            lost: None,
            calm: 0,
        }
    }

    /// Forgets everything and closes all descriptors.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// True if a complete message waits.
    #[inline]
    pub(crate) const fn has_message(&self) -> bool {
        self.start != self.scan
    }

    /// The header of the first message, if it is complete.
    #[inline]
    pub(crate) fn first(&self) -> Option<Header> {
        if !self.has_message() {
            return None;
        }
        Header::decode(self.buffer.get(self.start..self.end)?)
    }

    /// Bytes after the header of the first message, which is complete and has `header`; and its descriptors.
    #[inline]
    pub(crate) fn contents(&mut self, header: &Header) -> (&mut [u8], &mut [Tagged]) {
        let end = if header.is_empty() {
            self.start
        } else {
            self.start + header.len()
        };
        let count = if self.fds.is_empty() {
            0
        } else {
            self.count_fds()
        };
        let payload = self
            .buffer
            .get_mut(self.start + HEADER..end.min(self.scan))
            .unwrap_or_default();
        (payload, self.fds.get_mut(..count).unwrap_or_default())
    }

    /// Whether descriptors of the first message were lost.
    #[inline]
    pub(crate) fn first_lost_descriptors(&self) -> bool {
        self.lost == Some(self.start)
    }

    /// Ends the first message, which is complete and has `header`. Descriptors that nobody took are closed.
    #[inline]
    pub(crate) fn consume(&mut self, header: &Header) {
        if self.first_lost_descriptors() {
            self.lost = None;
        }
        if !self.fds.is_empty() {
            let count = self.count_fds();
            self.fds.drain(..count);
        }
        self.start = (self.start + header.len().max(HEADER)).min(self.scan);
        if self.start == self.end {
            self.rewind();
        }
    }

    /// Descriptors of the first message.
    #[cold]
    fn count_fds(&self) -> usize {
        self.fds
            .iter()
            .take_while(|tagged| tagged.message <= self.start)
            .count()
    }

    fn rewind(&mut self) {
        self.start = 0;
        self.scan = 0;
        self.end = 0;
        self.last = 0;
    }

    /// True if nothing waits, not even part of a message.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// True if part of a message waits behind the complete ones.
    #[inline]
    pub(crate) const fn has_tail(&self) -> bool {
        self.scan != self.end
    }

    /// Bytes that wait.
    pub(crate) const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Receives once. With `exact`, takes nothing beyond the message that has begun.
    #[inline]
    pub(crate) fn fill(&mut self, channel: Channel, how: How, exact: bool) -> Fill {
        if self.make_room().is_err() {
            return Fill::Failed(Errno::ENOMEM);
        }
        let room = match exact {
            true => self.missing().min(self.buffer.len() - self.end),
            false => self.buffer.len() - self.end,
        };
        let Some(place) = self.buffer.get_mut(self.end..self.end + room) else {
            return Fill::Nothing;
        };
        let mut sink = Sink::new(&mut self.fds);
        let received = channel.receive(&mut [Into::slice(place)], &mut sink, how);
        let came = sink.came;
        self.note(received, came)
    }

    /// Takes in what a receive into the buffer brought.
    fn note(&mut self, received: Received, came: Came) -> Fill {
        match received {
            Received::Bytes { count, lost } => {
                self.end += count;
                self.cut();
                if came.any || lost {
                    self.tag(lost || came.refused);
                }
                Fill::More
            }
            Received::Nothing => Fill::Nothing,
            Received::Failed(errno) => Fill::Failed(errno),
            Received::Closed => {
                self.fds.retain(|tagged| tagged.message != UNKNOWN); // descriptors without bytes
                Fill::Closed
            }
        }
    }

    /// True if nothing at all waits, and the buffer has the size that it has between messages.
    pub(crate) fn is_calm(&self) -> bool {
        self.end == 0 // hence start and scan
            && self.buffer.len() == SMALL
            && self.fds.is_empty()
            && self.lost.is_none()
            && !self.broken
    }

    /// Receives what is there, once. The inbox is [calm](Self::is_calm).
    #[inline(always)]
    pub(crate) fn receive_calmly(&mut self, socket: RawFd) -> Calm {
        let mut sink = Sink::new(&mut self.fds);
        let received = match socket::receive_plain(socket, &mut self.buffer, &mut sink) {
            Err(Received::Nothing) => return Calm::Fill(Fill::Nothing),
            Err(received) => received,
            Ok(count) => {
                if let Some(header) = self.lone_header(count) {
                    return Calm::Lone(header);
                }
                let lost = false;
                return Calm::Fill(self.note(Received::Bytes { count, lost }, Came::NONE));
            }
        };
        let came = sink.came;
        Calm::Fill(self.note(received, came))
    }

    /// The header of the one message that the first `count` bytes of the buffer are, if they are one. The inbox is
    /// [calm](Self::is_calm).
    #[inline(always)]
    pub(crate) fn lone_header(&self, count: usize) -> Option<Header> {
        let header = Header::decode(self.buffer.get(..count)?)?;
        (header.len() == count).then_some(header)
    }

    /// The payload of a message that came alone, of which `header` was returned by [`lone_header`](Self::lone_header).
    #[inline(always)]
    pub(crate) fn lone(&mut self, header: &Header) -> &mut [u8] {
        self.buffer
            .get_mut(HEADER..header.len())
            .unwrap_or_default()
    }

    /// Takes a message that came alone in after all.
    pub(crate) fn take_lone(&mut self, header: &Header) {
        self.end = header.len();
        self.cut();
    }

    /// Appends what was received elsewhere: bytes, and descriptors that came with the last of them.
    pub(crate) fn append(&mut self, bytes: &[u8], fds: &mut Vec<OwnedFd>) -> Result<()> {
        self.reserve(bytes.len())?;
        if let Some(place) = self.buffer.get_mut(self.end..self.end + bytes.len()) {
            place.copy_from_slice(bytes);
            self.end += bytes.len();
        }
        self.cut();
        let mut sink = Sink::new(&mut self.fds);
        for fd in fds.drain(..) {
            sink.take(fd);
        }
        let came = sink.came;
        if came.any {
            self.tag(came.refused);
        }
        Ok(())
    }

    /// Where others may receive for [`take`](Self::take).
    pub(crate) fn place(&mut self) -> Result<&mut [u8]> {
        self.make_room()?;
        Ok(self.buffer.get_mut(self.end..).unwrap_or_default())
    }

    /// Takes what others have received to [`place`](Self::place), with one receive: `count` bytes, and descriptors; `lost`:
    /// some were lost on the way.
    pub(crate) fn take(&mut self, count: usize, fds: &mut Vec<OwnedFd>, lost: bool) {
        let mut sink = Sink::new(&mut self.fds);
        for fd in fds.drain(..) {
            sink.take(fd);
        }
        let came = sink.came;
        let count = count.min(self.buffer.len() - self.end);
        self.note(Received::Bytes { count, lost }, came);
    }

    /// Moves all of `other` behind what is here.
    pub(crate) fn absorb(&mut self, other: &mut Self) -> Result<()> {
        let bytes = other.buffer.get(other.start..other.end).unwrap_or_default();
        self.reserve(bytes.len())?;
        let base = self.end;
        if let Some(place) = self.buffer.get_mut(base..base + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        // A message that began here and goes on there starts here; `other` starts at a message if nothing has begun.
        let start = other.start;
        let shift = |position: usize| position - start + base;
        self.fds
            .try_reserve(other.fds.len())
            .map_err(crate::sys::memory::out_of_memory(
                "descriptors",
                other.fds.len(),
            ))?;
        for tagged in other.fds.drain(..) {
            self.fds.push(Tagged {
                message: shift(tagged.message),
                fd: tagged.fd,
            });
        }
        self.lost = self.lost.or(other.lost.map(shift));
        self.end += other.len();
        self.cut();
        other.clear();
        Ok(())
    }

    /// Moves the message that has begun, if any, to the end of `other`, which must be empty.
    pub(crate) fn move_tail(&mut self, other: &mut Self) -> Result<()> {
        let tail = self.buffer.get(self.scan..self.end).unwrap_or_default();
        other.reserve(tail.len())?;
        if let Some(place) = other.buffer.get_mut(..tail.len()) {
            place.copy_from_slice(tail);
        }
        let first = self
            .fds
            .iter()
            .take_while(|tagged| tagged.message < self.scan)
            .count();
        other
            .fds
            .try_reserve(self.fds.len() - first)
            .map_err(crate::sys::memory::out_of_memory("descriptors", 0))?;
        for tagged in self.fds.drain(first..) {
            other.fds.push(Tagged {
                message: 0,
                fd: tagged.fd,
            });
        }
        if self.lost == Some(self.scan) {
            self.lost = None;
            other.lost = Some(0);
        }
        other.end = tail.len();
        other.cut();
        self.end = self.scan;
        self.last = self.last.min(self.scan);
        Ok(())
    }

    /// The first message that is a reply: where it starts, and its header. It need not be complete.
    ///
    /// # Errors
    /// What [`insane`] says of the first header with an impossible size: no reply can be found behind it.
    pub(crate) fn find_reply(&self) -> Result<Option<(usize, Header)>> {
        let mut position = self.start;
        while let Some(header) =
            Header::decode(self.buffer.get(position..self.end).unwrap_or_default())
        {
            if let Some(error) = insane(&header) {
                return Err(error);
            }
            if header.flags & crate::wire::TYPE_MASK == crate::wire::TYPE_REPLY {
                return Ok(Some((position, header)));
            }
            position += header.len();
        }
        Ok(None)
    }

    /// The bytes of a message found by [`find_reply`](Self::find_reply), as far as they are there.
    pub(crate) fn bytes_of(&self, position: usize, header: &Header) -> &[u8] {
        let end = (position + header.len()).min(self.end);
        self.buffer.get(position..end).unwrap_or_default()
    }

    /// Whether descriptors came with the message at `position`, or were lost.
    pub(crate) fn has_descriptors(&self, position: usize) -> bool {
        self.lost == Some(position) || self.fds.iter().any(|tagged| tagged.message == position)
    }

    /// Takes a complete message out, wherever it is.
    pub(crate) fn remove(&mut self, position: usize, header: &Header) {
        let length = header.len().min(self.end - position);
        self.buffer
            .copy_within(position + length..self.end, position);
        self.end -= length;
        self.fds.retain(|tagged| tagged.message != position);
        for tagged in self
            .fds
            .iter_mut()
            .filter(|tagged| tagged.message > position)
        {
            tagged.message -= length;
        }
        if let Some(lost) = self.lost.as_mut().filter(|lost| **lost > position) {
            *lost -= length;
        }
        self.scan = self.start;
        self.last = self.start;
        self.broken = false;
        self.cut();
        if self.start == self.end {
            self.rewind();
        }
    }

    /// Finds the ends of messages among the bytes that are new.
    #[inline]
    fn cut(&mut self) {
        while !self.broken
            && let Some(header) =
                Header::decode(self.buffer.get(self.scan..self.end).unwrap_or_default())
        {
            self.last = self.scan;
            if !is_sane(&header) {
                self.scan += HEADER;
                self.end = self.scan; // what follows has no meaning
                self.broken = true;
            } else if header.len() <= self.end - self.scan {
                self.scan += header.len();
            } else {
                return;
            }
        }
        if self.scan < self.end {
            self.last = self.scan;
        }
    }

    #[cold]
    fn tag(&mut self, lost: bool) {
        let message = self.last;
        for tagged in self
            .fds
            .iter_mut()
            .filter(|tagged| tagged.message == UNKNOWN)
        {
            tagged.message = message;
        }
        if lost {
            self.lost = Some(message);
        }
    }

    /// Bytes that the message that has begun lacks, or its header lacks.
    fn missing(&self) -> usize {
        let begun = self.end - self.scan;
        match Header::decode(self.buffer.get(self.scan..self.end).unwrap_or_default()) {
            Some(header) => header.len().saturating_sub(begun),
            None => HEADER - begun,
        }
    }

    /// Room for the rest of the message that has begun, or for many small ones.
    #[inline]
    fn make_room(&mut self) -> Result<()> {
        if self.end == 0 && self.buffer.len() == SMALL {
            return Ok(());
        }
        self.make_room_slowly()
    }

    #[cold]
    fn make_room_slowly(&mut self) -> Result<()> {
        let needed = self.end - self.start + self.missing();
        if needed > SMALL {
            self.calm = 0;
        } else if self.buffer.len() != SMALL {
            self.calm += 1;
            if self.buffer.len() < SMALL || self.calm > CALM {
                self.move_to(SMALL)?;
            }
        }
        self.reserve(self.missing())
    }

    /// Makes sure that `more` bytes fit behind `end`.
    fn reserve(&mut self, more: usize) -> Result<()> {
        if self.buffer.len() - self.end >= more && more > 0 {
            return Ok(());
        }
        let needed = self.end - self.start + more;
        if needed <= self.buffer.len() {
            self.compact();
            return Ok(());
        }
        self.move_to(needed.max(SMALL))
    }

    fn move_to(&mut self, size: usize) -> Result<()> {
        if size < self.len() {
            return Ok(());
        }
        let mut buffer = try_zeroed(size, "received messages")?;
        if let (Some(to), Some(from)) = (
            buffer.get_mut(..self.len()),
            self.buffer.get(self.start..self.end),
        ) {
            to.copy_from_slice(from);
        }
        self.shift();
        self.buffer = buffer;
        Ok(())
    }

    fn compact(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.shift();
    }

    /// Takes `start` off all positions.
    fn shift(&mut self) {
        let by = self.start;
        for tagged in &mut self.fds {
            tagged.message = tagged.message.saturating_sub(by);
        }
        self.lost = self.lost.map(|lost| lost.saturating_sub(by));
        self.last = self.last.saturating_sub(by);
        self.scan -= by;
        self.end -= by;
        self.start = 0;
    }
}

/// Whether a header's size is one that a message can have.
#[inline]
const fn is_sane(header: &Header) -> bool {
    header.len() >= HEADER && header.len() <= MAX_MESSAGE
}

/// The error of a header whose size cannot be.
pub(crate) const fn insane(header: &Header) -> Option<Error> {
    if is_sane(header) {
        None
    } else {
        Some(Error::Header {
            id: header.id,
            field: "size",
            value: header.size,
        })
    }
}
