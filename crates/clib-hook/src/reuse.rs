//! Addresses that one test released are not given to the next.
//!
//! What was released last is what an allocator gives first. Whatever still has the address of a handle that is gone (a
//! variable or an attribute of the suite, a pointer of `ctypes`, a field in C) would then seem to hold the next one, and a loss of
//! that would go unseen: the search ([`crate::reach`]) knows words, and not since when they are there. So the two get
//! different addresses. A block that has an address which an earlier test released is set aside, and the library is given another.
//! Within a test, addresses come again as ever, and loops stay in warm memory.
//!
//! What is set aside is bounded: past [`MOST`], what has been there longest goes back to the allocator, and its addresses
//! may come again. Blocks above [`LARGEST`] are let through.
//!
//! Not where blocks are the guard's, which does not give them again either, nor where a sanitizer has its own allocator, which takes
//! what is set aside for lost.

use std::{
    ffi::CStr,
    slice,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use crate::{
    dispatch,
    lock::Lock,
    objects,
    region::Array,
    sys,
    table::{Effect, Failure, Size},
    thunk::{Frame, Slot},
    valgrind,
};

/// Bytes that are set aside at most.
const MOST: usize = 8 << 20;
/// Bytes of the largest block that is.
const LARGEST: usize = 64 << 10;
/// Blocks that are set aside for one call at most.
const TRIES: usize = 1024;

/// Blocks begin at multiples of this; there is a bit for each.
const UNIT: usize = 16;
/// Bits; addresses that far apart share one, which costs some memory and nothing else.
const BITS: usize = 1 << 24;
const WORDS: usize = BITS / 64;
/// Words of which one bit of [`DIRTY`] tells that some are not zero.
const PART: usize = 512;

static ACTIVE: AtomicBool = AtomicBool::new(false);
/// Two maps of bits, one after the other: addresses released in earlier tests, and in the running one. 0 before the first session.
static MAPS: AtomicUsize = AtomicUsize::new(0);
static DIRTY: [AtomicU64; WORDS / PART / 64] = [const { AtomicU64::new(0) }; WORDS / PART / 64];
static ASIDE: Lock<Aside> = Lock::new(Aside::empty());

/// Blocks that nobody has, in the order in which they were set aside.
#[derive(Debug)]
struct Aside {
    /// A ring of (address, bytes). Under valgrind these are what holds the blocks.
    blocks: Array<(usize, usize)>,
    first: usize,
    count: usize,
    bytes: usize,
}

impl Aside {
    /// A block takes at least this much.
    const SMALLEST: usize = 32;

    const fn empty() -> Self {
        Self {
            blocks: Array::empty(),
            first: 0,
            count: 0,
            bytes: 0,
        }
    }

    fn push(&mut self, block: usize, bytes: usize) {
        let at = (self.first + self.count) % self.blocks.len();
        self.blocks[at] = (block, bytes);
        self.count += 1;
        self.bytes += bytes;
    }

    /// The one that has been there longest.
    fn pop(&mut self) -> Option<(usize, usize)> {
        if self.count == 0 {
            return None;
        }
        let oldest = std::mem::take(&mut self.blocks[self.first]);
        self.first = (self.first + 1) % self.blocks.len();
        self.count -= 1;
        self.bytes -= oldest.1;
        Some(oldest)
    }

    fn is_over(&self) -> bool {
        self.bytes > MOST || self.count == self.blocks.len()
    }
}

/// Decides whether addresses are kept apart in this session. Without memory for it they are not.
pub(crate) fn start() {
    let wanted = objects::has_c_library_s_malloc() || valgrind::running() != 0;
    if !wanted || !has_maps() {
        return;
    }
    let mut aside = ASIDE.lock();
    if aside.blocks.is_empty() {
        let Some(blocks) = Array::new(MOST / Aside::SMALLEST) else {
            return;
        };
        aside.blocks = blocks;
    }
    ACTIVE.store(true, Ordering::Relaxed);
}

fn has_maps() -> bool {
    if MAPS.load(Ordering::Acquire) == 0
        && let Some(maps) = sys::map(2 * WORDS * size_of::<u64>())
    {
        MAPS.store(maps, Ordering::Release);
    }
    MAPS.load(Ordering::Acquire) != 0
}

/// From now on addresses come again, and what was set aside goes back.
pub(crate) fn stop() {
    ACTIVE.store(false, Ordering::Relaxed);
    next_test();
    while give_back(|_| true) {}
    if let Some([old, _]) = maps() {
        // Only those: what is read alone takes no memory.
        let used = |word: &&AtomicU64| word.load(Ordering::Relaxed) != 0;
        old.iter()
            .filter(used)
            .for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

/// A library's block is about to be released, or has moved away.
#[inline]
pub(crate) fn released(block: usize) {
    if !ACTIVE.load(Ordering::Relaxed) {
        return;
    }
    let Some([_, new]) = maps() else { return };
    let (word, bit) = place(block);
    if new[word].load(Ordering::Relaxed) & bit == 0 {
        new[word].fetch_or(bit, Ordering::Relaxed);
        let part = word / PART;
        DIRTY[part / 64].fetch_or(1 << (part % 64), Ordering::Relaxed);
    }
}

/// What the test before released is old from now on.
pub(crate) fn next_test() {
    let Some([old, new]) = maps() else { return };
    for (group, parts) in DIRTY.iter().enumerate() {
        let mut parts = parts.swap(0, Ordering::Relaxed);
        while parts != 0 {
            let first = (group * 64 + parts.trailing_zeros() as usize) * PART;
            for word in first..first + PART {
                let bits = new[word].load(Ordering::Relaxed);
                if bits != 0 {
                    new[word].fetch_and(!bits, Ordering::Relaxed);
                    old[word].fetch_or(bits, Ordering::Relaxed);
                }
            }
            parts &= parts - 1;
        }
    }
}

/// Whether an earlier test released an address in a block of this many bytes, of a size that is set aside.
#[inline]
pub(crate) fn is_old(block: usize, bytes: usize) -> bool {
    if bytes > LARGEST || !ACTIVE.load(Ordering::Relaxed) {
        return false;
    }
    maps().is_some_and(|[old, _]| {
        parts(block, bytes).any(|(word, bits)| old[word].load(Ordering::Relaxed) & bits != 0)
    })
}

/// A block in place of `block`, which a call was just given; the same one if there is no other. `bytes` tells how many a block has.
#[cold]
pub(crate) fn renew(
    slot: &Slot,
    frame: &mut Frame,
    mut block: usize,
    bytes: impl Fn(&Frame, usize) -> usize,
) -> usize {
    if !is_repeatable(slot, frame) {
        return block;
    }
    for _ in 0..TRIES {
        let Some(next) = again(slot, frame, block) else {
            break;
        };
        set_aside(block);
        block = next;
        if !is_old(block, bytes(frame, block)) {
            break;
        }
    }
    block
}

/// The blocks that nobody has, as (address, bytes): old bytes are all that is in them.
pub(crate) fn set_aside_ranges(mut found: impl FnMut(usize, usize)) {
    let aside = ASIDE.lock();
    for number in 0..aside.count {
        let (block, bytes) = aside.blocks[(aside.first + number) % aside.blocks.len()];
        found(block, bytes);
    }
}

/// Takes the lock before a fork.
pub(crate) fn hold() {
    ASIDE.hold();
}

/// Gives it back in both processes.
pub(crate) fn release() {
    ASIDE.release();
}

fn set_aside(block: usize) {
    // SAFETY: the allocator gave the block to the running call, which has not passed it on.
    let bytes = unsafe { libc::malloc_usable_size(block as *mut libc::c_void) } + UNIT;
    ASIDE.lock().push(block, bytes);
    while give_back(Aside::is_over) {}
}

/// Gives the block back that has been set aside longest, if the condition holds; whether it did.
fn give_back(condition: impl Fn(&Aside) -> bool) -> bool {
    let oldest = {
        let mut aside = ASIDE.lock();
        if condition(&aside) { aside.pop() } else { None }
    };
    let Some((block, bytes)) = oldest else {
        return false;
    };
    if let Some([old, _]) = maps() {
        for (word, bits) in parts(block, bytes) {
            old[word].fetch_and(!bits, Ordering::Relaxed);
        }
    }
    // SAFETY: nobody has had the block since it was set aside, and it came from this allocator.
    unsafe { libc::free(block as *mut libc::c_void) };
    true
}

const LIBC: &[&[u8]] = &[b"libc.so", b"libc-2."];

/// Whether making the call once more only gives another block like the first, which `free` takes.
fn is_repeatable(slot: &Slot, frame: &Frame) -> bool {
    let Some(function) = dispatch::function(slot) else {
        return false;
    };
    let libraries: &[&[u8]] = match function.effect {
        Effect::Allocate(Size::Arg(_)) if function.name.starts_with("operator") => {
            &[b"libstdc++.so", b"libc++.so"]
        }
        _ => LIBC,
    };
    let pure = match function.effect {
        Effect::Allocate(Size::Arg(_) | Size::Product(..)) => true,
        Effect::Allocate(_) => matches!(function.name, "strdup" | "strndup" | "wcsdup"),
        Effect::AllocateAt(_, Size::Arg(_)) => function.failure == Failure::Code,
        Effect::Reallocate(_) => frame.arguments[0] == 0,
        _ => false,
    };
    pure && is_of(frame.target, libraries)
}

/// Whether a function is of an object with a name that begins so, and no one's replacement.
fn is_of(target: usize, libraries: &[&[u8]]) -> bool {
    /// The function of the C library that was asked for last: it stays, and the question reads a thousand symbols.
    static KNOWN: AtomicUsize = AtomicUsize::new(0);
    if KNOWN.load(Ordering::Relaxed) == target {
        return true;
    }
    if !is_in(target, libraries) {
        return false;
    }
    if libraries == LIBC {
        KNOWN.store(target, Ordering::Relaxed);
    }
    true
}

fn is_in(target: usize, libraries: &[&[u8]]) -> bool {
    // SAFETY: plain data, which dladdr fills or leaves alone.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: dladdr takes any address, and writes to `info`.
    let found = unsafe { libc::dladdr(target as *const libc::c_void, &raw mut info) } != 0;
    if !found || info.dli_fname.is_null() {
        return false;
    }
    // SAFETY: the name of a loaded object, which is loaded as long as the running call is in it.
    let path = unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes();
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    libraries.iter().any(|library| name.starts_with(library))
}

/// Makes the call once more. What an out-argument has is `block` again if that fails.
fn again(slot: &Slot, frame: &Frame, block: usize) -> Option<usize> {
    type Allocator = extern "C" fn(usize, usize, usize) -> usize;
    let [first, second, third, ..] = frame.arguments;
    let operator = slot.symbol.starts_with("_Zn") && valgrind::running() == 0;
    let next = if operator {
        // The operator itself might throw, which cannot pass through here.
        // SAFETY: allocators take any numbers.
        unsafe {
            if slot.symbol.contains("align_val_t") {
                libc::aligned_alloc(second, first.max(1).next_multiple_of(second.max(1)))
            } else {
                libc::malloc(first.max(1))
            }
        }
        .expose_provenance()
    } else {
        // SAFETY: the target of a slot whose function takes at most three words and gives one, as `is_repeatable` knows.
        let target = unsafe { std::mem::transmute::<usize, Allocator>(frame.target) };
        target(first, second, third)
    };
    match slot.effect {
        Effect::AllocateAt(argument, _) => {
            let out = frame.arguments[usize::from(argument)] as *mut usize;
            // SAFETY: the first call wrote the block here.
            unsafe {
                if sys::int(next) == 0 {
                    return Some(out.read_unaligned());
                }
                out.write_unaligned(block);
            }
            None
        }
        _ => (next != 0).then_some(next),
    }
}

/// Old and new, or `None` before the first session.
#[inline]
fn maps() -> Option<[&'static [AtomicU64]; 2]> {
    let start = MAPS.load(Ordering::Acquire);
    if start == 0 {
        return None;
    }
    let start = std::ptr::with_exposed_provenance::<AtomicU64>(start);
    // SAFETY: `has_maps` mapped room for two of them, zeroed, which stays; they are only reached as atomics.
    Some(unsafe {
        [
            slice::from_raw_parts(start, WORDS),
            slice::from_raw_parts(start.add(WORDS), WORDS),
        ]
    })
}

/// The word and the bit of an address.
#[inline]
fn place(address: usize) -> (usize, u64) {
    let bit = (address / UNIT) % BITS;
    (bit / 64, 1 << (bit % 64))
}

/// The words, and the bits in them, of all addresses in a block.
#[inline]
fn parts(block: usize, bytes: usize) -> impl Iterator<Item = (usize, u64)> {
    let mut at = block / UNIT;
    let end = (block + bytes.max(1)).div_ceil(UNIT);
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let bit = at % 64;
        let count = (64 - bit).min(end - at);
        let word = at % BITS / 64;
        at += count;
        Some((word, (u64::MAX >> (64 - count)) << bit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_places_of_all_addresses() {
        for block in [0, 16, 1008, 1 << 28, (1 << 28) - 32] {
            for bytes in [0, 1, 16, 17, 1024, 5000] {
                let mut expected: Vec<(usize, u64)> = Vec::new();
                for address in (block..block + bytes.max(1)).step_by(UNIT) {
                    let (word, bit) = place(address);
                    match expected.last_mut() {
                        Some((last, bits)) if *last == word => *bits |= bit,
                        _ => expected.push((word, bit)),
                    }
                }
                let found: Vec<_> = parts(block, bytes).collect();
                assert_eq!(found, expected, "{bytes} bytes at {block:#x}");
            }
        }
    }

    #[test]
    fn the_ring_gives_what_came_first() {
        let mut aside = Aside::empty();
        aside.blocks = Array::new(4).expect("memory");
        for round in 0..3 {
            for number in 1..=3 {
                aside.push(number * 0x100, number * 10);
            }
            assert_eq!((aside.count, aside.bytes), (3, 60), "round {round}");
            for number in 1..=3 {
                assert_eq!(aside.pop(), Some((number * 0x100, number * 10)));
            }
            assert_eq!(aside.pop(), None);
            assert_eq!(aside.bytes, 0);
        }
    }
}
