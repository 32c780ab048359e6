//! What a child process tells its parent however it ends: memory shared across `fork`, written before anything can go wrong.
//!
//! The memory is an array of atomic words, so that reader and writer may be different processes and the writer may die at
//! any moment. Each part has a word that is set last. Nothing here allocates while writing: it runs in hooks and in
//! signal handlers.

use std::{
    slice,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crate::{
    Error, sys,
    thunk::{Frame, Slot},
    unwind,
};

/// An injected failure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Injected {
    /// Name in the table, or the symbol's own.
    pub function: String,
    /// errno that the call gave; 0 for short counts and end of file.
    pub errno: i32,
    /// How it failed: `fail`, `return`, `short`, `eof` or `throw`.
    pub action: String,
    /// Which of the matching calls it was (from 1).
    pub call: u64,
    /// Return address of the call.
    pub site: usize,
    /// Return addresses from `site` outwards, as far as frames are of libraries under test.
    pub backtrace: Vec<usize>,
    /// Path of the object that holds `site`.
    pub object: String,
    /// `site` as the object's file counts it.
    pub offset: usize,
    /// Thread (kernel's id).
    pub thread: i32,
}

/// Why the process ended or is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum EndKind {
    /// A fatal signal other than `SIGABRT`.
    Signal = 1,
    /// `SIGABRT`.
    Abort = 2,
    /// A library under test called `exit` or one of its kin.
    Exit = 3,
    /// The time limit passed.
    Hang = 4,
}

/// Where the fault lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Blame {
    /// The program counter is in a library under test, or only libc, dependencies and hooks are between the two.
    Library = 1,
    /// A library under test is on the stack, behind frames of something else (a callback, an interpreter).
    Behind = 2,
    /// No library under test is on the stack.
    Elsewhere = 3,
}

/// What the guard knows about a faulting address or a bad release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardFault {
    /// `overflow`, `underflow`, `use-after-free`, `double-free` or `invalid-free`.
    pub kind: String,
    /// First address of the block.
    pub block: usize,
    /// Bytes asked for.
    pub size: usize,
    /// Faulting address minus `block`.
    pub offset: isize,
    /// Backtrace of the allocation, call site first.
    pub allocated: Vec<usize>,
    /// Backtrace of the release, call site first; empty if it was not released.
    pub freed: Vec<usize>,
}

/// An object that frames of an [`End`] are in, as the ended process had it mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// First address.
    pub start: usize,
    /// Address after the last.
    pub end: usize,
    /// Address in memory minus address in the file.
    pub bias: usize,
    /// Its path (cut after 247 bytes).
    pub path: String,
}

/// The end of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub kind: EndKind,
    /// Signal number; for [`EndKind::Exit`] 0.
    pub signal: i32,
    /// `si_code` of the signal, or the exit status (0 for functions without one).
    pub code: i32,
    /// Faulting address (`SIGSEGV`, `SIGBUS`).
    pub address: usize,
    /// Program counter, or return address of the call of `exit`.
    pub pc: usize,
    /// `pc` first, then return addresses outwards.
    pub backtrace: Vec<usize>,
    /// Objects that hold the backtrace's addresses, for those that this process has not mapped itself.
    pub modules: Vec<Module>,
    /// Where the fault lies.
    pub blame: Blame,
    /// Name of the function for [`EndKind::Exit`] (`exit`, `_exit`, `abort`, `__assert_fail`, ...).
    pub function: String,
    /// What the guard says of `address`.
    pub guard: Option<GuardFault>,
    /// Thread (kernel's id).
    pub thread: i32,
}

/// Everything in a record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// How many calls were made to fail.
    pub injections: u64,
    /// The first of them (at most 8).
    pub injected: Vec<Injected>,
    /// A call of `exit` or its kin by a library under test, if there was one.
    pub exit: Option<End>,
    /// The fatal signal or time limit, if there was one.
    pub end: Option<End>,
}

