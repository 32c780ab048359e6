//! Arrays in private mappings: the memory of hooks, which never comes from the C heap.

use std::{marker::PhantomData, ops::Deref, ops::DerefMut, slice};

use crate::sys;

/// Types for which all-zero bytes are a value, and which need no drop.
///
/// # Safety
///
/// The implementor promises both.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: integers are valid for any bytes.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for (usize, usize) {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl Plain for usize {}

/// A fixed array of `T`, zeroed at first, in a mapping of its own.
#[derive(Debug)]
pub(crate) struct Array<T: Plain> {
    start: usize,
    length: usize,
    _items: PhantomData<T>,
}

impl<T: Plain> Array<T> {
    /// An array without items or memory.
    pub(crate) const fn empty() -> Self {
        Self {
            start: 0,
            length: 0,
            _items: PhantomData,
        }
    }

    /// `length` zeroed items, or `None` when there is no memory.
    pub(crate) fn new(length: usize) -> Option<Self> {
        let bytes = length.checked_mul(size_of::<T>())?.max(1);
        Some(Self {
            start: sys::map(bytes)?,
            length,
            _items: PhantomData,
        })
    }
}

impl<T: Plain> Deref for Array<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: `new` mapped room for `length` items at a page boundary, zeroed, which `Plain` makes values.
        unsafe { slice::from_raw_parts(self.start as *const T, self.length) }
    }
}

impl<T: Plain> DerefMut for Array<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        if self.length == 0 {
            return &mut [];
        }
        // SAFETY: as above, and `&mut self` makes it the only reference.
        unsafe { slice::from_raw_parts_mut(self.start as *mut T, self.length) }
    }
}

impl<T: Plain> Drop for Array<T> {
    fn drop(&mut self) {
        if self.start != 0 {
            sys::unmap(self.start, (self.length * size_of::<T>()).max(1));
        }
    }
}
