//! Short counts and ends of file.

use std::{
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::{dispatch::Decision, table::Partial, thunk::Frame};

const VECTORS: usize = 64;

/// A shortened copy of what a call describes its buffers with.
#[repr(C)]
struct Copied {
    header: libc::msghdr,
    vectors: [libc::iovec; VECTORS],
}

/// Some copies, used in turn: the copy of a call must last while the call is under way, and calls that are made short at the
/// same moment by more threads than this would be a strange test.
struct Ring(UnsafeCell<[Copied; 8]>);

// SAFETY: each call takes the next copy, see above; what is in there is plain data.
unsafe impl Sync for Ring {}

// SAFETY: all-zero bytes are a value of these C structures.
static RING: Ring = Ring(UnsafeCell::new(unsafe { std::mem::zeroed() }));
static NEXT: AtomicUsize = AtomicUsize::new(0);

fn next_copy() -> *mut Copied {
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % 8;
    // SAFETY: inside the array.
    unsafe { RING.0.get().cast::<Copied>().add(number) }
}

/// Makes a call transfer at most `most` bytes; `None` if it asks for no more anyway.
pub(super) fn shorten(partial: Partial, frame: &mut Frame, most: usize) -> Option<Decision> {
    match partial {
        Partial::No => None,
        Partial::Bytes { arg, .. } => {
            let size = &mut frame.arguments[usize::from(arg)];
            if *size <= most {
                return None;
            }
            *size = most;
            Some(Decision::Changed)
        }
        Partial::Vector { arg, .. } => {
            let arg = usize::from(arg);
            let count = frame.arguments[arg + 1] & 0xffff_ffff;
            let copy = next_copy();
            let count = copy_vectors(copy, frame.arguments[arg], count, most)?;
            // SAFETY: `copy` points into the ring.
            frame.arguments[arg] = unsafe { &raw const (*copy).vectors } as usize;
            frame.arguments[arg + 1] = count;
            Some(Decision::Changed)
        }
        Partial::Message { arg, reads } => {
            let arg = usize::from(arg);
            let message = frame.arguments[arg] as *mut libc::msghdr;
            if message.is_null() {
                return None;
            }
            let copy = next_copy();
            // SAFETY: the library passed this header to a call that reads it.
            let (vectors, count) = unsafe { ((*message).msg_iov as usize, (*message).msg_iovlen) };
            let short = copy_vectors(copy, vectors, count, most)?;
            // SAFETY: `copy` points into the ring; recvmsg writes to the header it is given, so a library's is writable.
            unsafe {
                let list = (&raw mut (*copy).vectors).cast::<libc::iovec>();
                if reads {
                    // The results belong in the library's own header: lend it the list, and take it back afterwards.
                    (*message).msg_iov = list;
                    (*message).msg_iovlen = short;
                    return Some(Decision::Lent {
                        message: message as usize,
                        vectors,
                        count,
                    });
                }
                (*copy).header = *message;
                (*copy).header.msg_iov = list;
                (*copy).header.msg_iovlen = short;
                frame.arguments[arg] = &raw const (*copy).header as usize;
            }
            Some(Decision::Changed)
        }
    }
}

/// Gives a message header its own list back.
pub(crate) fn take_back(message: usize, vectors: usize, count: usize) {
    let message = message as *mut libc::msghdr;
    // SAFETY: the header that `shorten` changed; the call that uses it has only just returned.
    unsafe {
        (*message).msg_iov = vectors as *mut libc::iovec;
        (*message).msg_iovlen = count;
    }
}

/// Copies as much of a list as holds `most` bytes; `None` if the list holds no more than that.
fn copy_vectors(copy: *mut Copied, list: usize, count: usize, most: usize) -> Option<usize> {
    if list == 0 {
        return None;
    }
    let mut left = most;
    let mut used = 0;
    let mut total = 0_usize;
    for number in 0..count {
        // SAFETY: the library passed a list of that many elements to a call that reads it.
        let vector = unsafe { *(list as *const libc::iovec).add(number) };
        total = total.saturating_add(vector.iov_len);
        if left > 0 && used < VECTORS {
            let length = vector.iov_len.min(left);
            // SAFETY: `copy` points into the ring, and `used` is inside its array.
            unsafe {
                (*copy).vectors[used] = libc::iovec {
                    iov_base: vector.iov_base,
                    iov_len: length,
                }
            };
            left -= length;
            used += 1;
        }
    }
    (total > most).then_some(used)
}

/// Makes a reading call meet the end: it returns 0 and has received nothing.
pub(super) fn end_of_file(partial: Partial, frame: &Frame) -> Option<Decision> {
    match partial {
        Partial::Bytes { reads: true, .. } | Partial::Vector { reads: true, .. } => {
            Some(Decision::Return(0))
        }
        Partial::Message { arg, reads: true } => {
            let message = frame.arguments[usize::from(arg)] as *mut libc::msghdr;
            if !message.is_null() {
                // SAFETY: the library passed this header to recvmsg, which writes these fields.
                unsafe {
                    (*message).msg_namelen = 0;
                    (*message).msg_controllen = 0;
                    (*message).msg_flags = 0;
                }
            }
            Some(Decision::Return(0))
        }
        _ => None,
    }
}
