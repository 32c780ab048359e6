//! What is lost: held, but no longer reachable from any live memory, as in valgrind's "definitely lost".
//!
//! Roots are scanned word by word: writable data of all objects, stacks above their stack pointers, registers, the C heaps
//! and other private writable memory, except what the caller excludes (an interpreter's own heap, which it walks itself and
//! hands over as values and buffers). A word that points into a tracked block, at its start or inside, makes it
//! reachable, and then what is in the block is scanned too. Tracked blocks are no roots themselves, nor are chunks of the C
//! heap that are free, where old bytes linger.
//!
//! It reads memory only through the kernel, so a mapping that goes away meanwhile does no harm. Other threads are not stopped
//! meanwhile: what one that runs has just taken out of memory may be missed, so let them rest.

use std::arch::asm;

use residue::Residue;

use crate::{
    Error,
    ledger::{self, Extent, Held, Kind},
    objects,
    region::Array,
    session, sys,
};

pub mod before;
mod heap;
mod residue;
mod roots;
mod threads;

/// How something held can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// From live memory, directly or through other blocks.
    Reachable,
    /// From nowhere.
    Lost,
    /// Only from lost blocks: it went with them.
    IndirectlyLost,
}

/// What the caller knows about live memory.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// Words that are live though no raw scan sees them as pointers (integers of an interpreter).
    pub values: Vec<usize>,
    /// Live buffers to be scanned, as (address, bytes).
    pub buffers: Vec<(usize, usize)>,
    /// Memory not to be scanned, as (address, bytes): an interpreter's own heap, whose live objects the caller walked.
    pub exclude: Vec<(usize, usize)>,
    /// Inverted addresses in blocks of the C heap that are the interpreter's own, in descending order: these blocks are not
    /// scanned, since the caller walked what is in them, and the rest of them is old bytes.
    pub owned: Vec<usize>,
    /// The values and buffers are all the roots there are: a cheap look, whose `Reachable` is right, and whose `Lost` only
    /// means that these do not lead there.
    pub only: bool,
}

/// A tracked block during the search. Its address is kept inverted, since the search itself runs on memory that it scans.
#[derive(Debug, Clone, Copy)]
struct Block {
    inverted: usize,
    size: usize,
    /// Bytes that it really has: nobody writes to those beyond its size, which keep what was there before.
    room: usize,
    mark: Mark,
    /// As [`Held::sequence`].
    sequence: u64,
    /// Nobody asks for it: it was told before, and what it points to did not go with it now.
    disowned: bool,
}

impl Block {
    fn start(&self) -> usize {
        !self.inverted
    }

    fn end(&self) -> usize {
        self.start().saturating_add(self.size)
    }

