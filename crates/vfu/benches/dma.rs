//! The DMA table against what a plain data structure or system call would cost: `cargo bench -p vfu --bench dma`.
//!
//! Each row is the median of interleaved slices, and a ratio to its floor: translation against a binary search in a
//! sorted vector, map + unmap against the bare system calls, a report against copying and clearing the bits.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a benchmark prints, may stop, and runs on 64 bits"
)]

use std::ffi::CString;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Barrier;
use std::time::Instant;

use vfu::dma::{Access, Dma, NewRegion, PROT_READ, PROT_WRITE, Segment};

const PAGE: u64 = 4096;
const RW: u32 = PROT_READ | PROT_WRITE;
const SLICES: usize = 15;

/// Nanoseconds per call of each side, medians of slices in turns.
fn paired(calls: u64, mut floor: impl FnMut(u64), mut ours: impl FnMut(u64)) -> (f64, f64) {
    let mut times = [Vec::new(), Vec::new()];
    let slice = |times: &mut Vec<f64>, work: &mut dyn FnMut(u64)| {
        let start = Instant::now();
        for i in 0..calls {
            work(i);
        }
        times.push(start.elapsed().as_secs_f64() * 1e9 / calls as f64);
    };
    for _ in 0..SLICES {
        let [a, b] = &mut times;
        slice(a, &mut floor);
        slice(b, &mut ours);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let [a, b] = &mut times;
    (median(a), median(b))
}

fn row(what: &str, (floor, ours): (f64, f64)) {
    println!(
        "{what:<44} floor {floor:>9.1} ns   ours {ours:>9.1} ns   ratio {:>5.2}",
        ours / floor
    );
}

fn memfd(len: u64) -> OwnedFd {
    let name = CString::new("dma-bench").unwrap();
    // SAFETY: the name is a NUL-terminated string.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: just opened, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let len = i64::try_from(len).unwrap();
    // SAFETY: the descriptor is open.
    let result = unsafe { libc::ftruncate(fd.as_raw_fd(), len) };
    assert_eq!(result, 0);
    fd
}

fn message(iova: u64, size: u64) -> NewRegion {
    NewRegion {
        iova,
        size,
        prot: RW,
        offset: 0,
        access: Access::Message,
        fd: None,
    }
}

fn mapped(iova: u64, size: u64, fd: &OwnedFd) -> NewRegion {
    let fd = Some(fd.try_clone().unwrap());
    NewRegion {
        iova,
        size,
        prot: RW,
        offset: 0,
        access: Access::Mapped,
        fd,
    }
}

fn table(regions: u64) -> Dma {
    let dma = Dma::new(1 << 20).unwrap();
    for i in 0..regions {
        dma.add(message(i * 2 * PAGE, PAGE)).unwrap();
    }
    dma
}

/// Addresses in random order, made before the clock runs.
fn addresses(regions: u64) -> Vec<u64> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % regions * 2 * PAGE + 8
    };
    (0..1 << 16).map(|_| next()).collect()
}

#[inline(never)]
fn translate(dma: &Dma, iova: u64, out: &mut [MaybeUninit<Segment>; 1]) -> usize {
    dma.translate(iova, 64, RW, out).unwrap()
}

fn translation() {
    for regions in [1, 64, 1_000, 16_000, 1_000_000] {
        let dma = table(regions);
        let flat: Vec<(u64, u64)> = (0..regions).map(|i| (i * 2 * PAGE, PAGE)).collect();
        let wanted = addresses(regions);
        let at = |i: u64| wanted[i as usize & (wanted.len() - 1)];
        let mut out = [MaybeUninit::uninit(); 1];
        let pair = paired(
            200_000,
            |i| {
                let iova = at(i);
                let found = flat.partition_point(|region| region.0 <= iova) - 1;
                assert!(iova - flat[found].0 < flat[found].1);
                black_box(found);
            },
            |i| {
                black_box(translate(&dma, at(i), &mut out));
                black_box(&out);
            },
        );
        row(&format!("translate, random, {regions} regions"), pair);
    }
}

