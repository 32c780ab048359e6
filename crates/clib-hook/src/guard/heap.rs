//! Pages for guarded blocks: one reserved stretch of address space, of which only live blocks are accessible.

use std::{
    ptr, slice,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{Explained, GuardOptions, Side, explained};
use crate::{
    Error,
    region::{Array, Plain},
    sys::{self, PAGE},
};

/// Address space: enough for days of allocations, costs nothing until used.
const RESERVED: usize = 1 << 36;
const MOST_BLOCKS: usize = 1 << 21;
/// Larger blocks are served by the C heap.
const LARGEST: usize = 1 << 30;
/// Fills what lies between a block and the pages' edges.
const CANARY: u8 = 0xbd;
/// Freed stretches of up to this many pages are used again.
const CLASSES: usize = 64;

const OVERFLOW: usize = 1;
const UNDERFLOW: usize = 2;
const AFTER_FREE: usize = 3;
const DOUBLE_FREE: usize = 4;
const INVALID_FREE: usize = 5;

static START: AtomicUsize = AtomicUsize::new(0);

/// Whether the stretch was ever reserved.
pub(super) fn reserved() -> bool {
    START.load(Ordering::Relaxed) != 0
}

/// Whether an address lies in the stretch.
#[inline]
pub(super) fn contains(address: usize) -> bool {
    let start = START.load(Ordering::Relaxed);
    start != 0 && address.wrapping_sub(start) < RESERVED
}

/// A block, live, in quarantine, or used up.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Block {
    /// What the library was given.
    pub(super) user: usize,
    pub(super) size: usize,
    /// Accessible pages: first address and bytes.
    data: usize,
    bytes: usize,
    pub(super) allocated: u32,
    pub(super) freed: u32,
    /// Next in a list, by number + 1.
    next: u32,
    row: u16,
    live: u16,
}

// SAFETY: integers only.
unsafe impl Plain for Block {}

/// See the module.
#[derive(Debug)]
pub(super) struct Heap {
    options: Option<(Side, usize, Option<u8>)>,
    /// Number + 1 of the block that each page belongs to (its inaccessible page included).
    pages: Array<u32>,
    blocks: Array<Block>,
    used_blocks: usize,
    used_bytes: usize,
    live: usize,
    most_live: usize,
    /// Quarantine: oldest and newest block by number + 1, and its bytes.
    oldest: u32,
    newest: u32,
    quarantined: usize,
    /// Stretches that may be used again, by number of pages.
    free: [u32; CLASSES],
}

impl Heap {
    pub(super) const fn new() -> Self {
        Self {
            options: None,
            pages: Array::empty(),
            blocks: Array::empty(),
            used_blocks: 0,
            used_bytes: 0,
            live: 0,
            most_live: 0,
            oldest: 0,
            newest: 0,
            quarantined: 0,
            free: [0; CLASSES],
        }
    }

