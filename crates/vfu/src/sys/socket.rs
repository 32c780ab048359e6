//! UNIX stream sockets, with descriptors travelling beside the bytes.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{Interrupt, errno, failed};
use crate::error::{Errno, Error, Result};

/// Most descriptors that the kernel passes with one message (`SCM_MAX_FD`).
pub(crate) const MAX_FDS: usize = 253;

/// Room for one control message with [`MAX_FDS`] descriptors.
#[repr(C)]
struct Control {
    header: MaybeUninit<libc::cmsghdr>,
    fds: MaybeUninit<[RawFd; MAX_FDS + 1]>,
}

impl Control {
    const fn new() -> Self {
        Self {
            header: MaybeUninit::uninit(),
            fds: MaybeUninit::uninit(),
        }
    }
}

const CMSG_HEADER: usize = size_of::<libc::cmsghdr>();
const CONTROL_SIZE: usize = size_of::<Control>();
const _: () = assert!(CONTROL_SIZE == CMSG_HEADER + (MAX_FDS * 4).next_multiple_of(8));

/// `AF_UNIX` as addresses have it.
const AF_UNIX: libc::sa_family_t = 1;

/// Longest path of a socket, without the NUL that ends it.
pub(crate) const MAX_PATH: usize = 107;

/// A socket that listens at `path`, of at most [`MAX_PATH`] bytes. An empty path gives an address that the kernel picks, which nobody can connect to by name.
pub(crate) fn listen(path: &CStr, nonblocking: bool) -> Result<OwnedFd> {
    let bytes = path.to_bytes();
    debug_assert!(bytes.len() <= MAX_PATH, "checked by the caller");
    let flags =
        libc::SOCK_STREAM | libc::SOCK_CLOEXEC | if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
    // SAFETY: no pointers.
    let raw = unsafe { libc::socket(libc::AF_UNIX, flags, 0) };
    if raw < 0 {
        return Err(failed("socket"));
    }
    // SAFETY: a descriptor that was just created, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };

    // SAFETY: all zeroes is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { core::mem::zeroed() };
    address.sun_family = AF_UNIX;
    for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
        *place = byte.cast_signed();
    }
    let family = size_of::<libc::sa_family_t>();
    let length = if bytes.is_empty() {
        family
    } else {
        size_of::<libc::sockaddr_un>()
    };
    // SAFETY: `address` is a sockaddr_un and `length` at most its size.
    if unsafe { libc::bind(raw, (&raw const address).cast(), socklen(length)) } != 0 {
        return Err(Error::Listen { errno: errno() });
    }
    // SAFETY: no pointers. On Linux a backlog of 0 still lets one client wait.
    if unsafe { libc::listen(raw, 0) } != 0 {
        let error = failed("listen");
        super::unlink(path); // bind has just made it
        return Err(error);
    }
    Ok(fd)
}

/// Accepts one client. Never retries on EINTR. `None` when nobody waits at a non-blocking socket.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    let none = core::ptr::null_mut();
    // SAFETY: null addresses are allowed.
    let raw = unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            none,
            core::ptr::null_mut(),
            libc::SOCK_CLOEXEC,
        )
    };
    if raw < 0 {
        let error = failed("accept4");
        return if would_block(error.errno().get()) {
            Ok(None)
        } else {
            Err(error)
        };
    }
    // SAFETY: a descriptor that was just created, owned by nobody else.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(raw) }))
}

/// Two connected sockets.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut raw = [-1; 2];
    // SAFETY: room for the two descriptors.
    if unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            0,
            raw.as_mut_ptr(),
        )
    } != 0
    {
        return Err(failed("socketpair"));
    }
    // SAFETY: both were just created, owned by nobody else.
    let first = unsafe { OwnedFd::from_raw_fd(raw[0]) };
    // SAFETY: as above.
    let second = unsafe { OwnedFd::from_raw_fd(raw[1]) };
    Ok((first, second))
}

/// Asks for room for `bytes` in the send buffer. The kernel may grant less, which costs speed and nothing else.
pub(crate) fn want_send_buffer(fd: BorrowedFd<'_>, bytes: i32) {
    if !set_option(fd, libc::SO_SNDBUFFORCE, &bytes) {
        set_option(fd, libc::SO_SNDBUF, &bytes);
    }
}

