//! Picks the few objects of interest out of the many that the interpreter knows.
//!
//! A session has a hundred thousand live objects, and a loop over them in Python takes longer than all else that the
//! declaration check does. No object is asked for anything here but its type.

use std::collections::HashMap;

use pyo3::{
    ffi,
    prelude::*,
    types::{PyDict, PyList},
};

use crate::walk::ByAddress;

/// Those of `objects` whose very type is in `groups`, by the name that it has there.
#[pyfunction]
fn by_type<'py>(
    py: Python<'py>,
    objects: &Bound<'py, PyList>,
    groups: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    let mut members: HashMap<usize, Bound<'py, PyList>, ByAddress> = HashMap::default();
    for (kind, name) in groups.iter() {
        let list = match found.get_item(&name)? {
            Some(list) => list.cast_into()?,
            None => {
                let list = PyList::empty(py);
                found.set_item(&name, &list)?;
                list
            }
        };
        members.insert(kind.as_ptr() as usize, list);
    }
    let mut number = 0;
    while number < objects.len() {
        // SAFETY: the list is alive, and has an item of this number; a reference of our own to each would take most of the time.
        let object = unsafe { ffi::PyList_GetItem(objects.as_ptr(), number.cast_signed()) };
        // SAFETY: the list holds the object, and nobody else runs meanwhile.
        let kind = unsafe { ffi::Py_TYPE(object) };
        if let Some(list) = members.get(&(kind as usize)) {
            // SAFETY: as above.
            list.append(unsafe { Bound::from_borrowed_ptr(py, object) })?;
        }
        number += 1;
    }
    Ok(found)
}

/// Adds what this module exports.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(by_type, module)?)
}
