//! Declarations from debug information, for the check of ctypes declarations.

use pyo3::prelude::*;

/// Adds what this module exports.
pub(crate) fn register(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
