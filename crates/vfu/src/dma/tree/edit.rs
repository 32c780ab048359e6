//! Changing the tree: the one writer's side. Nodes are reserved before the first store, so that a change that has
//! begun cannot fail; all stores to what readers see happen between [`Tree::open`] and [`Tree::close`].

use core::ptr::{self, NonNull};
use core::sync::atomic::{Ordering, fence};
use std::alloc::Layout;

use super::super::error::Error;
use super::super::sys;
use super::node::{CAP, Inner, Leaf, Node, Pool};
use super::{Entry, MAX_HEIGHT, Tree};

/// The inner nodes from the root down to a leaf, and which child was taken in each.
struct Path {
    steps: [(*mut Inner, usize); MAX_HEIGHT],
    len: usize,
}

impl Tree {
    /// Adds an entry. The caller has checked that it overlaps none.
    ///
    /// # Errors
    /// [`Error::NoMemory`], with nothing changed.
    ///
    /// # Safety
    /// No other writer function runs at the same time.
    pub(in super::super) unsafe fn insert(&self, entry: Entry) -> Result<(), Error> {
        let height = self.height.load(Ordering::Relaxed);
        assert!(height < MAX_HEIGHT, "the tree cannot grow that high");
        self.own.leaves.reserve(1)?;
        self.own.inners.reserve(height + 1)?;
        self.open();
        if self.root.load(Ordering::Relaxed).is_null() {
            let leaf = self.own.leaves.take();
            // SAFETY: a node from the pool is live, and only the writer changes nodes.
            unsafe { &*leaf }.insert(0, entry);
            self.root.store(leaf.cast(), Ordering::Relaxed);
        } else {
            let (path, leaf) = self.path_to(entry.base);
            if let Some(right) = self.insert_into_leaf(leaf, entry) {
                // SAFETY: `right` is a live leaf that has at least one entry after the split.
                let key = unsafe { &*right }.entry(0).base;
                self.insert_above(path, key, right.cast());
            }
        }
        self.close();
        Ok(())
    }

    /// Removes the entry with this base; false if there is none.
    ///
    /// # Safety
    /// No other writer function runs at the same time.
    pub(in super::super) unsafe fn remove(&self, base: u64) -> bool {
        if self.root.load(Ordering::Relaxed).is_null() {
            return false;
        }
        let (path, leaf) = self.path_to(base);
        // SAFETY: the path leads through nodes of the tree, which are live.
        let node = unsafe { &*leaf };
        let at = node.keys().search(base);
        if node.keys().get(at) != base {
            return false;
        }
        self.open();
        node.close_gap(at);
        if node.len() == 0 {
            node.unlink();
            self.own.leaves.put(leaf);
            self.remove_above(path);
        }
        self.close();
        true
    }

