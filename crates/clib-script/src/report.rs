//! What a run yields: figures, or the step that went wrong.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// The figures of a run that went through.
#[derive(Clone, Debug)]
pub struct Report {
    /// How often the whole script was run, all instances together.
    pub operations: u64,
    /// From the start of the first measured iteration to the end of the last.
    pub elapsed: Duration,
    /// Nanoseconds an operation took, one entry each (or one a batch, counted as often).
    pub latency: Histogram<u64>,
    /// How much each counter of the snapshot function grew.
    pub counters: Vec<u64>,
    /// Instructions in user mode by the running threads, where the machine counts them.
    pub instructions: Option<u64>,
}

/// What went wrong in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A system call failed with this errno.
    Errno(i32),
    /// The other side closed the connection.
    Closed {
        /// Bytes that were received before.
        received: usize,
    },
    /// The time limit passed.
    Late {
        /// Bytes that were transferred before.
        transferred: usize,
        /// The limit.
        limit: Duration,
    },
    /// A call returned something else.
    Result {
        /// What it returned.
        result: i128,
        /// The errno it left, 0 if it set none.
        errno: i32,
        /// What the step expects.
        expected: String,
    },
    /// Other bytes came.
    Bytes {
        /// What came.
        received: Vec<u8>,
        /// What it should begin with.
        expected: Vec<u8>,
    },
    /// A call has not returned within the time limit. Its thread is left alone.
    Stuck {
        /// The limit.
        limit: Duration,
    },
}

/// The step that stopped a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its index in the script.
    pub step: usize,
    /// What kind of step it is.
    pub description: String,
    /// The iteration of its instance, from 0; negative in the warm-up.
    pub iteration: i64,
    /// The instance, from 0.
    pub instance: usize,
    /// What happened.
    pub problem: Problem,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            step,
            description,
            iteration,
            instance,
            problem,
        } = self;
        write!(
            f,
            "step {step} ({description}), iteration {iteration}, instance {instance}: {problem}"
        )
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
            Self::Closed { received } => {
                write!(
                    f,
                    "the other side closed the connection after {received} bytes"
                )
            }
            Self::Late {
                transferred: 0,
                limit,
            } => write!(f, "nothing within {:.1} s", limit.as_secs_f64()),
            Self::Late { transferred, limit } => {
                write!(
                    f,
                    "{transferred} bytes and no more within {:.1} s",
                    limit.as_secs_f64()
                )
            }
            Self::Result {
                result,
                errno: 0,
                expected,
            } => {
                write!(f, "returned {result} where {expected} was expected")
            }
            Self::Result {
                result,
                errno,
                expected,
            } => write!(
                f,
                "returned {result} with errno {} where {expected} was expected",
                std::io::Error::from_raw_os_error(*errno)
            ),
            Self::Bytes { received, expected } => {
                let at = received
                    .iter()
                    .zip(expected)
                    .take_while(|(a, b)| a == b)
                    .count();
                write!(f, "byte {at} differs: received ")?;
                hex(f, received, at)?;
                write!(f, ", expected ")?;
                hex(f, expected, at)
            }
            Self::Stuck { limit } => {
                write!(
                    f,
                    "the call has not returned within {:.1} s",
                    limit.as_secs_f64()
                )
            }
        }
    }
}

/// Up to 16 bytes around `at`.
fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8], at: usize) -> fmt::Result {
    let start = at.saturating_sub(4).min(bytes.len());
    let end = bytes.len().min(start + 16);
    if start > 0 {
        write!(f, "..")?;
    }
    for byte in &bytes[start..end] {
        write!(f, "{byte:02x}")?;
    }
    if end < bytes.len() {
        write!(f, "..")?;
    }
    Ok(())
}
