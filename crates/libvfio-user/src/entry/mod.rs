//! The exported functions, grouped as `libvfio-user.h` groups them. Each is one call of `crate::edge`.

pub mod dma;
pub mod irq;
pub mod life;
pub mod pci;
pub mod setup;

use std::os::fd::BorrowedFd;

use libc::c_int;
use vfu::SharedFd;

use crate::edge::Failure;

/// A descriptor that the caller keeps open for as long as the context may use it; -1 is none.
///
/// # Errors
///
/// EINVAL for other negative numbers.
///
/// # Safety
///
/// `fd` is negative, or stays open for as long as the context exists or until it is replaced there.
unsafe fn borrowed_fd(what: &'static str, fd: c_int) -> Result<Option<SharedFd>, Failure> {
    match fd {
        -1 => Ok(None),
        0.. => {
            // SAFETY: the caller's promise.
            Ok(Some(SharedFd::Borrowed(unsafe {
                BorrowedFd::borrow_raw(fd)
            })))
        }
        _ => Err(Failure::Argument {
            what,
            value: fd.into(),
        }),
    }
}
