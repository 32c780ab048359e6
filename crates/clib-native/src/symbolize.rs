//! Addresses to functions, files and lines.

use clib_hook::symbolize as engine;
use pyo3::prelude::*;

/// One frame of source: function, file, line, path of the object, offset in the object's file, inlined.
type Frame = (
    Option<String>,
    Option<String>,
    Option<u32>,
    Option<String>,
    usize,
    bool,
);

fn frames(found: Vec<engine::Frame>) -> Vec<Frame> {
    found
        .into_iter()
        .map(|f| (f.function, f.file, f.line, f.object, f.offset, f.inlined))
        .collect()
}

/// The frames at an address, innermost first.
#[pyfunction]
fn symbolize(py: Python<'_>, address: usize) -> Vec<Frame> {
    py.detach(|| frames(engine::symbolize(address)))
}

/// The frames of the call that returns to an address, innermost first.
#[pyfunction]
fn symbolize_return(py: Python<'_>, address: usize) -> Vec<Frame> {
    py.detach(|| frames(engine::symbolize_return(address)))
}

/// Whether an object has line information, in itself or in a separate file.
#[pyfunction]
fn has_debug_info(py: Python<'_>, path: &str) -> bool {
    py.detach(|| engine::has_debug_info(path))
}

/// Adds what this module exports.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(symbolize, module)?)?;
    module.add_function(wrap_pyfunction!(symbolize_return, module)?)?;
    module.add_function(wrap_pyfunction!(has_debug_info, module)?)
}
