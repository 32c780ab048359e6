//! The edge between C and Rust: errno, and the one template that every entry point follows.
//!
//! 1. An entry point passes a closure that returns `Result`; [`entry`] (or [`entry_any_thread`]) turns it into the
//!    return value and errno, and nothing touches errno after that. A success leaves errno as it was on entry, unless
//!    the entry point says otherwise with [`Done::with_errno`].
//! 2. A NULL context is EINVAL. A panic, which would be a bug here, is caught, logged and becomes ENOTRECOVERABLE,
//!    as does every later call on that context: nothing unwinds into C, nothing aborts.
//! 3. Cancellation of the thread is held off while Rust code runs, see [`crate::wait`].
//! 4. No reference but a shared one reaches the closure, so that callbacks may enter again. Entry points that
//!    any thread may call see [`Shared`] only, which is `Sync`.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use vfu::{Errno, Level, dma};

use crate::context::{Shared, VfuCtx};
use crate::wait::Held;

/// The calling thread's errno.
pub(crate) fn errno() -> c_int {
    // SAFETY: glibc's pointer to the calling thread's errno is always valid.
    unsafe { *libc::__errno_location() }
}

/// Sets the calling thread's errno.
pub(crate) fn set_errno(value: c_int) {
    // SAFETY: glibc's pointer to the calling thread's errno is always valid.
    unsafe { *libc::__errno_location() = value };
}

/// Why an entry point fails: what to log, and errno.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failure {
    /// From the core.
    Core(vfu::Error),
    /// An argument that only C can get wrong.
    Argument {
        /// The argument, and what is wrong with it.
        what: &'static str,
        /// Its value.
        value: i64,
    },
    /// A system call failed.
    System(&'static str, Errno),
    /// Another wrong use, or a state in which the call makes no sense.
    Use(&'static str, Errno),
    /// The core has logged it already.
    Logged(Errno),
}

impl Failure {
    /// For results of functions that log their errors themselves.
    pub(crate) fn logged(error: vfu::Error) -> Self {
        Self::Logged(error.errno())
    }

    fn errno(&self) -> c_int {
        match self {
            Self::Core(error) => error.errno().get(),
            Self::Argument { .. } => libc::EINVAL,
            Self::System(_, errno) | Self::Use(_, errno) | Self::Logged(errno) => errno.get(),
        }
    }

    /// `None`: logged already. What happens in normal operation is for debugging only.
    fn level(&self) -> Option<Level> {
        match self {
            Self::Logged(_) => None,
            Self::System(_, errno) if errno.get() == libc::EINTR => Some(Level::Debug),
            Self::Core(
                vfu::Error::Dma(_)
                | vfu::Error::WouldBlock
                | vfu::Error::Quiescing
                | vfu::Error::NothingPending
                | vfu::Error::NotRealized
                | vfu::Error::Pci(vfu::pci::Error::NotFound),
            ) => Some(Level::Debug),
            _ => Some(Level::Error),
        }
    }
}

impl From<vfu::Error> for Failure {
    fn from(error: vfu::Error) -> Self {
        Self::Core(error)
    }
}

impl From<dma::Error> for Failure {
    fn from(error: dma::Error) -> Self {
        Self::Core(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(error) => error.fmt(f),
            Self::Argument { what, value } => write!(f, "{what}: {value:#x} is not valid"),
            Self::System(call, errno) => write!(f, "{call} failed: {errno}"),
            Self::Use(what, _) => f.write_str(what),
            Self::Logged(errno) => errno.fmt(f),
        }
    }
}

/// How an entry point ended: the value to return, and the errno to leave behind, if not that of the caller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done<T> {
    value: T,
    errno: Option<c_int>,
}

impl<T> Done<T> {
    /// Success with an errno of its own.
    #[inline]
    pub(crate) const fn with_errno(value: T, errno: c_int) -> Self {
        Self {
            value,
            errno: Some(errno),
        }
    }
}

impl<T: Returned> Done<T> {
    #[inline]
    const fn failed(errno: c_int) -> Self {
        Self::with_errno(T::FAILED, errno)
    }
}

