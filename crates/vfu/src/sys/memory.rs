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
        return Err(Error::OutOfMemory { what: std::any::type_name::<T>(), bytes: layout.size() });
    }
    // SAFETY: `raw` was allocated above for exactly this layout and is not null.
    unsafe { raw.write(value) };
    // SAFETY: `raw` came from the global allocator with the layout of T, holds a valid T, and nobody else has it.
    Ok(unsafe { Box::from_raw(raw) })
}

/// Turns a refused reservation into an error.
pub(crate) fn out_of_memory(what: &'static str, bytes: usize) -> impl FnOnce(TryReserveError) -> Error {
    move |_| Error::OutOfMemory { what, bytes }
}

/// Makes `buffer` exactly `len` bytes long, keeping what it holds; new bytes are zero.
pub(crate) fn try_resize(buffer: &mut Vec<u8>, len: usize, what: &'static str) -> Result<(), Error> {
    let more = len.saturating_sub(buffer.len());
    buffer.try_reserve_exact(more).map_err(out_of_memory(what, len))?;
    buffer.resize(len, 0); // within the capacity reserved above
    Ok(())
}

/// Appends one element.
pub(crate) fn try_push<T>(vector: &mut Vec<T>, value: T, what: &'static str) -> Result<(), Error> {
    vector.try_reserve(1).map_err(out_of_memory(what, size_of::<T>()))?;
    vector.push(value); // within the capacity reserved above
    Ok(())
}
