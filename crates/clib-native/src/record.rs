//! What a child process tells however it ends: crash handlers, time limits, and the record shared with the parent.

use std::time::Duration;

use clib_hook::{
    crash::{self, After},
    flush, guard,
    record::{self as engine, Blame, EndKind},
};
use pyo3::{exceptions::PyValueError, prelude::*};

use crate::error::to_py;

/// An injected failure: function, errno, action, call, site, backtrace, object, offset, thread.
pub(crate) type Injected = (
    String,
    i32,
    String,
    u64,
    usize,
    Vec<usize>,
    String,
    usize,
    i32,
);

/// What the guard knows: kind, size of the block, offset in it, backtraces of allocation and release.
type Fault = (String, usize, isize, Vec<usize>, Vec<usize>);

/// The end of a process: kind, signal, code, address, backtrace, blame, function, guard, modules as (start, end, bias, path).
type End = (
    &'static str,
    i32,
    i32,
    usize,
    Vec<usize>,
    &'static str,
    String,
    Option<Fault>,
    Vec<(usize, usize, usize, String)>,
);

/// A record: number of injections, the first of them, the call of `exit`, the end.
type Snapshot = (u64, Vec<Injected>, Option<End>, Option<End>);

pub(crate) fn injected(injected: engine::Injected) -> Injected {
    (
        injected.function,
        injected.errno,
        injected.action,
        injected.call,
        injected.site,
        injected.backtrace,
        injected.object,
        injected.offset,
        injected.thread,
    )
}

fn fault(fault: engine::GuardFault) -> Fault {
    (
        fault.kind,
        fault.size,
        fault.offset,
        fault.allocated,
        fault.freed,
    )
}

fn end(end: engine::End) -> End {
    (
        match end.kind {
            EndKind::Signal => "signal",
            EndKind::Abort => "abort",
            EndKind::Exit => "exit",
            EndKind::Hang => "hang",
        },
        end.signal,
        end.code,
        end.address,
        end.backtrace,
        match end.blame {
            Blame::Library => "library",
            Blame::Behind => "behind",
            Blame::Elsewhere => "elsewhere",
        },
        end.function,
        end.guard.map(fault),
        end.modules
            .into_iter()
            .map(|m| (m.start, m.end, m.bias, m.path))
            .collect(),
    )
}

/// Memory shared with children forked later.
#[pyclass(frozen, module = "pytest_clib._native")]
struct Record {
    inner: engine::Record,
}

#[pymethods]
impl Record {
    /// An empty record.
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self {
            inner: engine::Record::new().map_err(to_py)?,
        })
    }

    /// Makes this the record that this process and its later children write to.
    fn activate(&self) {
        self.inner.activate();
    }

    /// Nothing is written to it any more.
    fn deactivate(&self) {
        self.inner.deactivate();
    }

    /// Empties it.
    fn clear(&self) {
        self.inner.clear();
    }

    /// What is in it now.
    fn snapshot(&self) -> Snapshot {
        let snapshot = self.inner.snapshot();
        (
            snapshot.injections,
            snapshot.injected.into_iter().map(injected).collect(),
            snapshot.exit.map(end),
            snapshot.end.map(end),
        )
    }
}

/// Records fatal signals from now on. With `status`, the process then ends at once with it; else the handlers that were there run.
#[pyfunction]
#[pyo3(signature = (fd = None, status = None))]
pub(crate) fn crash_install(fd: Option<i32>, status: Option<i32>) -> PyResult<()> {
    crash::install(fd, status.map_or(After::Chain, After::Exit)).map_err(to_py)
}

/// Puts back the handlers that were there before.
#[pyfunction]
fn crash_uninstall() {
    crash::uninstall();
}

/// Calls these functions, by their addresses, in a copy of the process when it ends by a recorded signal or a time limit. Returns how
/// many there was room for.
#[pyfunction]
fn flush_at_end(functions: Vec<usize>) -> usize {
    // SAFETY: the plugin names functions of runtimes in libraries that stay loaded, by their symbol tables.
    unsafe { flush::set(&functions) }
}

/// Ends this process with `status` after `seconds`, with a record of where the calling thread was; `None` takes it back.
#[pyfunction]
pub(crate) fn deadline(seconds: Option<f64>, status: i32) -> PyResult<()> {
    let limit = seconds
        .map(|seconds| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| PyValueError::new_err(format!("{seconds} seconds is no time limit")))
        })
        .transpose()?;
    crash::deadline(limit, status).map_err(to_py)
}

/// Damage found around live blocks now and at releases since the last call, each with where it was noticed.
#[pyfunction]
fn guard_check() -> Vec<(Fault, Vec<usize>)> {
    guard::check()
        .into_iter()
        .map(|damage| (fault(damage.fault), damage.noticed))
        .collect()
}

/// Blocks that could not be guarded.
#[pyfunction]
fn guard_missed() -> u64 {
    guard::unguarded()
}

/// Adds what this module exports.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Record>()?;
    module.add_function(wrap_pyfunction!(crash_install, module)?)?;
    module.add_function(wrap_pyfunction!(crash_uninstall, module)?)?;
    module.add_function(wrap_pyfunction!(flush_at_end, module)?)?;
    module.add_function(wrap_pyfunction!(deadline, module)?)?;
    module.add_function(wrap_pyfunction!(guard_check, module)?)?;
    module.add_function(wrap_pyfunction!(guard_missed, module)?)
}
