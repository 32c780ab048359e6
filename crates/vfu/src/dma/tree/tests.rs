//! The tree alone, against a `BTreeMap`; and readers against a writer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn insert(tree: &Tree, base: u64, last: u64) {
    // SAFETY: the test's only writer.
    unsafe {
        tree.insert(Entry {
            base,
            last,
            handle: base ^ 0x5555,
        })
    }
    .unwrap();
}

fn remove(tree: &Tree, base: u64) -> bool {
    // SAFETY: the test's only writer.
    unsafe { tree.remove(base) }
}

fn compare(tree: &Tree, model: &BTreeMap<u64, u64>, at: u64) {
    let entry = |(&base, &last): (&u64, &u64)| Entry {
        base,
        last,
        handle: base ^ 0x5555,
    };
    assert_eq!(
        tree.entry_at_or_before(at),
        model.range(..=at).next_back().map(entry),
        "before {at:#x}"
    );
    assert_eq!(
        tree.entry_at_or_after(at),
        model.range(at..).next().map(entry),
        "after {at:#x}"
    );
}

fn walk(tree: &Tree) -> Vec<u64> {
    let mut found = Vec::new();
    let mut next = tree.entry_at_or_after(0);
    while let Some(entry) = next {
        found.push(entry.base);
        next = entry
            .base
            .checked_add(1)
            .and_then(|at| tree.entry_at_or_after(at));
    }
    found
}

#[test]
fn agrees_with_a_map() {
    let rounds: u64 = if cfg!(miri) { 400 } else { 60_000 };
    for (seed, space) in [(1, 100), (2, 3_000), (3, 1 << 40)] {
        let tree = Tree::new();
        let mut model = BTreeMap::new();
        let mut random = Random(seed);
        for round in 0..rounds {
            // Grow in the first half, shrink in the second.
            let grow = random.below(100) < if round < rounds / 2 { 65 } else { 35 };
            let at = random.below(space) * 16;
            if grow {
                model.entry(at).or_insert_with(|| {
                    insert(&tree, at, at + 7);
                    at + 7
                });
            } else {
                let victim = model.range(at..).next().map(|(&base, _)| base);
                if let Some(base) = victim {
                    assert!(remove(&tree, base));
                    model.remove(&base);
                }
                assert!(!remove(&tree, at + 3));
            }
            compare(&tree, &model, random.below(space * 16));
            compare(&tree, &model, at);
        }
        assert_eq!(walk(&tree), model.keys().copied().collect::<Vec<_>>());
        for base in walk(&tree) {
            assert!(remove(&tree, base));
        }
        assert_eq!(tree.entry_at_or_after(0), None);
        compare(&tree, &BTreeMap::new(), 5);
    }
}

#[test]
fn ascending_and_descending() {
    let n = if cfg!(miri) { 200 } else { 40_000 };
    for descending in [false, true] {
        let tree = Tree::new();
        let order: Vec<u64> = if descending {
            (0..n).rev().collect()
        } else {
            (0..n).collect()
        };
        for &i in &order {
            insert(&tree, i * 4096, i * 4096 + 4095);
        }
        for i in 0..n {
            let entry = tree.entry_at_or_before(i * 4096 + 17).unwrap();
            assert_eq!(entry.base, i * 4096);
        }
        for &i in &order {
            assert!(remove(&tree, i * 4096));
        }
        assert_eq!(tree.entry_at_or_before(u64::MAX), None);
    }
}

/// An entry that reaches into the range of the next leaf, whose first entries are gone.
#[test]
fn an_entry_may_reach_into_the_next_leaf() {
    let tree = Tree::new();
    for i in 0..33 {
        insert(&tree, i * 16, i * 16 + 15);
    }
    // The second leaf begins somewhere in the upper half: take out what could be its first entry, and let the entry
    // before reach over the gap.
    for gap in 1..33 {
        let (base, next) = ((gap - 1) * 16, gap * 16);
        assert!(remove(&tree, base) && remove(&tree, next));
        insert(&tree, base, next + 15);
        for at in base..next + 16 {
            let entry = tree.entry_at_or_before(at).unwrap();
            assert_eq!(
                (entry.base, entry.last),
                (base, next + 15),
                "gap {gap}, at {at}"
            );
        }
        assert!(remove(&tree, base));
        insert(&tree, base, base + 15);
        insert(&tree, next, next + 15);
    }
}

#[test]
fn the_top_of_the_address_space() {
    let tree = Tree::new();
    insert(&tree, u64::MAX, u64::MAX);
    for i in 0..100 {
        insert(&tree, u64::MAX - 2 - i, u64::MAX - 2 - i);
    }
    assert_eq!(
        tree.entry_at_or_before(u64::MAX).map(|e| e.base),
        Some(u64::MAX)
    );
    assert_eq!(
        tree.entry_at_or_before(u64::MAX - 1).map(|e| e.base),
        Some(u64::MAX - 2)
    );
    assert_eq!(
        tree.entry_at_or_after(u64::MAX - 1).map(|e| e.base),
        Some(u64::MAX)
    );
    assert!(remove(&tree, u64::MAX));
    assert_eq!(tree.entry_at_or_after(u64::MAX - 1), None);
}

/// Entries that are always there are always found, and what is found is whole, while a writer splits and empties nodes.
#[test]
fn readers_see_whole_states() {
    let (fixed, churn, rounds) = if cfg!(miri) {
        (40, 40, 3)
    } else {
        (500, 2_000, 60)
    };
    let tree = Tree::new();
    for i in 0..fixed {
        insert(&tree, i * 1000, i * 1000 + 9);
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..if cfg!(miri) { 2 } else { 4 } {
            let (tree, done) = (&tree, &done);
            scope.spawn(move || {
                let mut random = Random(thread);
                while !done.load(Ordering::Relaxed) {
                    let i = random.below(fixed);
                    let entry = tree
                        .entry_at_or_before(i * 1000 + random.below(10))
                        .unwrap();
                    assert_eq!((entry.base, entry.last), (i * 1000, i * 1000 + 9));
                    assert_eq!(entry.handle, entry.base ^ 0x5555);
                    let any = tree.entry_at_or_after(random.below(fixed * 1000));
                    assert!(
                        any.is_none_or(|e| e.handle == e.base ^ 0x5555 && e.last == e.base + 9)
                    );
                }
            });
        }
        let mut random = Random(99);
        for _ in 0..rounds {
            let mut there = Vec::new();
            for _ in 0..churn {
                let base = random.below(fixed) * 1000 + 10 + random.below(98) * 10;
                if tree.entry_at_or_before(base).is_none_or(|e| e.base != base) {
                    insert(&tree, base, base + 9);
                    there.push(base);
                }
            }
            for base in there {
                assert!(remove(&tree, base));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
