//! Threads, locks and what they are made of.

use libc::{EAGAIN, EBUSY, EINTR, EINVAL, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM};

use super::{Failure, Function, Group};

const fn row(name: &'static str, prototype: &'static str) -> Function {
    Function::new(Group::Thread, name, prototype)
}

const fn code(name: &'static str, prototype: &'static str, errnos: &'static [i32]) -> Function {
    row(name, prototype).fails(Failure::Code, errnos)
}

pub(super) const ROWS: &[Function] = &[
    code(
        "pthread_create",
        "int pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *)",
        &[EAGAIN, EPERM],
    ),
    code(
        "thrd_create",
        "int thrd_create(thrd_t *, int (*)(void *), void *)",
        &[ENOMEM],
    )
    .fails(Failure::Status(3), &[ENOMEM]),
    code(
        "pthread_attr_init",
        "int pthread_attr_init(pthread_attr_t *)",
        &[ENOMEM],
    ),
    code(
        "pthread_attr_setstacksize",
        "int pthread_attr_setstacksize(pthread_attr_t *, size_t)",
        &[EINVAL],
    ),
    code(
        "pthread_attr_setdetachstate",
        "int pthread_attr_setdetachstate(pthread_attr_t *, int)",
        &[EINVAL],
    ),
    code(
        "pthread_getattr_np",
        "int pthread_getattr_np(pthread_t, pthread_attr_t *)",
        &[ENOMEM],
    ),
    code(
        "pthread_mutex_init",
        "int pthread_mutex_init(pthread_mutex_t *, const pthread_mutexattr_t *)",
        &[EAGAIN, ENOMEM],
    ),
    code(
        "pthread_mutexattr_init",
        "int pthread_mutexattr_init(pthread_mutexattr_t *)",
        &[ENOMEM],
    ),
    code(
        "pthread_mutexattr_settype",
        "int pthread_mutexattr_settype(pthread_mutexattr_t *, int)",
        &[EINVAL],
    ),
    code(
        "pthread_mutexattr_setpshared",
        "int pthread_mutexattr_setpshared(pthread_mutexattr_t *, int)",
        &[EINVAL],
    ),
    code(
        "pthread_mutexattr_setrobust",
        "int pthread_mutexattr_setrobust(pthread_mutexattr_t *, int)",
        &[EINVAL],
    ),
    code(
        "pthread_mutex_trylock",
        "int pthread_mutex_trylock(pthread_mutex_t *)",
        &[EBUSY],
    ),
    code(
        "pthread_mutex_timedlock",
        "int pthread_mutex_timedlock(pthread_mutex_t *, const struct timespec *)",
        &[libc::ETIMEDOUT],
    ),
    code(
        "pthread_rwlock_init",
        "int pthread_rwlock_init(pthread_rwlock_t *, const pthread_rwlockattr_t *)",
        &[EAGAIN, ENOMEM],
    ),
    code(
        "pthread_rwlock_tryrdlock",
        "int pthread_rwlock_tryrdlock(pthread_rwlock_t *)",
        &[EBUSY, EAGAIN],
    ),
    code(
        "pthread_rwlock_trywrlock",
        "int pthread_rwlock_trywrlock(pthread_rwlock_t *)",
        &[EBUSY],
    ),
    code(
        "pthread_cond_init",
        "int pthread_cond_init(pthread_cond_t *, const pthread_condattr_t *)",
        &[EAGAIN, ENOMEM],
    ),
    code(
        "pthread_condattr_init",
        "int pthread_condattr_init(pthread_condattr_t *)",
        &[ENOMEM],
    ),
    code(
        "pthread_condattr_setclock",
        "int pthread_condattr_setclock(pthread_condattr_t *, clockid_t)",
        &[EINVAL],
    ),
    code(
        "pthread_cond_timedwait",
        "int pthread_cond_timedwait(pthread_cond_t *, pthread_mutex_t *, const struct timespec *)",
        &[libc::ETIMEDOUT],
    ),
    code(
        "pthread_barrier_init",
        "int pthread_barrier_init(pthread_barrier_t *, const pthread_barrierattr_t *, unsigned)",
        &[EAGAIN, ENOMEM],
    ),
    code(
        "pthread_spin_init",
        "int pthread_spin_init(pthread_spinlock_t *, int)",
        &[EAGAIN, ENOMEM],
    ),
    code(
        "pthread_key_create",
        "int pthread_key_create(pthread_key_t *, void (*)(void *))",
        &[EAGAIN, ENOMEM],
    ),
    code(
        "pthread_setspecific",
        "int pthread_setspecific(pthread_key_t, const void *)",
        &[ENOMEM],
    ),
    code(
        "pthread_atfork",
        "int pthread_atfork(void (*)(void), void (*)(void), void (*)(void))",
        &[ENOMEM],
    ),
    code(
        "pthread_setname_np",
        "int pthread_setname_np(pthread_t, const char *)",
        &[libc::ERANGE],
    ),
    code(
        "pthread_setaffinity_np",
        "int pthread_setaffinity_np(pthread_t, size_t, const cpu_set_t *)",
        &[EINVAL],
    ),
    code(
        "pthread_setschedparam",
        "int pthread_setschedparam(pthread_t, int, const struct sched_param *)",
        &[EPERM, EINVAL],
    ),
    code(
        "pthread_sigmask",
        "int pthread_sigmask(int how, const sigset_t *, sigset_t *)",
        &[EINVAL],
    ),
    row(
        "sem_init",
        "int sem_init(sem_t *, int shared, unsigned value)",
    )
    .minus_one(&[ENOSPC, EINVAL]),
    row(
        "sem_open",
        "sem_t *sem_open(const char *name, int flags, ...)",
    )
    .fails(Failure::Null, &[EMFILE, ENFILE, ENOMEM]),
    row("sem_wait", "int sem_wait(sem_t *)").minus_one(&[EINTR]),
    row(
        "sem_timedwait",
        "int sem_timedwait(sem_t *, const struct timespec *)",
    )
    .minus_one(&[libc::ETIMEDOUT, EINTR]),
    row("sem_trywait", "int sem_trywait(sem_t *)").minus_one(&[EAGAIN]),
    row("semget", "int semget(key_t key, int count, int flags)").minus_one(&[ENOSPC, ENOMEM]),
    row("semop", "int semop(int set, struct sembuf *, size_t count)").minus_one(&[EINTR, ENOMEM]),
];
