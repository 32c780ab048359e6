//! The allocator of this module: a heap of its own, in one reserved range of addresses.
//!
//! A library under test gets its memory from the C heap. If this module took its memory there, too, what it frees would
//! soon be handed to the library, while old copies of its pointers linger in unused parts of other blocks: the library's
//! block would look held. So nothing of this module is in the C heap, and the scan for lost blocks leaves the range out.
//!
//! 1. All state is behind one lock, which is taken before a `fork` and given back after it on both sides.
//! 2. Memory is never given back to the kernel, but used again.

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::UnsafeCell,
    ptr,
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use dlmalloc::{Allocator, Dlmalloc};

/// Address space to ask for, best first; where address space is limited, less must do.
const RESERVATIONS: [usize; 4] = [1 << 36, 1 << 33, 1 << 30, 1 << 28];
/// What is made usable at once, at least.
const STEP: usize = 256 << 10;
const PAGE: usize = 4096;

static START: AtomicUsize = AtomicUsize::new(0);
static SIZE: AtomicUsize = AtomicUsize::new(0);

/// The range that everything of this module lies in, as (address, bytes).
pub(crate) fn region() -> (usize, usize) {
    (START.load(Relaxed), SIZE.load(Relaxed))
}

#[global_allocator]
static HEAP: Heap = Heap {
    lock: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
    inner: UnsafeCell::new(Dlmalloc::new_with_allocator(Region)),
};

struct Heap {
    lock: UnsafeCell<libc::pthread_mutex_t>,
    inner: UnsafeCell<Dlmalloc<Region>>,
}

// SAFETY: `inner` is only touched by the holder of `lock`.
unsafe impl Sync for Heap {}

impl Heap {
    fn with<T>(&self, work: impl FnOnce(&mut Dlmalloc<Region>) -> T) -> T {
        static FORK: Once = Once::new();
        FORK.call_once(|| {
            // SAFETY: the three functions are always there, since this module is never unloaded.
            unsafe { libc::pthread_atfork(Some(take), Some(give), Some(give)) };
        });
        // SAFETY: a mutex made by its initialiser.
        unsafe { libc::pthread_mutex_lock(self.lock.get()) };
        // SAFETY: this thread holds the lock, and `work` does not come here again.
        let result = work(unsafe { &mut *self.inner.get() });
        // SAFETY: locked above by this thread.
        unsafe { libc::pthread_mutex_unlock(self.lock.get()) };
        result
    }
}

unsafe extern "C" fn take() {
    // SAFETY: a mutex made by its initialiser.
    unsafe { libc::pthread_mutex_lock(HEAP.lock.get()) };
}

unsafe extern "C" fn give() {
    // SAFETY: `take` locked it in this thread, of which the child has a copy.
    unsafe { libc::pthread_mutex_unlock(HEAP.lock.get()) };
}

// SAFETY: hands everything through to an allocator that keeps the contract, one thread at a time.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout is valid.
        self.with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        self.with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller got `block` from here with this layout.
        self.with(|heap| unsafe { heap.free(block, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        self.with(|heap| unsafe { heap.realloc(block, layout.size(), layout.align(), size) })
    }
}

/// Hands out the reserved range from its start.
struct Region;

impl Region {
    /// The reserved range, made at the first call; (0, 0) when there is no address space.
    fn reserve() -> (usize, usize) {
        if SIZE.load(Relaxed) == 0 {
            for size in RESERVATIONS {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
                // SAFETY: a new mapping, nowhere in particular.
                let start =
                    unsafe { libc::mmap(ptr::null_mut(), size, libc::PROT_NONE, flags, -1, 0) };
                if start != libc::MAP_FAILED {
                    START.store(start as usize, Relaxed);
                    SIZE.store(size, Relaxed);
                    break;
                }
            }
        }
        region()
    }
}

// SAFETY: ranges handed out are mapped, fresh, disjoint, and stay so.
unsafe impl Allocator for Region {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        static USED: AtomicUsize = AtomicUsize::new(0);
        let (start, room) = Self::reserve();
        let used = USED.load(Relaxed);
        let size = size.next_multiple_of(STEP);
        if size > room - used {
            return (ptr::null_mut(), 0, 0);
        }
        let at: *mut u8 = ptr::with_exposed_provenance_mut(start + used);
        // SAFETY: inside of the range that is reserved for this.
        if unsafe { libc::mprotect(at.cast(), size, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return (ptr::null_mut(), 0, 0);
        }
        USED.store(used + size, Relaxed);
        (at, size, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE
    }
}
