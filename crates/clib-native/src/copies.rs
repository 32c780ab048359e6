//! What a forked copy of the process does first. In Python each step would make pages the copy's own, which costs more than the step.

use std::io::Error;

use pyo3::prelude::*;

use crate::record::{crash_install, deadline};

/// Makes this process, just forked, one that Ctrl-C does not reach, that writes to `output` what it would write to `written`, and that
/// ends with `crashed` after a fatal signal and with `expired` after `seconds`.
#[pyfunction]
fn become_copy(
    output: i32,
    written: Vec<i32>,
    crashed: i32,
    seconds: f64,
    expired: i32,
) -> PyResult<()> {
    // SAFETY: ignoring a signal has no preconditions.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    for descriptor in written {
        // SAFETY: dup2 takes any numbers.
        told(unsafe { libc::dup2(output, descriptor) })?;
    }
    crash_install(None, Some(crashed))?;
    deadline(Some(seconds), expired)
}

/// Puts the descriptor `made` in the place of `fds`, which name one open file, with its flags and theirs. `made` is closed in any case.
#[pyfunction]
fn put_in_place(made: i32, fds: Vec<i32>) -> PyResult<()> {
    let placed = place(made, &fds);
    // SAFETY: the caller has it from the kernel, and does not use it any more.
    unsafe { libc::close(made) };
    placed
}

fn place(made: i32, fds: &[i32]) -> PyResult<()> {
    let Some(first) = fds.first() else {
        return Ok(());
    };
    // SAFETY: asks for flags; takes any number.
    let flags = told(unsafe { libc::fcntl(*first, libc::F_GETFL) })?;
    // SAFETY: sets them; as above.
    told(unsafe { libc::fcntl(made, libc::F_SETFL, flags) })?;
    for fd in fds {
        // SAFETY: as above.
        let closed = told(unsafe { libc::fcntl(*fd, libc::F_GETFD) })? & libc::FD_CLOEXEC;
        let flags = if closed == 0 { 0 } else { libc::O_CLOEXEC };
        // SAFETY: dup3 takes any numbers; what is closed by it is what the caller wants replaced.
        told(unsafe { libc::dup3(made, *fd, flags) })?;
    }
    Ok(())
}

fn told(result: i32) -> PyResult<i32> {
    if result < 0 {
        return Err(Error::last_os_error().into());
    }
    Ok(result)
}

/// Adds what this module exports.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(become_copy, module)?)?;
    module.add_function(wrap_pyfunction!(put_in_place, module)?)
}
