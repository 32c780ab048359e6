//! Creating, realizing, attaching, running and destroying a context.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use vfu::{Context, Errno, Level, Mode, SharedFd};

use crate::context::{Kind, VfuCtx};
use crate::device::CDevice;
use crate::edge::{
    Done, Failure, Returned, entry, entry_any_thread, entry_without_ctx, errno, set_errno,
};
use crate::wait::{self, Reception, Source};

const FLAG_ATTACH_NB: c_int = 1;
const TRANS_SOCK: c_int = 0;
const TRANS_PIPE: c_int = 1;
const DEV_TYPE_PCI: c_int = 0;

/// Creates a device that listens at the UNIX socket `path`, or, with `VFU_TRANS_PIPE`, serves standard input and
/// output. The file is there when this returns, and must not be there before.
///
/// `flags` is 0 or `LIBVFIO_USER_FLAG_ATTACH_NB`; `pvt` is the caller's, see [`vfu_get_private`]. An empty path listens
/// where nobody can connect by name. The result is freed with [`vfu_destroy_ctx`].
///
/// Returns NULL and sets errno: EINVAL for unknown flags or a NULL path, ENOTSUP for another transport or device
/// type, ENOMEM, ENAMETOOLONG for a path of more than 107 bytes, and what `socket`, `bind` and `listen` fail with.
///
/// # Safety
///
/// `path` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_create_ctx(
    trans: c_int,
    path: *const c_char,
    flags: c_int,
    pvt: *mut c_void,
    dev_type: c_int,
) -> *mut VfuCtx {
    entry_without_ctx(|| {
        if flags & !FLAG_ATTACH_NB != 0 {
            return Err(Failure::Argument {
                what: "flags",
                value: flags.into(),
            });
        }
        if trans != TRANS_SOCK && trans != TRANS_PIPE || dev_type != DEV_TYPE_PCI {
            return Err(Failure::Use(
                "unknown transport or device type",
                Errno::ENOTSUP,
            ));
        }
        let mode = if flags == 0 {
            Mode::Blocking
        } else {
            Mode::NonBlocking
        };
        let kind = match (mode, trans) {
            (Mode::NonBlocking, _) => Kind::NonBlocking,
            (Mode::Blocking, TRANS_PIPE) => Kind::Pipe,
            (Mode::Blocking, _) => Kind::Socket,
        };
        let core = if trans == TRANS_PIPE {
            Context::pipe(
                standard_stream(libc::STDIN_FILENO),
                standard_stream(libc::STDOUT_FILENO),
                mode,
            )?
        } else {
            if path.is_null() {
                return Err(Failure::Use("path is NULL", Errno::EINVAL));
            }
            // SAFETY: not NULL, hence NUL-terminated by the caller's promise.
            let path = unsafe { CStr::from_ptr(path) };
            Context::listen(Path::new(OsStr::from_bytes(path.to_bytes())), mode)?
        };
        Ok(VfuCtx::create(core, kind, pvt)?.as_ptr())
    })
}

fn standard_stream(fd: c_int) -> SharedFd {
    // SAFETY: the process' standard streams; a process that asks for the pipe transport keeps them for it.
    SharedFd::Borrowed(unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) })
}

/// Finishes the device. Call it after the setup functions and before [`vfu_run_ctx`]; further calls do nothing.
///
/// Returns 0, or -1 and errno: EINVAL for a NULL context, ENOMEM.
///
/// # Safety
///
/// `ctx` is NULL or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_realize_ctx(ctx: *mut VfuCtx) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        entry(ctx, "vfu_realize_ctx", |ctx| {
            ctx.core().realize()?;
            Ok(0)
        })
    }
}

/// Accepts a client and negotiates the version. Waits for both, unless the context is non-blocking. A cancellation
/// point, on a blocking context.
///
/// Returns 0, or -1 and errno: EAGAIN when a non-blocking context has to be called again, EINTR after a signal,
/// EINVAL when a client is attached already or its VERSION message is refused, ENOMSG or ECONNRESET when it went
/// away, ENOMEM, and what `accept`, `socketpair`, `recvmsg` and `sendmsg` fail with. After a failure another client
/// may be attached.
///
/// # Safety
///
/// `ctx` is NULL or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn vfu_attach_ctx(ctx: *mut VfuCtx) -> c_int {
    // SAFETY: the caller's promise.
    let step = unsafe { attach(ctx, None) };
    let Step::Wait(Source::Listener(listener)) = step else {
        return step.returned();
    };
    // Nothing here may need to be dropped: the thread may be cancelled in this call.
    let client = wait::accept(listener);
    // SAFETY: as above.
    unsafe { attach(ctx, Some(client)) }.returned()
}

