//! The running session and its ledger.
//!
//! Addresses of blocks are disguised in everything that stays in memory ([`Held`]), since a plain copy on the C heap or in
//! a Python object would make a lost block look held.

use std::{
    hint::black_box,
    sync::{Mutex, MutexGuard, PoisonError},
};

use clib_hook::{
    self as engine,
    guard::{GuardOptions, Side},
    objects::{self, Pattern},
    session::Mark,
};
use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    prelude::*,
};

use crate::error::to_py;

/// A library under test: id, path, number of its pattern, build id, load bias, start, end, slots, functions.
type LibraryInfo = (
    u16,
    String,
    usize,
    Option<String>,
    usize,
    usize,
    usize,
    usize,
    usize,
);

fn info(library: engine::LibraryInfo) -> LibraryInfo {
    (
        library.id,
        library.path,
        library.pattern,
        library.build_id,
        library.bias,
        library.start,
        library.end,
        library.slots,
        library.functions,
    )
}

/// Something that a library under test holds.
#[pyclass(frozen, module = "pytest_clib._native")]
pub(crate) struct Held {
    kind: engine::Kind,
    disguised: usize,
    #[pyo3(get)]
    size: usize,
    #[pyo3(get)]
    function: &'static str,
    #[pyo3(get)]
    library: u16,
    #[pyo3(get)]
    site: usize,
    #[pyo3(get)]
    backtrace: Vec<usize>,
    #[pyo3(get)]
    sequence: u64,
    #[pyo3(get)]
    test: u32,
    #[pyo3(get)]
    thread: i32,
}

impl Held {
    fn new(held: &engine::Held) -> Self {
        Self {
            kind: held.kind,
            disguised: !held.key,
            size: held.size,
            function: held.function,
            library: held.library,
            site: held.site,
            backtrace: held.backtrace.clone(),
            sequence: held.sequence,
            test: held.test,
            thread: held.thread,
        }
    }

    /// The engine's own form, with the plain address in it.
    pub(crate) fn plain(&self) -> engine::Held {
        engine::Held {
            kind: self.kind,
            key: !self.disguised,
            size: self.size,
            function: self.function,
            library: self.library,
            site: self.site,
            backtrace: self.backtrace.clone(),
            sequence: self.sequence,
            test: self.test,
            thread: self.thread,
        }
    }
}

#[pymethods]
impl Held {
    /// `memory`, `descriptor` or `mapping`.
    #[getter]
    fn kind(&self) -> &'static str {
        match self.kind {
            engine::Kind::Memory => "memory",
            engine::Kind::Descriptor => "descriptor",
            engine::Kind::Mapping => "mapping",
        }
    }

    /// Address of the block or mapping in hexadecimal, or number of the descriptor. (A plain `int` would make the
    /// block look held.)
    #[getter]
    fn key(&self) -> String {
        match self.kind {
            engine::Kind::Descriptor => (!self.disguised).to_string(),
            _ => format!("{:#x}", !self.disguised),
        }
    }
}

/// The running session; there is one per process.
#[pyclass(frozen, module = "pytest_clib._native")]
struct Session {
    inner: Mutex<Option<engine::Session>>,
}

impl Session {
    fn lock(&self) -> MutexGuard<'_, Option<engine::Session>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, work: impl FnOnce(&engine::Session) -> T) -> PyResult<T> {
        self.lock()
            .as_ref()
            .map(work)
            .ok_or_else(|| PyRuntimeError::new_err("the session was stopped"))
    }
}

#[pymethods]
impl Session {
    /// Starts watching for the libraries that `patterns` name.
    /// `guard` (`over` or `under`) serves their memory from blocks that end or start at inaccessible pages.
    #[new]
    #[pyo3(signature = (patterns, *, stack_depth = 8, guard = None))]
    fn new(patterns: Vec<String>, stack_depth: u8, guard: Option<&str>) -> PyResult<Self> {
        let patterns = patterns
            .iter()
            .map(|text| Pattern::new(text))
            .collect::<Result<Vec<_>, _>>()
            .map_err(to_py)?;
        let guard = match guard {
            None => None,
            Some("over") => Some(Side::Over),
            Some("under") => Some(Side::Under),
            Some(other) => {
                return Err(PyValueError::new_err(format!(
                    "a block has no side called {other:?}"
                )));
            }
        };
        let options = engine::Options {
            stack_depth,
            guard: guard.map(|side| GuardOptions {
                side,
                ..GuardOptions::default()
            }),
        };
        let session = engine::Session::start(patterns, options).map_err(to_py)?;
        Ok(Self {
            inner: Mutex::new(Some(session)),
        })
    }

