//! Every allocation of the DMA table fails once: the call reports ENOMEM, nothing is lost or changed, and it works the
//! next time. Also: what needs no memory uses none.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod dma_common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use dma_common::*;
use vfu::dma::{Access, Dma, Error, LogRange};

/// The system's allocator, which can be told to fail on this thread.
struct Failing;

thread_local! {
    /// How many more allocations succeed; negative: all.
    static LEFT: Cell<i64> = const { Cell::new(-1) };
    static MADE: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

fn allowed() -> bool {
    MADE.set(MADE.get() + 1);
    let left = LEFT.get();
    if left > 0 {
        LEFT.set(left - 1);
    }
    left != 0
}

// SAFETY: passes everything on to the system's allocator, or returns null as an allocator may.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !allowed() {
            return std::ptr::null_mut();
        }
        LIVE.set(LIVE.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !allowed() {
            return std::ptr::null_mut();
        }
        LIVE.set(LIVE.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - 1);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Runs `work` with its n-th allocation failing, for each n until it succeeds without. Returns the number of failures.
fn sweep<T>(
    mut work: impl FnMut() -> Result<T, Error>,
    mut after_failure: impl FnMut(),
) -> (u64, T) {
    for n in 0.. {
        LEFT.set(n);
        let result = work();
        LEFT.set(-1);
        match result {
            Ok(value) => return (u64::try_from(n).unwrap(), value),
            Err(error) => assert_eq!((error, error.errno()), (Error::NoMemory, libc::ENOMEM)),
        }
        after_failure();
    }
    unreachable!()
}

#[test]
fn every_allocation_may_fail() {
    let fds = open_fds();
    let live = LIVE.get();
    let (failures, dma) = sweep(|| Dma::new(1_000), || {});
    assert_eq!(failures, 1);
    let mut failures = [0; 3];
    for i in 0..300 {
        // In an order that splits nodes in the middle, too.
        let iova = i * 37 % 300 * PAGE;
        let file = memfd(PAGE);
        let access = if i % 5 == 0 {
            Access::File
        } else {
            Access::Mapped
        };
        let before = (dma.len(), open_fds(), mappings());
        let (n, _) = sweep(
            || dma.add(with_file(iova, PAGE, 0, access, file.try_clone().unwrap())),
            || {
                assert_eq!((dma.len(), open_fds(), mappings()), before);
                assert_eq!(
                    translate(&dma, iova, 1, 0).unwrap_err().errno(),
                    libc::ENOENT
                );
            },
        );
        failures[usize::try_from(n.min(2)).unwrap()] += 1;
        if i == 150 {
            let (n, ()) = sweep(
                || {
                    dma.start_logging(
                        PAGE,
                        &[LogRange {
                            iova: 0,
                            length: 280 * PAGE,
                        }],
                    )
                },
                || assert_eq!(dma.logging_page_size(), None),
            );
            assert!(n > 100, "a bitmap for each region: {n}");
        }
    }
    assert!(failures.iter().all(|&n| n > 0), "{failures:?}");
    // More ranges while logging: what was logged stays.
    dma.write(&one(&dma, 0, 1), &[1]).unwrap();
    let (n, ()) = sweep(
        || dma.start_logging(PAGE, &[]),
        || assert_eq!(dma.logging_page_size(), Some(PAGE)),
    );
    assert!(n > 5, "{n}");
    assert_eq!(bits(&report(&dma, 0, PAGE, PAGE).unwrap()), [0]);
    drop(dma);
    assert_eq!(
        (open_fds(), mappings(), LIVE.get()),
        (fds, 0, live),
        "all given back"
    );
}

/// Once a table has grown, mapping and unmapping allocate nothing; neither do translation, access, and reports.
#[test]
fn a_table_in_use_allocates_nothing() {
    let dma = Dma::new(1_000).unwrap();
    for i in 0..100 {
        add(&dma, message(i * 2 * PAGE, PAGE));
    }
    let file = memfd(PAGE);
    let mut out = [0; 8];
    let mut round = |iova: u64| {
        let region = with_file(iova, PAGE, 0, Access::Mapped, file.try_clone().unwrap());
        let id = add(&dma, region).id;
        let mut list = [std::mem::MaybeUninit::uninit(); 1];
        assert_eq!(dma.translate(iova, PAGE, RW, &mut list), Ok(1));
        // SAFETY: the one entry was filled.
        let segment = unsafe { list[0].assume_init() };
        dma.segment_to_iovec(&segment).unwrap();
        dma.write(&segment, &[1; 4096]).unwrap();
        dma.read(&segment, &mut [0; 4096]).unwrap();
        if dma.logging_page_size().is_some() {
            dma.report(iova, PAGE, PAGE, &mut out).unwrap();
        }
        dma.remove(id).unwrap();
    };
    for i in 0..100 {
        round((i * 2 + 1) * PAGE); // full nodes are split once
    }
    let made = MADE.get();
    for i in 0..100 {
        round((i * 2 + 1) * PAGE);
    }
    assert_eq!(MADE.get(), made);
    // While logging, a bitmap a region.
    dma.start_logging(PAGE, &[]).unwrap();
    let made = MADE.get();
    round(PAGE);
    assert_eq!(MADE.get(), made + 1);
}

/// An empty table is small, and one region adds a chunk of slots and a leaf.
#[test]
fn small_tables_are_small() {
    let live = LIVE.get();
    let dma = Dma::new(1_000_000).unwrap();
    assert_eq!(LIVE.get() - live, 1);
    add(&dma, message(0, 1));
    assert_eq!(LIVE.get() - live, 4); // table, slots, a leaf, and an inner node in reserve
    drop(dma);
    assert_eq!(LIVE.get(), live);
}