/// Names of what a plan did, by number.
pub(crate) const ACTIONS: [&str; 5] = ["fail", "return", "short", "eof", "throw"];

const MOST_INJECTED: usize = 8;
/// Most frames of an end.
pub(crate) const FRAMES: usize = 64;
const TEXT: usize = 8;
const PATH: usize = 31;
const MODULES: usize = 16;

// Words of an injection.
const I_DONE: usize = 0;
const I_ERRNO: usize = 1;
const I_ACTION: usize = 2;
const I_CALL: usize = 3;
const I_SITE: usize = 4;
const I_OFFSET: usize = 5;
const I_THREAD: usize = 6;
const I_COUNT: usize = 7;
const I_FRAMES: usize = 8;
const I_FUNCTION: usize = I_FRAMES + 16;
const I_OBJECT: usize = I_FUNCTION + TEXT;
const I_SIZE: usize = I_OBJECT + PATH;

// Words of an end.
const E_STATE: usize = 0;
const E_KIND: usize = 1;
const E_SIGNAL: usize = 2;
const E_CODE: usize = 3;
const E_ADDRESS: usize = 4;
const E_BLAME: usize = 5;
const E_THREAD: usize = 6;
const E_COUNT: usize = 7;
const E_FRAMES: usize = 8;
const E_FUNCTION: usize = E_FRAMES + FRAMES;
const E_GUARD: usize = E_FUNCTION + TEXT;
const E_MODULE_COUNT: usize = E_GUARD + 6 + 32;
const E_MODULES: usize = E_MODULE_COUNT + 1;
const MODULE: usize = 3 + PATH;
const E_SIZE: usize = E_MODULES + MODULES * MODULE;

// Words of a record.
const R_INJECTIONS: usize = 0;
const R_INJECTED: usize = 1;
const R_EXIT: usize = R_INJECTED + MOST_INJECTED * I_SIZE;
const R_END: usize = R_EXIT + E_SIZE;
const WORDS: usize = R_END + E_SIZE;

/// The record that is written to: address of its words, or 0.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// Memory shared with children forked after it was made. The last one [activated](Record::activate) gets what happens.
#[derive(Debug)]
pub struct Record {
    words: usize,
}

impl Record {
    /// Maps an empty record (about 16 kB).
    ///
    /// # Errors
    ///
    /// [`Error::System`] when there is no memory.
    pub fn new() -> Result<Self, Error> {
        let words =
            sys::map_shared(WORDS * 8).ok_or_else(|| Error::last_os("mapping a shared record"))?;
        Ok(Self { words })
    }

    /// Makes this the record that plans, crash handlers and exits of this process (and its later children) write to. It must be kept
    /// until another one is activated or [`Record::deactivate`] is called (dropping it does the latter).
    pub fn activate(&self) {
        ACTIVE.store(self.words, Ordering::Release);
    }

