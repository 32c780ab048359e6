//! Processes, signals, limits, and the dynamic loader.

use libc::{E2BIG, EACCES, EAGAIN, ECHILD, EINTR, EINVAL, EMFILE, ENOENT, ENOMEM, EPERM, ESRCH};

use super::{Effect::*, Failure, Function, Group};

const fn row(name: &'static str, prototype: &'static str) -> Function {
    Function::new(Group::Process, name, prototype)
}

const EXECUTE: &[i32] = &[ENOENT, EACCES, ENOMEM, E2BIG];

pub(super) const ROWS: &[Function] = &[
    row("fork", "pid_t fork(void)").alias(&["__fork", "_Fork"]).minus_one(&[EAGAIN, ENOMEM]),
    row("clone", "int clone(int (*)(void *), void *stack, int flags, void *, ...)").minus_one(&[EAGAIN, ENOMEM]),
    row("waitpid", "pid_t waitpid(pid_t pid, int *status, int options)").alias(&["__waitpid"]).minus_one(&[EINTR, ECHILD]),
    row("wait", "pid_t wait(int *status)").minus_one(&[EINTR, ECHILD]),
    row("wait3", "pid_t wait3(int *status, int options, struct rusage *)").minus_one(&[EINTR, ECHILD]),
    row("wait4", "pid_t wait4(pid_t pid, int *status, int options, struct rusage *)").minus_one(&[EINTR, ECHILD]),
    row("waitid", "int waitid(idtype_t, id_t, siginfo_t *, int options)").minus_one(&[EINTR, ECHILD]),
    row("execve", "int execve(const char *path, char *const arguments[], char *const environment[])").minus_one(EXECUTE),
    row("execv", "int execv(const char *path, char *const arguments[])").minus_one(EXECUTE),
    row("execvp", "int execvp(const char *file, char *const arguments[])").minus_one(EXECUTE),
    row("posix_spawn", "int posix_spawn(pid_t *, const char *path, const void *, const void *, char *const[], char *const[])")
        .fails(Failure::Code, &[EAGAIN, ENOMEM, ENOENT]),
    row("posix_spawnp", "int posix_spawnp(pid_t *, const char *file, const void *, const void *, char *const[], char *const[])")
        .fails(Failure::Code, &[EAGAIN, ENOMEM, ENOENT]),
    row("system", "int system(const char *command)").minus_one(&[EAGAIN, ENOMEM]),
    row("popen", "FILE *popen(const char *command, const char *mode)").null(&[EMFILE, EAGAIN, ENOMEM]).effect(OpenStream),
    row("pclose", "int pclose(FILE *stream)").minus_one(&[ECHILD, EINTR]).still_done().effect(CloseStream),
    row("kill", "int kill(pid_t pid, int signal)").minus_one(&[ESRCH, EPERM]),
    row("raise", "int raise(int signal)"),
    row("sigaction", "int sigaction(int signal, const struct sigaction *, struct sigaction *)").minus_one(&[EINVAL]),
    row("signal", "sighandler_t signal(int signal, sighandler_t handler)").minus_one(&[EINVAL]),
    row("sigprocmask", "int sigprocmask(int how, const sigset_t *, sigset_t *)").minus_one(&[EINVAL]),
    row("sigaltstack", "int sigaltstack(const stack_t *, stack_t *)").minus_one(&[ENOMEM, EPERM]),
    row("sigwait", "int sigwait(const sigset_t *, int *signal)").fails(Failure::Code, &[EINVAL]),
    row("prctl", "int prctl(int option, ...)").minus_one(&[EINVAL, EPERM]),
    row("getrlimit", "int getrlimit(int resource, struct rlimit *)").alias(&["getrlimit64"]).minus_one(&[EINVAL]),
    row("setrlimit", "int setrlimit(int resource, const struct rlimit *)").alias(&["setrlimit64"]).minus_one(&[EPERM, EINVAL]),
    row("getrusage", "int getrusage(int who, struct rusage *)").minus_one(&[EINVAL]),
    row("setuid", "int setuid(uid_t)").minus_one(&[EPERM, EAGAIN]),
    row("setgid", "int setgid(gid_t)").minus_one(&[EPERM]),
    row("setsid", "pid_t setsid(void)").minus_one(&[EPERM]),
    row("setpriority", "int setpriority(int which, id_t who, int value)").minus_one(&[EACCES, EPERM]),
    row("sched_setaffinity", "int sched_setaffinity(pid_t, size_t, const cpu_set_t *)").minus_one(&[EINVAL, EPERM]),
    row("sched_getaffinity", "int sched_getaffinity(pid_t, size_t, cpu_set_t *)").minus_one(&[EINVAL]),
    row("getpwuid_r", "int getpwuid_r(uid_t, struct passwd *, char *, size_t, struct passwd **)")
        .fails(Failure::Code, &[libc::EIO, EMFILE, ENOMEM]),
    row("getpwnam_r", "int getpwnam_r(const char *, struct passwd *, char *, size_t, struct passwd **)")
        .fails(Failure::Code, &[libc::EIO, EMFILE, ENOMEM]),
    row("exit", "void exit(int status)").effect(Exit),
    row("_exit", "void _exit(int status)").alias(&["_Exit"]).effect(Exit),
    row("quick_exit", "void quick_exit(int status)").effect(Exit),
    row("abort", "void abort(void)").effect(Exit),
    row("__assert_fail", "void __assert_fail(const char *assertion, const char *file, unsigned line, const char *function)")
        .alias(&["__assert"])
        .effect(Exit),
    row("__assert_perror_fail", "void __assert_perror_fail(int errno, const char *file, unsigned line, const char *function)")
        .effect(Exit),
    row("std::terminate", "void std::terminate()").alias(&["_ZSt9terminatev"]).effect(Exit),
    row("err", "void err(int status, const char *format, ...)").alias(&["errx", "verr", "verrx"]).effect(Exit),
    row("dlopen", "void *dlopen(const char *file, int flags)").effect(Load),
    row("dlmopen", "void *dlmopen(Lmid_t, const char *file, int flags)").effect(Load),
    row("dlsym", "void *dlsym(void *handle, const char *name)").effect(Lookup),
    row("dlvsym", "void *dlvsym(void *handle, const char *name, const char *version)").effect(Lookup),
];
