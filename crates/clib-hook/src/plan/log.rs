//! Counts fallible calls, so that each of them can be made to fail.

use std::{
    collections::HashMap,
    slice,
    sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use super::{ACTIVE, LOGGING, Stack, group_bit};
use crate::{
    Error, session, sys,
    table::{self, Function, Group, Partial},
    thunk::{Frame, Slot},
};

/// One fallible call, as counting saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Name in the table.
    pub function: &'static str,
    /// Its group.
    pub group: Group,
    /// [`crate::LibraryInfo::id`] of the caller.
    pub library: u16,
    /// Return address of the call.
    pub site: usize,
    /// Hash of the return addresses as far as frames are of libraries under test (at most 16), `site` included. It does not depend
    /// on where libraries are loaded, only on their order.
    pub stack: u64,
    /// Which call of this function it was, from 1: [`super::Plan::nth`] for [`super::Target::Function`].
    pub call: u64,
    /// Which fallible call it was at all, from 1: [`super::Plan::nth`] for [`super::Target::Groups`] with the groups counted.
    pub ordinal: u64,
    /// Which call with this function and stack it was, from 1: [`super::Plan::nth`] with [`super::Plan::stack`].
    pub at_stack: u64,
    /// Thread (kernel's id).
    pub thread: i32,
    /// Whether a short count or an end of file may really happen: it transfers bytes, more than one, through a stream.
    pub partial: bool,
    /// Whether it reads (only then can it meet an end of file).
    pub reads: bool,
    /// Whether the descriptor concerned is in non-blocking mode (EAGAIN makes sense only then).
    pub nonblocking: bool,
    /// Whether descriptors came with what it received.
    pub passed: bool,
}

/// Words of an event: function, library and flags; site; stack; thread.
const EVENT: usize = 4;
/// Words before the first event: number of events, number that did not fit.
const HEAD: usize = 2;

const PARTIAL: u64 = 1 << 32;
const READS: u64 = 1 << 33;
const NONBLOCKING: u64 = 1 << 34;
const PASSED: u64 = 1 << 35;

/// Events of other threads among which the last one of a thread is looked for.
const OTHERS: usize = 64;

/// The log that is written to: address and capacity; which groups and which thread (0: any).
static LOG: AtomicUsize = AtomicUsize::new(0);
static CAPACITY: AtomicUsize = AtomicUsize::new(0);
static GROUPS: AtomicU32 = AtomicU32::new(0);
static THREAD: AtomicI32 = AtomicI32::new(0);

/// Counts fallible calls into memory shared with children forked later.
#[derive(Debug)]
pub struct EventLog {
    words: usize,
    capacity: usize,
}

fn words(start: usize, capacity: usize) -> &'static [AtomicU64] {
    // SAFETY: a live mapping of that many zeroed words: of an `EventLog` that exists (dropping it stops the logging).
    unsafe { slice::from_raw_parts(start as *const AtomicU64, HEAD + capacity * EVENT) }
}

impl EventLog {
    /// Maps an empty log for this many events of 32 bytes (memory is used as it fills).
    ///
    /// # Errors
    ///
    /// [`Error::System`] when there is no memory, [`Error::BadArgument`] for a capacity of 0 or above 2^26.
    pub fn new(capacity: usize) -> Result<Self, Error> {
        if capacity == 0 || capacity > 1 << 26 {
            return Err(Error::BadArgument(format!(
                "a log of {capacity} events is not between 1 and 2^26"
            )));
        }
        let words = sys::map_shared((HEAD + capacity * EVENT) * 8)
            .ok_or_else(|| Error::last_os(format!("mapping a log of {capacity} events")))?;
        Ok(Self { words, capacity })
    }

    /// Starts logging calls of the given groups in this process; `this_thread`: by the calling thread only. Goes on
    /// where the log ends: [`EventLog::clear`] it for counts from 1.
    ///
    /// # Errors
    ///
    /// [`Error::NotStarted`].
    pub fn start(&self, groups: &[Group], this_thread: bool) -> Result<(), Error> {
        session::with_state(|_| Ok(()))?;
        GROUPS.store(
            groups
                .iter()
                .fold(0, |bits, group| bits | group_bit(*group)),
            Ordering::Relaxed,
        );
        THREAD.store(
            if this_thread { sys::thread_id() } else { 0 },
            Ordering::Relaxed,
        );
        CAPACITY.store(self.capacity, Ordering::Relaxed);
        LOG.store(self.words, Ordering::Release);
        ACTIVE.fetch_or(LOGGING, Ordering::Release);
        Ok(())
    }

    /// Stops logging.
    pub fn stop(&self) {
        if LOG.load(Ordering::Acquire) == self.words {
            stop();
        }
    }

