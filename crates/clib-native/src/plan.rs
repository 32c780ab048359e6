//! Calls that fail on request, and the count of those that may.

use clib_hook::{
    plan::{self as engine, Action, EventLog as Log, Plan, PlanId, Repeat, Target},
    table::{self, Failure, Group, Partial},
};
use pyo3::{exceptions::PyValueError, prelude::*};

use crate::{error::to_py, record};

/// A fallible call: function, group, library, site, stack, call, ordinal, `at_stack`, thread, and whether: partial, reads,
/// nonblocking, passed.
type Event = (
    &'static str,
    &'static str,
    u16,
    usize,
    u64,
    u64,
    u64,
    u64,
    i32,
    [bool; 4],
);

/// What became of a plan: calls that matched, calls that failed, the first of these.
type Outcome = (u64, u64, Option<record::Injected>);

/// A row of the table: name, aliases, group, fallible, errnos, still made when it fails, partial, reads, prototype.
type Row = (
    &'static str,
    Vec<&'static str>,
    &'static str,
    bool,
    Vec<i32>,
    bool,
    bool,
    bool,
    &'static str,
);

fn groups(names: &[String]) -> PyResult<Vec<Group>> {
    names
        .iter()
        .map(|name| {
            Group::by_name(name).ok_or_else(|| {
                PyValueError::new_err(format!("no group of functions is called {name:?}"))
            })
        })
        .collect()
}

/// A count of fallible calls, in memory shared with children forked later.
#[pyclass(frozen, module = "pytest_clib._native")]
struct EventLog {
    inner: Log,
}

#[pymethods]
impl EventLog {
    /// An empty log for this many calls.
    #[new]
    fn new(capacity: usize) -> PyResult<Self> {
        Ok(Self {
            inner: Log::new(capacity).map_err(to_py)?,
        })
    }

    /// Starts to log calls of functions of these groups in this process.
    #[pyo3(signature = (names, *, this_thread = false))]
    fn start(&self, names: Vec<String>, this_thread: bool) -> PyResult<()> {
        self.inner
            .start(&groups(&names)?, this_thread)
            .map_err(to_py)
    }

    /// Stops logging.
    fn stop(&self) {
        self.inner.stop();
    }

    /// The calls so far, in order.
    fn events(&self) -> Vec<Event> {
        self.inner
            .events()
            .into_iter()
            .map(|e| {
                (
                    e.function,
                    e.group.name(),
                    e.library,
                    e.site,
                    e.stack,
                    e.call,
                    e.ordinal,
                    e.at_stack,
                    e.thread,
                    [e.partial, e.reads, e.nonblocking, e.passed],
                )
            })
            .collect()
    }

    /// How many calls did not fit.
    fn dropped(&self) -> u64 {
        self.inner.dropped()
    }

    /// Empties the log.
    fn clear(&self) {
        self.inner.clear();
    }
}

/// Plans the failure of a call of `function` and returns the plan's number. `action` is `fail`, `return`, `short` or `eof`; `value` is
/// what to return, or how many bytes a short call transfers at most. `count` 0 stands for that call and all later ones.
#[pyfunction]
#[pyo3(signature = (function, nth, *, action = "fail", value = 0, errno = None, count = 1, stack = None, library = None))]
fn arm(
    function: &str,
    nth: u64,
    action: &str,
    value: i64,
    errno: Option<i32>,
    count: u64,
    stack: Option<u64>,
    library: Option<u16>,
) -> PyResult<u32> {
    let action = match action {
        "fail" => Action::Fail(errno),
        "return" => Action::Return(value, errno),
        "short" => Action::Short(usize::try_from(value)?),
        "eof" => Action::EndOfFile,
        other => {
            return Err(PyValueError::new_err(format!(
                "a call cannot be made to {other:?}"
            )));
        }
    };
    let plan = Plan {
        target: Target::Function(function.to_owned()),
        site: None,
        stack,
        this_thread: false,
        library,
        nth,
        action,
        repeat: match count {
            0 => Repeat::Forever,
            1 => Repeat::Once,
            times => Repeat::Times(times),
        },
    };
    Ok(engine::arm(&plan).map_err(to_py)?.0)
}

fn outcome_to_py(outcome: engine::Outcome) -> Outcome {
    (
        outcome.matched,
        outcome.injected,
        outcome.first.map(record::injected),
    )
}

/// Disarms a plan; what became of it, or `None` if it was not armed.
#[pyfunction]
fn disarm(plan: u32) -> Option<Outcome> {
    engine::disarm(PlanId(plan)).map(outcome_to_py)
}

/// What became of an armed plan so far.
#[pyfunction]
fn outcome(plan: u32) -> Option<Outcome> {
    engine::outcome(PlanId(plan)).map(outcome_to_py)
}

/// The row of the table for a function by any of its names.
#[pyfunction]
fn table_row(function: &str) -> Option<Row> {
    table::find(function).map(row)
}

/// All rows of the table.
#[pyfunction]
fn table_rows() -> Vec<Row> {
    table::all().iter().map(row).collect()
}

fn row(function: &'static table::Function) -> Row {
    let (partial, reads) = match function.partial {
        Partial::No => (false, false),
        Partial::Bytes { reads, .. }
        | Partial::Vector { reads, .. }
        | Partial::Message { reads, .. } => (true, reads),
    };
    (
        function.name,
        function.aliases.to_vec(),
        function.group.name(),
        !matches!(function.failure, Failure::Never),
        function.errnos.to_vec(),
        function.performs,
        partial,
        reads,
        function.prototype,
    )
}

/// The groups of functions, by name.
#[pyfunction]
fn table_groups() -> Vec<&'static str> {
    Group::ALL.iter().map(|group| group.name()).collect()
}

/// Which of `names` may have been meant by `typed`, best first.
#[pyfunction]
fn near(typed: &str, names: Vec<String>) -> Vec<String> {
    table::near(typed, names.iter().map(String::as_str))
}

/// Adds what this module exports.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<EventLog>()?;
    module.add_function(wrap_pyfunction!(arm, module)?)?;
    module.add_function(wrap_pyfunction!(disarm, module)?)?;
    module.add_function(wrap_pyfunction!(outcome, module)?)?;
    module.add_function(wrap_pyfunction!(table_row, module)?)?;
    module.add_function(wrap_pyfunction!(table_rows, module)?)?;
    module.add_function(wrap_pyfunction!(table_groups, module)?)?;
    module.add_function(wrap_pyfunction!(near, module)?)
}
