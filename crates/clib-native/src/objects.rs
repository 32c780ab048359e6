//! Picks the few objects of interest out of the many that the interpreter knows.
//!
//! A session has a hundred thousand live objects, and a loop over them in Python takes longer than all else that the
//! declaration check does. No object is asked for anything here but its type.

use std::collections::HashMap;

use pyo3::{
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
    for object in objects.iter() {
        if let Some(list) = members.get(&(object.get_type_ptr() as usize)) {
            list.append(object)?;
        }
    }
    Ok(found)
}

/// Adds what this module exports.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(by_type, module)?)
}
