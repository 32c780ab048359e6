//! The nodes of the tree, all fields atomic, and the pools that keep them alive. See the parent for why that is sound.

use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::alloc::Layout;

use super::super::error::Error;
use super::super::sys;
use super::Entry;

/// Keys in a node.
pub(super) const CAP: usize = 32;
/// Keys in a group, of which the first is in the samples.
const GROUP: usize = 8;
/// The sorted keys of a node, with the samples and length that share its first cache line.
#[repr(C)]
pub(super) struct Keys {
    len: AtomicUsize,
    /// `key[8]`, `key[16]`, `key[24]`.
    samples: [AtomicU64; CAP / GROUP - 1],
    /// Of leaves: the previous and the next. In a free list: the next free node, and nothing.
    links: [AtomicPtr<Leaf>; 2],
    /// List of all nodes of this type, for the drop of the tree. Written once, before the node is published.
    pub(super) all: Cell<*mut ()>,
    fill: u64,
    key: [AtomicU64; CAP],
}

impl Keys {
    /// The number of keys, clamped, so that a torn value cannot lead out of the arrays.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed).min(CAP)
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> u64 {
        self.key[at].load(Ordering::Relaxed)
    }

    /// Position of the greatest key that is at most `wanted`; 0 if there is none.
    #[inline(always)]
    pub(super) fn search(&self, wanted: u64) -> usize {
        let len = self.len();
        if len <= 1 {
            return 0; // the most common table has one region
        }
        let mut group = 0;
        if len > GROUP {
            for sample in &self.samples {
                group += usize::from(sample.load(Ordering::Relaxed) <= wanted);
            }
        }
        let from = group * GROUP;
        let mut at = from;
        for key in &self.key[from + 1..from + GROUP] {
            at += usize::from(key.load(Ordering::Relaxed) <= wanted);
        }
        at.min(len.saturating_sub(1)) // `wanted` may equal the filler
    }

    // ---- writer ----

    fn set(&self, at: usize, key: u64) {
        self.key[at].store(key, Ordering::Relaxed);
        if at.is_multiple_of(GROUP) && at > 0 {
            self.samples[at / GROUP - 1].store(key, Ordering::Relaxed);
        }
    }

    fn set_len(&self, len: usize) {
        for unused in len..self.len() {
            self.set(unused, u64::MAX);
        }
        self.len.store(len, Ordering::Relaxed);
    }

    /// Empties the node, whatever it held (fresh memory is zero, recycled nodes hold fillers).
    fn clear(&self) {
        for at in 0..CAP {
            self.set(at, u64::MAX);
        }
        self.len.store(0, Ordering::Relaxed);
        for link in &self.links {
            link.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }
}

/// What the tree needs from both kinds of nodes. `move_slot` moves everything but the key.
pub(super) trait Node: Sized {
    fn keys(&self) -> &Keys;
    fn copy_slot(&self, at: usize, to: &Self, to_at: usize);

    /// Makes room at `at`: the entries from there on move up by one. The node is not full.
    fn open_gap(&self, at: usize) {
        let len = self.keys().len();
        self.keys().len.store(len + 1, Ordering::Relaxed);
        for i in (at..len).rev() {
            self.keys().set(i + 1, self.keys().get(i));
            self.copy_slot(i, self, i + 1);
        }
    }

    /// Removes the entry at `at`: those after it move down by one.
    fn close_gap(&self, at: usize) {
        let len = self.keys().len();
        for i in at + 1..len {
            self.keys().set(i - 1, self.keys().get(i));
            self.copy_slot(i, self, i - 1);
        }
        self.keys().set_len(len - 1);
    }

    /// Moves the entries from `from` on to the empty node `to`.
    fn split_off(&self, from: usize, to: &Self) {
        let len = self.keys().len();
        to.keys().len.store(len - from, Ordering::Relaxed);
        for i in from..len {
            to.keys().set(i - from, self.keys().get(i));
            self.copy_slot(i, to, i - from);
        }
        self.keys().set_len(from);
    }
}

#[repr(C)]
struct LeafSlot {
    last: AtomicU64,
    handle: AtomicU64,
}

/// Entries in ascending order. Leaves are linked: `links[0]` is the previous, `links[1]` the next.
#[repr(C, align(64))]
pub(in super::super) struct Leaf {
    keys: Keys,
    slots: [LeafSlot; CAP],
}

impl Node for Leaf {
    fn keys(&self) -> &Keys {
        &self.keys
    }

