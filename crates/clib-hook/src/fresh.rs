//! Memory that other objects are given holds no old bytes.
//!
//! A block is full of what was there before, and the parts of it that nobody writes keep old addresses as long as it lives: to a
//! search for what is lost ([`crate::reach`]) they look like pointers. So blocks that `malloc` and its like hand to objects that
//! are *not* under test are zeroed first. Nothing may rely on what is in fresh memory, and what comes from the kernel is zero.
//!
//! The libraries under test get their blocks as they are: reads of memory that they have not written must stay what they were.
//! So does everyone under a tool that watches such reads, and where the allocator is not the C library's own.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{
    objects,
    table::{self, Effect, Size},
    thunk::{Slot, WATCHER},
    valgrind,
};

static ACTIVE: AtomicBool = AtomicBool::new(false);

/// A chunk of a mapping of its own: fresh from the kernel.
const IS_MAPPED: usize = 2;

/// Decides whether blocks are zeroed in this session.
pub(crate) fn start() {
    ACTIVE.store(
        valgrind::running() == 0 && objects::has_c_library_s_malloc(),
        Ordering::Relaxed,
    );
}

/// From now on nothing is zeroed.
pub(crate) fn stop() {
    ACTIVE.store(false, Ordering::Relaxed);
}

/// Whether blocks are zeroed.
pub(crate) fn is_active() -> bool {
    ACTIVE.load(Ordering::Relaxed)
}

/// Whether calls of a function are watched for what it hands out.
pub(crate) fn is_given_by(function: &table::Function) -> bool {
    let takes_size = matches!(
        function.effect,
        Effect::Allocate(Size::Arg(_))
            | Effect::AllocateAt(_, Size::Arg(_))
            | Effect::Reallocate(_)
    );
    // Operators of C++ call `malloc`.
    is_active() && takes_size && !function.name.starts_with("operator")
}

/// Whether what this call is given is zeroed.
pub(crate) fn is_wanted(slot: &Slot) -> bool {
    slot.library() == WATCHER && is_active()
}

/// Bytes that `block` has, which a moment ago was given by the C library, or is about to be taken back by it.
pub(crate) fn room(block: usize) -> usize {
    // SAFETY: the block is the C library's and in use; NULL has no room.
    unsafe { libc::malloc_usable_size(block as *mut libc::c_void) }
}

/// Zeroes a block that was just given, from its byte `from` on.
pub(crate) fn clear(block: usize, from: usize) {
    if block == 0 {
        return;
    }
    // SAFETY: a chunk's size and flags stand before each block of the C library.
    let header = unsafe { (block as *const usize).sub(1).read() };
    let room = room(block);
    if header & IS_MAPPED == 0 && from < room {
        // SAFETY: the caller has not got the block yet, so that nobody else uses these bytes of it.
        unsafe { std::ptr::write_bytes((block as *mut u8).add(from), 0, room - from) };
    }
}
