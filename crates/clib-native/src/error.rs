//! Errors of the engine as Python exceptions, with the engine's own words.

use clib_hook::Error;
use pyo3::{
    PyErr,
    exceptions::{PyLookupError, PyOSError, PyRuntimeError, PyValueError},
};

/// The exception for `error`: `OSError` with its errno, `LookupError` for a function nobody knows, `RuntimeError` for a
/// session that runs or does not, and `ValueError` for the rest.
pub(crate) fn to_py(error: Error) -> PyErr {
    match error {
        Error::System(doing, code) => PyOSError::new_err((code, doing)),
        Error::AlreadyStarted | Error::NotStarted => PyRuntimeError::new_err(error.to_string()),
        Error::UnknownFunction { .. } | Error::NotCalled(_) => {
            PyLookupError::new_err(error.to_string())
        }
        _ => PyValueError::new_err(error.to_string()),
    }
}
