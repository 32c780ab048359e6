//! `clib_script` for Python: steps in as plain tuples, figures out as a dictionary.

use std::time::Duration;

use clib_script::{
    Argument, Bytes, Expected, Function, Limit, Options, Returned, Script, Step, Value,
};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// Steps, checked and ready to run any number of times.
#[pyclass(name = "Script", module = "pytest_clib._native", frozen)]
#[derive(Debug)]
pub(crate) struct NativeScript(Script);

/// Adds what this file defines to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<NativeScript>()
}

#[pymethods]
impl NativeScript {
    #[new]
    fn new(steps: Vec<Bound<'_, PyTuple>>) -> PyResult<Self> {
        let steps: PyResult<Vec<Step>> = steps.iter().map(step).collect();
        Script::new(steps?).map(Self).map_err(PyValueError::new_err)
    }

    /// Runs the steps with the GIL released; the figures, or `ScriptFailure`'s arguments.
    #[pyo3(signature = (*, times, seconds, threads, instances, warmup, batch, step_limit, count))]
    fn run<'py>(
        &self,
        py: Python<'py>,
        times: Option<u64>,
        seconds: Option<f64>,
        threads: usize,
        instances: Vec<Vec<u64>>,
        warmup: u64,
        batch: u64,
        step_limit: f64,
        count: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let limit = match (times, seconds) {
            (Some(times), None) => Limit::Times(times),
            (None, Some(seconds)) => Limit::Time(duration("seconds", seconds)?),
            _ => return Err(PyTypeError::new_err("run() takes either times or seconds")),
        };
        let options = Options {
            limit,
            threads,
            instances,
            warmup,
            batch,
            step_limit: duration("step_limit", step_limit)?,
            snapshot: count.then(crate::counters::snapshot),
        };
        let mut interrupt: Option<PyErr> = None;
        let outcome = py.detach(|| {
            clib_script::run(&self.0, &options, || {
                interrupt = Python::attach(|py| py.check_signals()).err();
                interrupt.is_some()
            })
        });
        if let Some(error) = interrupt {
            return Err(error);
        }
        match outcome {
            Ok(report) => figures(py, &report),
            Err(failure) => Err(PyRuntimeError::new_err((
                failure.to_string(),
                failure.step,
                failure.iteration,
                failure.instance,
                errno_of(&failure.problem),
                bytes_of(&failure.problem),
            ))),
        }
    }
}

fn duration(name: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| PyValueError::new_err(format!("{name} = {seconds}: {error}")))
}

fn errno_of(problem: &clib_script::Problem) -> i32 {
    use clib_script::Problem;
    match problem {
        Problem::Errno(errno) | Problem::Result { errno, .. } => *errno,
        _ => 0,
    }
}

fn bytes_of(problem: &clib_script::Problem) -> Option<Vec<u8>> {
    match problem {
        clib_script::Problem::Bytes { received, .. } => Some(received.clone()),
        _ => None,
    }
}

fn figures<'py>(py: Python<'py>, report: &clib_script::Report) -> PyResult<Bound<'py, PyDict>> {
    let latency = &report.latency;
    let out = PyDict::new(py);
    out.set_item("operations", report.operations)?;
    out.set_item("seconds", report.elapsed.as_secs_f64())?;
    out.set_item("mean_ns", latency.mean())?;
    for (name, quantile) in [
        ("p50_ns", 0.5),
        ("p90_ns", 0.9),
        ("p99_ns", 0.99),
        ("p999_ns", 0.999),
    ] {
        out.set_item(name, latency.value_at_quantile(quantile))?;
    }
    out.set_item("min_ns", latency.min())?;
    out.set_item("max_ns", latency.max())?;
    let buckets: Vec<(u64, u64)> = latency
        .iter_recorded()
        .map(|it| (it.value_iterated_to(), it.count_at_value()))
        .collect();
    out.set_item("histogram", buckets)?;
    out.set_item("counters", &report.counters)?;
    out.set_item("instructions", report.instructions)?;
    Ok(out)
}

