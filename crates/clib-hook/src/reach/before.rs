//! What stood in the C heap at one moment: a word that has not changed since is no pointer to what was acquired later.
//!
//! Blocks that are in use are full of old addresses, in parts that nobody has written. Those that were there before the
//! tests began are known by this. Two kinds of words are left out, since the same may come again and mean something: those that
//! led to something of a library at that moment, and those in memory that was free (a suite that opens and closes a library at
//! its import leaves there what its first test writes once more).

use std::sync::Arc;

use crate::{
    Error,
    ledger::{self, Extent},
    lock::Lock,
    objects,
    region::Array,
    valgrind,
};

use super::heap;

/// The numbers of a heap's words fit into 32 bits.
const LARGEST: usize = 32 << 30;

static BEFORE: Lock<Option<Arc<Before>>> = Lock::new(None);

/// The C heap as it was.
#[derive(Debug)]
pub(super) struct Before {
    /// Where it began, inverted.
    inverted: usize,
    /// For each word that could be an address, in order: its number from the start, and below that a digest of its value.
    words: Array<u64>,
    /// How many of them are used.
    count: usize,
    /// What the libraries had, in order, as (start, end).
    held: Array<(usize, usize)>,
    /// The ledger's clock.
    mark: u64,
}

/// Remembers the main thread's heap as it is now, in place of what was remembered before; about 1 ms for 2 MB. Call it in that thread.
///
/// # Errors
///
/// [`Error::System`] when the process' maps cannot be read, or there is no memory.
pub fn remember() -> Result<(), Error> {
    let before = Before::now()?;
    *BEFORE.lock() = before.map(Arc::new);
    Ok(())
}

/// Gives the memory back.
pub(crate) fn forget() {
    *BEFORE.lock() = None;
}

/// Takes the lock before a fork.
pub(crate) fn hold() {
    BEFORE.hold();
}

/// Gives it back in both processes.
pub(crate) fn release() {
    BEFORE.release();
}

/// What was remembered last.
pub(super) fn get() -> Option<Arc<Before>> {
    BEFORE.lock().clone()
}

impl Before {
    /// `None` where the C library's heap is not to be found.
    fn now() -> Result<Option<Self>, Error> {
        if valgrind::running() != 0 {
            return Ok(None); // it has a heap of its own
        }
        let areas = objects::areas()?;
        let is_heap = |area: &&objects::Area| {
            area.name == "[heap]"
                && area.protection & libc::PROT_WRITE != 0
                && area.end - area.start <= LARGEST
        };
        let Some(heap) = areas.iter().find(is_heap) else {
            return Ok(None);
        };
        let no_memory = || Error::last_os("mapping memory for a copy of the heap");
        let mark = ledger::now();
        let extents = ledger::extents();
        let mut held = Array::new(extents.len()).ok_or_else(no_memory)?;
        for (place, extent) in held.iter_mut().zip(&extents) {
            let Extent { inverted, size, .. } = *extent;
            *place = (!inverted, (!inverted).saturating_add(size.max(1)));
        }
        held.sort_unstable();
        let room = (heap.end - heap.start) / 8;
        let mut words = Array::new(room).ok_or_else(no_memory)?;
        let mut count = 0;
        heap::addresses(heap.start, heap.end, |at, word| {
            if let Some(place) = words.get_mut(count) {
                *place = pack(at - heap.start, word);
                count += 1;
            }
        });
        Ok(Some(Self {
            inverted: !heap.start,
            words,
            count,
            held,
            mark,
        }))
    }

    /// Whether `word` stood at the address `at` already, and led to nothing of a library; so that it does not lead to what was
    /// acquired at the time `sequence`.
    pub(super) fn had(&self, at: usize, word: usize, sequence: u64) -> bool {
        let Some(offset) = at.checked_sub(!self.inverted) else {
            return false;
        };
        sequence > self.mark
            && self.words[..self.count]
                .binary_search(&pack(offset, word))
                .is_ok()
            && !self.led_to_something(word)
    }

    fn led_to_something(&self, word: usize) -> bool {
        let next = self.held.partition_point(|(start, _)| *start <= word);
        next.checked_sub(1).is_some_and(|at| word < self.held[at].1)
    }
}

/// Number and digest of a word.
fn pack(offset: usize, word: usize) -> u64 {
    let digest = (word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (((offset / 8) as u64) << 32) | digest
}
