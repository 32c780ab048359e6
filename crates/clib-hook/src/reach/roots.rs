//! Which memory is live.

use super::{Roots, Search, heap, threads};
use crate::{Error, ledger::Held, objects::Area, region::Array, reuse, sys, valgrind};

/// The ranges to scan, as (start, end), in a mapping of our own: their bounds are addresses of blocks, too. `holes` are those
/// of free memory, made before the search allocated anything.
pub(super) fn ranges(
    areas: &[Area],
    search: &Search,
    roots: &Roots,
    question: &[Held],
    own_stack: usize,
    mut holes: Holes,
) -> Result<Array<(usize, usize)>, Error> {
    let threads = threads::resting(own_stack);
    search
        .blocks
        .iter()
        .for_each(|block| holes.add(block.start(), block.end_of_room()));
    roots
        .exclude
        .iter()
        .for_each(|(start, size)| holes.add(*start, start.saturating_add(*size)));
    reuse::set_aside_ranges(|start, size| holes.add(start, start + size));
    sys::own_mappings().for_each(|(start, size)| holes.add(start, start + size));
    // The question names the blocks, which must not make them reachable; nor must what was left in its memory's odd bytes.
    let asked = question.as_ptr_range();
    holes.add(asked.start as usize, asked.end as usize);
    for held in question {
        let start = held.backtrace.as_ptr() as usize;
        holes.add(
            start,
            start + heap::chunk_room(held.backtrace.capacity() * 8),
        );
    }
    let mut piece =
        Array::new(super::PIECE).ok_or_else(|| Error::last_os("mapping memory for a scan"))?;
    dead_stacks(areas, &mut piece, |start, end| holes.add(start, end));
    let mut wanted = Vec::new();
    for area in areas.iter().filter(|area| is_live(area)) {
        if valgrind::is_its_own(area.start, area.end) {
            continue;
        }
        // Below its stack pointer a stack holds only what is over. What lies above the stack itself (thread descriptors) is live.
        let stack = threads
            .iter()
            .filter(|thread| (area.start..area.end).contains(&thread.stack_pointer));
        let start = stack
            .map(|thread| thread.stack_pointer)
            .min()
            .unwrap_or(area.start);
        wanted.push((start, area.end));
    }
    holes.subtract_from(&wanted)
}

/// The C library's own variables, in which its allocator keeps pointers to chunks.
pub(super) fn allocator_ranges(areas: &[Area]) -> Vec<(usize, usize)> {
    let is_libc = |area: &&Area| {
        let name = area.name.rsplit('/').next().unwrap_or_default();
        is_live(area) && (name.starts_with("libc.so") || name.starts_with("libc-2."))
    };
    areas
        .iter()
        .filter(is_libc)
        .map(|area| (area.start, area.end))
        .collect()
}

/// What is not to be scanned.
pub(super) struct Holes {
    all: Array<(usize, usize)>,
    used: usize,
}

impl Holes {
    /// Free memory in the C heaps, and chunks that are `owned`, with room for some more.
    pub(super) fn of_free_memory(more: usize, owned: &[usize]) -> Result<Self, Error> {
        let mut holes = Self::with_room_for(more + (1 << 20))?;
        heap::free_chunks(owned, |start, end| holes.add(start, end));
        Ok(holes)
    }

    fn with_room_for(count: usize) -> Result<Self, Error> {
        let all = Array::new(count).ok_or_else(|| Error::last_os("mapping memory for a scan"))?;
        Ok(Self { all, used: 0 })
    }

    /// Adds a range; without room the range is scanned, which can only make more reachable.
    fn add(&mut self, start: usize, end: usize) {
        if self.used < self.all.len() && start < end {
            self.all[self.used] = (start, end);
            self.used += 1;
        }
    }

    /// Puts holes in order, and those that overlap together.
    fn merge(&mut self) {
        self.all[..self.used].sort_unstable();
        let mut kept = 0;
        for next in 1..self.used {
            let (start, end) = self.all[next];
            if start <= self.all[kept].1 {
                self.all[kept].1 = self.all[kept].1.max(end);
            } else {
                kept += 1;
                self.all[kept] = (start, end);
            }
        }
        self.used = self.used.min(kept + 1);
    }

