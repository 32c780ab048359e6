//! An allocator whose blocks end (or start) at inaccessible pages.
//!
//! While a session guards, what the libraries under test allocate comes from here: an access past a block faults at the instruction
//! that makes it, as does any access to a block that was freed. Blocks change hands, so releases are recognised in
//! every object. C code relies on blocks being aligned to 16 bytes; the few bytes that this leaves at the end of a
//! block hold a pattern, which is looked at when the block is released and by [`check`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::{
    Error,
    ledger::stacks,
    lock::Lock,
    record::GuardFault,
    sys,
    table::Size,
    thunk::{Frame, Slot},
};

mod heap;

use heap::{Block, Heap};

/// On which side of a block an access faults at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Past its end.
    Over,
    /// Before its start.
    Under,
}

/// How the libraries' memory is guarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardOptions {
    /// Which side is exact.
    pub side: Side,
    /// Bytes of address space that freed blocks may keep inaccessible before the oldest is used again.
    pub quarantine: usize,
    /// What fresh memory is filled with; `None` leaves it zero.
    pub fill: Option<u8>,
}

impl Default for GuardOptions {
    fn default() -> Self {
        Self {
            side: Side::Over,
            quarantine: 256 << 20,
            fill: Some(0xa5),
        }
    }
}

/// A block whose surroundings were overwritten without touching an inaccessible page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The block, its allocation and release; `kind` is `overflow` or `underflow`, `offset` that of the first byte found changed.
    pub fault: GuardFault,
    /// Where it was noticed: backtrace of the release; empty when found by [`check`].
    pub noticed: Vec<usize>,
}

/// What can be wrong with an access or a release, by number.
pub(crate) const KINDS: [&str; 6] = [
    "",
    "overflow",
    "underflow",
    "use-after-free",
    "double-free",
    "invalid-free",
];

/// What the guard knows about an address, for the crash handler: no heap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Explained {
    pub(crate) kind: usize,
    pub(crate) block: usize,
    pub(crate) size: usize,
    pub(crate) offset: isize,
    pub(crate) allocated: u32,
    pub(crate) freed: u32,
}

impl Explained {
    fn fault(&self) -> GuardFault {
        GuardFault {
            kind: KINDS[self.kind].to_owned(),
            block: self.block,
            size: self.size,
            offset: self.offset,
            allocated: stacks::frames(self.allocated),
            freed: stacks::frames(self.freed),
        }
    }
}

const MOST_DAMAGE: usize = 64;

#[derive(Debug)]
struct State {
    heap: Heap,
    damage: [Option<Explained>; MOST_DAMAGE],
    /// A bad release, for which the process is about to be aborted.
    bad: Option<Explained>,
}

static ON: AtomicBool = AtomicBool::new(false);
static STATE: Lock<State> = Lock::new(State {
    heap: Heap::new(),
    damage: [None; MOST_DAMAGE],
    bad: None,
});
static UNGUARDED: AtomicU64 = AtomicU64::new(0);

/// Whether the libraries' memory is guarded.
#[inline]
pub(crate) fn active() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Begins to guard, if options are given.
pub(crate) fn start(options: Option<&GuardOptions>) -> Result<(), Error> {
    let Some(options) = options else {
        return Ok(());
    };
    let mut state = STATE.lock();
    state.heap.prepare(options)?;
    state.damage = [None; MOST_DAMAGE];
    state.bad = None;
    drop(state);
    UNGUARDED.store(0, Ordering::Relaxed);
    ON.store(true, Ordering::Release);
    Ok(())
}

/// Serves no more blocks; those that are out stay what they are.
pub(crate) fn stop() {
    ON.store(false, Ordering::Release);
}

/// Whether blocks were handed out, so that releases must be recognised for the rest of the process' life.
pub(crate) fn used() -> bool {
    heap::reserved()
}

/// Whether an address lies in the guard's memory.
#[inline]
pub(crate) fn owns(address: usize) -> bool {
    heap::contains(address)
}

/// Bytes that were asked for, if the block is one of ours.
#[inline]
pub(crate) fn usable_size(block: usize) -> Option<usize> {
    if !owns(block) {
        return None;
    }
    STATE
        .lock()
        .heap
        .find(block)
        .filter(|found| found.user == block)
        .map(|found| found.size)
}

/// What the guard knows about an address that an access faulted at.
#[must_use]
pub fn explain(address: usize) -> Option<GuardFault> {
    explain_raw(address).map(|explained| explained.fault())
}

/// The same for signal handlers: nothing, if the interrupted thread was inside the guard.
pub(crate) fn explain_raw(address: usize) -> Option<Explained> {
    let state = STATE.try_lock()?;
    if state.bad.is_some() {
        return state.bad;
    }
    if !owns(address) {
        return None;
    }
    state.heap.explain(address)
}

/// Looks at the surroundings of every live block, and returns the damage found now and at releases since the last call.
#[must_use]
pub fn check() -> Vec<Damage> {
    let mut state = STATE.lock();
    let mut found: Vec<Explained> = state.damage.iter_mut().filter_map(Option::take).collect();
    found.extend(state.heap.damaged());
    drop(state);
    found
        .into_iter()
        .map(|explained| Damage {
            noticed: stacks::frames(explained.freed),
            fault: explained.fault(),
        })
        .collect()
}

/// Blocks that were served without a guard: too many are live (the kernel limits mappings), or too large.
#[must_use]
pub fn unguarded() -> u64 {
    UNGUARDED.load(Ordering::Relaxed)
}