/// Limits how long a blocking send or receive waits, in seconds.
pub(crate) fn limit_waiting(fd: BorrowedFd<'_>, seconds: i64) {
    let limit = libc::timeval {
        tv_sec: seconds,
        tv_usec: 0,
    };
    set_option(fd, libc::SO_RCVTIMEO, &limit);
    set_option(fd, libc::SO_SNDTIMEO, &limit);
}

fn set_option<T: Copy>(fd: BorrowedFd<'_>, option: i32, value: &T) -> bool {
    // SAFETY: the pointer is to a live T of the size passed.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            core::ptr::from_ref(value).cast(),
            socklen(size_of::<T>()),
        )
    };
    result == 0
}

/// Memory to receive into.
#[repr(transparent)]
pub(crate) struct Into<'a>(libc::iovec, PhantomData<&'a mut [u8]>);

impl<'a> Into<'a> {
    pub(crate) fn slice(slice: &'a mut [u8]) -> Self {
        Self(
            libc::iovec {
                iov_base: slice.as_mut_ptr().cast(),
                iov_len: slice.len(),
            },
            PhantomData,
        )
    }
}

/// Memory to send from.
#[repr(transparent)]
pub(crate) struct From<'a>(libc::iovec, PhantomData<&'a [u8]>);

impl<'a> From<'a> {
    pub(crate) fn slice(slice: &'a [u8]) -> Self {
        Self(
            libc::iovec {
                iov_base: slice.as_ptr().cast_mut().cast(),
                iov_len: slice.len(),
            },
            PhantomData,
        )
    }
}

/// Where received descriptors go, one by one.
pub(crate) trait FdSink {
    /// Takes a descriptor, or closes it.
    fn take(&mut self, fd: OwnedFd);
}

/// What one receive brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// Bytes, 1 at least. `lost`: descriptors came with them that did not fit into this process.
    Bytes { count: usize, lost: bool },
    /// The peer will send nothing more.
    Closed,
    /// Nothing there, and the call was not to wait (or waited for as long as it may).
    Nothing,
    /// The system's error.
    Failed(Errno),
}

/// How to receive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    flags: libc::c_int,
    interrupt: Interrupt,
}

impl How {
    /// Takes what is there.
    pub(crate) const POLL: Self = Self::new(libc::MSG_DONTWAIT, Interrupt::Return);
    /// Waits for the next message.
    pub(crate) const WAIT_OR_SIGNAL: Self = Self::new(0, Interrupt::Return);
    /// Waits for more of a message that has begun, whatever signals come.
    pub(crate) const WAIT: Self = Self::new(0, Interrupt::Retry);
    /// Waits until the buffers are full, whatever signals come.
    pub(crate) const FILL: Self = Self::new(libc::MSG_WAITALL, Interrupt::Retry);

    const fn new(flags: libc::c_int, interrupt: Interrupt) -> Self {
        Self {
            flags: flags | libc::MSG_CMSG_CLOEXEC,
            interrupt,
        }
    }

    const fn waits(self) -> bool {
        self.flags & libc::MSG_DONTWAIT == 0
    }
}