    fn end_of_room(&self) -> usize {
        self.start().saturating_add(self.room)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    Reachable,
    /// From another block that is lost.
    Behind,
}

/// Bytes that are looked at in one go.
const PIECE: usize = 64 << 10;

/// All tracked blocks, in order, and those whose contents are still to be scanned.
#[derive(Debug)]
struct Search {
    blocks: Vec<Block>,
    open: Vec<usize>,
    /// Bounds of all blocks, inverted, for the common case of a word that is no pointer.
    not_low: usize,
    not_high: usize,
    /// Where memory is copied to for a look: a mapping of our own, which is not scanned.
    piece: Array<u8>,
    /// The C library's own variables.
    allocator: Vec<(usize, usize)>,
    residue: Residue,
}

/// For each of `held` (memory and mappings; a descriptor counts as reachable), how it can be reached now.
///
/// Takes time in proportion to the memory of the process (about 1 ms for 4 MB); call it only when something is left.
///
/// # Errors
///
/// [`Error::NotStarted`]; [`Error::System`] when the process' maps cannot be read.
#[inline(never)]
pub fn reachability(held: &[Held], roots: &Roots) -> Result<Vec<Reach>, Error> {
    // What the search itself keeps on the stack is full of addresses of blocks: live is what is above this frame, and the
    // registers that the frames above may have left theirs in.
    let mut registers = [0_usize; 6];
    // SAFETY: stores six registers to a local array, and changes none.
    unsafe {
        asm!(
            "mov [{0}], rbx", "mov [{0} + 8], rbp", "mov [{0} + 16], r12",
            "mov [{0} + 24], r13", "mov [{0} + 32], r14", "mov [{0} + 40], r15",
            in(reg) registers.as_mut_ptr(), options(nostack, preserves_flags),
        );
    }
    search(held, roots, &registers)
}

#[inline(never)]
fn search(held: &[Held], roots: &Roots, registers: &[usize; 6]) -> Result<Vec<Reach>, Error> {
    session::with_state(|_| Ok(()))?;
    let mut search = if roots.only {
        Search::new(ledger::extents(), false)?
    } else {
        scan_memory(held, roots, registers)?
    };
    for (start, size) in &roots.buffers {
        search.scan(*start, start.saturating_add(*size), Mark::Reachable);
    }
    for word in &roots.values {
        search.reach(*word, Mark::Reachable);
    }
    search.follow(Mark::Reachable);
    if !roots.only {
        search.find_indirect();
    }
    Ok(held
        .iter()
        .map(|held| match (held.kind, search.at(held.key)) {
            (Kind::Descriptor, _) | (_, None) => Reach::Reachable,
            (_, Some(block)) => match block.mark {
                Mark::None => Reach::Lost,
                Mark::Reachable => Reach::Reachable,
                Mark::Behind => Reach::IndirectlyLost,
            },
        })
        .collect())
}

/// Whether `address` lies in memory or a mapping that a library holds now.
///
/// # Errors
///
/// [`Error::NotStarted`].
pub fn is_held(address: usize) -> Result<bool, Error> {
    session::with_state(|_| Ok(()))?;
    Ok(ledger::extents().iter().any(|extent| {
        let start = !extent.inverted;
        (start..start.saturating_add(extent.size.max(1))).contains(&address)
    }))
}

/// A search that has been through all live memory and registers.
#[inline(never)]
fn scan_memory(held: &[Held], roots: &Roots, registers: &[usize; 6]) -> Result<Search, Error> {
    // First of all, since whatever is allocated from here on may lie in memory that was free.
    let holes = roots::Holes::of_free_memory(
        ledger::count() + held.len() + roots.exclude.len() + 4096,
        &roots.owned,
    )?;
    let mut search = Search::new(ledger::extents(), true)?;
    let areas = objects::areas()?;
    search.allocator = roots::allocator_ranges(&areas);
    search.residue = Residue::new(&search.allocator, &roots.exclude);
    for (start, end) in roots::ranges(
        &areas,
        &search,
        roots,
        held,
        registers.as_ptr() as usize,
        holes,
    )?
    .iter()
    {
        search.scan(*start, *end, Mark::Reachable);
    }
    for word in threads::registers(&areas) {
        search.reach(word, Mark::Reachable);
    }
    Ok(search)
}

impl Search {
    /// With `rooms`, how much room each block really has is looked up, which takes a call of the kernel for each.
    fn new(extents: Vec<Extent>, rooms: bool) -> Result<Self, Error> {
        let mut blocks: Vec<Block> = extents
            .into_iter()
            // Even an empty block has an address that someone may keep.
            .map(|extent| Block {
                inverted: extent.inverted,
                size: extent.size.max(1),
                room: if extent.block && rooms {
                    heap::room(!extent.inverted, extent.size)
                } else {
                    extent.size
                },
                mark: Mark::None,
                sequence: extent.sequence,
                disowned: extent.disowned,
            })
            .collect();
        blocks.sort_unstable_by_key(Block::start);
        let not_low = blocks.first().map_or(0, |block| block.inverted);
        let not_high = !blocks.iter().map(Block::end).max().unwrap_or(0);
        let piece = Array::new(PIECE).ok_or_else(|| Error::last_os("mapping memory for a scan"))?;
        Ok(Self {
            blocks,
            open: Vec::new(),
            not_low,
            not_high,
            piece,
            allocator: Vec::new(),
            residue: Residue::default(),
        })
    }

    /// The block that holds `address`.
    fn index(&self, address: usize) -> Option<usize> {
        if !address > self.not_low || !address <= self.not_high {
            return None;
        }
        let at = self
            .blocks
            .partition_point(|block| block.start() <= address)
            .checked_sub(1)?;
        let block = &self.blocks[at];
        // The C library's own lists lead to the start of the next chunk, which is 8 bytes before the end of this one.
        let of_heap = heap::chunk_room(block.size) - 8;
        (address < block.end() && address - block.start() != of_heap).then_some(at)
    }

    /// Whether a word points to the chunk after a block, which begins inside it.
    fn is_next_chunk(&self, word: usize) -> bool {
        self.at(word)
            .is_some_and(|block| heap::next_chunk(block.start(), block.size) == word)
    }

    fn at(&self, address: usize) -> Option<&Block> {
        self.index(address).map(|at| &self.blocks[at])
    }

    fn reach(&mut self, word: usize, mark: Mark) {
        if let Some(at) = self.index(word)
            && self.blocks[at].mark == Mark::None
        {
            self.blocks[at].mark = mark;
            self.open.push(at);
        }
    }

    /// As `reach`, for a word in memory, which may be left from before.
    fn reach_from(&mut self, at: usize, word: usize, mark: Mark) {
        let Some(block) = self.at(word) else { return };
        if block.mark == Mark::None && !self.residue.is(at, word, block) {
            self.reach(word, mark);
        }
    }

