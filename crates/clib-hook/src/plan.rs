//! Which calls fail, and how: the heart of torture.

use crate::{Error, record::Injected, table::Group};

/// Which calls a plan is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Calls of one function, by any of its names.
    Function(String),
    /// Calls of any fallible function of these groups.
    Groups(Vec<Group>),
}

/// How the chosen call fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Returns the function's failure value with this errno (for `operator new`: throws `std::bad_alloc`). `None`: the first
    /// errno in the function's row.
    Fail(Option<i32>),
    /// Returns this value, with this errno if given; for any function.
    Return(i64, Option<i32>),
    /// Transfers at most this many bytes (at least 1), where the function transfers bytes.
    Short(usize),
    /// Returns 0, as at the end of a file or connection; for functions that read.
    EndOfFile,
}

/// How often it fails after the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// That call only.
    Once,
    /// That call and those after it that match, this many in all.
    Times(u64),
    /// That call and all later ones that match.
    Forever,
}

/// A planned failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which calls are counted and may fail.
    pub target: Target,
    /// Only calls that return to this address.
    pub site: Option<usize>,
    /// Only calls with this stack hash ([`Event::stack`]).
    pub stack: Option<u64>,
    /// Only calls by the thread that arms the plan.
    pub this_thread: bool,
    /// Only calls by this library ([`crate::LibraryInfo::id`]).
    pub library: Option<u16>,
    /// The first call to fail, from 1, among those that match.
    pub nth: u64,
    /// How.
    pub action: Action,
    /// How often.
    pub repeat: Repeat,
}

/// An armed plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanId(pub u32);

/// What became of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Calls that matched it. If fewer than [`Plan::nth`], nothing failed.
    pub matched: u64,
    /// Calls that failed.
    pub injected: u64,
    /// The first failure.
    pub first: Option<Injected>,
}

/// Arms a plan; up to 16 at once. The first armed plan that wants a call to fail decides.
///
/// # Errors
///
/// [`Error::NotStarted`]; [`Error::UnknownFunction`] with what is near; [`Error::BadArgument`] when `nth` is 0, or the action does
/// not suit the function (a short `malloc`, an errno out of 1..4095); [`Error::Full`].
pub fn arm(plan: &Plan) -> Result<PlanId, Error> {
    let _ = plan;
    Err(Error::NotStarted)
}

/// Disarms a plan and says what became of it; `None` if it was not armed.
pub fn disarm(id: PlanId) -> Option<Outcome> {
    let _ = id;
    None
}

/// What became of an armed plan so far.
#[must_use]
pub fn outcome(id: PlanId) -> Option<Outcome> {
    let _ = id;
    None
}

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
    /// Hash of the return addresses as far as frames are of libraries under test, `site` included. Stable within a process and its forks.
    pub stack: u64,
    /// Which call of this function it was, from 1: [`Plan::nth`] for [`Target::Function`].
    pub call: u64,
    /// Which fallible call it was at all, from 1: [`Plan::nth`] for [`Target::Groups`] with the groups counted.
    pub ordinal: u64,
    /// Which call with this function and stack it was, from 1: [`Plan::nth`] with [`Plan::stack`].
    pub at_stack: u64,
    /// Thread (kernel's id).
    pub thread: i32,
    /// Whether a short count or an end of file may be injected: it transfers bytes, and more than one.
    pub partial: bool,
    /// Whether the descriptor concerned is in non-blocking mode (EAGAIN makes sense only then).
    pub nonblocking: bool,
}

/// Counts fallible calls into memory shared with children forked later.
#[derive(Debug)]
pub struct EventLog {
    _private: (),
}

impl EventLog {
    /// Maps an empty log for this many events.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when there is no memory, [`Error::BadArgument`] for a capacity of 0 or above 2^26.
    pub fn new(capacity: usize) -> Result<Self, Error> {
        let _ = capacity;
        Ok(Self { _private: () })
    }

    /// Starts logging calls of the given groups in this process; `this_thread`: by the calling thread only. Counters start anew.
    ///
    /// # Errors
    ///
    /// [`Error::NotStarted`].
    pub fn start(&self, groups: &[Group], this_thread: bool) -> Result<(), Error> {
        let _ = (groups, this_thread);
        Err(Error::NotStarted)
    }

    /// Stops logging.
    pub fn stop(&self) {}

    /// The events so far, in order.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        Vec::new()
    }

    /// How many events did not fit.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        0
    }

    /// Empties the log.
    pub fn clear(&self) {}
}