    fn copy_slot(&self, at: usize, to: &Self, to_at: usize) {
        let (from, to) = (&self.slots[at], &to.slots[to_at]);
        to.last
            .store(from.last.load(Ordering::Relaxed), Ordering::Relaxed);
        to.handle
            .store(from.handle.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Leaf {
    #[inline]
    pub(in super::super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The entry at a position below the node's capacity; meaningless until validated.
    #[inline]
    pub(in super::super) fn entry(&self, at: usize) -> Entry {
        let slot = &self.slots[at];
        Entry {
            base: self.keys.get(at),
            last: slot.last.load(Ordering::Relaxed),
            handle: slot.handle.load(Ordering::Relaxed),
        }
    }

    pub(super) fn previous(&self) -> *const Self {
        self.keys.links[0].load(Ordering::Relaxed)
    }

    pub(super) fn next(&self) -> *const Self {
        self.keys.links[1].load(Ordering::Relaxed)
    }

    // ---- writer ----

    /// Inserts at a position; the leaf is not full.
    pub(super) fn insert(&self, at: usize, entry: Entry) {
        self.open_gap(at);
        self.keys.set(at, entry.base);
        self.slots[at].last.store(entry.last, Ordering::Relaxed);
        self.slots[at].handle.store(entry.handle, Ordering::Relaxed);
    }

    /// Links a new leaf in after this one, whose own address is `this`.
    pub(super) fn link_after(&self, this: *mut Self, new: *mut Self) {
        let next = self.keys.links[1].load(Ordering::Relaxed);
        // SAFETY: `new` comes from the pool, hence is live.
        let links = &unsafe { &*new }.keys.links;
        links[0].store(this, Ordering::Relaxed);
        links[1].store(next, Ordering::Relaxed);
        if !next.is_null() {
            // SAFETY: neighbours of a leaf of the tree are in the tree, hence live.
            unsafe { &*next }.keys.links[0].store(new, Ordering::Relaxed);
        }
        self.keys.links[1].store(new, Ordering::Relaxed);
    }

    /// Takes this leaf out of the chain.
    pub(super) fn unlink(&self) {
        let [previous, next] = [0, 1].map(|i| self.keys.links[i].load(Ordering::Relaxed));
        if !previous.is_null() {
            // SAFETY: neighbours of a leaf of the tree are in the tree, hence live.
            unsafe { &*previous }.keys.links[1].store(next, Ordering::Relaxed);
        }
        if !next.is_null() {
            // SAFETY: as above.
            unsafe { &*next }.keys.links[0].store(previous, Ordering::Relaxed);
        }
    }
}

/// Children and, for each but the first, the lowest address that belongs to it.
#[repr(C, align(64))]
pub(super) struct Inner {
    keys: Keys,
    children: [AtomicPtr<()>; CAP],
}

impl Node for Inner {
    fn keys(&self) -> &Keys {
        &self.keys
    }

    fn copy_slot(&self, at: usize, to: &Self, to_at: usize) {
        to.children[to_at].store(self.children[at].load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Inner {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    #[inline]
    pub(super) fn child(&self, at: usize) -> *mut () {
        self.children[at].load(Ordering::Relaxed)
    }

    /// Inserts at a position; the node is not full.
    pub(super) fn insert(&self, at: usize, key: u64, child: *mut ()) {
        self.open_gap(at);
        self.keys.set(at, key);
        self.children[at].store(child, Ordering::Relaxed);
    }
}

/// Nodes of one type: those that are free, and all that exist. Used by the writer and at drop only.
pub(super) struct Pool<N> {
    free: Cell<*mut N>,
    free_count: Cell<usize>,
    pub(super) all: Cell<*mut N>,
}

impl<N: Node> Pool<N> {
    pub(super) const fn new() -> Self {
        Self {
            free: Cell::new(ptr::null_mut()),
            free_count: Cell::new(0),
            all: Cell::new(ptr::null_mut()),
        }
    }

    /// Makes sure that `count` nodes are free.
    pub(super) fn reserve(&self, count: usize) -> Result<(), Error> {
        while self.free_count.get() < count {
            let node = sys::alloc_zeroed(Layout::new::<N>())
                .ok_or(Error::NoMemory)?
                .cast::<N>();
            // SAFETY: zeroed memory is a valid node: it consists of atomics, and of a cell with a null pointer.
            let keys = unsafe { node.as_ref() }.keys();
            keys.all.set(self.all.get().cast());
            self.all.set(node.as_ptr());
            self.put(node.as_ptr());
        }
        Ok(())
    }

    /// A reserved node, emptied.
    pub(super) fn take(&self) -> *mut N {
        let node = self.free.get();
        assert!(
            !node.is_null(),
            "a change of the tree reserves its nodes first"
        );
        // SAFETY: nodes in the free list are live.
        let keys = unsafe { &*node }.keys();
        self.free.set(keys.links[0].load(Ordering::Relaxed).cast());
        self.free_count.set(self.free_count.get() - 1);
        keys.clear();
        node
    }

    /// Puts a node that is no longer in the tree into the free list. Readers may still look at it, which is why its
    /// links keep their type.
    pub(super) fn put(&self, node: *mut N) {
        // SAFETY: all nodes of the pool are live until its drop.
        let keys = unsafe { &*node }.keys();
        keys.links[0].store(self.free.get().cast(), Ordering::Relaxed);
        self.free.set(node);
        self.free_count.set(self.free_count.get() + 1);
    }
}