    /// Reserves the stretch, once.
    pub(super) fn prepare(&mut self, options: &GuardOptions) -> Result<(), Error> {
        self.options = Some((options.side, options.quarantine, options.fill));
        if reserved() {
            return Ok(());
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping without rights, at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), RESERVED, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(Error::last_os(
                "reserving 64 GiB of address space for guarded blocks",
            ));
        }
        let no_memory = || Error::System("mapping the guard's tables".to_owned(), libc::ENOMEM);
        self.pages = Array::new(RESERVED / PAGE).ok_or_else(no_memory)?;
        self.blocks = Array::new(MOST_BLOCKS).ok_or_else(no_memory)?;
        // Each live block splits the stretch in two; leave the process a good part of the kernel's limit.
        let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count")
            .ok()
            .and_then(|text| text.trim().parse().ok());
        self.most_live = limit.unwrap_or(65530_usize).saturating_sub(8192) / 2;
        START.store(start as usize, Ordering::Release);
        Ok(())
    }

    fn page(address: usize) -> usize {
        (address - START.load(Ordering::Relaxed)) / PAGE
    }

    /// The block that an address in the stretch belongs to.
    pub(super) fn find(&self, address: usize) -> Option<&Block> {
        let number = *self.pages.get(Self::page(address))?;
        self.blocks
            .get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// A new block, or `None` when it cannot be guarded.
    pub(super) fn allocate(
        &mut self,
        size: usize,
        alignment: usize,
        zeroed: bool,
        row: u16,
        stack: u32,
    ) -> Option<usize> {
        let (side, _, fill) = self.options?;
        if size > LARGEST
            || alignment > LARGEST
            || !alignment.is_power_of_two()
            || self.live >= self.most_live
        {
            return None;
        }
        // Large alignments may push the block back by up to that much.
        let slack = if alignment > PAGE { alignment } else { 0 };
        let bytes = (size.max(1) + slack).next_multiple_of(PAGE);
        let (number, data) = self.stretch(bytes, side)?;
        let user = match side {
            Side::Over => (data + bytes - size) & !(alignment - 1),
            Side::Under => data.next_multiple_of(alignment),
        };
        sys::protect(data, bytes, libc::PROT_READ | libc::PROT_WRITE).ok()?;
        let block = Block {
            user,
            size,
            data,
            bytes,
            allocated: stack,
            freed: 0,
            next: 0,
            row,
            live: 1,
        };
        self.blocks[number] = block;
        self.live += 1;
        // SAFETY: `data..data + bytes` was made accessible just now, belongs to this block alone, and holds it.
        unsafe {
            ptr::write_bytes(data as *mut u8, CANARY, bytes);
            ptr::write_bytes(
                user as *mut u8,
                if zeroed { 0 } else { fill.unwrap_or(0) },
                size,
            );
        }
        Some(user)
    }

    /// Number and first accessible address of a stretch of `bytes` with an inaccessible page on the exact side.
    fn stretch(&mut self, bytes: usize, side: Side) -> Option<(usize, usize)> {
        let class = bytes / PAGE - 1;
        if let Some(head) = self.free.get_mut(class)
            && *head != 0
        {
            let number = usize::try_from(*head).ok()? - 1;
            *head = self.blocks[number].next;
            return Some((number, self.blocks[number].data));
        }
        let (number, at) = (
            self.used_blocks,
            START.load(Ordering::Relaxed) + self.used_bytes,
        );
        if number >= MOST_BLOCKS || self.used_bytes + bytes + 2 * PAGE > RESERVED {
            return None;
        }
        self.used_blocks += 1;
        self.used_bytes += bytes + PAGE;
        let data = if side == Side::Under { at + PAGE } else { at };
        let first = Self::page(at);
        self.pages[first..=first + bytes / PAGE].fill(u32::try_from(number + 1).ok()?);
        Some((number, data))
    }

    /// Releases a block. `Ok(Some)`: its surroundings were overwritten. `Err`: there is no such live block.
    pub(super) fn free(&mut self, user: usize, stack: u32) -> Result<Option<Explained>, Explained> {
        let unknown = Explained {
            kind: INVALID_FREE,
            block: user,
            size: 0,
            offset: 0,
            allocated: 0,
            freed: stack,
        };
        let page = Self::page(user);
        let number = self.pages.get(page).copied().unwrap_or(0);
        let Some(at) = usize::try_from(number)
            .ok()
            .and_then(|number| number.checked_sub(1))
        else {
            return Err(unknown);
        };
        let block = self.blocks[at];
        if block.user != user {
            return Err(explained(
                &block,
                INVALID_FREE,
                user.wrapping_sub(block.user).cast_signed(),
            ));
        }
        if block.live == 0 {
            return Err(explained(&block, DOUBLE_FREE, 0));
        }
        let damage = damage(&block);
        self.blocks[at].live = 0;
        self.blocks[at].freed = stack;
        self.blocks[at].next = 0;
        self.live -= 1;
        // If the protection cannot be had, the block is only not watched any more.
        drop(sys::protect(block.data, block.bytes, libc::PROT_NONE));
        // SAFETY: the pages are this block's alone, and it is gone.
        unsafe {
            libc::madvise(
                block.data as *mut libc::c_void,
                block.bytes,
                libc::MADV_DONTNEED,
            )
        };
        self.quarantine(number, block.bytes);
        Ok(damage.map(|damage| Explained {
            freed: stack,
            ..damage
        }))
    }

    fn quarantine(&mut self, number: u32, bytes: usize) {
        let at = |number: u32| number as usize - 1;
        if self.newest == 0 {
            self.oldest = number;
        } else {
            self.blocks[at(self.newest)].next = number;
        }
        self.newest = number;
        self.quarantined += bytes + PAGE;
        let limit = self.options.map_or(0, |(_, limit, _)| limit);
        while self.quarantined > limit && self.oldest != 0 {
            let oldest = self.oldest;
            let block = self.blocks[at(oldest)];
            self.oldest = block.next;
            if self.oldest == 0 {
                self.newest = 0;
            }
            self.quarantined -= block.bytes + PAGE;
            // Longer stretches stay inaccessible for good: address space is plentiful.
            if let Some(head) = self.free.get_mut(block.bytes / PAGE - 1) {
                self.blocks[at(oldest)].next = *head;
                *head = oldest;
            }
        }
    }

    /// What an access to an address in the stretch was.
    pub(super) fn explain(&self, address: usize) -> Option<Explained> {
        let block = self.find(address)?;
        let offset = address.wrapping_sub(block.user).cast_signed();
        if block.live == 0 {
            return Some(explained(block, AFTER_FREE, offset));
        }
        // Between two blocks, it was meant for the nearer.
        let next = (address / PAGE + 1) * PAGE;
        let previous = (address / PAGE * PAGE).wrapping_sub(1);
        if offset >= 0 {
            if let Some(after) = contains(next)
                .then(|| self.find(next))
                .flatten()
                .filter(|after| after.live == 1)
                && after.user > address
                && after.user - address < address - (block.user + block.size).min(address)
            {
                return Some(explained(
                    after,
                    UNDERFLOW,
                    address.wrapping_sub(after.user).cast_signed(),
                ));
            }
            return Some(explained(block, OVERFLOW, offset));
        }
        if let Some(before) = contains(previous)
            .then(|| self.find(previous))
            .flatten()
            .filter(|before| before.live == 1)
        {
            let end = before.user + before.size;
            if end <= address && address - end < block.user - address {
                return Some(explained(
                    before,
                    OVERFLOW,
                    address.wrapping_sub(before.user).cast_signed(),
                ));
            }
        }
        Some(explained(block, UNDERFLOW, offset))
    }

    /// Live blocks whose surroundings were overwritten; each is reported once.
    pub(super) fn damaged(&mut self) -> Vec<Explained> {
        let mut found = Vec::new();
        for block in self.blocks[..self.used_blocks]
            .iter()
            .filter(|block| block.live == 1)
        {
            if let Some(damage) = damage(block) {
                mend(block);
                found.push(damage);
            }
        }
        found
    }
}

/// The bytes around a live block.
fn surroundings(block: &Block) -> [(usize, usize); 2] {
    let end = (block.user + block.size).min(block.data + block.bytes);
    let start = block.user.min(block.data + block.bytes);
    [
        (block.data, start - block.data),
        (end, block.data + block.bytes - end),
    ]
}

/// Looks for the changed byte that is nearest to a block.
fn damage(block: &Block) -> Option<Explained> {
    let [before, after] = surroundings(block).map(|(start, size)| {
        // SAFETY: these bytes belong to a live block's accessible pages.
        unsafe { slice::from_raw_parts(start as *const u8, size) }
    });
    if let Some(at) = after.iter().position(|byte| *byte != CANARY) {
        return Some(explained(block, OVERFLOW, (block.size + at).cast_signed()));
    }
    let at = before.iter().rposition(|byte| *byte != CANARY)?;
    Some(explained(
        block,
        UNDERFLOW,
        at.cast_signed() - before.len().cast_signed(),
    ))
}

fn mend(block: &Block) {
    for (start, size) in surroundings(block) {
        // SAFETY: as in `damage`.
        unsafe { ptr::write_bytes(start as *mut u8, CANARY, size) };
    }
}
