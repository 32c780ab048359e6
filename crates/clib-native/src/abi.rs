//! Declarations from debug information, for the check of ctypes and cffi declarations.
//!
//! Everything comes out as dictionaries, lists, strings and numbers; `python/pytest_clib/_abi_library.py` is the only
//! reader and says which keys there are.

use std::path::PathBuf;

use clib_abi::{
    DeclId, Enumeration, Error, Field, Function, Kind, Language, Library, Location, Prototype,
    Record, RecordKind, Type, Typedef,
};
use pyo3::{
    exceptions::{PyOSError, PyValueError},
    prelude::*,
    types::{PyDict, PyList},
};

/// `OSError` for a file that cannot be read, `ValueError` for the rest, with the sentence of the error.
fn to_py(error: Error) -> PyErr {
    match &error {
        Error::Read { path, source } => PyOSError::new_err((
            source.raw_os_error(),
            source.to_string(),
            path.display().to_string(),
        )),
        _ => PyValueError::new_err(error.to_string()),
    }
}

/// The declarations of one shared library.
#[pyclass(frozen, module = "pytest_clib._native")]
struct Declarations {
    library: Library,
}

#[pymethods]
impl Declarations {
    #[new]
    #[pyo3(signature = (path, debug_dirs = Vec::new()))]
    fn new(py: Python<'_>, path: PathBuf, debug_dirs: Vec<PathBuf>) -> PyResult<Self> {
        let library = py.detach(|| Library::open_with(path, &debug_dirs));
        Ok(Self {
            library: library.map_err(to_py)?,
        })
    }

    #[getter]
    fn path(&self) -> String {
        self.library.path().display().to_string()
    }

    #[getter]
    fn debug_path(&self) -> String {
        self.library.debug_path().display().to_string()
    }

    #[getter]
    fn damage(&self) -> Vec<String> {
        self.library.damage().to_vec()
    }

    fn exported_functions(&self) -> Vec<String> {
        self.library.exported_functions()
    }

    fn record_names(&self) -> Vec<String> {
        self.library.record_names()
    }

    fn typedef_names(&self) -> Vec<String> {
        self.library.typedef_names()
    }

    fn function<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        let found = self.library.function(name).map_err(to_py)?;
        found.map(|found| function(py, &found)).transpose()
    }

    #[pyo3(signature = (name, keyword = None))]
    fn records<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        keyword: Option<&str>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let kind = match keyword {
            None => None,
            Some("struct" | "class") => Some(RecordKind::Struct),
            Some("union") => Some(RecordKind::Union),
            Some(other) => {
                return Err(PyValueError::new_err(format!(
                    "{other:?}: not struct, union or class"
                )));
            }
        };
        let found = self.library.records(kind, name).map_err(to_py)?;
        found.iter().map(|found| record(py, found)).collect()
    }

    fn typedefs<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let found = self.library.typedefs(name).map_err(to_py)?;
        found.iter().map(|found| typedef(py, found)).collect()
    }

    fn enumerations<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let found = self.library.enumerations(name).map_err(to_py)?;
        found.iter().map(|found| enumeration(py, found)).collect()
    }

    fn record<'py>(&self, py: Python<'py>, ident: u64) -> PyResult<Bound<'py, PyDict>> {
        let found = self
            .library
            .record(DeclId::from_raw(ident))
            .map_err(to_py)?;
        record(py, &found)
    }

    fn enumeration<'py>(&self, py: Python<'py>, ident: u64) -> PyResult<Bound<'py, PyDict>> {
        let found = self.library.enumeration(DeclId::from_raw(ident));
        enumeration(py, &found.map_err(to_py)?)
    }
}

fn place(at: Option<&Location>) -> Option<(String, u64)> {
    at.map(|at| (at.file.clone(), at.line))
}

fn language(of: Language) -> &'static str {
    match of {
        Language::C => "c",
        Language::Cpp => "c++",
        Language::Rust => "rust",
        Language::Other => "",
    }
}

