//! eventfds: telling them from other descriptors, and adding to them without being blocked.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::socket::is_ready;
use super::{errno, failed};
use crate::error::{Errno, Error};

/// What `/proc/self/fd/N` of an eventfd points to.
const EVENTFD_LINK: &[u8] = b"anon_inode:[eventfd]";

/// An eventfd that a client gave to us.
///
/// The description behind it stays the client's, with its flags: a client that makes a non-blocking eventfd blocking
/// later, and fills its counter, holds up the thread that triggers it. So could one that fills it between poll and
/// write; no system call closes that gap.
#[derive(Debug)]
pub(crate) struct EventFd {
    fd: OwnedFd,
    blocking: bool,
}

impl EventFd {
    /// Takes the descriptor if it is an eventfd, and gives it back if it is anything else: a write to a pipe or socket
    /// could kill the process with SIGPIPE or block it.
    pub(crate) fn verify(fd: OwnedFd) -> Result<Self, OwnedFd> {
        if !is_eventfd(fd.as_fd()) {
            return Err(fd);
        }
        // SAFETY: no pointers.
        let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
        // Where it cannot be asked, it may block.
        let blocking = flags < 0 || flags & libc::O_NONBLOCK == 0;
        Ok(Self { fd, blocking })
    }

    /// Adds 1. A counter that is full fails with EAGAIN, also where the client left the descriptor in blocking mode.
    pub(crate) fn trigger(&self) -> Result<(), Error> {
        let fd = self.fd.as_raw_fd();
        if self.blocking && !is_ready(fd, true) {
            return Err(Error::System {
                call: "write",
                errno: Errno::new(libc::EAGAIN),
            });
        }
        let one = 1_u64;
        loop {
            // SAFETY: the buffer is 8 bytes of a live u64.
            let written = unsafe { libc::write(fd, (&raw const one).cast(), size_of::<u64>()) };
            if written >= 0 {
                return Ok(());
            }
            if errno().get() != libc::EINTR {
                return Err(failed("write"));
            }
        }
    }
}

fn is_eventfd(fd: BorrowedFd<'_>) -> bool {
    let mut path = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0\0";
    write_decimal(&mut path, 14, fd.as_raw_fd().unsigned_abs());
    let mut target = [0_u8; 32];
    // SAFETY: `path` ends in NULs, and `target` has the length that is passed.
    let length = unsafe {
        libc::readlink(
            path.as_ptr().cast(),
            target.as_mut_ptr().cast(),
            target.len(),
        )
    };
    match usize::try_from(length) {
        Ok(length) => target.get(..length) == Some(EVENTFD_LINK),
        Err(_) => is_anonymous_inode(fd), // no /proc here
    }
}

/// Anonymous inodes have no file type; of these, only eventfds take an 8-byte write, and none raises SIGPIPE.
fn is_anonymous_inode(fd: BorrowedFd<'_>) -> bool {
    let mut stat = core::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: fstat fills the structure that `stat` has room for.
    if unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: fstat succeeded and initialised it.
    let stat = unsafe { stat.assume_init() };
    stat.st_mode & libc::S_IFMT == 0
}

fn write_decimal(text: &mut [u8], start: usize, mut value: u32) {
    let mut digits = [0_u8; 10];
    let mut count = 0;
    loop {
        digits[count] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        count += 1;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    for (place, digit) in text[start..].iter_mut().zip(digits[..count].iter().rev()) {
        *place = *digit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::FromRawFd;

    fn eventfd(count: u32, flags: i32) -> OwnedFd {
        // SAFETY: no preconditions; the result is checked and owned by nobody else.
        let fd = unsafe { libc::eventfd(count, flags) };
        assert!(fd >= 0);
        // SAFETY: a descriptor that was just created.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    #[test]
    fn only_eventfds_pass() {
        assert!(EventFd::verify(eventfd(0, 0)).is_ok());
        let (a, b) = std::io::pipe().unwrap();
        assert!(EventFd::verify(a.into()).is_err());
        assert!(EventFd::verify(b.into()).is_err());
        assert!(EventFd::verify(std::fs::File::open("/dev/null").unwrap().into()).is_err());
    }

    #[test]
    fn a_full_blocking_eventfd_does_not_block() {
        let fd = eventfd(0, 0);
        let full = u64::MAX - 1;
        // SAFETY: 8 bytes of a live u64.
        let written = unsafe { libc::write(fd.as_raw_fd(), (&raw const full).cast(), 8) };
        assert_eq!(written, 8);
        let event = EventFd::verify(fd).unwrap();
        assert_eq!(event.trigger().unwrap_err().errno().get(), libc::EAGAIN);
    }
}