/// One part of attaching: up to the wait for a client, and with `accepted`, the result of that wait, from there on.
///
/// # Safety
///
/// As [`vfu_attach_ctx`].
unsafe fn attach(ctx: *mut VfuCtx, accepted: Option<c_int>) -> Step {
    let errno = errno();
    let body = |ctx: &VfuCtx| {
        let core = ctx.core();
        let result = match accepted {
            None => match core.accept_fd() {
                Some(listener) if ctx.is_blocking() && !core.is_serving() => {
                    return Ok(Step::Wait(Source::Listener(listener)));
                }
                _ => core.attach(),
            },
            Some(client @ 0..) => {
                // SAFETY: accept4 has just returned it, and nobody else knows it.
                core.attach_accepted(unsafe { OwnedFd::from_raw_fd(client) })
            }
            Some(_) => return Err(Failure::System("accept4", Errno::new(errno))),
        };
        result.map_err(|error| match error {
            vfu::Error::WouldBlock | vfu::Error::Reentered => Failure::Core(error),
            _ => Failure::logged(error),
        })?;
        Ok(Step::Return(0))
    };
    // SAFETY: the caller's promise.
    unsafe { entry(ctx, "vfu_attach_ctx", body) }
}

/// What an exported function that may wait does next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Return(c_int),
    Wait(Source),
}

impl Step {
    fn returned(self) -> c_int {
        match self {
            Self::Return(value) => value,
            Self::Wait(_) => -1,
        }
    }
}

impl Returned for Step {
    const FAILED: Self = Self::Return(-1);
}

/// Returns the descriptor to poll: the connection if there is one, else the listening socket. It changes after a
/// successful [`vfu_attach_ctx`] and when [`vfu_run_ctx`] fails with ENOTCONN. -1 if there is none, and EINVAL for
/// a NULL context.
///
/// # Safety
///
/// `ctx` is NULL or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_get_poll_fd(ctx: *mut VfuCtx) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        entry(ctx, "vfu_get_poll_fd", |ctx| {
            Ok(ctx.core().poll_fd().unwrap_or(-1))
        })
    }
}

/// Serves requests: those that have arrived, if the context is non-blocking, else until something fails. A cancellation
/// point, on a blocking context.
///
/// Returns the number of requests served, or -1 and errno: EINVAL before [`vfu_realize_ctx`], EBUSY while a quiesce is
/// pending and inside a callback, ENOTCONN without client or when it has just gone, EINTR after a signal, ENOMEM, and what
/// `recvmsg` and `sendmsg` fail with. A request that fails is answered with its error and is no failure of this
/// call; errno is then that error.
///
/// # Safety
///
/// `ctx` is NULL or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn vfu_run_ctx(ctx: *mut VfuCtx) -> c_int {
    // SAFETY: the caller's promise.
    if unsafe { ctx.as_ref() }.is_some_and(VfuCtx::is_blocking) {
        // SAFETY: as above.
        return unsafe { run_blocking(ctx) };
    }
    let body = |ctx: &VfuCtx| {
        let served = ctx
            .core()
            .run(&mut CDevice(ctx))
            .map_err(unlogged_if_reentered)?;
        let requests = c_int::try_from(served.requests).unwrap_or(c_int::MAX);
        Ok(match served.failed {
            None => requests.into(),
            Some(failed) => Done::with_errno(requests, failed.get()),
        })
    };
    // SAFETY: as above.
    unsafe { entry(ctx, "vfu_run_ctx", body) }
}

