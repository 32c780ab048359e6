//! Waiting for the client on a blocking context, where the thread may be cancelled.
//!
//! `pthread_cancel` unwinds the thread's stack from inside the call that waits. Rust code cannot be unwound so, and what it
//! holds (the session of a context) would stay held. Therefore:
//!
//! 1. While Rust code runs, cancellation is held off ([`Held`]); what arrives meanwhile stays pending.
//! 2. The calls that wait for a client are made here, from functions that own nothing that would have to be dropped,
//!    called straight from exported functions. They are cancellation points with the thread's own state and type.
//!
//! A cancelled context is as it was before the wait, and is destroyed like any other.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};

use libc::{cmsghdr, iovec, msghdr, pollfd, ssize_t};
use vfu::Arrival;

use crate::edge::errno;

// As in the libc crate, but they may unwind.
unsafe extern "C-unwind" {
    fn accept4(
        fd: c_int,
        address: *mut libc::sockaddr,
        length: *mut libc::socklen_t,
        flags: c_int,
    ) -> c_int;
    fn poll(fds: *mut pollfd, count: libc::nfds_t, timeout: c_int) -> c_int;
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
}

/// `PTHREAD_CANCEL_DISABLE`
const CANCEL_DISABLE: c_int = 1;

/// Holds off cancellation until [`release`](Self::release). Does nothing when dropped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held(c_int);

impl Held {
    pub(crate) fn new() -> Self {
        let mut old = MaybeUninit::uninit();
        // SAFETY: `old` is a place for the old state. Disabling never acts on a pending cancellation.
        unsafe { pthread_setcancelstate(CANCEL_DISABLE, old.as_mut_ptr()) };
        // SAFETY: the call cannot fail with a state that exists, and has written the old one.
        Self(unsafe { old.assume_init() })
    }

    /// Back to the state before. With the asynchronous type, a cancellation that is pending acts here.
    pub(crate) fn release(self) {
        // SAFETY: a state that `new` has read; the old one is not asked for.
        unsafe { pthread_setcancelstate(self.0, ptr::null_mut()) };
    }
}

/// Most descriptors that the kernel passes with one message (`SCM_MAX_FD`).
const MAX_FDS: usize = 253;
const CMSG_HEADER: usize = size_of::<cmsghdr>();
const CONTROL_SIZE: usize = CMSG_HEADER + (MAX_FDS * size_of::<c_int>()).next_multiple_of(8);

#[repr(C, align(8))]
struct Control([u8; CONTROL_SIZE]);

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing was waited for yet.
    None,
    /// Something else than a message is to be received, or an error to be met.
    Readable,
    /// A signal came.
    Interrupted,
    /// A message.
    Received {
        count: usize,
        control: usize,
        lost: bool,
    },
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A socket with a client, and where to receive from it.
    Socket(RawFd, NonNull<[u8]>),
    /// A socket that clients connect to.
    Listener(RawFd),
    /// Anything that can only be polled.
    Pipe(RawFd),
}

/// What one wait brings. Owns nothing: descriptors are numbers in `control` until [`take`](Self::take).
pub(crate) struct Reception {
    outcome: Outcome,
    control: MaybeUninit<Control>,
}

impl Reception {
    pub(crate) const fn new() -> Self {
        Self {
            outcome: Outcome::None,
            control: MaybeUninit::uninit(),
        }
    }

    /// Waits once. Leaves the function only by returning, or by cancellation of the thread.
    pub(crate) fn wait(&mut self, source: Source) {
        match source {
            Source::Socket(fd, place) => self.receive(fd, place),
            Source::Listener(fd) | Source::Pipe(fd) => {
                let mut place = pollfd {
                    fd,
                    events: libc::POLLIN,
                    revents: 0,
                };
                // SAFETY: one element.
                let result = unsafe { poll(&raw mut place, 1, -1) };
                self.outcome = if result < 0 {
                    failed()
                } else {
                    Outcome::Readable
                };
            }
        }
    }

    fn receive(&mut self, fd: RawFd, place: NonNull<[u8]>) {
        let mut buffer = iovec {
            iov_base: place.as_ptr().cast(),
            iov_len: place.len(),
        };
        let mut message = msghdr {
            msg_name: ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: &raw mut buffer,
            msg_iovlen: 1,
            msg_control: self.control.as_mut_ptr().cast(),
            msg_controllen: CONTROL_SIZE,
            msg_flags: 0,
        };
        // SAFETY: the context gave `place` for this, and no call of it is made meanwhile; the control buffer is ours. Both have
        // the sizes given.
        let result = unsafe { recvmsg(fd, &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        self.outcome = match usize::try_from(result) {
            // The end of the stream and errors are met again, and handled, by the core.
            Ok(0) => Outcome::Readable,
            Ok(count) => Outcome::Received {
                count,
                control: message.msg_controllen,
                lost: message.msg_flags & libc::MSG_CTRUNC != 0,
            },
            Err(_) => failed(),
        };
    }

    /// Whether a signal ended the wait.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.outcome == Outcome::Interrupted
    }

    /// Hands over what was received, once.
    pub(crate) fn take<T>(&mut self, give: impl FnOnce(Arrival<'_>) -> T) -> T {
        match std::mem::replace(&mut self.outcome, Outcome::None) {
            Outcome::None | Outcome::Interrupted => give(Arrival::Nothing),
            Outcome::Readable => give(Arrival::Readable),
            Outcome::Received {
                count,
                control,
                lost,
            } => {
                let mut fds = Vec::new();
                let lost = self.own_descriptors(control, &mut fds) || lost;
                give(Arrival::Message {
                    count,
                    fds: &mut fds,
                    lost,
                })
            }
        }
    }

    /// Makes the descriptors in the first `length` bytes of the control buffer ours. True if some had to be closed, for lack
    /// of memory.
    fn own_descriptors(&self, length: usize, fds: &mut Vec<OwnedFd>) -> bool {
        let mut lost = false;
        let base: *const u8 = self.control.as_ptr().cast();
        let mut start = 0;
        while start + CMSG_HEADER <= length.min(CONTROL_SIZE) {
            // SAFETY: a header fits there, and the kernel has written one: control messages follow each other.
            let header = unsafe { base.add(start).cast::<cmsghdr>().read_unaligned() };
            let end = start
                .saturating_add(header.cmsg_len)
                .min(length)
                .min(CONTROL_SIZE);
            if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS {
                for at in (start + CMSG_HEADER..end).step_by(size_of::<c_int>()) {
                    // SAFETY: inside this control message, which holds whole descriptors.
                    let raw = unsafe { base.add(at).cast::<c_int>().read_unaligned() };
                    // SAFETY: the kernel has just installed this descriptor for us, and nobody else knows it.
                    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
                    if fds.try_reserve(1).is_ok() {
                        fds.push(fd); // within the capacity reserved above
                    } else {
                        lost = true; // and closed
                    }
                }
            }
            start = end.max(start + CMSG_HEADER).next_multiple_of(8);
        }
        lost
    }
}

fn failed() -> Outcome {
    if errno() == libc::EINTR {
        Outcome::Interrupted
    } else {
        Outcome::Readable
    }
}

/// Accepts a client: its descriptor, or -1 and errno.
pub(crate) fn accept(listener: RawFd) -> c_int {
    // SAFETY: no address is asked for.
    unsafe {
        accept4(
            listener,
            ptr::null_mut(),
            ptr::null_mut(),
            libc::SOCK_CLOEXEC,
        )
    }
}
