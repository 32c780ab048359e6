//! What is mapped: ranges that can be cut, split and moved, in order of address.

use super::entries::{Entry, NOBODY};
use crate::region::{Array, Plain};

/// A mapping that is held. Addresses are stored inverted, as in the table of blocks.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Range {
    start: usize,
    end: usize,
    entry: Entry,
}

// SAFETY: integers only.
unsafe impl Plain for Range {}

impl Range {
    fn start(&self) -> usize {
        !self.start
    }

    fn end(&self) -> usize {
        !self.end
    }
}

/// Disjoint ranges in order.
#[derive(Debug)]
pub(crate) struct Ranges {
    items: Array<Range>,
    used: usize,
}

impl Ranges {
    pub(crate) const fn new() -> Self {
        Self {
            items: Array::empty(),
            used: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Index of the first range that ends after `address`.
    fn first_after(&self, address: usize) -> usize {
        self.items[..self.used].partition_point(|range| range.end() <= address)
    }

    fn open_gap(&mut self, at: usize) -> bool {
        if self.used == self.items.len() {
            let Some(mut larger) = Array::new((self.items.len() * 2).max(64)) else {
                return false;
            };
            larger[..self.used].copy_from_slice(&self.items[..self.used]);
            self.items = larger;
        }
        self.items.copy_within(at..self.used, at + 1);
        self.used += 1;
        true
    }

    /// Adds a range, in place of whatever it overlaps. Without memory it is dropped.
    pub(crate) fn insert(&mut self, start: usize, size: usize, entry: Entry) {
        let end = start.saturating_add(size);
        if start >= end {
            return;
        }
        self.cut(start, size);
        let at = self.first_after(start);
        if self.open_gap(at) {
            self.items[at] = Range {
                start: !start,
                end: !end,
                entry,
            };
        }
    }

    /// Takes `size` bytes from `start` out of every range; says whether any was touched.
    pub(crate) fn cut(&mut self, start: usize, size: usize) -> bool {
        let end = start.saturating_add(size);
        let mut touched = false;
        let mut at = self.first_after(start);
        while at < self.used && self.items[at].start() < end {
            touched = true;
            let range = self.items[at];
            let (keeps_head, keeps_tail) = (range.start() < start, range.end() > end);
            if keeps_head && keeps_tail {
                self.items[at].end = !start;
                if self.open_gap(at + 1) {
                    self.items[at + 1] = Range {
                        start: !end,
                        ..range
                    };
                }
                break;
            } else if keeps_head {
                self.items[at].end = !start;
                at += 1;
            } else if keeps_tail {
                self.items[at].start = !end;
                break;
            } else {
                self.items.copy_within(at + 1..self.used, at);
                self.used -= 1;
            }
        }
        touched
    }

    /// Keeps the range that begins at `start`, but as one that nobody asks for.
    pub(crate) fn disown(&mut self, start: usize) {
        let at = self.first_after(start);
        if let Some(range) = self.items[..self.used].get_mut(at)
            && range.start() == start
        {
            range.entry.test = NOBODY;
        }
    }

    /// Takes out the range that begins at `start`, if there is one.
    pub(crate) fn take(&mut self, start: usize) -> Option<(usize, Entry)> {
        let at = self.first_after(start);
        let range = *self.items[..self.used]
            .get(at)
            .filter(|range| range.start() == start)?;
        self.items.copy_within(at + 1..self.used, at);
        self.used -= 1;
        Some((range.end() - range.start(), range.entry))
    }

    /// Start, size and entry of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, usize, &Entry)> {
        self.items[..self.used]
            .iter()
            .map(|range| (range.start(), range.end() - range.start(), &range.entry))
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(of: &[(usize, usize)]) -> Ranges {
        let mut ranges = Ranges::new();
        for (start, size) in of {
            ranges.insert(*start, *size, Entry::EMPTY);
        }
        ranges
    }

    fn list(ranges: &Ranges) -> Vec<(usize, usize)> {
        ranges
            .iter()
            .map(|(start, size, _)| (start, size))
            .collect()
    }

    #[test]
    fn cuts_keep_heads_and_tails() {
        let mut all = ranges(&[(0x4000, 0x4000), (0x1000, 0x1000), (0x9000, 0x1000)]);
        assert_eq!(
            list(&all),
            [(0x1000, 0x1000), (0x4000, 0x4000), (0x9000, 0x1000)]
        );
        assert!(all.cut(0x5000, 0x1000));
        assert_eq!(
            list(&all),
            [
                (0x1000, 0x1000),
                (0x4000, 0x1000),
                (0x6000, 0x2000),
                (0x9000, 0x1000)
            ]
        );
        assert!(all.cut(0x4800, 0x5000));
        assert_eq!(
            list(&all),
            [(0x1000, 0x1000), (0x4000, 0x800), (0x9800, 0x800)]
        );
        assert!(!all.cut(0x2000, 0x1000));
        assert!(all.take(0x1800).is_none());
        assert_eq!(all.take(0x1000).map(|(size, _)| size), Some(0x1000));
        assert!(all.cut(0, usize::MAX));
        assert!(all.is_empty());
    }

    #[test]
    fn a_new_range_replaces_what_it_overlaps() {
        let all = ranges(&[(0x1000, 0x3000), (0x2000, 0x1000)]);
        assert_eq!(
            list(&all),
            [(0x1000, 0x1000), (0x2000, 0x1000), (0x3000, 0x1000)]
        );
    }
}