fn translation_by_threads() {
    let dma = table(1_000);
    let wanted = addresses(1_000);
    for threads in [1, 2, 4] {
        let barrier = Barrier::new(threads);
        let calls = 2_000_000_u64;
        // Processor time of each thread, so that more threads than processors do not count as slower.
        let total: f64 = std::thread::scope(|scope| {
            let work = || {
                let mut out = [MaybeUninit::uninit(); 1];
                barrier.wait();
                let start = thread_seconds();
                for i in 0..calls {
                    let iova = wanted[i as usize & (wanted.len() - 1)];
                    black_box(translate(&dma, iova, &mut out));
                }
                thread_seconds() - start
            };
            let spawned: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            spawned
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        let each = total * 1e9 / (calls as f64 * threads as f64);
        println!("translate, 1000 regions, {threads} threads: {each:.1} ns of processor time each");
    }
}

fn thread_seconds() -> f64 {
    let mut now = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: memory for one struct timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, now.as_mut_ptr()) };
    assert_eq!(result, 0);
    // SAFETY: the call succeeded.
    let now = unsafe { now.assume_init() };
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn map_and_unmap() {
    for regions in [0, 16_000, 1_000_000] {
        let dma = table(regions);
        let file = memfd(PAGE);
        let iova = regions * PAGE / 2 * 2 + PAGE;
        let pair = paired(
            5_000,
            |_| {
                let fd = file.try_clone().unwrap();
                let mut stat = MaybeUninit::<libc::stat>::uninit();
                // SAFETY: an open descriptor and memory for the result; then a mapping that only this closure knows.
                unsafe {
                    libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr());
                    let prot = libc::PROT_READ | libc::PROT_WRITE;
                    let p = libc::mmap(
                        std::ptr::null_mut(),
                        4096,
                        prot,
                        libc::MAP_SHARED,
                        fd.as_raw_fd(),
                        0,
                    );
                    libc::madvise(p, 4096, libc::MADV_DONTDUMP);
                    libc::munmap(p, 4096);
                }
            },
            |_| {
                dma.add(mapped(iova, PAGE, &file)).unwrap();
                dma.remove(dma.find_exact(iova, PAGE).unwrap()).unwrap();
            },
        );
        row(
            &format!("map + unmap with descriptor, {regions} regions"),
            pair,
        );
        let before = |dma: &Dma| {
            dma.add(message(iova, PAGE)).unwrap();
            dma.remove(dma.find_exact(iova, PAGE).unwrap()).unwrap();
        };
        let empty = Dma::new(10).unwrap();
        let pair = paired(20_000, |_| before(&empty), |_| before(&dma));
        row(
            &format!("  by message; floor: an empty table, {regions}"),
            pair,
        );
    }
}

fn reports() {
    let size = 1_u64 << 30;
    let dma = Dma::new(2).unwrap();
    let fd = Some(memfd(0));
    dma.add(NewRegion {
        access: Access::File,
        fd,
        ..message(0, size)
    })
    .unwrap();
    dma.start_logging(PAGE, &[]).unwrap();
    let mut whole = [MaybeUninit::uninit()];
    assert_eq!(dma.translate(0, size, RW, &mut whole), Ok(1));
    // SAFETY: the one entry was filled.
    let whole = unsafe { whole[0].assume_init() };
    let mut source = vec![u64::MAX; 4096];
    let mut target = vec![0_u64; 4096];
    let mut out = vec![0; Dma::report_size(size, PAGE).unwrap()];
    let dirty = |percent: u64| match percent {
        0 => {}
        100 => dma.mark_dirty(&whole).unwrap(),
        _ => {
            for page in (0..size / PAGE).step_by(100) {
                let segment = Segment {
                    offset: page * PAGE,
                    length: 1,
                    ..whole
                };
                dma.mark_dirty(&segment).unwrap();
            }
        }
    };
    for (percent, page_size) in [
        (0, PAGE),
        (1, PAGE),
        (100, PAGE),
        (100, 2 * PAGE),
        (100, PAGE / 2),
    ] {
        out.resize(Dma::report_size(size, page_size).unwrap(), 0);
        // The marking is not part of what is measured.
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..300 {
            let start = Instant::now();
            target.copy_from_slice(black_box(&source));
            black_box(&mut source).fill(0);
            times[0].push(start.elapsed().as_secs_f64() * 1e9);
            source.fill(u64::MAX);
            dirty(percent);
            let start = Instant::now();
            dma.report(0, size, page_size, black_box(&mut out)).unwrap();
            times[1].push(start.elapsed().as_secs_f64() * 1e9);
        }
        let median = |i: usize| {
            let mut sorted = times[i].clone();
            sorted.sort_by(f64::total_cmp);
            sorted[sorted.len() / 2]
        };
        row(
            &format!("report of 1 GiB, {percent} % dirty, pages of {page_size}"),
            (median(0), median(1)),
        );
    }
}

fn access() {
    let dma = Dma::new(2).unwrap();
    dma.add(mapped(0, 1 << 20, &memfd(1 << 20))).unwrap();
    let mut out = [MaybeUninit::uninit()];
    dma.translate(0, 4096, RW, &mut out).unwrap();
    // SAFETY: the one entry was filled.
    let segment = unsafe { out[0].assume_init() };
    let memory = dma.segment_to_iovec(&segment).unwrap().0;
    let buffer = vec![1_u8; 4096];
    let pair = paired(
        100_000,
        // SAFETY: the region is mapped for 4096 bytes and stays.
        |_| unsafe { memory.as_ptr().copy_from(black_box(buffer.as_ptr()), 4096) },
        |_| {
            dma.write(&segment, black_box(&buffer)).unwrap();
        },
    );
    row("direct write of 4 KiB", pair);
    let pair = paired(
        1_000_000,
        |_| {
            black_box(memory);
        },
        |_| {
            black_box(dma.segment_to_iovec(black_box(&segment)).unwrap());
        },
    );
    row("segment_to_iovec", pair);
    dma.start_logging(PAGE, &[]).unwrap();
    let pair = paired(
        1_000_000,
        |_| {
            black_box(memory);
        },
        |_| dma.mark_dirty(black_box(&segment)).unwrap(),
    );
    row("mark_dirty of a page, logging", pair);
}

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return; // `cargo test --benches` only wants to know that it builds
    }
    translation();
    translation_by_threads();
    map_and_unmap();
    reports();
    access();
}
