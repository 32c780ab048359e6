//! The values of variables, and what these contain: where the quick look for what is held begins.
//!
//! A namespace gives its values; a container among them what is in it, an instance itself and its attributes. Nothing
//! further: who wants all that can be reached walks (`walk`). Attributes are asked for (`__dict__`), and an object that
//! has none, or fails, is left at that.

use std::collections::HashMap;

use clib_hook::reach::is_held;
use pyo3::{
    PyTypeInfo, ffi, intern,
    prelude::*,
    types::{PyByteArray, PyBytes, PyDict, PyFrozenSet, PyInt, PyList, PySet, PyTuple, PyType},
};

use crate::{error::to_py, walk::ByAddress};

/// What is done with the instances of a type.
#[derive(Clone, Copy)]
enum Treatment {
    /// They hold nothing that the look is for.
    Passed,
    /// They are looked at.
    Leaf,
    /// What they contain is looked at.
    Items,
    /// Their values are looked at, not their keys.
    Values,
    /// They are looked at, and so are the values of their attributes.
    Instance,
}

/// The values of `namespaces`, without instances of the types in `passed`.
pub(crate) fn values<'py>(
    py: Python<'py>,
    namespaces: Vec<Bound<'py, PyDict>>,
    passed: &[Bound<'py, PyType>],
) -> PyResult<Bound<'py, PyList>> {
    let found = PyList::empty(py);
    let extend = found.getattr(intern!(py, "extend"))?;
    let mut treatments: HashMap<usize, Treatment, ByAddress> = HashMap::default();
    for namespace in namespaces {
        // A list of its own: asking for attributes may run code that changes the namespace.
        for value in namespace.values() {
            let kind = value.get_type_ptr() as usize;
            let treatment = match treatments.get(&kind) {
                Some(treatment) => *treatment,
                None => {
                    let treatment = treatment(&value.get_type(), passed);
                    treatments.insert(kind, treatment);
                    treatment
                }
            };
            match treatment {
                Treatment::Passed => {}
                Treatment::Leaf => found.append(value)?,
                Treatment::Items => {
                    extend.call1((value,))?;
                }
                Treatment::Values => {
                    extend.call1((value.cast::<PyDict>()?.values(),))?;
                }
                Treatment::Instance => {
                    if let Ok(attributes) = value.getattr(intern!(py, "__dict__"))
                        && let Ok(attributes) = attributes.cast_exact::<PyDict>()
                    {
                        extend.call1((attributes.values(),))?;
                    }
                    found.append(value)?;
                }
            }
        }
    }
    Ok(found)
}

/// Those of `numbers` that are no address of anything that a library holds now.
#[pyfunction]
fn lead_nowhere(numbers: Vec<Bound<'_, PyInt>>) -> PyResult<Vec<Bound<'_, PyInt>>> {
    let mut found = Vec::new();
    for number in numbers {
        if !is_held(number.extract().unwrap_or(0)).map_err(to_py)? {
            found.push(number);
        }
    }
    Ok(found)
}

/// Adds what this module exports.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(lead_nowhere, module)?)
}

fn treatment(kind: &Bound<'_, PyType>, passed: &[Bound<'_, PyType>]) -> Treatment {
    let py = kind.py();
    let is = |of: &Bound<'_, PyType>| {
        // SAFETY: both are live type objects.
        unsafe { ffi::PyType_IsSubtype(kind.as_type_ptr(), of.as_type_ptr()) != 0 }
    };
    if passed.iter().any(is) {
        Treatment::Passed
    } else if is(&PyInt::type_object(py))
        || is(&PyBytes::type_object(py))
        || is(&PyByteArray::type_object(py))
    {
        Treatment::Leaf
    } else if is(&PyList::type_object(py))
        || is(&PyTuple::type_object(py))
        || is(&PySet::type_object(py))
        || is(&PyFrozenSet::type_object(py))
    {
        Treatment::Items
    } else if is(&PyDict::type_object(py)) {
        Treatment::Values
    } else {
        Treatment::Instance
    }
}