    /// Nothing is written to it any more.
    pub fn deactivate(&self) {
        // If another one is active, it stays so.
        let _ = ACTIVE.compare_exchange(self.words, 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Empties it.
    pub fn clear(&self) {
        for word in words(self.words) {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// What is in it now; never torn, also when the writer died half-way (then what it had finished).
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let words = words(self.words);
        let part = |at: usize, size: usize| Part(&words[at..at + size]);
        Snapshot {
            injections: words[R_INJECTIONS].load(Ordering::Acquire),
            injected: (0..MOST_INJECTED)
                .filter_map(|n| part(R_INJECTED + n * I_SIZE, I_SIZE).injected())
                .collect(),
            exit: part(R_EXIT, E_SIZE).end(),
            end: part(R_END, E_SIZE).end(),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.deactivate();
        sys::unmap(self.words, WORDS * 8);
    }
}

fn words(start: usize) -> &'static [AtomicU64] {
    // SAFETY: `start` is a live mapping of WORDS zeroed words: of a `Record` that exists, or of the active one, which its
    // owner keeps (see `Record::activate`).
    unsafe { slice::from_raw_parts(start as *const AtomicU64, WORDS) }
}

/// Part of the active record, if there is one.
fn active(at: usize, size: usize) -> Option<Part<'static>> {
    let start = ACTIVE.load(Ordering::Acquire);
    (start != 0).then(|| Part(&words(start)[at..at + size]))
}

/// Some words of a record.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a>(&'a [AtomicU64]);

impl Part<'_> {
    fn set(self, at: usize, value: usize) {
        self.0[at].store(value as u64, Ordering::Relaxed);
    }

    fn set_int(self, at: usize, value: i32) {
        self.set(at, value.cast_unsigned() as usize);
    }

    fn get(self, at: usize) -> usize {
        usize::try_from(self.0[at].load(Ordering::Relaxed)).unwrap_or(0)
    }

    fn int(self, at: usize) -> i32 {
        u32::try_from(self.get(at)).unwrap_or(0).cast_signed()
    }

    /// Stores as much of `text` as fits, and a NUL.
    fn set_text(self, at: usize, size: usize, text: &str) {
        let bytes = text.as_bytes();
        let bytes = &bytes[..bytes.len().min(size * 8 - 1)];
        for word in 0..size {
            let mut piece = [0; 8];
            let chunk = bytes.get(word * 8..).unwrap_or_default();
            let length = chunk.len().min(8);
            piece[..length].copy_from_slice(&chunk[..length]);
            self.0[at + word].store(u64::from_ne_bytes(piece), Ordering::Relaxed);
        }
    }

    fn text(self, at: usize, size: usize) -> String {
        let bytes: Vec<u8> = self.0[at..at + size]
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
            .collect();
        let length = bytes
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    fn set_frames(self, count: usize, at: usize, most: usize, frames: &[usize]) {
        let frames = &frames[..frames.len().min(most)];
        for (number, frame) in frames.iter().enumerate() {
            self.set(at + number, *frame);
        }
        self.set(count, frames.len());
    }

    fn frames(self, count: usize, at: usize, most: usize) -> Vec<usize> {
        (0..self.get(count).min(most))
            .map(|number| self.get(at + number))
            .collect()
    }

    fn finish(self, value: u64) {
        self.0[0].store(value, Ordering::Release);
    }

    fn state(self) -> u64 {
        self.0[0].load(Ordering::Acquire)
    }

    fn injected(self) -> Option<Injected> {
        (self.state() == 1).then(|| Injected {
            function: self.text(I_FUNCTION, TEXT),
            errno: self.int(I_ERRNO),
            action: ACTIONS
                .get(self.get(I_ACTION))
                .copied()
                .unwrap_or_default()
                .to_owned(),
            call: self.get(I_CALL) as u64,
            site: self.get(I_SITE),
            backtrace: self.frames(I_COUNT, I_FRAMES, 16),
            object: self.text(I_OBJECT, PATH),
            offset: self.get(I_OFFSET),
            thread: self.int(I_THREAD),
        })
    }

    /// What was finished of an end; a second fault while the first was being written leaves the frames found so far.
    fn end(self) -> Option<End> {
        if self.state() == 0 {
            return None;
        }
        let backtrace = self.frames(E_COUNT, E_FRAMES, FRAMES);
        let guard = self.get(E_GUARD);
        Some(End {
            kind: match self.get(E_KIND) {
                1 => EndKind::Signal,
                2 => EndKind::Abort,
                3 => EndKind::Exit,
                _ => EndKind::Hang,
            },
            signal: self.int(E_SIGNAL),
            code: self.int(E_CODE),
            address: self.get(E_ADDRESS),
            pc: backtrace.first().copied().unwrap_or(0),
            modules: (0..self.get(E_MODULE_COUNT).min(MODULES))
                .map(|n| self.module(E_MODULES + n * MODULE))
                .collect(),
            blame: match self.get(E_BLAME) {
                1 => Blame::Library,
                2 => Blame::Behind,
                _ => Blame::Elsewhere,
            },
            function: self.text(E_FUNCTION, TEXT),
            guard: (guard != 0).then(|| GuardFault {
                kind: crate::guard::KINDS
                    .get(guard)
                    .copied()
                    .unwrap_or_default()
                    .to_owned(),
                block: self.get(E_GUARD + 1),
                size: self.get(E_GUARD + 2),
                offset: self.get(E_GUARD + 3).cast_signed(),
                allocated: self.frames(E_GUARD + 4, E_GUARD + 6, 16),
                freed: self.frames(E_GUARD + 5, E_GUARD + 22, 16),
            }),
            thread: self.int(E_THREAD),
            backtrace,
        })
    }

    fn module(self, at: usize) -> Module {
        Module {
            start: self.get(at),
            end: self.get(at + 1),
            bias: self.get(at + 2),
            path: self.text(at + 3, PATH),
        }
    }
}

/// An injection as the plan that made it keeps it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw {
    pub(crate) function: &'static str,
    pub(crate) errno: i32,
    pub(crate) action: u8,
    pub(crate) call: u64,
    pub(crate) frames: [usize; 16],
    pub(crate) count: usize,
    pub(crate) thread: i32,
}

impl Raw {
    /// In the words of the interface.
    pub(crate) fn injected(&self) -> Injected {
        let site = self.frames[0];
        let known = unwind::known(site);
        Injected {
            function: self.function.to_owned(),
            errno: self.errno,
            action: ACTIONS[usize::from(self.action)].to_owned(),
            call: self.call,
            site,
            backtrace: self.frames[..self.count].to_vec(),
            object: known.map_or("", |known| known.path).to_owned(),
            offset: known.map_or(site, |known| site.wrapping_sub(known.bias)),
            thread: self.thread,
        }
    }
}

/// Writes an injection to the active record, before its failure is returned.
pub(crate) fn note_injection(raw: &Raw) {
    let Some(counter) = active(R_INJECTIONS, 1) else {
        return;
    };
    let number = counter.0[0].fetch_add(1, Ordering::AcqRel);
    let Some(number) = usize::try_from(number)
        .ok()
        .filter(|number| *number < MOST_INJECTED)
    else {
        return;
    };
    let Some(part) = active(R_INJECTED + number * I_SIZE, I_SIZE) else {
        return;
    };
    let site = raw.frames[0];
    let known = unwind::known(site);
    part.set_int(I_ERRNO, raw.errno);
    part.set(I_ACTION, usize::from(raw.action));
    part.0[I_CALL].store(raw.call, Ordering::Relaxed);
    part.set(I_SITE, site);
    part.set(
        I_OFFSET,
        known.map_or(site, |known| site.wrapping_sub(known.bias)),
    );
    part.set_int(I_THREAD, raw.thread);
    part.set_frames(I_COUNT, I_FRAMES, 16, &raw.frames[..raw.count]);
    part.set_text(I_FUNCTION, TEXT, raw.function);
    part.set_text(I_OBJECT, PATH, known.map_or("", |known| known.path));
    const { assert!(I_DONE == 0 && E_STATE == 0) };
    part.finish(1);
}

/// An end in the making.
pub(crate) struct Ending(Part<'static>);

impl Ending {
    /// Begins the end of this process, unless one is recorded already.
    pub(crate) fn begin(kind: EndKind, signal: i32, code: i32, address: usize) -> Option<Self> {
        let at = if kind == EndKind::Exit { R_EXIT } else { R_END };
        let part = active(at, E_SIZE)?;
        part.0[0]
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed)
            .ok()?;
        part.set(E_KIND, kind as usize);
        part.set_int(E_SIGNAL, signal);
        part.set_int(E_CODE, code);
        part.set(E_ADDRESS, address);
        part.set_int(E_THREAD, sys::thread_id());
        part.set(E_BLAME, Blame::Elsewhere as usize);
        Some(Self(part))
    }

    /// The end that was begun and not finished: a second fault while the first was being written.
    pub(crate) fn resume() -> Option<Self> {
        active(R_END, E_SIZE)
            .filter(|part| part.state() == 1)
            .map(Self)
    }

    /// The frames stored so far.
    pub(crate) fn frames_so_far(&self, into: &mut [usize; FRAMES]) -> usize {
        let count = self.0.get(E_COUNT).min(FRAMES);
        for (number, frame) in into.iter_mut().enumerate().take(count) {
            *frame = self.0.get(E_FRAMES + number);
        }
        count
    }

    pub(crate) fn function(&self, name: &str) {
        self.0.set_text(E_FUNCTION, TEXT, name);
    }

    /// Stores frame `number`, so that a fault while walking on loses nothing.
    pub(crate) fn frame(&self, number: usize, address: usize) {
        if number < FRAMES {
            self.0.set(E_FRAMES + number, address);
            self.0.set(E_COUNT, number + 1);
        }
    }

    pub(crate) fn guard(
        &self,
        kind: usize,
        block: (usize, usize),
        offset: isize,
        allocated: &[usize],
        freed: &[usize],
    ) {
        self.0.set(E_GUARD + 1, block.0);
        self.0.set(E_GUARD + 2, block.1);
        self.0.set(E_GUARD + 3, offset.cast_unsigned());
        self.0.set_frames(E_GUARD + 4, E_GUARD + 6, 16, allocated);
        self.0.set_frames(E_GUARD + 5, E_GUARD + 22, 16, freed);
        self.0.set(E_GUARD, kind);
    }

    /// Notes who is to blame and which objects the frames are in, and closes the record.
    pub(crate) fn finish(self, frames: &[usize], blame: Blame) {
        self.0.set(E_BLAME, blame as usize);
        let mut count = 0;
        let mut known = [0; MODULES];
        for frame in frames {
            let Some(object) = unwind::known(frame.wrapping_sub(1)) else {
                continue;
            };
            if count < MODULES && !known[..count].contains(&object.start) {
                let at = E_MODULES + count * MODULE;
                self.0.set(at, object.start);
                self.0.set(at + 1, object.end);
                self.0.set(at + 2, object.bias);
                self.0.set_text(at + 3, PATH, object.path);
                known[count] = object.start;
                count += 1;
            }
        }
        self.0.set(E_MODULE_COUNT, count);
        self.0.finish(2);
    }
}

/// A library under test ends the process.
pub(crate) fn note_exit(slot: &Slot, frame: &Frame) {
    let status = matches!(
        slot.symbol,
        "exit" | "_exit" | "_Exit" | "quick_exit" | "err" | "errx"
    );
    let code = if status {
        sys::int(frame.arguments[0])
    } else {
        0
    };
    let Some(ending) = Ending::begin(EndKind::Exit, 0, code, 0) else {
        return;
    };
    ending.function(slot.symbol);
    let mut frames = [0; 16];
    let count = unwind::library_frames(frame, frames.len(), &mut frames);
    for (number, address) in frames[..count].iter().enumerate() {
        ending.frame(number, *address);
    }
    ending.finish(&frames[..count], Blame::Library);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_not_torn() {
        let record = Record::new().expect("memory");
        let part = Part(&words(record.words)[R_INJECTED..R_INJECTED + I_SIZE]);
        part.set_text(I_FUNCTION, TEXT, &"x".repeat(100));
        assert_eq!(part.text(I_FUNCTION, TEXT), "x".repeat(63));
        part.set_text(I_FUNCTION, TEXT, "short");
        assert_eq!(part.text(I_FUNCTION, TEXT), "short");
        assert_eq!(part.text(I_OBJECT, PATH), "");
        assert_eq!(record.snapshot(), Snapshot::default());
    }
}
