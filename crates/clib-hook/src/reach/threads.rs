//! Threads that rest in the kernel: how far their stacks go, and what is in their registers.
//!
//! `/proc` tells the stack pointer and the arguments of the system call. In the registers that a call preserves, compilers keep what
//! a function needs after it, often nowhere else; these only a tracer sees. So, for threads with a frame in a library under
//! test, a process that shares this one's memory stops one after the other, reads its registers, and lets it go on; system
//! calls are then restarted by the kernel (`epoll_wait`, and sockets with a time limit, may give EINTR). Where that is forbidden, or a
//! debugger has the threads, the arguments have to do.

use std::{fs, mem, ptr};

use libc::{c_int, c_void, pid_t, user_regs_struct};

use crate::{
    objects::{self, Area},
    region::{Array, Plain},
    sys, unwind, valgrind,
};

/// A thread that rests in the kernel, or this one.
pub(super) struct Resting {
    id: pid_t,
    pub(super) stack_pointer: usize,
    arguments: Vec<usize>,
}

/// All threads that rest, this one with `own_stack`. A thread that runs is none of them; its whole stack is to be scanned.
pub(super) fn resting(own_stack: usize) -> Vec<Resting> {
    let own = sys::thread_id();
    let mut found = vec![Resting {
        id: own,
        stack_pointer: own_stack,
        arguments: Vec::new(),
    }];
    for entry in fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let Ok(id) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        if id == own {
            continue;
        }
        // "number arguments(6) sp pc", or "-1 sp pc", or "running".
        let Ok(text) = fs::read_to_string(entry.path().join("syscall")) else {
            continue;
        };
        let words: Vec<usize> = text
            .split_whitespace()
            .filter_map(|word| usize::from_str_radix(word.strip_prefix("0x")?, 16).ok())
            .collect();
        if let [arguments @ .., stack_pointer, _] = words.as_slice() {
            found.push(Resting {
                id,
                stack_pointer: *stack_pointer,
                arguments: arguments.to_vec(),
            });
        }
    }
    found
}

/// What is in the registers of other threads.
pub(super) fn registers(areas: &[Area]) -> Vec<usize> {
    let others = resting(0).split_off(1);
    let mut words: Vec<usize> = others
        .iter()
        .flat_map(|thread| thread.arguments.iter().copied())
        .collect();
    let inside: Vec<pid_t> = others
        .iter()
        .filter(|thread| is_in_library(thread, areas))
        .map(|thread| thread.id)
        .collect();
    // valgrind knows no such process, and runs one thread at a time.
    if !inside.is_empty() && valgrind::running() == 0 {
        words.extend(traced(&inside));
    }
    words
}

/// Whether a return address into a library under test lies on the thread's stack.
fn is_in_library(thread: &Resting, areas: &[Area]) -> bool {
    let Some(area) = objects::area_of(areas, thread.stack_pointer) else {
        return false;
    };
    let Some(mut piece) = Array::<u8>::new(super::PIECE) else {
        return false;
    };
    let mut at = thread.stack_pointer & !7;
    while at < area.end {
        let wanted = piece.len().min(area.end - at);
        let read = sys::read_memory(at, &mut piece[..wanted]) & !7;
        let found = piece[..read]
            .chunks_exact(8)
            .any(|word| unwind::in_library(word.try_into().map_or(0, usize::from_ne_bytes)));
        if found || read == 0 {
            return found;
        }
        at += read;
    }
    false
}

/// Most threads that are stopped for a look.
const MOST: usize = 64;
/// How often a thread is looked at until it has stopped, and the pause in between: a thread that waits for a child made by `vfork` does not stop.
const LOOKS: usize = 100;
static PAUSE: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 100_000,
};
const STACK: usize = 64 << 10;

/// What the tracer is asked, and what it finds. In a mapping of our own, which is not scanned.
#[derive(Clone, Copy)]
#[repr(C)]
struct Request {
    thread: pid_t,
    seen: bool,
    refused: bool,
    registers: user_regs_struct,
}

// SAFETY: numbers and flags, for which zero is a value.
unsafe impl Plain for Request {}