const NATURAL: usize = 16;

/// A guarded block, or `None` when the caller must go to the C heap.
fn allocate(size: usize, alignment: usize, zeroed: bool, row: u16, stack: u32) -> Option<usize> {
    let block = STATE
        .lock()
        .heap
        .allocate(size, alignment.max(NATURAL), zeroed, row, stack);
    if block.is_none() {
        UNGUARDED.fetch_add(1, Ordering::Relaxed);
    }
    block
}

/// Serves a call that returns a block, if it is one that can be served.
pub(crate) fn allocate_for(slot: &Slot, frame: &Frame, size: Size) -> Option<usize> {
    let stack = crate::unwind::call_stack_of(slot, frame);
    let [first, second, ..] = frame.arguments;
    let serve = |size, alignment, zeroed| allocate(size, alignment, zeroed, slot.function, stack);
    match size {
        Size::Arg(0) => {
            let alignment = match slot.symbol {
                "valloc" | "pvalloc" => sys::PAGE,
                symbol if symbol.contains("align_val_t") => second,
                _ => NATURAL,
            };
            serve(first, alignment, false)
        }
        Size::Arg(_) => serve(second, first, false),
        Size::Product(..) => serve(first.checked_mul(second)?, NATURAL, true),
        Size::String if matches!(slot.symbol, "strdup" | "__strdup" | "strndup" | "__strndup") => {
            let text = first as *const libc::c_char;
            let bounded = slot.symbol.contains("strndup");
            // SAFETY: the library passed this C string to strdup, which reads it just so.
            let length = unsafe {
                if bounded {
                    libc::strnlen(text, second)
                } else {
                    libc::strlen(text)
                }
            };
            let block = serve(length + 1, NATURAL, false)?;
            // SAFETY: the block has room for `length + 1` bytes, and is new.
            unsafe {
                std::ptr::copy_nonoverlapping(text.cast::<u8>(), block as *mut u8, length);
                *((block + length) as *mut u8) = 0;
            }
            Some(block)
        }
        Size::String | Size::Unknown => None,
    }
}

/// Serves `posix_memalign`.
pub(crate) fn allocate_at_for(slot: &Slot, frame: &Frame, size: Size) -> Option<usize> {
    let [into, alignment, bytes, ..] = frame.arguments;
    if slot.symbol != "posix_memalign"
        || size != Size::Arg(2)
        || !alignment.is_power_of_two()
        || alignment < 8
    {
        return None;
    }
    let stack = crate::unwind::call_stack_of(slot, frame);
    let block = allocate(bytes, alignment, false, slot.function, stack)?;
    // SAFETY: posix_memalign would store its result there.
    unsafe { *(into as *mut usize) = block };
    Some(block)
}

/// Releases a block in the guard's memory. A release that the C library would abort for is aborted for here too.
pub(crate) fn free(block: usize, stack: u32) {
    let mut state = STATE.lock();
    match state.heap.free(block, stack) {
        Ok(None) => {}
        Ok(Some(damage)) => {
            if let Some(place) = state.damage.iter_mut().find(|place| place.is_none()) {
                *place = Some(damage);
            }
        }
        Err(bad) => {
            state.bad = Some(bad);
            drop(state);
            // SAFETY: the end of the process is what a bad free means; the crash handler tells why.
            unsafe { libc::abort() };
        }
    }
}

/// `realloc`, where the old block is ours or there is none. `Some(0)`: it was released. `None`: there is no memory.
pub(crate) fn reallocate(block: usize, size: usize, row: u16, stack: u32) -> Option<usize> {
    if block != 0 && size == 0 {
        free(block, stack);
        return Some(0);
    }
    let old = usable_size(block).unwrap_or(0);
    let moved = match allocate(size, NATURAL, false, row, stack) {
        Some(moved) => moved,
        None if block == 0 => return None,
        // SAFETY: malloc with any size.
        None => Some(unsafe { libc::malloc(size) } as usize).filter(|moved| *moved != 0)?,
    };
    if block != 0 {
        // SAFETY: both blocks are live and at least that long; a bad `block` has an old size of 0, and is reported by `free`.
        unsafe {
            std::ptr::copy_nonoverlapping(block as *const u8, moved as *mut u8, old.min(size));
        };
        free(block, stack);
    }
    Some(moved)
}

/// Replaces a guarded line buffer by one of the C heap, which the C library may then reallocate itself.
pub(crate) fn hand_out(line: usize, size: usize, stack: u32) {
    // SAFETY: getline is about to read and write both words.
    unsafe {
        let block = *(line as *const usize);
        let bytes = usable_size(block).unwrap_or(0);
        let copy = libc::malloc(bytes.max(1)) as usize;
        if copy != 0 {
            std::ptr::copy_nonoverlapping(block as *const u8, copy as *mut u8, bytes);
            *(line as *mut usize) = copy;
            *(size as *mut usize) = bytes;
            free(block, stack);
        }
    }
}

/// Takes the lock before a fork.
pub(crate) fn hold() {
    STATE.hold();
}

/// Gives it back in both processes.
pub(crate) fn release() {
    STATE.release();
}

/// Damage to a block, as seen at `offset` from its start.
fn explained(block: &Block, kind: usize, offset: isize) -> Explained {
    Explained {
        kind,
        block: block.user,
        size: block.size,
        offset,
        allocated: block.allocated,
        freed: block.freed,
    }
}
