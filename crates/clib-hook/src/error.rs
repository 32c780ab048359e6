//! What can go wrong when a library is put under test, in words for its user.

use std::fmt;

/// An error of this crate. `Display` says what was wrong, with values, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// [`Session::start`](crate::Session::start) while another session runs; there is one per process.
    AlreadyStarted,
    /// A call that needs a running session, without one.
    NotStarted,
    /// A pattern that cannot be used; the text says why.
    BadPattern(String),
    /// A function that no library under test calls and the table does not know.
    UnknownFunction {
        /// The name that was asked for.
        name: String,
        /// Known names that are near it, best first.
        near: Vec<String>,
    },
    /// A function that the libraries under test do not call through a slot, though the name is known.
    NotCalled(String),
    /// A function that must never be redirected (for example `longjmp`).
    NeverHooked(String),
    /// An argument out of its range; the text names it, its value and the range.
    BadArgument(String),
    /// A system call failed: what was being done, and the errno.
    System(String, i32),
    /// An object's dynamic section or file makes no sense; the text names it.
    BadObject(String),
    /// A fixed-size table is full (for example more than 16 plans armed at once).
    Full(String),
}

impl Error {
    /// The current `errno` as an [`Error::System`], described by `doing`.
    pub(crate) fn last_os(doing: impl Into<String>) -> Self {
        let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        Self::System(doing.into(), code)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyStarted => f.write_str("a session is already running in this process"),
            Self::NotStarted => f.write_str("no session is running: start one first"),
            Self::BadPattern(why) => write!(f, "bad library pattern: {why}"),
            Self::UnknownFunction { name, near } if near.is_empty() => {
                write!(f, "no library under test calls a function named {name:?}")
            }
            Self::UnknownFunction { name, near } => write!(
                f,
                "no library under test calls a function named {name:?}; near it: {}",
                near.join(", ")
            ),
            Self::NotCalled(name) => {
                write!(
                    f,
                    "no library under test calls {name} through a slot, so it cannot be redirected"
                )
            }
            Self::NeverHooked(name) => write!(f, "{name} cannot be redirected safely"),
            Self::BadArgument(why) | Self::BadObject(why) | Self::Full(why) => f.write_str(why),
            Self::System(doing, code) => {
                write!(f, "{doing}: {}", std::io::Error::from_raw_os_error(*code))
            }
        }
    }
}

impl std::error::Error for Error {}
