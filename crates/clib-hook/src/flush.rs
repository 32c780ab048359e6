//! What a process that ends badly still has to write: counters of coverage, which libraries otherwise write at their exit.
//!
//! The functions belong to compiler runtimes, and are not made for signal handlers: they allocate, and take locks that the dying thread
//! may hold. So a copy of the process calls them, made without what a `fork` of the C library does; whatever becomes of the copy, the
//! process itself ends as it would have.

use std::{
    ffi::c_int,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::{crash, sys};

/// How many functions there can be: one for each library with counters.
pub const MOST: usize = 64;
/// Milliseconds that the copy has; less than a parent waits for a child that is late.
const LIMIT: c_int = 3_000;

static FUNCTIONS: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];

/// Sets the functions that are called, in a copy of the process, when it ends by a [recorded](crate::crash::install) signal or by the
/// [time limit](crate::crash::deadline). Returns how many of them there was room for.
///
/// # Safety
///
/// Each is the address of a function without arguments that stays where it is.
pub unsafe fn set(functions: &[usize]) -> usize {
    for (slot, function) in FUNCTIONS
        .iter()
        .zip(functions.iter().copied().chain(std::iter::repeat(0)))
    {
        slot.store(function, Ordering::Release);
    }
    functions.len().min(MOST)
}

/// Calls them, once, and waits until that is over.
pub(crate) fn run() {
    let mut functions = [0; MOST];
    for (slot, function) in FUNCTIONS.iter().zip(&mut functions) {
        *function = slot.swap(0, Ordering::AcqRel);
    }
    if functions[0] == 0 {
        return;
    }
    // SAFETY: the copy calls what is meant for the end of a process, and then ends; the parent touches nothing but the copy's
    // number. Without the C library's part, no handler of pthread_atfork waits for a lock.
    unsafe {
        // No signal ends the wait, and none that is late changes how the process ends.
        let mut every: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut every);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const every, &raw mut before);
        let this = libc::getpid();
        let copy = libc::syscall(libc::SYS_fork);
        if copy == 0 {
            // It may wait for a lock of the heap for ever, and must not outlive who would end it then.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != this {
                libc::_exit(0);
            }
            call(&functions);
        }
        if copy > 0 {
            wait(copy);
        }
        if crash::chains() {
            libc::sigprocmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        }
    }
}

/// The copy: calls the functions with the signals' own effects, so that a fault ends it.
///
/// # Safety
///
/// In a process that has nothing else to do; `functions` as [`set`] wants them, and 0.
unsafe fn call(functions: &[usize]) -> ! {
    // SAFETY: plain C structures; the functions are what `set` was promised.
    unsafe {
        let mut every: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut every);
        for signal in crash::SIGNALS {
            libc::signal(signal, libc::SIG_DFL);
            libc::sigaddset(&raw mut every, signal);
        }
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const every, ptr::null_mut());
        // The runtime's own calls are no longer anyone's to count, or to make fail.
        sys::set_enabled(false);
        for function in functions.iter().copied().filter(|address| *address != 0) {
            let function: extern "C" fn() = std::mem::transmute(function);
            function();
        }
        libc::_exit(0)
    }
}

/// Waits for the copy as long as its limit allows, and then ends it.
///
/// # Safety
///
/// `copy` is a child of this process that nobody else waits for.
unsafe fn wait(copy: libc::c_long) {
    // SAFETY: system calls with numbers and structures that live during them.
    unsafe {
        let descriptor = libc::syscall(libc::SYS_pidfd_open, copy, 0);
        let mut ended = libc::pollfd {
            fd: c_int::try_from(descriptor).unwrap_or(-1),
            events: libc::POLLIN,
            revents: 0,
        };
        if descriptor < 0 || libc::poll(&raw mut ended, 1, LIMIT) < 1 {
            libc::syscall(libc::SYS_kill, copy, libc::SIGKILL);
        }
        libc::syscall(libc::SYS_wait4, copy, 0, 0, 0);
        if descriptor >= 0 {
            libc::syscall(libc::SYS_close, descriptor);
        }
    }
}
