//! The configuration space buffer: raw memory shared with C code. All unsafe code of `pci` is here and in
//! [`super::capability::RawData`].
//!
//! 1. The buffer never moves and is at least 256 bytes, zeroed at birth.
//! 2. Others read and write it at any time, so it is only reached by volatile copies through the raw pointer, never by a
//!    reference; a value is copied once and then judged.
//! 3. Every offset is checked here: reads outside give zeroes, writes outside do nothing. Callers check first; this is
//!    the fence behind them.

use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc};

use super::error::Error;
use super::regs::{CFG_SPACE_EXP_SIZE, CFG_SPACE_SIZE};

/// 16 keeps registers naturally aligned, and lets the allocator use `calloc`.
const ALIGN: usize = 16;

/// A zeroed configuration space of 256 or 4096 bytes at a stable address.
///
/// May be sent to another thread. Not `Sync`: the owner serialises its own accesses; concurrent accesses through
/// [`ConfigSpace::base`] are the device's business, as with real registers.
#[derive(Debug)]
pub struct ConfigSpace {
    /// As words, so that aligned registers are reached without casts to a stricter alignment.
    words: NonNull<u32>,
    size: usize,
}

// SAFETY: the buffer is plain memory owned by this value; nothing in it is tied to a thread.
unsafe impl Send for ConfigSpace {}

impl ConfigSpace {
    /// Allocates a zeroed buffer of 256 bytes, or 4096 if `size` is more than 256.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`]
    pub fn new(size: usize) -> Result<Self, Error> {
        let size = if size <= CFG_SPACE_SIZE {
            CFG_SPACE_SIZE
        } else {
            CFG_SPACE_EXP_SIZE
        };
        let layout = Self::layout(size).ok_or(Error::OutOfMemory { bytes: size })?;
        // SAFETY: the layout's size is 256 or 4096, not zero.
        let base = unsafe { alloc_zeroed(layout) };
        #[expect(
            clippy::cast_ptr_alignment,
            reason = "allocated with an alignment of 16"
        )]
        let words = NonNull::new(base.cast::<u32>()).ok_or(Error::OutOfMemory { bytes: size })?;
        Ok(Self { words, size })
    }

    fn layout(size: usize) -> Option<Layout> {
        Layout::from_size_align(size, ALIGN).ok()
    }

    /// Address of the first byte. Stays valid and the same until this value is dropped.
    #[must_use]
    pub const fn base(&self) -> *mut u8 {
        self.words.as_ptr().cast()
    }

    /// 256 or 4096.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Whether `[offset, offset + len)` lies inside.
    const fn holds(&self, offset: usize, len: usize) -> bool {
        offset <= self.size && len <= self.size - offset
    }

    /// Copies bytes out; bytes outside the buffer read 0.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = self.u8(offset.saturating_add(i));
        }
    }

    /// Copies bytes in; bytes outside the buffer are dropped.
    pub fn write(&self, offset: usize, data: &[u8]) {
        for (i, &byte) in data.iter().enumerate() {
            self.set_u8(offset.saturating_add(i), byte);
        }
    }

    /// One byte.
    #[must_use]
    pub fn u8(&self, offset: usize) -> u8 {
        if !self.holds(offset, 1) {
            return 0;
        }
        // SAFETY: `holds` checked that the byte is inside the buffer, which lives as long as `self`.
        unsafe { self.base().add(offset).read_volatile() }
    }

    /// A 16-bit register, little-endian, in one access if it is aligned.
    #[must_use]
    pub fn u16(&self, offset: usize) -> u16 {
        if offset.is_multiple_of(2) && self.holds(offset, 2) {
            // SAFETY: inside the buffer (`holds`) and aligned, since the buffer is aligned to 16 and the offset to 2.
            return u16::from_le(unsafe {
                self.words
                    .as_ptr()
                    .cast::<u16>()
                    .add(offset / 2)
                    .read_volatile()
            });
        }
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// A 32-bit register, little-endian, in one access if it is aligned.
    #[must_use]
    pub fn u32(&self, offset: usize) -> u32 {
        if offset.is_multiple_of(4) && self.holds(offset, 4) {
            // SAFETY: inside the buffer (`holds`) and aligned, since the buffer is aligned to 16 and the offset to 4.
            return u32::from_le(unsafe { self.words.as_ptr().add(offset / 4).read_volatile() });
        }
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Sets one byte.
    pub fn set_u8(&self, offset: usize, value: u8) {
        if self.holds(offset, 1) {
            // SAFETY: `holds` checked that the byte is inside the buffer, which lives as long as `self`.
            unsafe { self.base().add(offset).write_volatile(value) }
        }
    }

    /// Sets a 16-bit register, in one access if it is aligned.
    pub fn set_u16(&self, offset: usize, value: u16) {
        if offset.is_multiple_of(2) && self.holds(offset, 2) {
            // SAFETY: inside the buffer (`holds`) and aligned, since the buffer is aligned to 16 and the offset to 2.
            unsafe {
                self.words
                    .as_ptr()
                    .cast::<u16>()
                    .add(offset / 2)
                    .write_volatile(value.to_le());
            }
        } else {
            self.write(offset, &value.to_le_bytes());
        }
    }

    /// Sets a 32-bit register, in one access if it is aligned.
    pub fn set_u32(&self, offset: usize, value: u32) {
        if offset.is_multiple_of(4) && self.holds(offset, 4) {
            // SAFETY: inside the buffer (`holds`) and aligned, since the buffer is aligned to 16 and the offset to 4.
            unsafe {
                self.words
                    .as_ptr()
                    .add(offset / 4)
                    .write_volatile(value.to_le());
            }
        } else {
            self.write(offset, &value.to_le_bytes());
        }
    }
}

impl Drop for ConfigSpace {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.size) {
            // SAFETY: allocated in `new` with this very layout, and freed only here.
            unsafe { dealloc(self.base(), layout) }
        }
    }
}
