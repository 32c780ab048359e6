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
    sys,
};

use super::heap;

static BEFORE: Lock<Option<Arc<Before>>> = Lock::new(None);

/// The C heap as it was.
#[derive(Debug)]
pub(super) struct Before {
    /// Where it begins, inverted.
    inverted: usize,
    /// Its bytes; zero where it was free.
    bytes: Array<u8>,
    /// What the libraries had, in order, as (start, end).
    held: Array<(usize, usize)>,
    /// The ledger's clock.
    mark: u64,
}

/// Remembers the C heap as it is now, until [`forget`]; about 1 ms for 4 MB.
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
    fn now() -> Result<Option<Self>, Error> {
        let areas = objects::areas()?;
        let Some(heap) = areas.iter().find(|area| area.name == "[heap]") else {
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
        let mut bytes = Array::new(heap.end - heap.start).ok_or_else(no_memory)?;
        sys::read_memory(heap.start, &mut bytes);
        heap::free_chunks(&[], |start, end| {
            let free = start.wrapping_sub(heap.start)..end.saturating_sub(heap.start);
            if let Some(free) = bytes.get_mut(free) {
                free.fill(0);
            }
        });
        Ok(Some(Self {
            inverted: !heap.start,
            bytes,
            held,
            mark,
        }))
    }

    /// Whether `word` stood at the address `at` already, and led to nothing of a library; so that it does not lead to what was
    /// acquired at the time `sequence`.
    pub(super) fn had(&self, at: usize, word: usize, sequence: u64) -> bool {
        let place = at.wrapping_sub(!self.inverted);
        sequence > self.mark
            && self.bytes.get(place..place.saturating_add(8)) == Some(&word.to_ne_bytes())
            && !self.led_to_something(word)
    }

    fn led_to_something(&self, word: usize) -> bool {
        let next = self.held.partition_point(|(start, _)| *start <= word);
        next.checked_sub(1).is_some_and(|at| word < self.held[at].1)
    }
}