/// Runs a context that waits.
///
/// # Safety
///
/// As [`vfu_run_ctx`].
#[inline(never)]
unsafe fn run_blocking(ctx: *mut VfuCtx) -> c_int {
    let mut reception = Reception::new();
    loop {
        // SAFETY: the caller's promise.
        let step = unsafe { run_until_wait(ctx, &mut reception) };
        let Step::Wait(source) = step else {
            return step.returned();
        };
        // Nothing here may need to be dropped: the thread may be cancelled in this call.
        reception.wait(source);
    }
}

/// One part of running a context that waits: up to the wait for another message.
///
/// # Safety
///
/// As [`vfu_run_ctx`].
unsafe fn run_until_wait(ctx: *mut VfuCtx, reception: &mut Reception) -> Step {
    let body = |ctx: &VfuCtx| {
        if reception.is_interrupted() {
            return Err(Failure::Logged(Errno::new(libc::EINTR)));
        }
        let served = reception.take(|arrival| ctx.core().run_received(&mut CDevice(ctx), arrival));
        let _ = served.map_err(unlogged_if_reentered)?;
        Ok(Step::Wait(ctx.source()?))
    };
    // SAFETY: the caller's promise.
    unsafe { entry(ctx, "vfu_run_ctx", body) }
}

fn unlogged_if_reentered(error: vfu::Error) -> Failure {
    match error {
        vfu::Error::Reentered => Failure::Core(error),
        _ => Failure::logged(error),
    }
}

/// Destroys a context: the device is told of the loss of client memory and of the connection, and the socket's file
/// is removed. Descriptors given to [`vfu_setup_region`](super::setup::vfu_setup_region) and
/// [`vfu_create_ioeventfd`](super::setup::vfu_create_ioeventfd) stay open. NULL is allowed.
///
/// Inside a callback of the same context this does nothing, except that it logs so.
///
/// # Safety
///
/// `ctx` is NULL or a live context, which nobody uses now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_destroy_ctx(ctx: *mut VfuCtx) {
    // SAFETY: the caller's promise.
    let Some(shared) = (unsafe { VfuCtx::shared_of(ctx) }) else {
        return;
    };
    let before = errno();
    let refuse = || {
        shared.log(
            Level::Error,
            format_args!("vfu_destroy_ctx: ignored, a callback of this context runs"),
        );
    };
    if shared.is_logging() {
        return refuse();
    }
    let shut_down = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        // SAFETY: not NULL, hence live.
        let live = unsafe { &*ctx };
        live.core().shutdown(&mut CDevice(live))
    }));
    if matches!(shut_down, Ok(Err(vfu::Error::Reentered))) {
        return refuse();
    }
    // SAFETY: made by `vfu_create_ctx`, and no call on it is under way: `shutdown` would have refused.
    unsafe { VfuCtx::free(ctx) };
    set_errno(before);
}

/// Returns the private pointer given to [`vfu_create_ctx`]. NULL and EINVAL for a NULL context. Any thread may call
/// this.
///
/// # Safety
///
/// `ctx` is NULL or a live context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_get_private(ctx: *mut VfuCtx) -> *mut c_void {
    // SAFETY: the caller's promise. Devices call this in every callback: it is answered at once where nothing is wrong.
    match unsafe { VfuCtx::shared_of(ctx) } {
        Some(shared) if !shared.is_broken() => shared.private(),
        // SAFETY: as above.
        _ => unsafe { entry_any_thread(ctx, "vfu_get_private", |shared| Ok(shared.private())) },
    }
}

/// Completes a quiesce that the device postponed: with 0, what waited for it is done before this returns; with an
/// errno, the waiting request fails with it.
///
/// Returns 0, or -1 and errno: EINVAL if nothing is pending, also inside a callback, and otherwise as
/// [`vfu_run_ctx`].
///
/// # Safety
///
/// `ctx` is NULL or a live context, used by this thread only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_device_quiesced(ctx: *mut VfuCtx, quiesce_errno: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        entry(ctx, "vfu_device_quiesced", |ctx| {
            let outcome = if quiesce_errno == 0 {
                Ok(())
            } else {
                Err(Errno::new(quiesce_errno))
            };
            let served = ctx.core().device_quiesced(&mut CDevice(ctx), outcome)?;
            Ok(served
                .failed
                .map_or(0.into(), |failed| Done::with_errno(0, failed.get())))
        })
    }
}
