//! The dirty bits of one region: bit i stands for the i-th page from the region's base.
//!
//! A bitmap is one allocation, a header and then its words, and describes itself, so that whoever holds a pin on the
//! region can use it without looking anywhere else. It is plain memory behind a pointer that is copied freely;
//! ownership is the slot's (`slots`): the bitmap is given back when it is out of the slot and the slot has no pins.
//!
//! # Two ways to fetch
//!
//! *Shared*: bits are set with an atomic OR and cleared with an atomic AND; they can do so at the same time.
//! *Exclusive*: while the slot is frozen no pin exists, so no marker runs; words are then copied and cleared as plain
//! memory, which is an order of magnitude faster. The freeze and its end are an acquire and a release of the slot's state
//! word, as the end and the beginning of every pin are: plain and atomic accesses never race.
//!
//! # A bit that is set already is not set again
//!
//! The marker has written the page, then sees the bit set and leaves. For that to be right the page's new content has
//! to be visible to whoever fetches the bit later. The fence between the two ([`Bitmap::mark`]) and the one after the
//! fetch ([`after_fetch`]) order them.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use std::alloc::Layout;

use super::error::Error;
use super::sys;

/// Bits in a word.
pub(super) const WORD: u64 = 64;
const HEADER: usize = 64;

#[repr(C, align(64))]
struct Header {
    words: usize,
    /// Binary logarithm of the page size.
    shift: u32,
    /// While out of service: the slot whose pins may use it, and the next bitmap in the list. The writer's.
    index: u32,
    generation: u64,
    next: Option<Bitmap>,
}

const _: () = assert!(size_of::<Header>() == HEADER);

/// A pointer to a live bitmap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bitmap(NonNull<Header>);

/// Bits of one word: which to fetch, and which of them to clear.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask {
    pub(super) fetch: u64,
    pub(super) clear: u64,
}

/// Bytes that the words of a bitmap take.
pub(super) fn bytes_for(region_size: u64, shift: u32) -> u64 {
    // No overflow: a region has at most 2^43 bytes and a page at least 2^9.
    (((region_size - 1) >> shift) / WORD + 1) * 8
}

/// Orders what the client will do with fetched bits after the fetching.
pub(super) fn after_fetch() {
    fence(Ordering::SeqCst);
}

impl Bitmap {
    /// All pages clean.
    pub(super) fn new(region_size: u64, shift: u32) -> Result<Self, Error> {
        let words =
            usize::try_from(bytes_for(region_size, shift) / 8).map_err(|_| Error::NoMemory)?;
        let header = sys::alloc_zeroed(layout(words)?)
            .ok_or(Error::NoMemory)?
            .cast::<Header>();
        // SAFETY: the allocation begins with room for a header and is not shared yet.
        unsafe {
            header.write(Header {
                words,
                shift,
                index: 0,
                generation: 0,
                next: None,
            });
        };
        Ok(Self(header))
    }

    /// Gives the memory back.
    ///
    /// # Safety
    /// Nobody uses this bitmap any more, here or in another copy of the pointer.
    pub(super) unsafe fn free(self) {
        if let Ok(layout) = layout(self.words()) {
            // SAFETY: allocated in `new` with the layout for this number of words; not used again, says the caller.
            unsafe { sys::dealloc(self.0.cast(), layout) };
        }
    }

