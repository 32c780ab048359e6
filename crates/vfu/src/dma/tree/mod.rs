//! A B+ tree from I/O virtual addresses to region handles: one writer, any number of readers that never write.
//!
//! # Why concurrent reading is sound
//!
//! * Every field that a reader looks at is an atomic, so racing with the writer is no data race.
//! * Nodes come from the allocator one by one and are given back only when the tree is dropped. A node that leaves the
//!   tree waits in a free list of its own type. So a pointer to a [`Leaf`] or [`Inner`] that was ever in the tree stays
//!   a pointer to live memory of that type.
//! * The writer makes `seq` odd before its first store and even after its last. A reader takes an even `seq`, loads what
//!   it wants, and checks that `seq` is the same: then all it loaded belonged to one state of the tree. It does so
//!   *before it follows any pointer it loaded* ([`Tree::descend`]) and before it believes any number.
//! * Loops of a reader are bounded by clamped lengths, also on torn values.
//!
//! The orderings are those of the textbook sequence lock: writer `store(odd, Relaxed); fence(Release); stores;
//! store(even, Release)`, reader `load(Acquire); loads; fence(Acquire); load(Relaxed)`.
//!
//! # Shape
//!
//! A node has up to 32 keys. Searching compares three sample keys, kept in the node's first cache line beside
//! its length, then the seven others of one group of eight: ten independent comparisons, three cache lines. Unused
//! keys are `u64::MAX`. Nodes are split when full (an append leaves the full node full) and removed when empty, never
//! merged: a split needs sixteen insertions into the same node first, so the height after `n` insertions over all time
//! is at most `log16(n)`, and [`MAX_HEIGHT`] cannot be reached.
//!
//! The writer functions take `&self` and rely on their caller for mutual exclusion (`unsafe fn`).

mod edit;
mod node;
#[cfg(test)]
mod tests;

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};

use node::{Inner, Leaf, Node as _, Pool};

/// Levels of inner nodes: 16^16 insertions would be needed to outgrow them.
const MAX_HEIGHT: usize = 16;
/// Attempts of a reader before it lets the writer run.
const SPINS: u32 = 64;

/// A region as the tree knows it: `[base, last]`, both inclusive, so that it may end at the top of the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) base: u64,
    pub(super) last: u64,
    pub(super) handle: u64,
}

/// The tree changed while it was being read: what was loaded means nothing.
#[derive(Debug)]
pub(super) struct Changed;

/// Waits for a writer: busily at first, then by giving up the processor to it.
#[derive(Debug, Default)]
pub(super) struct Patience {
    spins: u32,
}

impl Patience {
    #[cold]
    pub(super) fn wait(&mut self) {
        self.spins += 1;
        if self.spins.is_multiple_of(SPINS) {
            std::thread::yield_now();
        } else {
            core::hint::spin_loop();
        }
    }
}

/// What readers load first, alone in its cache lines, and what only the writer uses.
#[repr(C, align(128))]
pub(super) struct Tree {
    /// Odd while the writer is at work.
    seq: AtomicU64,
    /// Levels of inner nodes above the leaves.
    height: AtomicUsize,
    /// A [`Leaf`] if the height is 0, else an [`Inner`]; null while the tree is empty.
    root: AtomicPtr<()>,
    own: Own,
}

/// The writer's half, on other cache lines.
#[repr(align(128))]
struct Own {
    leaves: Pool<Leaf>,
    inners: Pool<Inner>,
}

// SAFETY: the pools own the nodes they point to, and nothing in the tree is tied to a thread.
unsafe impl Send for Tree {}
// SAFETY: `seq`, `height`, `root` and all fields of nodes that a reader looks at are atomics. The pools' cells are used by
// the `unsafe` writer functions, whose callers exclude each other, and by the drop.
unsafe impl Sync for Tree {}

impl Tree {
    pub(super) const fn new() -> Self {
        Self {
            seq: AtomicU64::new(0),
            height: AtomicUsize::new(0),
            root: AtomicPtr::new(ptr::null_mut()),
            own: Own {
                leaves: Pool::new(),
                inners: Pool::new(),
            },
        }
    }

    /// Starts a read; returns the state to validate against.
    #[inline]
    pub(super) fn begin(&self) -> u64 {
        let seq = self.seq.load(Ordering::Acquire);
        if seq & 1 == 0 {
            seq
        } else {
            self.begin_slowly()
        }
    }

    #[cold]
    fn begin_slowly(&self) -> u64 {
        let mut patience = Patience::default();
        loop {
            let seq = self.seq.load(Ordering::Acquire);
            if seq & 1 == 0 {
                return seq;
            }
            patience.wait();
        }
    }