impl<T> From<T> for Done<T> {
    #[inline]
    fn from(value: T) -> Self {
        Self { value, errno: None }
    }
}

/// What an entry point returns, and the value that tells failure.
pub(crate) trait Returned {
    const FAILED: Self;
}

impl Returned for () {
    const FAILED: Self = ();
}

impl Returned for bool {
    const FAILED: Self = false;
}

impl Returned for c_int {
    const FAILED: Self = -1;
}

impl Returned for isize {
    const FAILED: Self = -1;
}

impl Returned for usize {
    const FAILED: Self = 0;
}

impl Returned for *mut c_void {
    const FAILED: Self = ptr::null_mut();
}

impl Returned for *mut VfuCtx {
    const FAILED: Self = ptr::null_mut();
}

/// Runs an entry point that belongs to the context's own thread. `name` is the C function, for the log.
///
/// # Safety
///
/// `ctx` is NULL or a live context, and no other thread is in such an entry point of it.
pub(crate) unsafe fn entry<T: Returned, D: Into<Done<T>>>(
    ctx: *mut VfuCtx,
    name: &'static str,
    body: impl FnOnce(&VfuCtx) -> Result<D, Failure>,
) -> T {
    // SAFETY: the caller's promise.
    let Some(live) = (unsafe { ctx.as_ref() }) else {
        return refused();
    };
    let held = Held::new();
    // SAFETY: glibc's pointer to the calling thread's errno is always valid, and this stays that thread.
    let errno = unsafe { &*libc::__errno_location().cast::<Cell<c_int>>() };
    let before = errno.get();
    let done = guarded(live.shared(), name, || body(live));
    errno.set(done.errno.unwrap_or(before));
    held.release();
    done.value
}

/// Runs an entry point that any thread may call at any time. These are called for every piece of I/O: they do not save
/// errno, since nothing in them changes it when they succeed.
///
/// # Safety
///
/// `ctx` is NULL or a live context.
#[inline]
pub(crate) unsafe fn entry_any_thread<T: Returned, D: Into<Done<T>>>(
    ctx: *mut VfuCtx,
    name: &'static str,
    body: impl FnOnce(&Shared) -> Result<D, Failure>,
) -> T {
    // SAFETY: the caller's promise; only the part that is `Sync` is referred to.
    let Some(shared) = (unsafe { VfuCtx::shared_of(ctx) }) else {
        return refused();
    };
    let done = guarded(shared, name, || body(shared));
    if let Some(errno) = done.errno {
        set_errno(errno);
    }
    done.value
}

/// As [`entry_any_thread`], for entry points that make system calls.
///
/// # Safety
///
/// `ctx` is NULL or a live context.
#[inline]
pub(crate) unsafe fn entry_any_thread_io<T: Returned, D: Into<Done<T>>>(
    ctx: *mut VfuCtx,
    name: &'static str,
    body: impl FnOnce(&Shared) -> Result<D, Failure>,
) -> T {
    let held = Held::new();
    // SAFETY: the caller's promise.
    let value = unsafe { entry_any_thread(ctx, name, body) };
    held.release();
    value
}

/// Runs an entry point that has no context yet, hence no log.
pub(crate) fn entry_without_ctx<T: Returned>(body: impl FnOnce() -> Result<T, Failure>) -> T {
    let held = Held::new();
    let before = errno();
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(Failure::Logged(BROKEN)));
    let done = outcome.map_or_else(|failure| Done::failed(failure.errno()), Done::from);
    set_errno(done.errno.unwrap_or(before));
    held.release();
    done.value
}

/// errno after a caught panic.
const BROKEN: Errno = Errno::new(libc::ENOTRECOVERABLE);

#[inline]
fn guarded<T: Returned, D: Into<Done<T>>>(
    shared: &Shared,
    name: &'static str,
    body: impl FnOnce() -> Result<D, Failure>,
) -> Done<T> {
    if shared.is_broken() {
        return Done::failed(BROKEN.get());
    }
    let run = || match body() {
        Ok(done) => done.into(),
        Err(failure) => Done::failed(report(shared, name, &failure)),
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        shared.mark_broken(name, panic_text(&*panic));
        Done::failed(BROKEN.get())
    })
}

