//! Fatal signals and time limits become records.
//!
//! The handler runs on a stack of its own, allocates nothing, and believes nothing about the stack it walks: should the walk itself
//! fault, what was found until then is kept. Only the first fault is recorded.

use std::{
    cell::UnsafeCell,
    ffi::{c_int, c_void},
    fmt::Write,
    ptr,
    sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering},
    time::Duration,
};

use crate::{
    Error, flush, guard,
    ledger::stacks::{self, DEEPEST},
    record::{Blame, EndKind, Ending, FRAMES},
    sys, thunk,
    unwind::{self, Registers},
};

/// What happens after a fatal signal was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The handler that was there before runs (or the signal's default).
    Chain,
    /// The process ends at once with this exit status, running nothing else.
    Exit(i32),
}

pub(crate) const SIGNALS: [c_int; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
];

/// The handlers that were there before, in the order of [`SIGNALS`].
struct Previous(UnsafeCell<[libc::sigaction; SIGNALS.len()]>);

// SAFETY: written by `install` only, while INSTALLED says that our handlers, which read it, are not there.
unsafe impl Sync for Previous {}

// SAFETY: all-zero bytes are a value of this C structure (the default action).
static PREVIOUS: Previous = Previous(UnsafeCell::new(unsafe { std::mem::zeroed() }));
static INSTALLED: AtomicBool = AtomicBool::new(false);
/// Where the short text goes, or -1.
static TEXT_FD: AtomicI32 = AtomicI32::new(-1);
/// Exit status plus one for [`After::Exit`], 0 for [`After::Chain`].
static AFTER: AtomicI32 = AtomicI32::new(0);
/// Thread that is writing a record.
static HANDLING: AtomicI32 = AtomicI32::new(0);

/// The timer of [`deadline`] plus one, and the status it ends the process with.
static TIMER: AtomicUsize = AtomicUsize::new(0);
static TIMER_STATUS: AtomicI32 = AtomicI32::new(0);
/// Process that made the timer: timers are not inherited.
static TIMER_PROCESS: AtomicI32 = AtomicI32::new(0);

const ALTERNATE: usize = 256 << 10;

/// Installs handlers for `SIGSEGV`, `SIGBUS`, `SIGILL`, `SIGFPE` and `SIGABRT` that write to the active
/// [record](crate::record::Record) and, if `fd` is given, a short text to it. The calling thread gets an alternate stack.
/// Calling it again changes `fd` and `after` (and takes the place of handlers that others have installed since).
///
/// # Errors
///
/// [`Error::System`].
pub fn install(fd: Option<i32>, after: After) -> Result<(), Error> {
    TEXT_FD.store(fd.unwrap_or(-1), Ordering::Relaxed);
    AFTER.store(
        if let After::Exit(status) = after {
            (status & 0xff) + 1
        } else {
            0
        },
        Ordering::Relaxed,
    );
    protect_thread()?;
    for (number, signal) in SIGNALS.into_iter().enumerate() {
        // SAFETY: plain C structures; the handler is a function with the signature that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction =
                handle as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            let mut before: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, &raw const action, &raw mut before) != 0 {
                return Err(Error::last_os(format!(
                    "installing a handler for signal {signal}"
                )));
            }
            if before.sa_sigaction != action.sa_sigaction {
                (*PREVIOUS.0.get())[number] = before;
            }
        }
    }
    INSTALLED.store(true, Ordering::Release);
    Ok(())
}

/// Whether other handlers still run after ours.
pub(crate) fn chains() -> bool {
    AFTER.load(Ordering::Relaxed) == 0
}

/// Puts back the handlers that were there before.
pub fn uninstall() {
    if !INSTALLED.swap(false, Ordering::AcqRel) {
        return;
    }
    for number in 0..SIGNALS.len() {
        restore(number);
    }
}

fn restore(number: usize) {
    // SAFETY: PREVIOUS was filled by `install`, in this order.
    unsafe {
        libc::sigaction(
            SIGNALS[number],
            &raw const (*PREVIOUS.0.get())[number],
            ptr::null_mut(),
        )
    };
}

