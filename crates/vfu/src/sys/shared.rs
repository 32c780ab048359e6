//! A reference-counted box whose allocation can fail (`Arc::new` aborts without memory).

use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering, fence};

use super::memory::try_box;
use crate::error::Error;

struct Inner<T> {
    count: AtomicUsize,
    value: T,
}

/// A value owned by all of its clones, usable from any thread.
pub(crate) struct Shared<T> {
    inner: NonNull<Inner<T>>,
}

// SAFETY: like Arc: clones on several threads share `&T` (Sync), and the last one drops T (Send).
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above; `&Shared` gives out only `&T` and clones.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn try_new(value: T) -> Result<Self, Error> {
        let boxed = try_box(Inner {
            count: AtomicUsize::new(1),
            value,
        })?;
        Ok(Self {
            inner: NonNull::from(Box::leak(boxed)),
        })
    }

    fn inner(&self) -> &Inner<T> {
        // SAFETY: the allocation lives until the last clone is dropped, and `self` is one of them.
        unsafe { self.inner.as_ref() }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner().value
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        let before = self.inner().count.fetch_add(1, Ordering::Relaxed);
        if before > usize::MAX / 2 {
            std::process::abort(); // only by leaking 2^63 clones, which no memory can hold
        }
        Self { inner: self.inner }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if self.inner().count.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        // SAFETY: the count fell to zero, so no other clone exists; the pointer came from Box::leak in try_new.
        drop(unsafe { Box::from_raw(self.inner.as_ptr()) });
    }
}
