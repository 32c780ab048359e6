//! What the ledger keeps, and what freed memory still says, must not hold a block.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::mem_forget,
    clippy::too_many_lines,
    reason = "a test says what is wrong by failing"
)]

mod common;

use clib_hook::reach::{Reach, Roots, reachability};
use common::{build, session};

const SOURCE: &str = r"
#include <stdlib.h>
/* Inverted, so that the caller's registers and stack hold no pointer. */
unsigned long one(size_t size) { return ~(unsigned long)calloc(1, size); }
";

/// Fills heap memory of many sizes with pointers, and frees it.
#[inline(never)]
fn litter(blocks: &[usize]) {
    for bytes in [24, 40, 120, 600, 5000, 100_000] {
        let copies: Vec<Vec<usize>> = (0..20)
            .map(|_| {
                blocks
                    .iter()
                    .cycle()
                    .take(bytes / 8)
                    .map(|block| !block)
                    .collect()
            })
            .collect();
        std::hint::black_box(&copies);
        // Keep some neighbours, so that not all of it melts into one free chunk.
        for (number, copy) in copies.into_iter().enumerate() {
            if number % 3 == 0 {
                std::mem::forget(vec![0_u8; bytes]);
            }
            drop(copy);
        }
    }
}

#[inline(never)]
fn scrub() {
    let mut waste = [0_u8; 1 << 16];
    std::hint::black_box(&mut waste);
}

fn main() {
    let library = build("litter", SOURCE, &[]).load();
    let session = session(&[library.name()]);
    let one: extern "C" fn(usize) -> usize = library.function("one");
    let blocks: Vec<usize> = (0..50).map(|_| one(48)).collect();
    for round in 0..3 {
        litter(&blocks);
        scrub();
        let held = session.held_since(clib_hook::session::Mark(0));
        assert_eq!(held.len(), 50);
        let reach = reachability(&held, &Roots::default()).expect("a scan");
        let lost = reach.iter().filter(|reach| **reach == Reach::Lost).count();
        // A few may be held by the unused ends of blocks that are in use, as in any such scan.
        assert!(
            lost >= 40,
            "round {round}: only {lost} of 50 are known to be lost"
        );
    }
    // And one that is kept is seen: it was lost before, so nothing but the box holds it.
    let held = session.held_since(clib_hook::session::Mark(0));
    let before = reachability(&held, &Roots::default()).expect("a scan");
    let chosen = before
        .iter()
        .position(|reach| *reach == Reach::Lost)
        .expect("one that is lost");
    let kept = Box::new(!blocks[chosen]);
    let after = reachability(&held, &Roots::default()).expect("a scan");
    assert_eq!(after[chosen], Reach::Reachable);
    drop(kept);
    println!("old bytes hold nothing: ok");
}
