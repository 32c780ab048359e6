//! What a hooked call costs over a plain one, in nanoseconds.
//!
//! Hooked and plain slices alternate, so that whatever else the machine does meets both; the figure is the median of the
//! differences. `cargo bench -p clib-hook`.

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

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use clib_hook::Options;
use common::{Loaded, build, session_with};

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <unistd.h>
#include <fcntl.h>
#include <math.h>
void pairs(long n) { while (n-- > 0) { void *volatile p = malloc(48); free(p); } }
void plain(long n) { while (n-- > 0) rand(); }
void opens(long n) { while (n-- > 0) close(open("/dev/null", O_RDONLY)); }
void dups(long n) { while (n-- > 0) close(dup(0)); }
__attribute__((noinline)) static void deep3(void) { void *volatile p = malloc(48); free(p); }
__attribute__((noinline)) static void deep2(void) { deep3(); __asm__ volatile(""); }
__attribute__((noinline)) static void deep1(void) { deep2(); __asm__ volatile(""); }
void deep(long n) { while (n-- > 0) { deep1(); __asm__ volatile(""); } }
"#;

const SLICES: usize = 101;

fn slice(work: extern "C" fn(i64), calls: i64) -> f64 {
    let start = Instant::now();
    work(calls);
    start.elapsed().as_nanos() as f64 / calls as f64
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Prints the row for one function of the library: `hooked` is the copy under test, `plain` its twin.
fn row(
    name: &str,
    function: &str,
    per_iteration: f64,
    calls: i64,
    hooked: &Loaded,
    plain: &Loaded,
) {
    let (hooked, plain): (extern "C" fn(i64), extern "C" fn(i64)) =
        (hooked.function(function), plain.function(function));
    hooked(calls);
    plain(calls);
    let mut differences = Vec::new();
    let mut bare = Vec::new();
    for number in 0..SLICES {
        // Neither is always first.
        let (with, without) = if number % 2 == 0 {
            let with = slice(hooked, calls);
            (with, slice(plain, calls))
        } else {
            let without = slice(plain, calls);
            (slice(hooked, calls), without)
        };
        differences.push((with - without) / per_iteration);
        bare.push(without / per_iteration);
    }
    let (over, bare) = (median(differences), median(bare));
    println!("{name:<46} plain {bare:>7.1} ns/call   hooked +{over:>6.1} ns/call");
}

fn main() {
    let flags = ["-O2", "-fno-builtin"];
    let plain = build("twin", SOURCE, &flags).load();
    for (depth, calls) in [(0, 20_000), (8, 20_000)] {
        let hooked = build(&format!("bench{depth}"), SOURCE, &flags).load();
        let session = session_with(
            &[hooked.name()],
            Options {
                stack_depth: depth,
                ..Options::default()
            },
        );
        println!("frames kept: {depth}");
        row(
            "  counted only (rand)",
            "plain",
            1.0,
            calls,
            &hooked,
            &plain,
        );
        row(
            "  malloc + free, mean of the two",
            "pairs",
            2.0,
            calls,
            &hooked,
            &plain,
        );
        row(
            "  the same, three functions deep",
            "deep",
            2.0,
            calls,
            &hooked,
            &plain,
        );
        row(
            "  dup + close, mean of the two",
            "dups",
            2.0,
            2_000,
            &hooked,
            &plain,
        );
        drop(session);
    }
}