/// Gives the calling thread an alternate stack for signal handlers, so that a stack overflow can be recorded too. Threads without one
/// still get their other faults recorded. The stack is kept for ever.
///
/// # Errors
///
/// [`Error::System`].
pub fn protect_thread() -> Result<(), Error> {
    // SAFETY: stack_t is plain data; the new stack is a fresh mapping that is never given back.
    unsafe {
        let mut current: libc::stack_t = std::mem::zeroed();
        libc::sigaltstack(ptr::null(), &raw mut current);
        if current.ss_flags & libc::SS_DISABLE == 0 && current.ss_size >= ALTERNATE {
            return Ok(());
        }
        let start = sys::map(ALTERNATE)
            .ok_or_else(|| Error::last_os("mapping a stack for signal handlers"))?;
        let stack = libc::stack_t {
            ss_sp: start as *mut c_void,
            ss_flags: 0,
            ss_size: ALTERNATE,
        };
        if libc::sigaltstack(&raw const stack, ptr::null_mut()) != 0 {
            return Err(Error::last_os("setting a stack for signal handlers"));
        }
    }
    Ok(())
}

/// The signal that a time limit uses: a real-time signal near the end, which hardly anyone else takes.
fn limit_signal() -> c_int {
    libc::SIGRTMAX() - 3
}

/// Sets (or with `None` clears) a time limit for this process: when it passes, the calling thread's backtrace is recorded as a hang, and the
/// process ends with `status`, running nothing else. One limit at a time. Not inherited by children.
///
/// # Errors
///
/// [`Error::System`].
pub fn deadline(limit: Option<Duration>, status: i32) -> Result<(), Error> {
    // SAFETY: getpid has no preconditions.
    let process = unsafe { libc::getpid() };
    let previous = TIMER.swap(0, Ordering::AcqRel);
    if previous != 0 && TIMER_PROCESS.load(Ordering::Relaxed) == process {
        // SAFETY: a timer of this process, made below and not deleted yet.
        unsafe { libc::timer_delete((previous - 1) as libc::timer_t) };
    }
    let Some(limit) = limit else { return Ok(()) };
    TIMER_STATUS.store(status & 0xff, Ordering::Relaxed);
    TIMER_PROCESS.store(process, Ordering::Relaxed);
    protect_thread()?;
    // SAFETY: plain C structures that live during the calls; the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction =
            expire as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        if libc::sigaction(limit_signal(), &raw const action, ptr::null_mut()) != 0 {
            return Err(Error::last_os("installing the handler of the time limit"));
        }
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut mask, limit_signal());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const mask, ptr::null_mut());
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = limit_signal();
        event.sigev_notify_thread_id = sys::thread_id();
        let mut timer: libc::timer_t = ptr::null_mut();
        if libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) != 0 {
            return Err(Error::last_os("making the timer of the time limit"));
        }
        TIMER.store(timer as usize + 1, Ordering::Release);
        let mut value: libc::itimerspec = std::mem::zeroed();
        value.it_value.tv_sec =
            libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX);
        // Zero would switch the timer off.
        value.it_value.tv_nsec =
            libc::c_long::from(limit.subsec_nanos().max(u32::from(limit.as_secs() == 0)));
        if libc::timer_settime(timer, 0, &raw const value, ptr::null_mut()) != 0 {
            return Err(Error::last_os("starting the timer of the time limit"));
        }
    }
    Ok(())
}

/// Where the fault lies for a backtrace whose first address is the program counter.
#[must_use]
pub fn blame(backtrace: &[usize]) -> Blame {
    let mut library_is_next = true;
    for (number, address) in backtrace.iter().enumerate() {
        if unwind::in_library(*address) {
            return if library_is_next {
                Blame::Library
            } else {
                Blame::Behind
            };
        }
        library_is_next &= neutral(*address, &backtrace[number + 1..]);
    }
    Blame::Elsewhere
}

/// Whether a frame leaves a fault with the library behind it: runtimes, dependencies, hooks, and jumps to nowhere.
fn neutral(address: usize, outwards: &[usize]) -> bool {
    if thunk::contains(address) {
        return true;
    }
    match unwind::known(address) {
        None => true,
        // Our own code is a hook only if a thunk called it.
        Some(known) if known.own => {
            let caller = outwards.iter().find(|next| {
                unwind::known(**next).is_none_or(|next| !next.own) || thunk::contains(**next)
            });
            caller.is_some_and(|caller| thunk::contains(*caller))
        }
        Some(known) => known.neutral,
    }
}

extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let thread = sys::thread_id();
    match HANDLING.compare_exchange(0, thread, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            record(signal, info, context);
            flush::run();
        }
        // The walk itself faulted: keep what it had.
        Err(other) if other == thread => close_record(),
        Err(_) => {
            // Another thread is ending the process.
            if AFTER.load(Ordering::Relaxed) != 0 {
                loop {
                    // SAFETY: waits for the end.
                    unsafe { libc::pause() };
                }
            }
        }
    }
    leave(signal, info, context);
}

