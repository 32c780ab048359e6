//! What reports and debugging tools need: memory of the libraries, requests to valgrind.

use clib_hook::{ledger, valgrind};
use pyo3::prelude::*;

/// Bytes that the libraries under test hold now, and the most since the last call.
#[pyfunction]
fn take_peak() -> (u64, u64) {
    ledger::take_peak()
}

/// Whether the process runs under valgrind.
#[pyfunction]
fn on_valgrind() -> bool {
    valgrind::running() > 0
}

/// Has memcheck look for leaks, and report those that are new since the last look.
#[pyfunction]
fn valgrind_leak_check() {
    valgrind::check_added_leaks();
}

/// Makes valgrind report the errors of this thread, or not. Calls nest.
#[pyfunction]
fn valgrind_report(report: bool) {
    valgrind::report_errors(report);
}

/// Adds what this module exports.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(take_peak, module)?)?;
    module.add_function(wrap_pyfunction!(on_valgrind, module)?)?;
    module.add_function(wrap_pyfunction!(valgrind_leak_check, module)?)?;
    module.add_function(wrap_pyfunction!(valgrind_report, module)?)
}
