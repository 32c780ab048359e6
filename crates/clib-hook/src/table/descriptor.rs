//! Descriptors: opening, duplicating, waiting, closing.

use libc::{
    EACCES, EAGAIN, EBADF, EBUSY, EINTR, EINVAL, EIO, EMFILE, ENFILE, ENODEV, ENOENT, ENOMEM,
    ENOSPC, EPERM,
};

use super::{Effect::*, Function, Group};

const fn row(name: &'static str, prototype: &'static str) -> Function {
    Function::new(Group::Descriptor, name, prototype)
}

const OPEN: &[i32] = &[EMFILE, ENOENT, EACCES, ENOMEM, ENFILE, EINTR];
const MAKE: &[i32] = &[EMFILE, ENFILE, ENOMEM];
const DUP: &[i32] = &[EMFILE, EBADF];

pub(super) const ROWS: &[Function] = &[
    row("open", "int open(const char *path, int flags, ...)")
        .alias(&["open64", "__open", "__open64", "__open_2", "__open64_2"])
        .minus_one(OPEN)
        .effect(Open),
    row("openat", "int openat(int directory, const char *path, int flags, ...)")
        .alias(&["openat64", "__openat_2", "__openat64_2"])
        .minus_one(OPEN)
        .effect(Open),
    row("creat", "int creat(const char *path, mode_t mode)").alias(&["creat64"]).minus_one(OPEN).effect(Open),
    row("open_by_handle_at", "int open_by_handle_at(int mount, struct file_handle *handle, int flags)")
        .minus_one(&[EMFILE, EPERM, libc::ESTALE])
        .effect(Open),
    row("mkstemp", "int mkstemp(char *template)").alias(&["mkstemp64"]).minus_one(OPEN).effect(Open),
    row("mkostemp", "int mkostemp(char *template, int flags)").alias(&["mkostemp64"]).minus_one(OPEN).effect(Open),
    row("mkstemps", "int mkstemps(char *template, int suffix)").alias(&["mkstemps64"]).minus_one(OPEN).effect(Open),
    row("mkostemps", "int mkostemps(char *template, int suffix, int flags)")
        .alias(&["mkostemps64"])
        .minus_one(OPEN)
        .effect(Open),
    row("shm_open", "int shm_open(const char *name, int flags, mode_t mode)").minus_one(OPEN).effect(Open),
    row("mq_open", "mqd_t mq_open(const char *name, int flags, ...)").alias(&["__mq_open_2"]).minus_one(OPEN).effect(Open),
    row("mq_close", "int mq_close(mqd_t queue)").minus_one(&[EBADF]).still_done().effect(Close),
    row("memfd_create", "int memfd_create(const char *name, unsigned flags)").minus_one(MAKE).effect(Open),
    row("memfd_secret", "int memfd_secret(unsigned flags)").minus_one(MAKE).effect(Open),
    row("eventfd", "int eventfd(unsigned initial, int flags)").minus_one(MAKE).effect(Open),
    row("eventfd_read", "int eventfd_read(int fd, eventfd_t *value)").minus_one(&[EINTR, EIO]),
    row("eventfd_write", "int eventfd_write(int fd, eventfd_t value)").minus_one(&[EINTR, EAGAIN]),
    row("epoll_create", "int epoll_create(int size)").minus_one(MAKE).effect(Open),
    row("epoll_create1", "int epoll_create1(int flags)").minus_one(MAKE).effect(Open),
    row("epoll_ctl", "int epoll_ctl(int fd, int operation, int target, struct epoll_event *event)")
        .minus_one(&[ENOMEM, ENOSPC, EPERM]),
    row("epoll_wait", "int epoll_wait(int fd, struct epoll_event *events, int most, int timeout)").minus_one(&[EINTR]),
    row("epoll_pwait", "int epoll_pwait(int fd, struct epoll_event *, int most, int timeout, const sigset_t *)")
        .minus_one(&[EINTR]),
    row("epoll_pwait2", "int epoll_pwait2(int fd, struct epoll_event *, int, const struct timespec *, const sigset_t *)")
        .minus_one(&[EINTR]),
    row("poll", "int poll(struct pollfd *fds, nfds_t count, int timeout)")
        .alias(&["__poll", "__poll_chk"])
        .minus_one(&[EINTR, ENOMEM]),
    row("ppoll", "int ppoll(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *)")
        .alias(&["__ppoll_chk"])
        .minus_one(&[EINTR, ENOMEM]),
    row("select", "int select(int count, fd_set *, fd_set *, fd_set *, struct timeval *)").minus_one(&[EINTR, ENOMEM]),
    row("pselect", "int pselect(int count, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *)")
        .minus_one(&[EINTR, ENOMEM]),
    row("timerfd_create", "int timerfd_create(int clock, int flags)").minus_one(MAKE).effect(Open),
    row("timerfd_settime", "int timerfd_settime(int fd, int flags, const struct itimerspec *, struct itimerspec *)")
        .minus_one(&[libc::ECANCELED, EINVAL]),
    row("timerfd_gettime", "int timerfd_gettime(int fd, struct itimerspec *current)").minus_one(&[EBADF]),
    row("signalfd", "int signalfd(int fd, const sigset_t *mask, int flags)").minus_one(MAKE).effect(Open),
    row("inotify_init", "int inotify_init(void)").minus_one(MAKE).effect(Open),
    row("inotify_init1", "int inotify_init1(int flags)").minus_one(MAKE).effect(Open),
    row("inotify_add_watch", "int inotify_add_watch(int fd, const char *path, uint32_t mask)")
        .minus_one(&[ENOSPC, ENOMEM, ENOENT]),
    row("fanotify_init", "int fanotify_init(unsigned flags, unsigned event_flags)").minus_one(MAKE).effect(Open),
    row("userfaultfd", "int userfaultfd(int flags)").minus_one(MAKE).effect(Open),
    row("pidfd_open", "int pidfd_open(pid_t pid, unsigned flags)").minus_one(&[EMFILE, libc::ESRCH]).effect(Open),
    row("pidfd_getfd", "int pidfd_getfd(int pidfd, int target, unsigned flags)").minus_one(&[EMFILE, EPERM]).effect(Open),
    row("pipe", "int pipe(int fds[2])").minus_one(&[EMFILE, ENFILE]).effect(OpenPair(0)),
    row("pipe2", "int pipe2(int fds[2], int flags)").minus_one(&[EMFILE, ENFILE]).effect(OpenPair(0)),
    row("openpty", "int openpty(int *master, int *slave, char *name, const struct termios *, const struct winsize *)")
        .minus_one(&[ENOENT, EMFILE]),
    row("posix_openpt", "int posix_openpt(int flags)").alias(&["getpt"]).minus_one(&[EMFILE, ENOSPC]).effect(Open),
    row("dup", "int dup(int fd)").alias(&["__dup"]).minus_one(DUP).effect(Open),
    row("dup2", "int dup2(int fd, int target)")
        .alias(&["__dup2"])
        .minus_one(&[EMFILE, EBUSY, EINTR])
        .effect(DuplicateOnto),
    row("dup3", "int dup3(int fd, int target, int flags)").minus_one(&[EMFILE, EBUSY, EINTR]).effect(DuplicateOnto),
    row("fcntl", "int fcntl(int fd, int command, ...)")
        .alias(&["fcntl64", "__fcntl"])
        .minus_one(&[EMFILE, EINVAL, EBADF])
        .effect(Control),
    row("ioctl", "int ioctl(int fd, unsigned long request, ...)").minus_one(&[EIO, ENODEV, EINVAL]),
    row("close", "int close(int fd)").alias(&["__close"]).minus_one(&[EIO, EINTR]).still_done().effect(Close),
    row("close_range", "int close_range(unsigned first, unsigned last, unsigned flags)")
        .minus_one(&[EMFILE])
        .effect(CloseRange),
    row("closefrom", "void closefrom(int first)").effect(CloseRange),
];