    /// What is left of `ranges`, which are in order, without the holes.
    fn subtract_from(mut self, ranges: &[(usize, usize)]) -> Result<Array<(usize, usize)>, Error> {
        self.merge();
        let used = self.used;
        let mut left = Self::with_room_for(ranges.len() + used)?;
        let mut next = 0;
        for (start, end) in ranges {
            let mut at = *start;
            // One hole may reach over several ranges.
            while next > 0 && self.all[next - 1].1 > *start {
                next -= 1;
            }
            while next < used && self.all[next].0 < *end {
                let (from, to) = self.all[next];
                left.add(at, from.min(*end));
                at = at.max(to);
                next += 1;
            }
            left.add(at, *end);
        }
        Ok(left.all)
    }
}

/// Writable private memory, or shared memory without a file, of the process' own.
fn is_live(area: &Area) -> bool {
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    let device = area.name.starts_with("/dev/")
        && !area.name.starts_with("/dev/zero")
        && !area.name.starts_with("/dev/shm");
    // The dynamic loader's own variables lead to no one's blocks, but keep the addresses of mappings that are long gone, where
    // new ones may lie now.
    let file = area.name.rsplit('/').next().unwrap_or_default();
    let loader = file.starts_with("ld-linux") || file.starts_with("ld-2.");
    area.protection & writable == writable
        && !device
        && !loader
        && !area.name.starts_with("[v")
        && (area.private || area.inode == 0 || area.name.starts_with("/dev/zero"))
}

/// The stacks of threads that have ended, which the C library keeps for the next ones, as (start, end). A stack lies above an
/// inaccessible page; at its top is a descriptor that begins with its own address, twice, and says which thread has it. (Other memory
/// may follow in the same area.)
fn dead_stacks(areas: &[Area], piece: &mut [u8], mut found: impl FnMut(usize, usize)) {
    const SELF: usize = 0x10;
    const TID: usize = 0x2d0;
    const STEP: usize = 64;
    // The result of the thread stands in its descriptor, which is not much longer than this.
    const RESULT_END: usize = 0x630;
    for pair in areas.windows(2) {
        let [guard, area] = pair else { continue };
        if guard.protection != libc::PROT_NONE
            || guard.end != area.start
            || area.inode != 0
            || !is_live(area)
        {
            continue;
        }
        let mut start = area.start;
        while start + TID + 8 < area.end {
            let wanted = piece.len().min(area.end - start);
            let read = sys::read_memory(start, &mut piece[..wanted]);
            let word = |at: usize| {
                piece[..read]
                    .get(at..at + 8)
                    .and_then(|word| word.try_into().ok())
                    .map_or(0, usize::from_ne_bytes)
            };
            let is_descriptor =
                |at: &usize| word(*at) == start + at && word(at + SELF) == start + at;
            if let Some(at) = (0..read.saturating_sub(TID + 8))
                .step_by(STEP)
                .find(is_descriptor)
            {
                // 0 when the thread has just ended, -1 once its stack is kept for another.
                if matches!(word(at + TID) & 0xffff_ffff, 0 | 0xffff_ffff) {
                    found(area.start, start + at + RESULT_END);
                }
                break;
            }
            if read < piece.len() {
                break;
            }
            // Descriptors may lie across pieces.
            start += piece.len() - TID.next_multiple_of(STEP) - STEP;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_left_out() {
        let mut holes = Holes::with_room_for(8).expect("memory");
        [
            (150, 320),
            (10, 20),
            (15, 30),
            (399, 500),
            (90, 110),
            (7, 7),
        ]
        .into_iter()
        .for_each(|(from, to)| holes.add(from, to));
        let left = holes
            .subtract_from(&[(0, 100), (100, 200), (300, 400)])
            .expect("memory");
        let left: Vec<_> = left
            .iter()
            .copied()
            .filter(|(from, to)| from < to)
            .collect();
        assert_eq!(left, [(0, 10), (30, 90), (110, 150), (320, 399)]);
    }
}