/// Logs a failure, and returns its errno.
#[cold]
#[inline(never)]
fn report(shared: &Shared, name: &str, failure: &Failure) -> c_int {
    if let Some(level) = failure.level() {
        shared.log(level, format_args!("{name}: {failure}"));
    }
    failure.errno()
}

/// No context: nowhere to log.
#[cold]
#[inline(never)]
fn refused<T: Returned>() -> T {
    set_errno(libc::EINVAL);
    T::FAILED
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::ffi::{CStr, c_char};
    use std::sync::Mutex;

    use super::*;
    use crate::entry::life::{vfu_create_ctx, vfu_destroy_ctx, vfu_get_private, vfu_realize_ctx};
    use crate::entry::setup::vfu_setup_log;

    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

    unsafe extern "C" fn keep(_: *mut VfuCtx, _: c_int, text: *const c_char) {
        // SAFETY: the library passes a NUL-terminated text.
        let text = unsafe { CStr::from_ptr(text) };
        LINES
            .lock()
            .unwrap()
            .push(text.to_string_lossy().into_owned());
        set_errno(libc::EXDEV);
    }

    #[test]
    fn a_panic_becomes_an_errno_and_disables_the_context() {
        // SAFETY: an empty path needs no file; the context is used here only.
        unsafe {
            let ctx = vfu_create_ctx(0, c"".as_ptr(), 0, ptr::null_mut(), 0);
            assert!(!ctx.is_null());
            assert_eq!(vfu_setup_log(ctx, Some(keep), libc::LOG_ERR), 0);

            let panics =
                |_: &VfuCtx| -> Result<c_int, Failure> { panic!("on purpose, by {}", "a test") };
            assert_eq!(entry::<c_int, _>(ctx, "vfu_test", panics), -1);
            assert_eq!(errno(), libc::ENOTRECOVERABLE);
            assert!(
                LINES
                    .lock()
                    .unwrap()
                    .concat()
                    .contains("vfu_test: internal error")
            );
            assert!(
                LINES
                    .lock()
                    .unwrap()
                    .concat()
                    .contains("on purpose, by a test")
            );

            set_errno(0);
            assert_eq!(vfu_realize_ctx(ctx), -1);
            assert_eq!(errno(), libc::ENOTRECOVERABLE);
            assert!(vfu_get_private(ctx).is_null());
            assert_eq!(errno(), libc::ENOTRECOVERABLE);
            vfu_destroy_ctx(ctx);
        }
    }

    #[test]
    fn errno_is_kept_by_success_and_set_last_by_failure() {
        // SAFETY: as above.
        unsafe {
            let ctx = vfu_create_ctx(0, c"".as_ptr(), 0, ptr::null_mut(), 0);
            set_errno(libc::EDOM);
            let succeeds = |_: &VfuCtx| -> Result<c_int, Failure> {
                set_errno(libc::EXDEV);
                Ok(5)
            };
            assert_eq!(entry::<c_int, _>(ctx, "vfu_test", succeeds), 5);
            assert_eq!(errno(), libc::EDOM);
            let says = |_: &VfuCtx| Ok(Done::with_errno(5, libc::ENOSPC));
            assert_eq!(entry::<c_int, _>(ctx, "vfu_test", says), 5);
            assert_eq!(errno(), libc::ENOSPC);
            let fails =
                |_: &VfuCtx| -> Result<usize, Failure> { Err(Failure::Logged(Errno::ENOENT)) };
            assert_eq!(entry::<usize, _>(ctx, "vfu_test", fails), 0);
            assert_eq!(errno(), libc::ENOENT);
            assert_eq!(
                entry::<c_int, _>(ptr::null_mut(), "vfu_test", |_| Ok(0)),
                -1
            );
            assert_eq!(errno(), libc::EINVAL);
            vfu_destroy_ctx(ctx);
        }
    }
}
