//! A hash table of what is held, by address or descriptor.
//!
//! Open addressing with linear probing. Removal moves later items back, so there are no tombstones to fill it up. Keys
//! are stored inverted: they look like no pointer to valgrind or to a reachability scan.

use crate::region::{Array, Plain};

/// One thing that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Entry {
    /// Inverted key with the kind in its top byte; 0 is an empty place.
    pub(crate) disguised: u64,
    pub(crate) size: u64,
    pub(crate) site: usize,
    pub(crate) sequence: u64,
    /// [`NOBODY`] once it was disowned.
    pub(crate) test: u32,
    pub(crate) thread: i32,
    pub(crate) stack: u32,
    pub(crate) row: u16,
    pub(crate) library: u16,
}

// SAFETY: integers only.
unsafe impl Plain for Entry {}

const KIND_SHIFT: u32 = 56;

/// The owner of what is not told again.
pub(crate) const NOBODY: u32 = u32::MAX;

/// What a kind and a key are stored as. Keys are user-space addresses or descriptors, so they leave the top byte free.
#[inline]
pub(crate) fn disguise(kind: u8, key: usize) -> u64 {
    !((u64::from(kind) << KIND_SHIFT) | key as u64)
}

impl Entry {
    pub(crate) const EMPTY: Self = Self {
        disguised: 0,
        size: 0,
        site: 0,
        sequence: 0,
        test: 0,
        thread: 0,
        stack: 0,
        row: 0,
        library: 0,
    };

    #[inline]
    pub(crate) fn keyed(mut self, kind: u8, key: usize) -> Self {
        self.disguised = disguise(kind, key);
        self
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.disguised == 0
    }

    /// Whether nobody asks for it any more.
    pub(crate) fn is_disowned(&self) -> bool {
        self.test == NOBODY
    }

    /// The bytes that it stands for in sums of what is held.
    pub(crate) fn counted(&self) -> i64 {
        if self.is_disowned() {
            0
        } else {
            self.size.cast_signed()
        }
    }

    pub(crate) fn kind(&self) -> u8 {
        (!self.disguised >> KIND_SHIFT) as u8
    }

    pub(crate) fn key(&self) -> usize {
        (!self.disguised & ((1 << KIND_SHIFT) - 1)) as usize
    }
}

/// The table; see the module.
#[derive(Debug)]
pub(crate) struct Table {
    places: Array<Entry>,
    used: usize,
    /// Sequence number of the newest entry ever put in: a reader of newer things can skip the table.
    newest: u64,
    /// Entries that found no memory.
    lost: u64,
}

/// Few, since there are many tables, and each question after a test goes through all places.
const FIRST: usize = 32;

#[inline]
fn hash(disguised: u64) -> usize {
    // Fibonacci hashing; the high half is well mixed.
    (disguised.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize
}

impl Table {
    pub(crate) const fn new() -> Self {
        Self {
            places: Array::empty(),
            used: 0,
            newest: 0,
            lost: 0,
        }
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    pub(crate) fn len(&self) -> usize {
        self.used
    }

    #[inline]
    fn find(&self, disguised: u64) -> Option<usize> {
        if self.used == 0 {
            return None;
        }
        let mask = self.places.len() - 1;
        let mut at = hash(disguised) & mask;
        loop {
            let place = &self.places[at];
            if place.disguised == disguised {
                return Some(at);
            }
            if place.is_empty() {
                return None;
            }
            at = (at + 1) & mask;
        }
    }

    /// Puts an entry in, in place of one with the same key, which it returns. Without memory to grow, the entry is dropped
    /// and counted, and is returned itself.
    pub(crate) fn insert(&mut self, entry: Entry) -> Option<Entry> {
        debug_assert!(!entry.is_empty(), "an entry needs a key");
        self.newest = self.newest.max(entry.sequence);
        if let Some(at) = self.find(entry.disguised) {
            return Some(std::mem::replace(&mut self.places[at], entry));
        }
        // At most three quarters full, so that every probe ends.
        if (self.used + 1) * 4 > self.places.len() * 3 && !self.grow() {
            self.lost += 1;
            return Some(entry);
        }
        self.place(entry);
        self.used += 1;
        None
    }

    fn place(&mut self, entry: Entry) {
        let mask = self.places.len() - 1;
        let mut at = hash(entry.disguised) & mask;
        while !self.places[at].is_empty() {
            at = (at + 1) & mask;
        }
        self.places[at] = entry;
    }

    fn grow(&mut self) -> bool {
        let Some(larger) = Array::new((self.places.len() * 2).max(FIRST)) else {
            return false;
        };
        let smaller = std::mem::replace(&mut self.places, larger);
        for entry in smaller.iter().filter(|entry| !entry.is_empty()) {
            self.place(*entry);
        }
        true
    }

    /// Takes an entry out.
    #[inline]
    pub(crate) fn remove(&mut self, disguised: u64) -> Option<Entry> {
        let mut gap = self.find(disguised)?;
        let mask = self.places.len() - 1;
        let removed = self.places[gap];
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let entry = self.places[at];
            if entry.is_empty() {
                break;
            }
            // It may move back to the gap unless its home lies between the gap and where it stands.
            let home = hash(entry.disguised) & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                self.places[gap] = entry;
                gap = at;
            }
        }
        self.places[gap] = Entry::EMPTY;
        self.used -= 1;
        Some(removed)
    }

    /// Keeps an entry, but as one that nobody asks for, and tells how many bytes fewer the entries stand for.
    pub(crate) fn disown(&mut self, disguised: u64) -> i64 {
        let Some(at) = self.find(disguised) else {
            return 0;
        };
        let before = self.places[at].counted();
        self.places[at].test = NOBODY;
        before
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.places.iter().filter(|entry| !entry.is_empty())
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn entry(key: usize, size: u64) -> Entry {
        Entry {
            size,
            ..Entry::EMPTY
        }
        .keyed(1, key)
    }

    #[test]
    fn keys_come_back_and_do_not_look_like_pointers() {
        let entry = entry(0x7fff_1234_5678, 3).keyed(2, 0x7fff_1234_5678);
        assert_eq!((entry.kind(), entry.key()), (2, 0x7fff_1234_5678));
        assert!(entry.disguised > 0x0000_ffff_ffff_ffff);
    }

    /// A day of malloc and free: the same few places used again and again, checked against a map.
    #[test]
    fn a_long_life_of_insertions_and_removals_agrees_with_a_map() {
        let mut table = Table::new();
        let mut model = HashMap::new();
        let mut state = 0x1234_5678_9abc_def0_u64;
        for step in 0..400_000_u64 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let key = 0x5000_0000_0000 + (state % 700) as usize * 16;
            if state & (1 << 40) == 0 {
                table.insert(entry(key, step));
                model.insert(key, step);
            } else {
                let removed = table.remove(disguise(1, key)).map(|entry| entry.size);
                assert_eq!(removed, model.remove(&key));
            }
        }
        assert_eq!(table.len(), model.len());
        let found: HashMap<usize, u64> = table
            .iter()
            .map(|entry| (entry.key(), entry.size))
            .collect();
        assert_eq!(found, model);
        assert!(
            table.places.len() <= 2048,
            "removed entries must not take room: {}",
            table.places.len()
        );
    }
}
