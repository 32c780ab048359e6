//! Allocation that can fail: boxes, vectors and byte buffers.

use std::alloc::Layout;
use std::collections::TryReserveError;

use crate::error::Error;

/// A box, or ENOMEM where `Box::new` would abort the process.
///
/// # Errors
/// [`Error::OutOfMemory`] when the allocator has no memory; `value` is dropped.
pub fn try_box<T>(value: T) -> Result<Box<T>, Error> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Ok(Box::new(value)); // allocates nothing
    }
    // SAFETY: the layout is not zero-sized, as checked above.
    let raw = unsafe { std::alloc::alloc(layout) }.cast::<T>();
    if raw.is_null() {
        return Err(Error::OutOfMemory {
            what: std::any::type_name::<T>(),
            bytes: layout.size(),
        });
    }
    // SAFETY: `raw` was allocated above for exactly this layout and is not null.
    unsafe { raw.write(value) };
    // SAFETY: `raw` came from the global allocator with the layout of T, holds a valid T, and nobody else has it.
    Ok(unsafe { Box::from_raw(raw) })
}

/// Turns a refused reservation into an error.
pub(crate) fn out_of_memory(
    what: &'static str,
    bytes: usize,
) -> impl FnOnce(TryReserveError) -> Error {
    move |_| Error::OutOfMemory { what, bytes }
}

/// `len` zero bytes. Large ones come from the kernel page by page, as they are touched.
pub(crate) fn try_zeroed(len: usize, what: &'static str) -> Result<Vec<u8>, Error> {
    let failed = Error::OutOfMemory { what, bytes: len };
    if len == 0 {
        return Ok(Vec::new());
    }
    let layout = Layout::array::<u8>(len).map_err(|_| failed)?;
    // SAFETY: the layout is not zero-sized, as checked above.
    let raw = unsafe { std::alloc::alloc_zeroed(layout) };
    if raw.is_null() {
        return Err(failed);
    }
    // SAFETY: `raw` came from the global allocator with this capacity, and all `len` bytes are initialised.
    Ok(unsafe { Vec::from_raw_parts(raw, len, len) })
}

/// Appends one element.
pub(crate) fn try_push<T>(vector: &mut Vec<T>, value: T, what: &'static str) -> Result<(), Error> {
    vector
        .try_reserve(1)
        .map_err(out_of_memory(what, size_of::<T>()))?;
    vector.push(value); // within the capacity reserved above
    Ok(())
}
