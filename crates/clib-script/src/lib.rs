//! Scripts: the round trip that a test does in Python, written down once as
//! steps and then run natively, thousands of times, on many threads.
//!
//! A [`Script`] is a list of [`Step`]s (send, call, receive, wait) whose numbers
//! are [`Value`]s: constants, or a number that differs for each iteration or
//! instance. [`run`] executes it on native threads and returns a [`Report`] with
//! the latency histogram and exact counter differences, or a [`Failure`] that
//! names the step, the iteration, the errno and the bytes.
//!
//! Invariants:
//!
//! 1. The loop neither allocates nor locks: buffers are made before the first
//!    iteration, so what the counters see is the library's.
//! 2. No step waits longer than the time limit: receives and waits use `poll`,
//!    and a call that does not return is reported by the supervising thread.
//! 3. The crate knows nothing of Python, and nothing of hooks: exact figures come
//!    from the snapshot function that the caller passes.

mod call;
mod io;
mod report;
mod run;
mod step;
mod value;

pub use call::{Argument, Function, Returned};
pub use report::{Failure, Problem, Report};
pub use run::{Limit, Options, Snapshot, run};
pub use step::{Expected, Script, Step};
pub use value::{Bytes, Value};