/// Stops each thread for a moment, and tells all its general registers.
fn traced(threads: &[pid_t]) -> Vec<usize> {
    let Some(mut requests) = Array::<Request>::new(threads.len().min(MOST)) else {
        return Vec::new();
    };
    for (request, thread) in requests.iter_mut().zip(threads) {
        request.thread = *thread;
    }
    run_tracer(&mut requests);
    if requests.iter().any(|request| request.refused) {
        // Where only ancestors may trace, this process has to allow it.
        // SAFETY: prctl with plain numbers.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
        run_tracer(&mut requests);
        // SAFETY: as above.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, 0, 0, 0, 0) };
    }
    requests
        .iter()
        .filter(|request| request.seen)
        .flat_map(|request| {
            let r = &request.registers;
            [
                r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.r8, r.r9, r.r10, r.r11, r.r12,
                r.r13, r.r14, r.r15,
            ]
        })
        .filter_map(|word| usize::try_from(word).ok())
        .collect()
}

/// Runs [`trace`] in a process of its own, which shares this one's memory, and waits for it.
fn run_tracer(requests: &mut [Request]) {
    let Some(mut stack) = Array::<u8>::new(STACK) else {
        return;
    };
    let before = sys::errno();
    let mut work = (requests.as_mut_ptr(), requests.len());
    // SAFETY: signals are all held back in this thread until the tracer has gone, so no handler runs on its stack. It gets a stack
    // of its own, and `work` and `requests`, which nobody else touches until it has been waited for. It shares this thread's
    // thread-local storage, of which it uses errno only, while this thread waits.
    unsafe {
        let mut all: libc::sigset_t = mem::zeroed();
        let mut mask: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut mask);
        let top = stack.as_mut_ptr().add(STACK - 64);
        let pid = libc::clone(
            trace,
            top.cast(),
            libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_UNTRACED,
            (&raw mut work).cast(),
        );
        if pid > 0 {
            let mut status = 0;
            while libc::waitpid(pid, &raw mut status, libc::__WALL) < 0
                && sys::errno() == libc::EINTR
            {}
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut());
    }
    sys::set_errno(before);
}

/// The tracer: makes system calls, and nothing else.
extern "C" fn trace(work: *mut c_void) -> c_int {
    // SAFETY: `run_tracer` passes this pair, and waits.
    let (first, count) = unsafe { *work.cast::<(*mut Request, usize)>() };
    for at in 0..count {
        // SAFETY: an element of the slice that `run_tracer` got.
        let request = unsafe { &mut *first.add(at) };
        if !request.seen {
            look(request);
        }
    }
    0
}

fn look(request: &mut Request) {
    let none: *mut c_void = ptr::null_mut();
    let id = request.thread;
    // SAFETY: tracing has no preconditions; what the thread has is only read, into `request`.
    unsafe {
        request.refused =
            libc::ptrace(libc::PTRACE_SEIZE, id, none, none) != 0 && sys::errno() == libc::EPERM;
        if request.refused || libc::ptrace(libc::PTRACE_INTERRUPT, id, none, none) != 0 {
            return;
        }
        for _ in 0..LOOKS {
            let mut status = 0;
            match libc::waitpid(id, &raw mut status, libc::__WALL | libc::WNOHANG) {
                0 => {
                    libc::nanosleep(&raw const PAUSE, ptr::null_mut());
                }
                waited if waited == id && libc::WIFSTOPPED(status) => {
                    request.seen =
                        libc::ptrace(libc::PTRACE_GETREGS, id, none, &raw mut request.registers)
                            == 0;
                    // A signal that it was about to get is passed on.
                    let stopped_by_us = status >> 16 == libc::PTRACE_EVENT_STOP;
                    let signal = if stopped_by_us {
                        0
                    } else {
                        libc::WSTOPSIG(status)
                    };
                    libc::ptrace(libc::PTRACE_DETACH, id, none, signal);
                    return;
                }
                _ => return, // it has ended
            }
        }
    }
    // It goes on when the tracer ends.
}