fn function<'py>(py: Python<'py>, of: &Function) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("name", &of.name)?;
    out.set_item("linkage_name", of.linkage_name.as_deref())?;
    out.set_item("spelling", of.to_string())?;
    out.set_item("prototype", prototype(py, &of.prototype)?)?;
    out.set_item("defined", of.defined)?;
    out.set_item("place", place(of.location.as_ref()))?;
    out.set_item("language", language(of.language))?;
    Ok(out)
}

fn prototype<'py>(py: Python<'py>, of: &Prototype) -> PyResult<Bound<'py, PyDict>> {
    let parameters = PyList::empty(py);
    for one in &of.parameters {
        parameters.append((one.name.as_deref(), ty(py, &one.ty)?))?;
    }
    let out = PyDict::new(py);
    out.set_item("result", ty(py, &of.result)?)?;
    out.set_item("parameters", parameters)?;
    out.set_item("variadic", of.variadic)?;
    out.set_item("complete", of.complete)?;
    Ok(out)
}

fn ty<'py>(py: Python<'py>, of: &Type) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("size", of.size)?;
    out.set_item("typedefs", &of.typedefs)?;
    out.set_item("spelling", of.to_string())?;
    let kind = match &of.kind {
        Kind::Void => "void",
        Kind::Boolean { name } => {
            out.set_item("name", name)?;
            "bool"
        }
        Kind::Character { name, signed } => {
            out.set_item("name", name)?;
            out.set_item("signed", signed)?;
            "char"
        }
        Kind::Integer { name, signed } => {
            out.set_item("name", name)?;
            out.set_item("signed", signed)?;
            "int"
        }
        Kind::Float { name } => {
            out.set_item("name", name)?;
            "float"
        }
        Kind::Enumeration { name, id, signed } => {
            out.set_item("name", name.as_deref())?;
            out.set_item("id", id.to_raw())?;
            out.set_item("signed", signed)?;
            "enum"
        }
        Kind::Pointer { to, .. } => {
            out.set_item("to", ty(py, to)?)?;
            "pointer"
        }
        Kind::Function(of) => {
            out.set_item("prototype", prototype(py, of)?)?;
            "function"
        }
        Kind::Array { element, count } => {
            out.set_item("to", ty(py, element)?)?;
            out.set_item("count", count)?;
            "array"
        }
        Kind::Record { kind, name, id } => {
            out.set_item("name", name.as_deref())?;
            out.set_item("id", id.to_raw())?;
            out.set_item("keyword", kind.keyword())?;
            "record"
        }
        _ => "other",
    };
    out.set_item("kind", kind)?;
    Ok(out)
}

fn record<'py>(py: Python<'py>, of: &Record) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyList::empty(py);
    for one in &of.fields {
        fields.append(field(py, one)?)?;
    }
    let out = PyDict::new(py);
    out.set_item("keyword", of.kind.keyword())?;
    out.set_item("name", of.name.as_deref())?;
    out.set_item("id", of.id.to_raw())?;
    out.set_item("size", of.size)?;
    out.set_item("fields", fields)?;
    out.set_item("place", place(of.location.as_ref()))?;
    out.set_item("language", language(of.language))?;
    Ok(out)
}

fn field<'py>(py: Python<'py>, of: &Field) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("name", of.name.as_deref())?;
    out.set_item("offset", of.offset)?;
    out.set_item("bits", of.bits.map(|bits| (bits.offset, bits.width)))?;
    out.set_item("type", ty(py, &of.ty)?)?;
    out.set_item("overlapping", of.overlapping)?;
    out.set_item("spelling", of.to_string())?;
    out.set_item("place", place(of.location.as_ref()))?;
    Ok(out)
}

fn typedef<'py>(py: Python<'py>, of: &Typedef) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("name", &of.name)?;
    out.set_item("type", ty(py, &of.ty)?)?;
    out.set_item("spelling", of.to_string())?;
    out.set_item("place", place(of.location.as_ref()))?;
    Ok(out)
}

fn enumeration<'py>(py: Python<'py>, of: &Enumeration) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("name", of.name.as_deref())?;
    out.set_item("id", of.id.to_raw())?;
    out.set_item("size", of.size)?;
    out.set_item("signed", of.signed)?;
    out.set_item("constants", &of.constants)?;
    out.set_item("place", place(of.location.as_ref()))?;
    Ok(out)
}

/// Adds what this module exports.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Declarations>()
}