    /// The events so far, in order.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let words = words(self.words, self.capacity);
        let logged = usize::try_from(words[0].load(Ordering::Acquire))
            .unwrap_or(0)
            .min(self.capacity);
        let mut calls: HashMap<u16, u64> = HashMap::new();
        let mut stacks: HashMap<(u16, u64), u64> = HashMap::new();
        let mut events = Vec::with_capacity(logged);
        for (number, raw) in words[HEAD..HEAD + logged * EVENT]
            .chunks_exact(EVENT)
            .enumerate()
        {
            let [what, site, stack, thread] =
                [0, 1, 2, 3].map(|at: usize| raw[at].load(Ordering::Acquire));
            let function = u16::try_from(what & 0xffff).unwrap_or(u16::MAX);
            // A writer that died between taking its place and filling it leaves zeros.
            let Some(row) = table::all()
                .get(usize::from(function))
                .filter(|_| stack != 0)
            else {
                continue;
            };
            let call = calls.entry(function).or_default();
            *call += 1;
            let at_stack = stacks.entry((function, stack)).or_default();
            *at_stack += 1;
            events.push(Event {
                function: row.name,
                group: row.group,
                library: u16::try_from(what >> 16 & 0xffff).unwrap_or(u16::MAX),
                site: usize::try_from(site).unwrap_or(0),
                stack,
                call: *call,
                ordinal: number as u64 + 1,
                at_stack: *at_stack,
                thread: u32::try_from(thread).unwrap_or(0).cast_signed(),
                partial: what & PARTIAL != 0,
                reads: what & READS != 0,
                nonblocking: what & NONBLOCKING != 0,
                passed: what & PASSED != 0,
            });
        }
        events
    }

    /// How many events did not fit.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        words(self.words, self.capacity)[1].load(Ordering::Relaxed)
    }

    /// Empties the log.
    pub fn clear(&self) {
        let words = words(self.words, self.capacity);
        let logged = usize::try_from(words[0].load(Ordering::Acquire))
            .unwrap_or(0)
            .min(self.capacity);
        for word in &words[..HEAD + logged * EVENT] {
            word.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        self.stop();
        sys::unmap(self.words, (HEAD + self.capacity * EVENT) * 8);
    }
}

pub(super) fn stop() {
    ACTIVE.fetch_and(!LOGGING, Ordering::Release);
    LOG.store(0, Ordering::Release);
}

/// Logs a fallible call.
pub(super) fn note(slot: &Slot, row: &Function, frame: &Frame, stack: &mut Stack) {
    let thread = THREAD.load(Ordering::Relaxed);
    if GROUPS.load(Ordering::Relaxed) & group_bit(row.group) == 0
        || (thread != 0 && thread != sys::thread_id())
    {
        return;
    }
    let start = LOG.load(Ordering::Acquire);
    if start == 0 {
        return;
    }
    let words = words(start, CAPACITY.load(Ordering::Relaxed));
    let number = usize::try_from(words[0].fetch_add(1, Ordering::AcqRel)).unwrap_or(usize::MAX);
    let at = HEAD + number.saturating_mul(EVENT);
    let Some(event) = words.get(at..at.saturating_add(EVENT)) else {
        words[1].fetch_add(1, Ordering::Relaxed);
        return;
    };
    let what = u64::from(slot.function) | u64::from(slot.library()) << 16 | flags(row, frame);
    event[0].store(what, Ordering::Relaxed);
    event[1].store(frame.site as u64, Ordering::Relaxed);
    event[3].store(
        u64::from(sys::thread_id().cast_unsigned()),
        Ordering::Relaxed,
    );
    event[2].store(stack.hash(frame), Ordering::Release);
}

/// Descriptors came with what the call received that the calling thread makes.
pub(super) fn note_passed() {
    let start = LOG.load(Ordering::Acquire);
    if start == 0 {
        return;
    }
    let words = words(start, CAPACITY.load(Ordering::Relaxed));
    let thread = u64::from(sys::thread_id().cast_unsigned());
    let logged = usize::try_from(words[0].load(Ordering::Acquire)).unwrap_or(0);
    let of_thread = (logged.saturating_sub(OTHERS)..logged)
        .rev()
        .filter_map(|number| words.get(HEAD + number * EVENT..HEAD + (number + 1) * EVENT))
        .find(|event| event[3].load(Ordering::Relaxed) == thread);
    if let Some(event) = of_thread {
        event[0].fetch_or(PASSED, Ordering::Relaxed);
    }
}

/// What may really happen to a call that transfers bytes, from the descriptor in its first argument.
fn flags(row: &Function, frame: &Frame) -> u64 {
    let (asks, reads) = match row.partial {
        Partial::No if row.group == Group::Socket => (false, false),
        Partial::No => return 0,
        Partial::Bytes { arg, reads } => (frame.arguments[usize::from(arg)] > 1, reads),
        Partial::Vector { reads, .. } | Partial::Message { reads, .. } => (true, reads),
    };
    if row.name == "getrandom" {
        // The kernel never cuts requests of up to 256 bytes.
        return if frame.arguments[1] > 256 { PARTIAL } else { 0 };
    }
    let fd = sys::int(frame.arguments[0]);
    let errno = sys::errno();
    // SAFETY: F_GETFL only asks.
    let status = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let mut flags = if status >= 0 && status & libc::O_NONBLOCK != 0 {
        NONBLOCKING
    } else {
        0
    };
    if asks && is_stream(fd) {
        flags |= PARTIAL | if reads { READS } else { 0 };
    }
    sys::set_errno(errno);
    flags
}

/// Whether bytes flow through a descriptor: a stream socket, pipe, terminal or file. Datagrams and counters (eventfd, timerfd) come whole.
fn is_stream(fd: i32) -> bool {
    // SAFETY: plain C structures that the calls fill.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &raw mut status) != 0 {
            return false;
        }
        match status.st_mode & libc::S_IFMT {
            libc::S_IFSOCK => {
                let mut kind = 0_i32;
                let mut size = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4);
                let into = (&raw mut kind).cast();
                libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE, into, &raw mut size) == 0
                    && kind == libc::SOCK_STREAM
            }
            libc::S_IFIFO | libc::S_IFREG | libc::S_IFCHR => true,
            _ => false,
        }
    }
}
