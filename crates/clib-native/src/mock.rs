//! Functions that are replaced.

use std::sync::{Mutex, PoisonError};

use clib_hook::mock as engine;
use pyo3::prelude::*;

use crate::error::to_py;

/// A replacement in force.
#[pyclass(frozen, module = "pytest_clib._native")]
struct Mock {
    inner: Mutex<Option<engine::Mock>>,
    #[pyo3(get)]
    original: usize,
}

#[pymethods]
impl Mock {
    /// Leads calls of `function` by the libraries under test to the code at `replacement`, which the caller keeps callable.
    #[new]
    #[pyo3(signature = (function, replacement, *, library = None))]
    fn new(function: &str, replacement: usize, library: Option<u16>) -> PyResult<Self> {
        // SAFETY: the caller made the replacement with the function's prototype, and keeps it for as long as the process
        // lives (`pytest_clib.faults` does so for every mock).
        let mock = unsafe { engine::install(function, library, replacement) }.map_err(to_py)?;
        Ok(Self {
            original: mock.original(),
            inner: Mutex::new(Some(mock)),
        })
    }

    /// Puts back what was there before.
    fn stop(&self) {
        drop(
            self.inner
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }
}

/// Adds what this module exports.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Mock>()
}