    /// Whether everything loaded since [`begin`](Self::begin) belongs to one state of the tree.
    #[inline]
    pub(super) fn unchanged(&self, seq: u64) -> bool {
        fence(Ordering::Acquire);
        self.seq.load(Ordering::Relaxed) == seq
    }

    /// The leaf to which `address` belongs. `None`: the tree is empty. A result is valid as of `seq`.
    #[inline]
    fn descend(&self, seq: u64, address: u64) -> Result<Option<&Leaf>, Changed> {
        let mut node = self.root.load(Ordering::Relaxed);
        let height = self.height.load(Ordering::Relaxed);
        if !self.unchanged(seq) {
            return Err(Changed);
        }
        if node.is_null() {
            return Ok(None);
        }
        for _ in 0..height {
            // SAFETY: validated: in state `seq`, `node` was an inner node of the tree (it has leaves below it), and inner
            // nodes stay inner nodes in live memory until the tree is dropped, which `&self` rules out.
            let inner = unsafe { &*node.cast_const().cast::<Inner>() };
            node = inner.child(inner.keys().search(address));
            if !self.unchanged(seq) {
                return Err(Changed);
            }
        }
        // SAFETY: validated: in state `seq`, `node` was a leaf of the tree; leaves stay leaves, as above.
        Ok(Some(unsafe { &*node.cast_const().cast::<Leaf>() }))
    }

    /// Where the entry with the greatest base that is at most `address` is. Its leaf is valid as of `seq`; its position
    /// and content mean nothing before they are validated.
    #[inline]
    pub(super) fn floor(&self, seq: u64, address: u64) -> Result<Option<(&Leaf, usize)>, Changed> {
        let Some(leaf) = self.descend(seq, address)? else {
            return Ok(None);
        };
        let at = leaf.keys().search(address);
        if leaf.keys().get(at) <= address {
            return Ok(Some((leaf, at)));
        }
        self.last_before(seq, leaf)
    }

    /// The last entry of the leaf before `leaf`. Needed when the entries at the start of `leaf`'s range were removed: an
    /// entry of its neighbour may reach into it.
    #[cold]
    fn last_before(&self, seq: u64, leaf: &Leaf) -> Result<Option<(&Leaf, usize)>, Changed> {
        let previous = leaf.previous();
        if !self.unchanged(seq) {
            return Err(Changed);
        }
        if previous.is_null() {
            return Ok(None);
        }
        // SAFETY: validated: in state `seq`, it was a leaf of the tree; leaves stay leaves while the tree lives.
        let previous = unsafe { &*previous };
        Ok(Some((previous, previous.len().saturating_sub(1))))
    }

    /// The entry with the greatest base that is at most `address`, in one attempt and with nothing rare: `None` says
    /// nothing, see [`entry_at_or_before`](Self::entry_at_or_before).
    #[inline]
    pub(super) fn try_entry_at_or_before(&self, address: u64) -> Option<Entry> {
        let seq = self.seq.load(Ordering::Acquire);
        if seq & 1 != 0 {
            return None;
        }
        let leaf = self.descend(seq, address).ok()??;
        let entry = leaf.entry(leaf.keys().search(address));
        (entry.base <= address && self.unchanged(seq)).then_some(entry)
    }

    /// Runs a read until it comes through unchanged.
    pub(super) fn read<R>(&self, attempt: impl Fn(u64) -> Result<R, Changed>) -> R {
        let mut patience = Patience::default();
        loop {
            let seq = self.begin();
            if let Ok(result) = attempt(seq)
                && self.unchanged(seq)
            {
                return result;
            }
            patience.wait();
        }
    }

    /// The entry with the greatest base that is at most `address`.
    pub(super) fn entry_at_or_before(&self, address: u64) -> Option<Entry> {
        self.read(|seq| Ok(self.floor(seq, address)?.map(|(leaf, at)| leaf.entry(at))))
    }

    /// The entry with the least base that is at least `address`.
    pub(super) fn entry_at_or_after(&self, address: u64) -> Option<Entry> {
        self.read(|seq| {
            let Some(leaf) = self.descend(seq, address)? else {
                return Ok(None);
            };
            let at = leaf.keys().search(address);
            let entry = leaf.entry(at);
            if entry.base >= address {
                return Ok(Some(entry));
            }
            if at + 1 < leaf.len() {
                return Ok(Some(leaf.entry(at + 1)));
            }
            let next = leaf.next();
            if !self.unchanged(seq) {
                return Err(Changed);
            }
            if next.is_null() {
                return Ok(None);
            }
            // SAFETY: validated: in state `seq`, it was a leaf of the tree; leaves stay leaves while the tree lives.
            Ok(Some(unsafe { &*next }.entry(0)))
        })
    }
}

impl core::fmt::Debug for Tree {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Tree")
            .field("seq", &self.seq)
            .field("height", &self.height)
            .finish_non_exhaustive()
    }
}
