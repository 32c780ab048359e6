//! The steps of a script, and what each expects.

use crate::call::{Argument, Function};
use crate::value::{Bytes, Value};

/// What a call has to return for the script to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Any result.
    Anything,
    /// This result; for pointers, its address.
    Result(i128),
    /// This result, and this errno.
    Failure {
        /// What the function returns, such as -1.
        result: i128,
        /// The errno that it sets.
        errno: i32,
    },
}

/// One step. Descriptors are borrowed: the script neither duplicates nor closes them.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends all the bytes, with descriptors beside the first of them.
    Send {
        /// The socket, or any other descriptor if no descriptors go along.
        fd: Value,
        /// What to send.
        bytes: Bytes,
        /// Descriptors to pass (`SCM_RIGHTS`).
        fds: Vec<Value>,
    },
    /// Calls a function.
    Call {
        /// The function.
        function: Function,
        /// Its arguments, as many as it takes.
        arguments: Vec<Argument>,
        /// What it must return.
        expect: Expected,
    },
    /// Receives exactly so many bytes; descriptors that come along are closed.
    Recv {
        /// The socket, or any other descriptor.
        fd: Value,
        /// How many bytes, 1 or more.
        length: usize,
        /// What they must begin with; empty for anything.
        expect: Bytes,
    },
    /// Waits until the descriptor can be read.
    Wait {
        /// The descriptor.
        fd: Value,
    },
}

impl Step {
    /// How messages call this step: `recv 36 bytes`, `call vfu_run_ctx`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Send { bytes, fds, .. } if fds.is_empty() => {
                format!("send {} bytes", bytes.len())
            }
            Self::Send { bytes, fds, .. } => {
                format!("send {} bytes with {} descriptors", bytes.len(), fds.len())
            }
            Self::Call { function, .. } => format!("call {}", function.name()),
            Self::Recv { length, .. } => format!("recv {length} bytes"),
            Self::Wait { .. } => "wait until readable".to_owned(),
        }
    }
}

/// Steps that are run in order, over and over.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub(crate) steps: Vec<Step>,
}

impl Script {
    /// A script of these steps.
    ///
    /// # Errors
    ///
    /// A sentence, if there are none, or one cannot be run: nothing to send or receive, or more
    /// expected than received.
    pub fn new(steps: Vec<Step>) -> Result<Self, String> {
        if steps.is_empty() {
            return Err("a script without steps has nothing to run".to_owned());
        }
        for (index, step) in steps.iter().enumerate() {
            match step {
                Step::Send { bytes, .. } if bytes.is_empty() => {
                    return Err(format!("step {index} sends no bytes"));
                }
                Step::Recv { length: 0, .. } => {
                    return Err(format!("step {index} receives no bytes"));
                }
                Step::Recv { length, expect, .. } if expect.len() > *length => {
                    return Err(format!(
                        "step {index} receives {length} bytes but expects {}",
                        expect.len()
                    ));
                }
                _ => {}
            }
        }
        Ok(Self { steps })
    }

    /// The steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}