/// `("send", fd, bytes, fds)`, `("call", address, name, returned, arguments, expect)`,
/// `("recv", fd, length, expect)` or `("wait", fd)`.
fn step(given: &Bound<'_, PyTuple>) -> PyResult<Step> {
    let kind: String = given.get_item(0)?.extract()?;
    Ok(match kind.as_str() {
        "send" => {
            let (_, fd, content, fds): (
                String,
                Bound<'_, PyAny>,
                Bound<'_, PyAny>,
                Vec<Bound<'_, PyAny>>,
            ) = given.extract()?;
            let fds: PyResult<Vec<Value>> = fds.iter().map(value).collect();
            Step::Send {
                fd: value(&fd)?,
                bytes: bytes(&content)?,
                fds: fds?,
            }
        }
        "call" => call(given)?,
        "recv" => {
            let (_, fd, length, expect): (String, Bound<'_, PyAny>, usize, Bound<'_, PyAny>) =
                given.extract()?;
            Step::Recv {
                fd: value(&fd)?,
                length,
                expect: bytes(&expect)?,
            }
        }
        "wait" => Step::Wait {
            fd: value(&given.get_item(1)?)?,
        },
        other => {
            return Err(PyValueError::new_err(format!(
                "no step is called {other:?}"
            )));
        }
    })
}

fn call(given: &Bound<'_, PyTuple>) -> PyResult<Step> {
    type Given<'py> = (
        String,
        usize,
        String,
        (String, u8),
        Vec<(String, Bound<'py, PyAny>)>,
        Option<(i128, Option<i32>)>,
    );
    let (_, address, name, (kind, width), arguments, expect): Given<'_> = given.extract()?;
    let returned = match kind.as_str() {
        "void" => Returned::Void,
        "signed" => Returned::Signed(width),
        "unsigned" => Returned::Unsigned(width),
        "bool" => Returned::Bool,
        "double" => Returned::Double,
        other => {
            return Err(PyValueError::new_err(format!(
                "no result is called {other:?}"
            )));
        }
    };
    let arguments: PyResult<Vec<Argument>> = arguments
        .iter()
        .map(|(kind, number)| {
            Ok(match kind.as_str() {
                "float" => Argument::Float(number.extract()?),
                "double" => Argument::Double(number.extract()?),
                _ => Argument::Integer(value(number)?),
            })
        })
        .collect();
    // SAFETY: the Python side takes address, arguments and result from one ctypes function whose
    // types the user declared, and keeps the library and the arguments alive with the script.
    let function = unsafe { Function::new(address, name, returned) };
    let expect = match expect {
        None => Expected::Anything,
        Some((result, None)) => Expected::Result(result),
        Some((result, Some(errno))) => Expected::Failure { result, errno },
    };
    Ok(Step::Call {
        function,
        arguments: arguments?,
        expect,
    })
}

/// An integer, `("counter", start, step, wrap)`, `("random", seed, low, high)`, `("list", [...])`
/// or `("instance", index)`.
fn value(given: &Bound<'_, PyAny>) -> PyResult<Value> {
    if let Ok(number) = given.extract::<u64>() {
        return Ok(Value::Constant(number));
    }
    let tuple = given.cast::<PyTuple>()?;
    let kind: String = tuple.get_item(0)?.extract()?;
    Ok(match kind.as_str() {
        "counter" => {
            let (_, start, step, wrap): (String, u64, u64, u64) = tuple.extract()?;
            Value::Counter { start, step, wrap }
        }
        "random" => {
            let (_, seed, low, high): (String, u64, u64, u64) = tuple.extract()?;
            Value::Random { seed, low, high }
        }
        "list" => Value::List(tuple.get_item(1)?.extract()?),
        "instance" => Value::Instance(tuple.get_item(1)?.extract()?),
        other => {
            return Err(PyValueError::new_err(format!(
                "no value is called {other:?}"
            )));
        }
    })
}

/// `(fixed bytes, [(offset, width, value), ...])`.
fn bytes(given: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    type Given<'py> = (Vec<u8>, Vec<(usize, usize, Bound<'py, PyAny>)>);
    let (fixed, patches): Given<'_> = given.extract()?;
    let mut out = Bytes::fixed(fixed);
    for (offset, width, number) in patches {
        out.patch(offset, width, value(&number)?)
            .map_err(PyValueError::new_err)?;
    }
    Ok(out)
}