    pub(super) fn from_raw(raw: *mut u8) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self(raw.cast()))
    }

    pub(super) fn into_raw(self) -> *mut u8 {
        self.0.cast().as_ptr()
    }

    pub(super) fn words(&self) -> usize {
        // SAFETY: a Bitmap points to a live header; this field does not change.
        unsafe { (*self.0.as_ptr()).words }
    }

    pub(super) fn shift(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0.as_ptr()).shift }
    }

    /// What [`wait_for`](Self::wait_for) noted: slot, generation, rest of the list.
    pub(super) fn waits_for(&self) -> (u32, u64, Option<Self>) {
        let header = self.0.as_ptr();
        // SAFETY: the header is live; these fields are the writer's, who is the caller.
        unsafe { ((*header).index, (*header).generation, (*header).next) }
    }

    /// Notes whose pins have to go before this bitmap, and puts it before a list.
    ///
    /// # Safety
    /// The caller is the writer, to whom the list belongs.
    pub(super) unsafe fn wait_for(self, index: u32, generation: u64, next: Option<Self>) {
        let header = self.0.as_ptr();
        // SAFETY: the header is live, and only the writer uses these fields: threads with a pin read the others, through
        // raw pointers as here, so that no reference covers what is written.
        unsafe {
            (*header).index = index;
            (*header).generation = generation;
            (*header).next = next;
        }
    }

    fn first_word(&self) -> *mut AtomicU64 {
        // SAFETY: the words follow the header in the same allocation.
        unsafe { self.0.as_ptr().add(1).cast::<AtomicU64>() }
    }

    fn word(&self, at: usize) -> Option<&AtomicU64> {
        if at >= self.words() {
            return None;
        }
        // SAFETY: below the number of words, which are initialised (to zero) and 8-byte aligned.
        Some(unsafe { &*self.first_word().add(at) })
    }

    /// Marks the pages that `[offset, offset + length)` touches. `length` is not 0. What was written to them before is
    /// visible to whoever fetches the bits.
    pub(super) fn mark(&self, offset: u64, length: u64) {
        fence(Ordering::SeqCst);
        let first = offset >> self.shift();
        let last = offset.saturating_add(length - 1) >> self.shift();
        let mut page = first;
        while page <= last {
            let end = last.min(page | (WORD - 1));
            let Some(word) = usize::try_from(page / WORD)
                .ok()
                .and_then(|at| self.word(at))
            else {
                return;
            };
            let bits = mask(page % WORD, end % WORD);
            if word.load(Ordering::Relaxed) & bits != bits {
                word.fetch_or(bits, Ordering::Release);
            }
            page = end + 1;
        }
    }

    /// Fetches bits of a word while others may set them.
    pub(super) fn fetch_shared(&self, at: usize, mask: Mask) -> u64 {
        let Some(word) = self.word(at) else {
            return 0;
        };
        let seen = word.load(Ordering::Acquire) & mask.fetch;
        if seen & mask.clear == 0 {
            return seen;
        }
        word.fetch_and(!mask.clear, Ordering::AcqRel) & mask.fetch
    }

    /// Fetches bits of a word that nobody else uses.
    ///
    /// # Safety
    /// The slot is frozen (or the bitmap not shared at all).
    pub(super) unsafe fn fetch_exclusive(&self, at: usize, mask: Mask) -> u64 {
        if at >= self.words() {
            return 0;
        }
        // SAFETY: in bounds. Exclusive, says the caller, so a plain access races with nothing.
        let word = unsafe { &mut *self.first_word().add(at).cast::<u64>() };
        let seen = *word;
        if seen & mask.clear != 0 {
            *word = seen & !mask.clear;
        }
        seen & mask.fetch
    }

    /// Fetches and clears whole words that nobody else uses into `out`, which is a multiple of 8 bytes.
    ///
    /// # Safety
    /// As [`fetch_exclusive`](Self::fetch_exclusive); `at` plus the words of `out` are within the bitmap.
    pub(super) unsafe fn fetch_words(&self, at: usize, out: &mut [u8]) {
        // SAFETY: in bounds, says the caller.
        let from = unsafe { self.first_word().add(at).cast::<u8>() };
        // SAFETY: exclusive and in bounds, says the caller; `out` is another object. The bytes of a little-endian
        // word are its bits in ascending order, which is the order of the report.
        unsafe { from.copy_to_nonoverlapping(out.as_mut_ptr(), out.len()) };
        // Clean pages stay unwritten: a bitmap of a huge region takes memory only where there were dirty pages.
        let (words, _) = out.as_chunks::<8>();
        if words.iter().any(|word| *word != [0; 8]) {
            // SAFETY: as above; zero bytes are valid words.
            unsafe { from.write_bytes(0, out.len()) };
        }
    }
}

#[cfg(not(target_endian = "little"))]
compile_error!("dirty bitmaps are copied to the wire as little-endian words");

/// The bits `from..=to` of a word.
pub(super) const fn mask(from: u64, to: u64) -> u64 {
    (u64::MAX << from) & (u64::MAX >> (WORD - 1 - to))
}

fn layout(words: usize) -> Result<Layout, Error> {
    let bytes = words
        .checked_mul(8)
        .and_then(|b| b.checked_add(HEADER))
        .ok_or(Error::NoMemory)?;
    Layout::from_size_align(bytes, HEADER).map_err(|_| Error::NoMemory)
}
