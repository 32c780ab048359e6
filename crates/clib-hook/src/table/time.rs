//! Clocks, sleeps and timers.

use libc::{EAGAIN, EINTR, EINVAL, ENOMEM, EOVERFLOW};

use super::{Failure, Function, Group};

const fn row(name: &'static str, prototype: &'static str) -> Function {
    Function::new(Group::Time, name, prototype)
}

pub(super) const ROWS: &[Function] = &[
    row(
        "clock_gettime",
        "int clock_gettime(clockid_t clock, struct timespec *)",
    )
    .minus_one(&[EINVAL]),
    row(
        "clock_getres",
        "int clock_getres(clockid_t clock, struct timespec *)",
    )
    .minus_one(&[EINVAL]),
    row(
        "clock_settime",
        "int clock_settime(clockid_t clock, const struct timespec *)",
    )
    .minus_one(&[libc::EPERM]),
    row(
        "clock_nanosleep",
        "int clock_nanosleep(clockid_t, int flags, const struct timespec *, struct timespec *)",
    )
    .fails(Failure::Code, &[EINTR]),
    row("gettimeofday", "int gettimeofday(struct timeval *, void *)").minus_one(&[libc::EFAULT]),
    row(
        "settimeofday",
        "int settimeofday(const struct timeval *, const struct timezone *)",
    )
    .minus_one(&[libc::EPERM]),
    row("time", "time_t time(time_t *)"),
    row("times", "clock_t times(struct tms *)"),
    row("clock", "clock_t clock(void)").minus_one(&[EINVAL]),
    row(
        "nanosleep",
        "int nanosleep(const struct timespec *, struct timespec *)",
    )
    .minus_one(&[EINTR]),
    row("usleep", "int usleep(useconds_t)").minus_one(&[EINTR]),
    row("sleep", "unsigned sleep(unsigned seconds)"),
    row(
        "timespec_get",
        "int timespec_get(struct timespec *, int base)",
    )
    .fails(Failure::Status(0), &[EINVAL]),
    row("mktime", "time_t mktime(struct tm *)").minus_one(&[EOVERFLOW]),
    row("timegm", "time_t timegm(struct tm *)").minus_one(&[EOVERFLOW]),
    row("gmtime", "struct tm *gmtime(const time_t *)").null(&[EOVERFLOW]),
    row(
        "gmtime_r",
        "struct tm *gmtime_r(const time_t *, struct tm *)",
    )
    .null(&[EOVERFLOW]),
    row("localtime", "struct tm *localtime(const time_t *)").null(&[EOVERFLOW]),
    row(
        "localtime_r",
        "struct tm *localtime_r(const time_t *, struct tm *)",
    )
    .null(&[EOVERFLOW]),
    row(
        "timer_create",
        "int timer_create(clockid_t, struct sigevent *, timer_t *)",
    )
    .minus_one(&[EAGAIN, ENOMEM]),
    row(
        "timer_settime",
        "int timer_settime(timer_t, int flags, const struct itimerspec *, struct itimerspec *)",
    )
    .minus_one(&[EINVAL]),
    row(
        "timer_gettime",
        "int timer_gettime(timer_t, struct itimerspec *)",
    )
    .minus_one(&[EINVAL]),
    row("timer_delete", "int timer_delete(timer_t)").minus_one(&[EINVAL]),
    row(
        "setitimer",
        "int setitimer(int which, const struct itimerval *, struct itimerval *)",
    )
    .minus_one(&[EINVAL]),
    row("getitimer", "int getitimer(int which, struct itimerval *)").minus_one(&[EINVAL]),
];