    /// Hooks what has been loaded since the last look, and returns the libraries under test among it.
    fn rescan(&self) -> PyResult<Vec<LibraryInfo>> {
        let found = self.with(engine::Session::rescan)?.map_err(to_py)?;
        Ok(found.into_iter().map(info).collect())
    }

    /// The libraries under test found so far.
    fn libraries(&self) -> PyResult<Vec<LibraryInfo>> {
        Ok(self
            .with(engine::Session::libraries)?
            .into_iter()
            .map(info)
            .collect())
    }

    /// For each pattern, whether a library matched it yet.
    fn matched(&self) -> PyResult<Vec<bool>> {
        self.with(engine::Session::matched)
    }

    /// Names of all functions that the libraries under test call through slots, sorted.
    fn functions(&self) -> PyResult<Vec<String>> {
        self.with(engine::Session::functions)
    }

    /// Calls as (library, function, calls).
    fn counts(&self) -> PyResult<Vec<(u16, String, u64)>> {
        Ok(self
            .with(engine::Session::counts)?
            .into_iter()
            .map(|count| (count.library, count.function, count.calls))
            .collect())
    }

    /// Calls of one function by all libraries under test.
    fn calls(&self, function: &str) -> PyResult<u64> {
        self.with(|session| session.calls(function))?.map_err(to_py)
    }

    /// Now, for `held_since`.
    fn mark(&self) -> PyResult<u64> {
        Ok(self.with(engine::Session::mark)?.0)
    }

    /// What the libraries acquired after `mark` and still hold, oldest first.
    fn held_since(&self, mark: u64) -> PyResult<Vec<Held>> {
        let mut plain = self.with(|session| session.held_since(Mark(mark)))?;
        let held = plain.iter().map(Held::new).collect();
        forget(&mut plain);
        Ok(held)
    }

    /// Takes things out of the ledger.
    fn disown(&self, held: Vec<Bound<'_, Held>>) -> PyResult<()> {
        let mut plain: Vec<_> = held.iter().map(|held| held.get().plain()).collect();
        self.with(|session| session.disown(&plain))?;
        forget(&mut plain);
        Ok(())
    }

    /// The number that is stored with everything acquired from now on.
    fn set_test(&self, test: u32) -> PyResult<()> {
        self.with(|session| session.set_test(test))
    }

    /// Puts every slot back.
    fn stop(&self) -> PyResult<()> {
        let session = self.lock().take();
        session.map_or(Ok(()), |session| session.stop().map_err(to_py))
    }
}

/// Wipes the addresses in `plain`, whose memory is about to be freed.
pub(crate) fn forget(plain: &mut [engine::Held]) {
    for held in plain.iter_mut() {
        held.key = 0;
    }
    black_box(plain);
}

/// A loaded object.
type Object = (String, Option<String>, Option<String>, usize, usize, usize);

/// All loaded objects as (path, soname, build id, bias, start, end).
#[pyfunction]
fn loaded() -> Vec<Object> {
    objects::loaded()
        .into_iter()
        .map(|o| (o.path, o.soname, o.build_id, o.bias, o.start, o.end))
        .collect()
}

/// How many objects have been loaded and unloaded since the process began.
#[pyfunction]
fn generation() -> (u64, u64) {
    objects::generation()
}

/// Switches counting and the ledger on or off for the calling thread; returns how it was.
#[pyfunction]
fn set_enabled(enabled: bool) -> bool {
    engine::set_enabled(enabled)
}

/// Adds what this module exports.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Held>()?;
    module.add_class::<Session>()?;
    module.add_function(wrap_pyfunction!(loaded, module)?)?;
    module.add_function(wrap_pyfunction!(generation, module)?)?;
    module.add_function(wrap_pyfunction!(set_enabled, module)?)
}