fn record(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let kind = if signal == libc::SIGABRT {
        EndKind::Abort
    } else {
        EndKind::Signal
    };
    // SAFETY: the kernel passes both to a handler with SA_SIGINFO. si_addr reads a field that exists for every signal.
    let (code, address, registers) = unsafe {
        let sent = (*info).si_code <= 0;
        let address = if sent || kind == EndKind::Abort {
            0
        } else {
            (*info).si_addr() as usize
        };
        (
            (*info).si_code,
            address,
            Registers::from_context(&*context.cast::<libc::ucontext_t>()),
        )
    };
    say(signal, address, registers.pc());
    write(kind, signal, code, address, registers);
}

fn write(kind: EndKind, signal: c_int, code: i32, address: usize, registers: Registers) {
    let Some(ending) = Ending::begin(kind, signal, code, address) else {
        return;
    };
    if let Some(explained) = guard::explain_raw(address) {
        let mut frames = [[0; DEEPEST]; 2];
        let allocated = stacks::read(explained.allocated, &mut frames[0]);
        let freed = stacks::read(explained.freed, &mut frames[1]);
        let block = (explained.block, explained.size);
        ending.guard(
            explained.kind,
            block,
            explained.offset,
            &frames[0][..allocated],
            &frames[1][..freed],
        );
    }
    let mut frames = [0; FRAMES];
    let count = unwind::walk(registers, &mut frames, |number, address| {
        ending.frame(number, address);
    });
    ending.finish(&frames[..count], blame(&frames[..count]));
}

/// Closes a record whose walk faulted.
fn close_record() {
    if let Some(ending) = Ending::resume() {
        let mut frames = [0; FRAMES];
        let count = ending.frames_so_far(&mut frames);
        ending.finish(&frames[..count], blame(&frames[..count]));
    }
}

/// Ends the process, or leaves the signal to whoever had it before.
fn leave(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let status = AFTER.load(Ordering::Relaxed);
    if status != 0 {
        // SAFETY: ends the process without running anything else.
        unsafe { libc::_exit(status - 1) };
    }
    HANDLING.store(0, Ordering::Release);
    let Some(number) = SIGNALS.iter().position(|known| *known == signal) else {
        return;
    };
    // SAFETY: PREVIOUS was filled by `install`; its handlers have the signature that their flags say.
    unsafe {
        let previous = (*PREVIOUS.0.get())[number];
        match previous.sa_sigaction {
            libc::SIG_IGN => {}
            libc::SIG_DFL => {
                restore(number);
                libc::raise(signal);
            }
            handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                    std::mem::transmute(handler);
                handler(signal, info, context);
            }
            handler => {
                let handler: extern "C" fn(c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}

extern "C" fn expire(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    if TIMER.load(Ordering::Acquire) == 0 {
        // Cleared a moment ago.
        return;
    }
    // SAFETY: the kernel passes the interrupted registers to a handler with SA_SIGINFO.
    let registers = unsafe { Registers::from_context(&*context.cast::<libc::ucontext_t>()) };
    HANDLING.store(sys::thread_id(), Ordering::Release);
    write(EndKind::Hang, limit_signal(), 0, 0, registers);
    flush::run();
    // SAFETY: ends the process without running anything else.
    unsafe { libc::_exit(TIMER_STATUS.load(Ordering::Relaxed)) };
}

/// A line of text that is put together without the heap.
struct Line {
    bytes: [u8; 160],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = &mut self.bytes[self.length..];
        let length = text.len().min(room.len());
        room[..length].copy_from_slice(&text.as_bytes()[..length]);
        self.length += length;
        Ok(())
    }
}

fn say(signal: c_int, address: usize, pc: usize) {
    let fd = TEXT_FD.load(Ordering::Relaxed);
    if fd < 0 {
        return;
    }
    let mut line = Line {
        bytes: [0; 160],
        length: 0,
    };
    let object = unwind::known(pc).map_or(("?", 0), |known| (known.path, pc - known.bias));
    // Writing to a Line cannot fail.
    let _ = writeln!(
        line,
        "signal {signal}, address {address:#x}, at {:#x} of {}",
        object.1, object.0
    );
    // SAFETY: the line's bytes; a bad descriptor is an error, not a fault.
    unsafe { libc::write(fd, line.bytes.as_ptr().cast(), line.length) };
}