    fn open(&self) {
        let seq = self.seq.load(Ordering::Relaxed);
        self.seq.store(seq.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
    }

    fn close(&self) {
        let seq = self.seq.load(Ordering::Relaxed);
        self.seq.store(seq.wrapping_add(1), Ordering::Release);
    }

    /// The way to the leaf to which `address` belongs. The tree is not empty.
    fn path_to(&self, address: u64) -> (Path, *mut Leaf) {
        let mut path = Path {
            steps: [(ptr::null_mut(), 0); MAX_HEIGHT],
            len: 0,
        };
        let mut node = self.root.load(Ordering::Relaxed);
        for step in path
            .steps
            .iter_mut()
            .take(self.height.load(Ordering::Relaxed))
        {
            let inner = node.cast::<Inner>();
            // SAFETY: above the leaves, all children are inner nodes, and nodes of the tree are live.
            let children = unsafe { &*inner };
            let at = children.keys().search(address);
            *step = (inner, at);
            path.len += 1;
            node = children.child(at);
        }
        (path, node.cast())
    }

    /// Inserts into a leaf; returns the new right neighbour if it had to be split.
    fn insert_into_leaf(&self, leaf: *mut Leaf, entry: Entry) -> Option<*mut Leaf> {
        // SAFETY: the leaf is in the tree, hence live.
        let left = unsafe { &*leaf };
        let found = left.keys().search(entry.base);
        let at = found + usize::from(left.keys().get(found) < entry.base);
        if left.len() < CAP {
            left.insert(at, entry);
            return None;
        }
        let new = self.own.leaves.take();
        // SAFETY: a node from the pool is live.
        let right = unsafe { &*new };
        let appended = at == CAP && left.next().is_null();
        let middle = if appended { CAP } else { CAP / 2 };
        left.split_off(middle, right);
        left.link_after(leaf, new);
        if at < middle {
            left.insert(at, entry);
        } else {
            right.insert(at - middle, entry);
        }
        Some(new)
    }

    /// Adds a child to the right of the one that the path took, splitting upwards as far as needed.
    fn insert_above(&self, mut path: Path, mut key: u64, mut child: *mut ()) {
        while path.len > 0 {
            path.len -= 1;
            let (node, taken) = path.steps[path.len];
            // SAFETY: the path leads through nodes of the tree, which are live.
            let left = unsafe { &*node };
            let at = taken + 1;
            if left.len() < CAP {
                left.insert(at, key, child);
                return;
            }
            let new = self.own.inners.take();
            // SAFETY: a node from the pool is live.
            let right = unsafe { &*new };
            // An append leaves a full node behind, as in the leaves; but the right half must not be empty.
            let middle = if at == CAP { CAP - 1 } else { CAP / 2 };
            left.split_off(middle, right);
            if at <= middle {
                left.insert(at, key, child);
            } else {
                right.insert(at - middle, key, child);
            }
            key = right.keys().get(0);
            child = new.cast();
        }
        let root = self.own.inners.take();
        // SAFETY: a node from the pool is live.
        let node = unsafe { &*root };
        node.insert(0, 0, self.root.load(Ordering::Relaxed)); // the key of a first child is never compared
        node.insert(1, key, child);
        self.root.store(root.cast(), Ordering::Relaxed);
        self.height
            .store(self.height.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Takes out the child that the path took, which has become empty, and every node that becomes empty by that; then
    /// roots with a single child.
    fn remove_above(&self, mut path: Path) {
        loop {
            if path.len == 0 {
                self.root.store(ptr::null_mut(), Ordering::Relaxed);
                self.height.store(0, Ordering::Relaxed);
                return;
            }
            path.len -= 1;
            let (node, at) = path.steps[path.len];
            // SAFETY: the path leads through nodes of the tree, which are live.
            let inner = unsafe { &*node };
            inner.close_gap(at);
            if inner.len() > 0 {
                break;
            }
            self.own.inners.put(node);
        }
        let mut height = self.height.load(Ordering::Relaxed);
        while height > 0 {
            let root = self.root.load(Ordering::Relaxed).cast::<Inner>();
            // SAFETY: with a height above 0 the root is an inner node of the tree.
            let inner = unsafe { &*root };
            if inner.len() > 1 {
                break;
            }
            self.root.store(inner.child(0), Ordering::Relaxed);
            self.own.inners.put(root);
            height -= 1;
        }
        self.height.store(height, Ordering::Relaxed);
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.own.leaves.release();
        self.own.inners.release();
    }
}

impl<N: Node> Pool<N> {
    /// Gives all nodes back, with the tree that owns them.
    fn release(&mut self) {
        while let Some(node) = NonNull::new(self.all.get()) {
            // SAFETY: nodes in the list of all are live; each is given back once, since the list moves on first.
            self.all
                .set(unsafe { node.as_ref() }.keys().all.get().cast());
            // SAFETY: the node came from alloc_zeroed with this layout; `&mut` says that no reader is left.
            unsafe { sys::dealloc(node.cast(), Layout::new::<N>()) };
        }
    }
}