    /// Looks at every aligned word of a range.
    fn scan(&mut self, start: usize, end: usize, mark: Mark) {
        let mut piece = std::mem::replace(&mut self.piece, Array::empty());
        let mut at = start.next_multiple_of(8);
        while at + 8 <= end {
            let wanted = (end - at).min(PIECE) & !7;
            let read = sys::read_memory(at, &mut piece[..wanted]) & !7;
            let of_allocator = self
                .allocator
                .iter()
                .any(|(from, to)| (*from..*to).contains(&at));
            for (number, word) in piece[..read].chunks_exact(8).enumerate() {
                let word = word.try_into().map_or(0, usize::from_ne_bytes);
                if !(of_allocator && self.is_next_chunk(word)) {
                    self.reach_from(at + number * 8, word, mark);
                }
            }
            // Past an unreadable page.
            at = if read == wanted {
                at + read
            } else {
                (at + read + 1).next_multiple_of(sys::PAGE)
            };
        }
        self.piece = piece;
    }

    fn follow(&mut self, mark: Mark) {
        while let Some(at) = self.open.pop() {
            let block = self.blocks[at];
            self.scan(block.start(), block.end(), mark);
        }
    }

    /// Among lost blocks, tells those that others lead to from those that nothing leads to. Of a ring, one is the loss.
    fn find_indirect(&mut self) {
        // What lost blocks point to.
        let lost: Vec<usize> = (0..self.blocks.len())
            .filter(|at| self.blocks[*at].mark == Mark::None && !self.blocks[*at].disowned)
            .collect();
        let mut leads: Vec<Vec<usize>> = Vec::with_capacity(lost.len());
        for at in &lost {
            let block = self.blocks[*at];
            self.scan(block.start(), block.end(), Mark::Behind);
            let found = std::mem::take(&mut self.open);
            for other in &found {
                self.blocks[*other].mark = Mark::None;
            }
            leads.push(found.into_iter().filter(|other| other != at).collect());
        }
        let mut pointed: Vec<bool> = vec![false; self.blocks.len()];
        leads.iter().flatten().for_each(|at| pointed[*at] = true);
        // Leaders first: blocks that nothing points to, then whatever is left (rings), in order.
        let mut leader: Vec<bool> = vec![false; self.blocks.len()];
        for rings in [false, true] {
            for (number, at) in lost.iter().enumerate() {
                if self.blocks[*at].mark == Mark::Behind || leader[*at] || (!rings && pointed[*at])
                {
                    continue;
                }
                leader[*at] = true;
                let mut open = leads[number].clone();
                while let Some(next) = open.pop() {
                    if self.blocks[next].mark == Mark::None && !leader[next] {
                        self.blocks[next].mark = Mark::Behind;
                        if let Ok(number) = lost.binary_search(&next) {
                            open.extend(&leads[number]);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks made of vectors that hold addresses of others.
    fn search(blocks: &[&Vec<usize>]) -> Search {
        let extents = blocks
            .iter()
            .map(|block| Extent {
                inverted: !(block.as_ptr() as usize),
                size: block.len() * 8,
                block: true,
                sequence: 1,
                disowned: false,
            })
            .collect();
        Search::new(extents, true).expect("memory")
    }

    fn mark(search: &Search, block: &[usize]) -> Mark {
        search.at(block.as_ptr() as usize).expect("tracked").mark
    }

    #[test]
    fn chains_rings_and_leaders() {
        let last = vec![0_usize; 4];
        let middle = vec![0, last.as_ptr() as usize + 8];
        let head = vec![middle.as_ptr() as usize];
        let mut ring = [vec![0_usize; 2], vec![0_usize; 2]];
        ring[0][1] = ring[1].as_ptr() as usize;
        ring[1][1] = ring[0].as_ptr() as usize;
        let mut own = vec![0_usize; 2];
        own[0] = own.as_ptr() as usize;
        let mut search = search(&[&last, &middle, &head, &ring[0], &ring[1], &own]);
        search.find_indirect();
        assert_eq!(mark(&search, &head), Mark::None);
        assert_eq!(mark(&search, &middle), Mark::Behind);
        assert_eq!(
            mark(&search, &last),
            Mark::Behind,
            "an interior pointer counts"
        );
        assert_eq!(
            mark(&search, &own),
            Mark::None,
            "a pointer to itself does not hide a loss"
        );
        let of_ring = [mark(&search, &ring[0]), mark(&search, &ring[1])];
        assert_eq!(
            of_ring.iter().filter(|mark| **mark == Mark::None).count(),
            1,
            "{of_ring:?}"
        );
        search
            .blocks
            .iter_mut()
            .for_each(|block| block.mark = Mark::None);
        search.reach(head.as_ptr() as usize, Mark::Reachable);
        search.follow(Mark::Reachable);
        search.find_indirect();
        assert_eq!(mark(&search, &last), Mark::Reachable);
    }
}
