//! The exact counters of the running session, as a script reads them before and after.

use std::sync::Arc;

use clib_hook::Totals;
use clib_script::Snapshot;
use pyo3::{exceptions::PyRuntimeError, prelude::*};

/// Reads system calls, allocations and allocated bytes, in this order; nothing at all while no session runs.
pub(crate) fn snapshot() -> Snapshot {
    Arc::new(|| {
        let Some(Totals {
            system_calls,
            allocations,
            bytes,
        }) = clib_hook::totals()
        else {
            return Vec::new();
        };
        vec![system_calls, allocations, bytes]
    })
}

/// The same numbers now.
#[pyfunction]
fn totals() -> PyResult<(u64, u64, u64)> {
    clib_hook::totals()
        .map(|now| (now.system_calls, now.allocations, now.bytes))
        .ok_or_else(|| PyRuntimeError::new_err("no session is running"))
}

/// Adds what this file exports.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(totals, module)?)
}
