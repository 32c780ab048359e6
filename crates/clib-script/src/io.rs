//! Sending, receiving and waiting with a deadline.
//!
//! Each tries the system call first and polls only when it would block, so that a
//! script in which the bytes are already there costs one call a step.

use std::time::{Duration, Instant};

use crate::call::errno;

/// Why a step did not get its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The system call failed with this errno.
    Errno(i32),
    /// The other side closed after so many bytes.
    Closed(usize),
    /// The time limit passed with so many bytes done.
    Late(usize),
}

/// Space for control messages: the kernel passes 253 descriptors at most.
pub(crate) const CONTROL: usize = 24 + 253 * 4 + 8;

/// Sends all of `bytes`; `fds` go with the first piece. `control` is scratch space.
pub(crate) fn send(
    fd: i32,
    bytes: &mut [u8],
    fds: &[i32],
    control: &mut [u64],
    limit: Duration,
) -> Result<(), Trouble> {
    let mut done = 0;
    let mut socket = true;
    let mut deadline = None;
    while done < bytes.len() {
        let rest = &mut bytes[done..];
        let count = if socket {
            send_once(fd, rest, if done == 0 { fds } else { &[] }, control)
        } else {
            // SAFETY: `rest` is valid for reads of its length.
            unsafe { libc::write(fd, rest.as_ptr().cast(), rest.len()) }
        };
        match usize::try_from(count) {
            Ok(count) => done += count,
            Err(_) => match errno() {
                libc::EINTR => {}
                libc::ENOTSOCK if fds.is_empty() => socket = false,
                libc::EAGAIN => poll(fd, libc::POLLOUT, done, &mut deadline, limit)?,
                other => return Err(Trouble::Errno(other)),
            },
        }
    }
    Ok(())
}

fn send_once(fd: i32, bytes: &mut [u8], fds: &[i32], control: &mut [u64]) -> isize {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    if fds.is_empty() {
        // SAFETY: `bytes` is valid for reads of its length.
        return unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) };
    }
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let payload = u32::try_from(size_of_val(fds)).unwrap_or(u32::MAX);
    // SAFETY: plain arithmetic on the length.
    let (space, length) = unsafe { (libc::CMSG_SPACE(payload), libc::CMSG_LEN(payload)) };
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = space as usize;
    // SAFETY: `control` holds CONTROL bytes and `fds` has at most 253 entries (Runner::new), so the
    // header and the descriptors lie within it.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = length as usize;
        std::ptr::copy_nonoverlapping(
            fds.as_ptr().cast::<u8>(),
            libc::CMSG_DATA(header),
            size_of_val(fds),
        );
    }
    // SAFETY: `message` points to live buffers.
    unsafe { libc::sendmsg(fd, &raw const message, flags) }
}

/// Fills `buffer`. Descriptors that come along are not taken: the kernel drops them.
pub(crate) fn recv(fd: i32, buffer: &mut [u8], limit: Duration) -> Result<(), Trouble> {
    let mut done = 0;
    let mut socket = true;
    let mut deadline = None;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        let count = if socket {
            // SAFETY: `rest` is valid for writes of its length.
            unsafe { libc::recv(fd, rest.as_mut_ptr().cast(), rest.len(), libc::MSG_DONTWAIT) }
        } else {
            poll(fd, libc::POLLIN, done, &mut deadline, limit)?;
            // SAFETY: `rest` is valid for writes of its length.
            unsafe { libc::read(fd, rest.as_mut_ptr().cast(), rest.len()) }
        };
        match usize::try_from(count) {
            Ok(0) => return Err(Trouble::Closed(done)),
            Ok(count) => done += count,
            Err(_) => match errno() {
                libc::EINTR => {}
                libc::ENOTSOCK => socket = false,
                libc::EAGAIN => poll(fd, libc::POLLIN, done, &mut deadline, limit)?,
                other => return Err(Trouble::Errno(other)),
            },
        }
    }
    Ok(())
}

/// Waits until `fd` can be read.
pub(crate) fn wait(fd: i32, limit: Duration) -> Result<(), Trouble> {
    poll(fd, libc::POLLIN, 0, &mut None, limit)
}

fn poll(
    fd: i32,
    events: i16,
    done: usize,
    deadline: &mut Option<Instant>,
    limit: Duration,
) -> Result<(), Trouble> {
    let end = *deadline.get_or_insert_with(|| Instant::now() + limit);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let milliseconds = i32::try_from(left.as_millis().saturating_add(1)).unwrap_or(i32::MAX);
        let mut wanted = libc::pollfd {
            fd,
            events,
            revents: 0,
        };
        // SAFETY: one live pollfd.
        match unsafe { libc::poll(&raw mut wanted, 1, milliseconds) } {
            0 if left.is_zero() => return Err(Trouble::Late(done)),
            0 => {}
            1 if wanted.revents & libc::POLLNVAL != 0 => return Err(Trouble::Errno(libc::EBADF)),
            1 => return Ok(()),
            _ if errno() == libc::EINTR => {}
            _ => return Err(Trouble::Errno(errno())),
        }
    }
}
