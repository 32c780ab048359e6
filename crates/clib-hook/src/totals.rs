//! Exact sums over the libraries under test: how often they went into the kernel or asked for memory, and for how much.
//!
//! Two readings around a piece of work tell what it cost, free of noise. Calls of threads that are not
//! [enabled](crate::set_enabled) are left out, as everywhere.

use std::sync::atomic::Ordering;

use crate::{
    ledger, session,
    table::{self, Effect},
};

/// Sums since the session began. None of them shrinks while it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls of functions that enter the kernel each time, once: the wrappers of system calls. Functions that may do
    /// their work in user mode (streams, allocators, mutexes, clocks) are not among them.
    pub system_calls: u64,
    /// Calls of functions that return a block of the heap: `malloc`, `realloc`, `strdup`, `operator new`, ...
    pub allocations: u64,
    /// Bytes of the blocks that they returned, as asked for. A block that was resized counts anew, in full; lines that
    /// `getline` stores are left out.
    pub bytes: u64,
}

/// The sums of the running session; `None` if there is none.
#[must_use]
pub fn totals() -> Option<Totals> {
    session::with_state(|state| {
        let mut totals = Totals {
            bytes: ledger::acquired(),
            ..Totals::default()
        };
        for slot in state.slots() {
            let calls = slot.calls.load(Ordering::Relaxed);
            if calls == 0 {
                continue;
            }
            if is_system_call(state.name(slot.function)) {
                totals.system_calls += calls;
            } else if allocates(slot.effect) {
                totals.allocations += calls;
            }
        }
        Ok(totals)
    })
    .ok()
}

fn allocates(effect: Effect) -> bool {
    matches!(
        effect,
        Effect::Allocate(_)
            | Effect::AllocateAt(..)
            | Effect::Format(_)
            | Effect::Reallocate(_)
            | Effect::Line
    )
}

/// Whether `symbol`, by any of its names, is the wrapper of one system call.
#[must_use]
pub fn is_system_call(symbol: &str) -> bool {
    let name = table::find(symbol).map_or(symbol, |row| row.name);
    SYSTEM_CALLS.binary_search(&name).is_ok()
}

/// In the order of their bytes.
#[rustfmt::skip]
const SYSTEM_CALLS: [&str; 162] = [
    "_exit", "accept", "accept4", "access", "bind", "brk", "chdir", "chmod", "chown", "clock_nanosleep", "clone",
    "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create",
    "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd_read",
    "eventfd_write", "execve", "faccessat", "fallocate", "fanotify_init", "fchdir", "fchmod", "fchown", "fcntl",
    "fdatasync", "fgetxattr", "flock", "fork", "fsetxattr", "fstat", "fstatat", "fstatfs", "fsync", "ftruncate",
    "futimens", "getegid", "geteuid", "getgid", "getgroups", "getitimer", "getpeername", "getpid", "getppid",
    "getpriority", "getrandom", "getrlimit", "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "getuid",
    "getxattr", "inotify_add_watch", "inotify_init", "inotify_init1", "ioctl", "kcmp", "kill", "lchown", "link",
    "linkat", "listen", "lseek", "lstat", "madvise", "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat",
    "mknod", "mlock", "mmap", "mprotect", "mremap", "msync", "munlock", "munmap", "nanosleep", "open", "openat",
    "pidfd_getfd", "pidfd_open", "pipe", "pipe2", "poll", "posix_fadvise", "ppoll", "prctl", "pread", "preadv",
    "preadv2", "prlimit", "process_vm_readv", "process_vm_writev", "pselect", "pwrite", "pwritev", "pwritev2", "read",
    "readlink", "readlinkat", "readv", "recv", "recvfrom", "recvmmsg", "recvmsg", "rename", "renameat", "rmdir",
    "sched_yield", "select", "semget", "semop", "send", "sendfile", "sendmmsg", "sendmsg", "sendto", "setsockopt",
    "shmat", "shmctl", "shmdt", "shmget", "shutdown", "signalfd", "socket", "socketpair", "splice", "stat", "statfs",
    "statx", "symlink", "syscall", "timerfd_create", "timerfd_gettime", "timerfd_settime", "truncate", "umask",
    "unlink", "unlinkat", "userfaultfd", "utimensat", "vfork", "wait4", "waitid", "waitpid", "write", "writev",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_without_repetition() {
        assert!(SYSTEM_CALLS.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn aliases_count_as_what_they_are() {
        assert!(is_system_call("mmap64") && is_system_call("__read_chk"));
        assert!(is_system_call("syscall") && is_system_call("getpid"));
        assert!(!is_system_call("malloc") && !is_system_call("fopen"));
        assert!(
            !is_system_call("clock_gettime"),
            "it mostly stays in user mode"
        );
    }
}
