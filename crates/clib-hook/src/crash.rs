//! Fatal signals and time limits become records.

use std::time::Duration;

use crate::{Error, record::Blame};

/// What happens after a fatal signal was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The handler that was there before runs (or the signal's default).
    Chain,
    /// The process ends at once with this exit status, running nothing else.
    Exit(i32),
}

/// Installs handlers for `SIGSEGV`, `SIGBUS`, `SIGILL`, `SIGFPE` and `SIGABRT` that write to the active
/// [record](crate::record::Record) and, if `fd` is given, a short text to it. The calling thread gets an alternate stack.
///
/// # Errors
///
/// [`Error::System`].
pub fn install(fd: Option<i32>, after: After) -> Result<(), Error> {
    let _ = (fd, after);
    Ok(())
}

/// Puts back the handlers that were there before.
pub fn uninstall() {}

/// Sets (or with `None` clears) a time limit for this process: when it passes, the calling thread's backtrace is recorded as a hang, and the
/// process ends with `status`. One limit at a time. Not inherited by children.
///
/// # Errors
///
/// [`Error::System`].
pub fn deadline(limit: Option<Duration>, status: i32) -> Result<(), Error> {
    let _ = (limit, status);
    Ok(())
}

/// Where the fault lies for a backtrace whose first address is the program counter.
#[must_use]
pub fn blame(backtrace: &[usize]) -> Blame {
    let _ = backtrace;
    Blame::Elsewhere
}
