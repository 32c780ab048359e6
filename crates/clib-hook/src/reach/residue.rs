//! Old bytes in blocks that are in use: words that look like pointers, and are none.
//!
//! Who takes a block writes only what he needs of it. The rest keeps what was there before: links of the C library's lists of
//! free chunks, and the upper bytes of a word whose lower ones a short text took. A scan cannot know what was never written, but
//! these leave marks, what was there before anything was acquired is known ([`super::before`]), and memcheck, whose allocator is
//! another one, knows what has been released, and what was never written. Everything here must be certain enough: a pointer
//! that is taken for residue is a false alarm.

use std::sync::Arc;

use super::{
    Block,
    before::{self, Before},
    heap,
};
use crate::{sys, valgrind};

/// Links of lists of free chunks come in pairs, at this alignment.
const PAIR: usize = 16;
/// A chunk's size, with its flags, is below this; what is larger is mapped.
const LARGEST_CHUNK: usize = 1 << 28;

/// How residue is told from pointers.
#[derive(Debug, Default)]
pub(super) struct Residue {
    /// The heads of the C library's lists of free chunks, as (start, end).
    bins: (usize, usize),
    /// Memory of an interpreter's own, in order, as (start, end): its list of it is no pointer to what comes after.
    others: Vec<(usize, usize)>,
    before: Option<Arc<Before>>,
}

impl Residue {
    /// `areas` of the C library's variables, as (start, end); `exclude` as in `Roots`.
    pub(super) fn new(libc: &[(usize, usize)], exclude: &[(usize, usize)]) -> Self {
        let mut others: Vec<(usize, usize)> = exclude
            .iter()
            .map(|(start, size)| (*start, start.saturating_add(*size)))
            .collect();
        others.sort_unstable();
        Self {
            bins: bins(libc),
            others,
            before: before::get(),
        }
    }

    /// Whether `word`, found at the address `at`, is no pointer to `block`, in which it lies.
    pub(super) fn is(&self, at: usize, word: usize, block: &Block) -> bool {
        let before = sys::read_word(at.wrapping_sub(8)).unwrap_or(0);
        let partner = if at.is_multiple_of(PAIR) {
            sys::read_word(at.wrapping_add(8)).unwrap_or(0)
        } else {
            before
        };
        !valgrind::is_defined_word(at)
            || self.had(at, word, block)
            || self.is_bin(partner, at)
            || (word != block.start() && (ends_text(before, word) || starts_text(before, word, at)))
            || self.is_end(before, word)
    }

    /// The word was there when nobody had the block.
    fn had(&self, at: usize, word: usize, block: &Block) -> bool {
        self.before
            .as_ref()
            .is_some_and(|before| before.had(at, word, block.sequence))
    }

    /// The head of a list of free chunks, which only the list's other links lead to.
    fn is_bin(&self, word: usize, at: usize) -> bool {
        (self.bins.0..self.bins.1).contains(&word) || heap::is_head_of_arena(word, at)
    }

    /// Start and end of the interpreter's own memory, side by side.
    fn is_end(&self, before: usize, word: usize) -> bool {
        let next = self.others.partition_point(|(start, _)| *start <= before);
        next.checked_sub(1)
            .is_some_and(|at| before < self.others[at].1 && self.others[at].1 == word)
    }
}

/// The heads of the main heap's lists: pairs of links that, where the list is empty, lead to the chunk that would begin
/// two words before them.
fn bins(libc: &[(usize, usize)]) -> (usize, usize) {
    let mut found = (usize::MAX, 0);
    let mut piece = [0_u8; 4096];
    for (start, end) in libc {
        let mut at = *start;
        while at + PAIR <= *end {
            let wanted = piece.len().min(end - at);
            let read = sys::read_memory(at, &mut piece[..wanted]);
            for (number, pair) in piece[..read].chunks_exact(PAIR).enumerate() {
                let address = at + number * PAIR;
                let head = (address - PAIR).to_ne_bytes();
                if pair[..8] == head && pair[8..] == head {
                    found = (found.0.min(address - PAIR), found.1.max(address + PAIR));
                }
            }
            if read < wanted {
                break;
            }
            at += read;
        }
    }
    found
}

/// Text of a whole word, and then its end, with something else behind.
fn ends_text(before: usize, word: usize) -> bool {
    text(before) == 8 && (0..6).any(|length| is_text_of(word, length))
}

/// Text right behind a chunk's size.
fn starts_text(before: usize, word: usize, at: usize) -> bool {
    let is_size = before & 1 == 1 && before < LARGEST_CHUNK && before & 8 == 0;
    at.is_multiple_of(PAIR) && is_size && (1..6).any(|length| is_text_of(word, length))
}

/// Text of so many bytes, and its end.
fn is_text_of(word: usize, length: usize) -> bool {
    text(word) == length && word.to_le_bytes()[length] == 0
}

/// How many bytes of a word, from its lowest, are printable.
fn text(word: usize) -> usize {
    word.to_le_bytes()
        .iter()
        .take_while(|byte| (0x20..0x7f).contains(*byte))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_text_cut_short_are_no_pointers() {
        let size = 0x31;
        let full = usize::from_le_bytes(*b"value: 4");
        let cut = 0x5628_2701_0032; // "2\0" over an address
        assert!(ends_text(full, cut) && ends_text(full, 0x5628_2701_2000));
        assert!(starts_text(size, cut, 0x1000));
        // An address that no text ended in, text that is not alone, and what is no chunk's size.
        assert!(!ends_text(full, 0x5628_2701_3432) && !ends_text(0x7f00_0000_3432, cut));
        assert!(!starts_text(size, 0x5628_2701_3432, 0x1000));
        assert!(!starts_text(size, cut, 0x1008) && !starts_text(0x5628_0000_0031, cut, 0x1000));
        assert!(!starts_text(size, 0x5628_2701_2000, 0x1000));
    }

    #[test]
    fn the_lists_heads_are_found() {
        let areas = crate::objects::areas().expect("maps");
        let (start, end) = bins(&super::super::roots::allocator_ranges(&areas));
        assert!(start < end, "{start:#x} {end:#x}");
        // 127 lists; the first and last ones may hold chunks at the moment.
        assert!(
            (100 * PAIR..=130 * PAIR).contains(&(end - start)),
            "{}",
            end - start
        );
    }

    #[test]
    fn the_end_of_an_interpreter_s_memory_is_no_pointer_to_its_neighbour() {
        let residue = Residue::new(&[], &[(0x10_0000, 0x1000), (0x20_0000, 0x1000)]);
        assert!(residue.is_end(0x20_0000, 0x20_1000) && residue.is_end(0x10_0ff0, 0x10_1000));
        assert!(!residue.is_end(0x20_1000, 0x20_1000) && !residue.is_end(0x20_0000, 0x10_1000));
    }
}
