//! The `PyO3` module `pytest_clib._native`: types in, types out, no logic.
//!
//! The only crate that knows both Python and the engine. [`hook`], [`plan`], [`mock`], [`record`], [`tools`] and [`symbolize`] hand through `clib-hook`, [`abi`]
//! hands through `clib-abi`, [`script`] runs `clib-script`, and [`walk`], which begins at [`variables`] or everywhere, turns the live objects of the interpreter into words and buffers, so that
//! `clib-hook` can tell what is lost without knowing Python. [`copies`] does in one call what a forked copy does first. What the module exports is declared in
//! `python/pytest_clib/_native.pyi`, and a test compares the two.
#![allow(
    clippy::needless_pass_by_value,
    reason = "PyO3 hands extracted arguments over by value"
)]

use pyo3::prelude::*;

mod abi;
mod copies;
mod counters;
mod error;
mod heap;
mod hook;
mod mock;
mod objects;
mod plan;
mod pools;
mod record;
mod script;
mod symbolize;
mod tools;
mod variables;
mod walk;

/// The native half of pytest-clib.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    hook::register(module)?;
    plan::register(module)?;
    record::register(module)?;
    copies::register(module)?;
    mock::register(module)?;
    counters::register(module)?;
    script::register(module)?;
    symbolize::register(module)?;
    tools::register(module)?;
    walk::register(module)?;
    variables::register(module)?;
    objects::register(module)?;
    abi::register(module)
}
