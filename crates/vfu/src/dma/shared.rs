//! A reference-counted box whose allocation can fail, in which nothing has to be moved after its construction.

use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering, fence};
use std::alloc::Layout;

use super::error::Error;
use super::sys;

struct Inner<T> {
    count: AtomicUsize,
    value: T,
}

/// A value owned by all of its clones, usable from any thread.
pub(super) struct Shared<T>(NonNull<Inner<T>>);

// SAFETY: like Arc: clones on several threads share `&T` (Sync), and the last one drops T (Send).
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above; `&Shared` gives out only `&T` and clones.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(super) fn new(value: T) -> Result<Self, Error> {
        let memory = sys::alloc_zeroed(Layout::new::<Inner<T>>()).ok_or(Error::NoMemory)?;
        let inner = memory.cast::<Inner<T>>();
        // SAFETY: allocated just now with the layout of what is written.
        unsafe {
            inner.write(Inner {
                count: AtomicUsize::new(1),
                value,
            })
        };
        Ok(Self(inner))
    }

    fn inner(&self) -> &Inner<T> {
        // SAFETY: the allocation lives until the last clone is dropped, and `self` is one of them.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner().value
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        let before = self.inner().count.fetch_add(1, Ordering::Relaxed);
        if before > usize::MAX / 2 {
            std::process::abort(); // only after 2^63 clones were leaked, for which no memory suffices
        }
        Self(self.0)
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if self.inner().count.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        // SAFETY: the count fell to zero, so no other clone exists; the value was written in `new`.
        unsafe { self.0.drop_in_place() };
        // SAFETY: allocated in `new` with this layout, and not used again.
        unsafe { sys::dealloc(self.0.cast(), Layout::new::<Inner<T>>()) };
    }
}

impl<T: core::fmt::Debug> core::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        (**self).fmt(f)
    }
}