/// Receives into `buffers`; descriptors go to `fds`, all of them owned from here on.
///
/// `fd` is a plain number, as in the calls below: its owner stands behind a `RefCell`, and looking there costs more than all else here.
/// A number that is stale fails, or receives what another owner would: nothing that safety depends on.
#[inline]
pub(crate) fn receive(
    fd: RawFd,
    buffers: &mut [Into<'_>],
    fds: &mut dyn FdSink,
    how: How,
) -> Received {
    let mut control = Control::new();
    let mut message = message_for(buffers, &mut control);
    let count = loop {
        // SAFETY: the iovecs name writable memory that outlives the call (Into); the control buffer has the length given.
        let count = unsafe { libc::recvmsg(fd, &raw mut message, how.flags) };
        if let Ok(count) = usize::try_from(count) {
            break count;
        }
        let errno = errno().get();
        if errno != libc::EINTR || how.interrupt == Interrupt::Return {
            return not_received(errno);
        }
    };
    brought(count, &message, fds)
}

/// As [`receive`] with [`How::POLL`], for callers to whom bytes without descriptors are the one thing that matters:
/// those are an `Ok`, 1 at least.
#[inline(always)]
pub(crate) fn receive_plain(
    fd: RawFd,
    place: &mut [u8],
    fds: &mut dyn FdSink,
) -> core::result::Result<usize, Received> {
    let mut control = Control::new();
    let mut buffers = [Into::slice(place)];
    let mut message = message_for(&mut buffers, &mut control);
    // SAFETY: as in `receive`.
    let count = unsafe { libc::recvmsg(fd, &raw mut message, How::POLL.flags) };
    if count > 0 && message.msg_controllen == 0 && message.msg_flags & libc::MSG_CTRUNC == 0 {
        return Ok(count.cast_unsigned());
    }
    Err(match usize::try_from(count) {
        Ok(count) => brought(count, &message, fds),
        Err(_) => not_received(errno().get()),
    })
}

/// The argument of a receive.
#[inline(always)]
fn message_for(buffers: &mut [Into<'_>], control: &mut Control) -> libc::msghdr {
    libc::msghdr {
        msg_name: core::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: buffers.as_mut_ptr().cast(), // transparent over iovec
        msg_iovlen: buffers.len(),
        msg_control: core::ptr::from_mut(control).cast(),
        msg_controllen: CONTROL_SIZE,
        msg_flags: 0,
    }
}

/// What a receive of `count` bytes that filled in `message` has brought.
#[inline]
fn brought(count: usize, message: &libc::msghdr, fds: &mut dyn FdSink) -> Received {
    if message.msg_controllen != 0 {
        take_descriptors(message, fds);
    }
    if count == 0 {
        return Received::Closed;
    }
    Received::Bytes {
        count,
        lost: message.msg_flags & libc::MSG_CTRUNC != 0,
    }
}

/// What the errno of a receive means.
#[inline]
const fn not_received(errno: libc::c_int) -> Received {
    if would_block(errno) {
        Received::Nothing
    } else if errno == libc::ECONNRESET {
        Received::Closed // the peer closed with unread data in its queue
    } else {
        Received::Failed(Errno::new(errno))
    }
}

/// Hands every descriptor in the control messages of `message`, which recvmsg has just filled, to `fds`.
#[cold]
fn take_descriptors(message: &libc::msghdr, fds: &mut dyn FdSink) {
    // SAFETY: recvmsg filled msg_control up to msg_controllen, which CMSG_FIRSTHDR respects.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return headers inside the filled part, suitably aligned, or null.
        let current = unsafe { &*header };
        if current.cmsg_level == libc::SOL_SOCKET && current.cmsg_type == libc::SCM_RIGHTS {
            let bytes = current.cmsg_len.saturating_sub(CMSG_HEADER);
            // SAFETY: the data follow the header, inside the filled part.
            let data = unsafe { libc::CMSG_DATA(header) };
            for index in 0..bytes / size_of::<RawFd>() {
                // SAFETY: `index` is below the number of descriptors that cmsg_len announces.
                let slot = unsafe { data.add(index * size_of::<RawFd>()) };
                let mut raw: RawFd = -1;
                // SAFETY: the slot lies in the filled part, and `raw` has room for it.
                unsafe { slot.copy_to_nonoverlapping((&raw mut raw).cast(), size_of::<RawFd>()) };
                // SAFETY: the kernel has just installed this descriptor for us, and nobody else knows it.
                fds.take(unsafe { OwnedFd::from_raw_fd(raw) });
            }
        }
        // SAFETY: `header` is a header inside the filled part of `message`.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
}

/// What one send did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// So many bytes, 1 at least; the descriptors went with them.
    Bytes(usize),
    /// There was no room, and the call was not to wait (or waited for as long as it may).
    Nothing,
    /// The peer is gone.
    Closed,
    /// The system's error.
    Failed(Errno),
}

/// Sends `buffers` with `fds` beside the first byte. Never raises SIGPIPE, retries on EINTR.
///
/// `fds` are plain numbers since some are borrowed from C callers; a stale one fails with EBADF.
#[inline]
pub(crate) fn send(fd: RawFd, buffers: &[From<'_>], fds: &[RawFd], wait: bool) -> Sent {
    let mut control = Control::new();
    let mut message = libc::msghdr {
        msg_name: core::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: buffers.as_ptr().cast_mut().cast(), // sendmsg only reads them
        msg_iovlen: buffers.len(),
        msg_control: core::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    };
    if !fds.is_empty() {
        put_descriptors(&mut message, &mut control, fds);
    }
    let flags = libc::MSG_NOSIGNAL | if wait { 0 } else { libc::MSG_DONTWAIT };
    loop {
        // SAFETY: the iovecs name readable memory that outlives the call (From), and the control buffer is initialised up to msg_controllen.
        let count = unsafe { libc::sendmsg(fd, &raw const message, flags) };
        if let Ok(count) = usize::try_from(count) {
            return Sent::Bytes(count);
        }
        match errno().get() {
            libc::EINTR => {}
            libc::EPIPE | libc::ECONNRESET => return Sent::Closed,
            errno if would_block(errno) => return Sent::Nothing,
            _ => return Sent::Failed(errno()),
        }
    }
}

/// Writes one `SCM_RIGHTS` control message with at most [`MAX_FDS`] descriptors.
#[cold]
fn put_descriptors(message: &mut libc::msghdr, control: &mut Control, fds: &[RawFd]) {
    let fds = &fds[..fds.len().min(MAX_FDS)];
    let length = size_of_val(fds);
    message.msg_controllen = CMSG_HEADER + length.next_multiple_of(8);
    control.header.write(libc::cmsghdr {
        cmsg_len: CMSG_HEADER + length,
        cmsg_level: libc::SOL_SOCKET,
        cmsg_type: libc::SCM_RIGHTS,
    });
    let mut list = [-1; MAX_FDS + 1]; // all of it, since the system reads up to a multiple of 8
    list[..fds.len()].copy_from_slice(fds);
    control.fds.write(list);
    message.msg_control = core::ptr::from_mut(control).cast();
}

/// Reads from a pipe or file, like [`receive`] without descriptors.
pub(crate) fn read(fd: RawFd, buffers: &mut [Into<'_>], how: How) -> Received {
    if !how.waits() && !is_ready(fd, false) {
        return Received::Nothing;
    }
    let count = i32::try_from(buffers.len()).unwrap_or(i32::MAX);
    loop {
        // SAFETY: the iovecs name writable memory that outlives the call (Into).
        let read = unsafe { libc::readv(fd, buffers.as_ptr().cast(), count) };
        match usize::try_from(read) {
            Ok(0) => return Received::Closed,
            Ok(count) => return Received::Bytes { count, lost: false },
            Err(_) => {}
        }
        match errno().get() {
            libc::EINTR if how.interrupt == Interrupt::Retry => {}
            errno if would_block(errno) => return Received::Nothing,
            _ => return Received::Failed(errno()),
        }
    }
}

/// Writes to a pipe or file. A pipe without reader raises SIGPIPE, as for every program that writes to its standard output.
pub(crate) fn write(fd: RawFd, buffers: &[From<'_>], wait: bool) -> Sent {
    if !wait && !is_ready(fd, true) {
        return Sent::Nothing;
    }
    let count = i32::try_from(buffers.len()).unwrap_or(i32::MAX);
    loop {
        // SAFETY: the iovecs name readable memory that outlives the call (From).
        let written = unsafe { libc::writev(fd, buffers.as_ptr().cast(), count) };
        if let Ok(count) = usize::try_from(written) {
            return Sent::Bytes(count);
        }
        match errno().get() {
            libc::EINTR => {}
            libc::EPIPE => return Sent::Closed,
            errno if would_block(errno) => return Sent::Nothing,
            _ => return Sent::Failed(errno()),
        }
    }
}

/// Whether `fd` can be read (or, with `write`, written) without waiting.
pub(crate) fn is_ready(fd: RawFd, write: bool) -> bool {
    let events = if write { libc::POLLOUT } else { libc::POLLIN };
    let mut poll = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: one pollfd, which lives over the call; a zero timeout never blocks.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}

/// A structure's size as the system takes it.
fn socklen(size: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(size).unwrap_or(0) // sizes of small structures
}

const fn would_block(errno: i32) -> bool {
    errno == libc::EAGAIN // EWOULDBLOCK is the same number on Linux
}
