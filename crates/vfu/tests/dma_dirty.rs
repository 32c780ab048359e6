//! The dirty page log: marking, reports in all page sizes and ranges, errors, limits.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod dma_common;

use std::collections::BTreeSet;
use std::mem::MaybeUninit;

use dma_common::*;
use proptest::prelude::*;
use vfu::dma::{
    Access, Dma, Error, LogRange, MAX_REGION_SIZE, MAX_REPORT_BYTES, PROT_READ, Segment,
};

/// The layout of the published tests: 32 pages from page 16 on with a file of 16, and a message region from page 64 on.
fn published() -> Dma {
    let dma = Dma::new(10).unwrap();
    add(
        &dma,
        with_file(16 * PAGE, 32 * PAGE, 0, Access::Mapped, memfd(16 * PAGE)),
    );
    add(&dma, message(64 * PAGE, 16 * PAGE));
    dma.start_logging(PAGE, &[]).unwrap();
    dma
}

/// Marks `count` pages from `page` on, counted in the address space.
fn mark(dma: &Dma, page: u64, count: u64) {
    dma.mark_dirty(&one(dma, page * PAGE, count * PAGE))
        .unwrap();
}

#[track_caller]
fn expect(dma: &Dma, page_size: u64, wanted: &[u64]) {
    let bitmap = report(dma, 16 * PAGE, 16 * PAGE, page_size).unwrap();
    assert_eq!(bitmap.len(), 8);
    assert_eq!(bits(&bitmap), wanted);
}

#[test]
fn the_published_results() {
    let dma = published();
    expect(&dma, PAGE, &[]);
    let sg1_and_4 = || {
        mark(&dma, 0x10, 1);
        mark(&dma, 0x16, 4);
    };
    sg1_and_4();
    expect(&dma, PAGE, &[0, 6, 7, 8, 9]);
    expect(&dma, PAGE, &[]);
    sg1_and_4();
    expect(&dma, PAGE / 2, &[0, 1, 12, 13, 14, 15, 16, 17, 18, 19]);
    sg1_and_4();
    expect(&dma, PAGE * 2, &[0, 3, 4]);
    sg1_and_4();
    expect(&dma, PAGE * 16, &[0]);
    expect(&dma, PAGE * 16, &[]);
    // Reading entries never mark.
    let entry = translate(&dma, 0x11 * PAGE, PAGE, PROT_READ).unwrap()[0];
    dma.mark_dirty(&entry).unwrap();
    expect(&dma, PAGE, &[]);
    // Bits beyond the 16 pages, in the same 64-bit word.
    for (page, count) in [
        (0x10, 1),
        (0x17, 1),
        (0x10, 7),
        (0x10, 9),
        (0x17, 2),
        (0x1f, 1),
        (0x27, 1),
    ] {
        mark(&dma, page, count);
        expect(
            &dma,
            PAGE,
            &(page - 0x10..page - 0x10 + count).collect::<Vec<_>>(),
        );
    }
    mark(&dma, 0x26, 1);
    mark(&dma, 0x12, 2);
    expect(&dma, PAGE, &[2, 3, 22]);
}

#[test]
fn errors_in_order() {
    let dma = published();
    let errno = |iova, len, page_size| report(&dma, iova, len, page_size).unwrap_err().errno();
    assert_eq!(errno(0xdead_beef, PAGE, PAGE), libc::ENOENT);
    assert_eq!(
        errno(16 * PAGE, 33 * PAGE, PAGE),
        libc::ENOENT,
        "the end is not covered"
    );
    assert_eq!(errno(16 * PAGE + 1, 32 * PAGE - 1, PAGE), libc::ENOTSUP);
    assert_eq!(errno(16 * PAGE, 16 * PAGE, 1 << 24), libc::EINVAL);
    assert_eq!(
        errno(64 * PAGE, 16 * PAGE, PAGE),
        libc::EINVAL,
        "message region"
    );
    let fails = |iova, len, page_size| report(&dma, iova, len, page_size).unwrap_err();
    assert_eq!(fails(16 * PAGE, PAGE, 0), Error::PageSize { page_size: 0 });
    assert_eq!(
        fails(16 * PAGE, 9 * PAGE, 3 * PAGE),
        Error::PageSize {
            page_size: 3 * PAGE
        }
    );
    assert_eq!(
        fails(16 * PAGE, 100, 64),
        Error::ReportTooShort {
            length: 100,
            page_size: PAGE
        }
    );
    assert_eq!(
        fails(64 * PAGE, PAGE, PAGE),
        Error::NotLogged { iova: 64 * PAGE }
    );
    let mut wrong = [0; 16];
    let error = dma
        .report(16 * PAGE, 16 * PAGE, PAGE, &mut wrong)
        .unwrap_err();
    assert_eq!(
        error,
        Error::BufferSize {
            expected: 8,
            found: 16
        }
    );
    dma.stop_logging().unwrap();
    assert_eq!(fails(16 * PAGE, PAGE, 0), Error::NotLogging);
    assert_eq!(
        fails(16 * PAGE + 1, PAGE, PAGE).errno(),
        libc::ENOTSUP,
        "before \"not logging\""
    );
}

/// D2: conversions of more than 256 bits end, and are right.
#[test]
fn long_conversions() {
    let dma = Dma::new(10).unwrap();
    add(&dma, mapped(0, 16 << 20));
    dma.start_logging(64 << 10, &[]).unwrap();
    let last = (16 << 20) - 1;
    dma.mark_dirty(&one(&dma, last, 1)).unwrap();
    dma.mark_dirty(&one(&dma, 0, 1)).unwrap();
    let found = bits(&report(&dma, 0, 16 << 20, PAGE).unwrap());
    assert_eq!(found, (0..16).chain(4080..4096).collect::<Vec<_>>());
    dma.stop_logging().unwrap();
    dma.start_logging(PAGE, &[]).unwrap();
    touch(&dma, &[4095]);
    assert_eq!(bits(&report(&dma, 0, 16 << 20, 2 * PAGE).unwrap()), [2047]);
}

/// D61: page sizes that break the arithmetic or take all memory are refused, before anything is allocated.
#[test]
fn page_sizes_and_limits() {
    let dma = Dma::new(1_000).unwrap();
    for page_size in [0, 1, 256, 511, 513, 3 << 12, u64::MAX] {
        assert_eq!(
            dma.start_logging(page_size, &[]),
            Err(Error::PageSize { page_size })
        );
    }
    let file = memfd(PAGE);
    let huge = |i: u64| {
        let file = file.try_clone().unwrap();
        with_file(i * MAX_REGION_SIZE, MAX_REGION_SIZE, 0, Access::File, file)
    };
    for i in 0..5 {
        add(&dma, huge(i));
    }
    // 5 * 8 TiB in pages of 4 KiB have 1.25 GiB of bits.
    let error = dma.start_logging(PAGE, &[]).unwrap_err();
    assert_eq!(
        (error, error.errno()),
        (Error::BitmapLimit { bytes: 5 << 28 }, libc::ENOMEM)
    );
    assert_eq!(dma.logging_page_size(), None);
    dma.start_logging(8 * PAGE, &[]).unwrap();
    assert_eq!(dma.logging_page_size(), Some(8 * PAGE));
    dma.stop_logging().unwrap();
    remove(&dma, 0, MAX_REGION_SIZE);
    dma.start_logging(PAGE, &[]).unwrap();
    // A region that is added while logging counts, too; then there is room again.
    assert_eq!(dma.add(huge(0)).unwrap_err().errno(), libc::ENOMEM);
    assert_eq!(dma.len(), 4);
    remove(&dma, MAX_REGION_SIZE, MAX_REGION_SIZE);
    add(&dma, huge(0));
}

#[test]
fn starting_again() {
    let dma = published();
    mark(&dma, 16, 1);
    assert_eq!(dma.start_logging(PAGE, &[]), Ok(()));
    expect(&dma, PAGE, &[0]);
    for page_size in [PAGE / 2, PAGE * 2] {
        let error = dma.start_logging(page_size, &[]).unwrap_err();
        assert_eq!(
            error,
            Error::PageSizeDiffers {
                page_size,
                current: PAGE
            }
        );
    }
    mark(&dma, 16, 1);
    dma.stop_logging().unwrap();
    dma.stop_logging().unwrap();
    mark(&dma, 17, 1);
    dma.start_logging(2 * PAGE, &[]).unwrap();
    expect(&dma, PAGE, &[]);
    // A region smaller than a page: nothing is started.
    dma.stop_logging().unwrap();
    add(
        &dma,
        with_file(1 << 30, PAGE, 0, Access::Mapped, memfd(PAGE)),
    );
    let error = dma.start_logging(2 * PAGE, &[]).unwrap_err();
    assert_eq!(
        error,
        Error::SmallerThanPage {
            iova: 1 << 30,
            size: PAGE,
            page_size: 2 * PAGE
        }
    );
    assert_eq!(dma.logging_page_size(), None);
    assert_eq!(report(&dma, 16 * PAGE, PAGE, PAGE), Err(Error::NotLogging));
    dma.start_logging(PAGE, &[]).unwrap();
    let error = dma.add(mapped(1 << 31, PAGE / 2)).unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL);
}

/// D62: the size of a report is bounded whatever the client asks, before the range is looked at.
#[test]
fn report_sizes() {
    assert_eq!(Dma::report_size(1, PAGE), Ok(8));
    assert_eq!(Dma::report_size(64 * PAGE, PAGE), Ok(8));
    assert_eq!(Dma::report_size(64 * PAGE + 1, PAGE), Ok(16));
    assert_eq!(Dma::report_size(PAGE, 0).unwrap_err().errno(), libc::EINVAL);
    let most = MAX_REPORT_BYTES as u64 * 8 * PAGE;
    assert_eq!(Dma::report_size(most, PAGE), Ok(MAX_REPORT_BYTES));
    for (length, page_size) in [
        (most + 1, PAGE),
        (u64::MAX, 1),
        (u64::MAX, 512),
        (1 << 43, 512),
    ] {
        let error = Dma::report_size(length, page_size).unwrap_err();
        assert_eq!(
            (error, error.errno()),
            (Error::ReportTooLong { length, page_size }, libc::EINVAL)
        );
    }
    let dma = Dma::new(1).unwrap();
    add(&dma, with_file(0, 1 << 40, 0, Access::File, memfd(0)));
    dma.start_logging(1 << 20, &[]).unwrap();
    assert!(dma.check_report(0, 1 << 40, 512).is_err());
    assert_eq!(report(&dma, 0, 1 << 40, 1 << 40), Ok(vec![0; 8]));
    assert_eq!(report(&dma, 0, 1 << 40, 1 << 20).unwrap().len(), 1 << 17);
}

/// D57: the report is written whole, whatever the buffer held.
#[test]
fn the_buffer_is_overwritten() {
    let dma = published();
    let mut out = [0xff; 8];
    dma.report(16 * PAGE, 16 * PAGE, PAGE / 2, &mut out)
        .unwrap();
    assert_eq!(out, [0; 8]);
}

/// D44, and file regions: a write is marked; a failed one, too, since some of it may have been done.
#[test]
fn direct_writes_are_marked() {
    let dma = Dma::new(10).unwrap();
    add(&dma, mapped(0, 4 * PAGE));
    add(
        &dma,
        with_file(4 * PAGE, 4 * PAGE, 0, Access::File, memfd(4 * PAGE)),
    );
    dma.start_logging(PAGE, &[]).unwrap();
    add(&dma, mapped(8 * PAGE, 4 * PAGE)); // added while logging
    dma.write(&one(&dma, PAGE - 1, 2), &[1, 2]).unwrap();
    dma.write(&one(&dma, 6 * PAGE, 1), &[1]).unwrap();
    dma.write(&one(&dma, 11 * PAGE, 1), &[1]).unwrap();
    dma.write(&one(&dma, 10 * PAGE, 0x800), &[1; 0x800])
        .unwrap();
    dma.read(&one(&dma, 3 * PAGE, 1), &mut [1]).unwrap();
    let bad = Segment {
        length: 5 * PAGE,
        ..one(&dma, 0, 1)
    };
    assert!(dma.write(&bad, &vec![0; 5 * 4096]).is_err());
    let nothing = Segment {
        length: 0,
        ..one(&dma, 2 * PAGE, 1)
    };
    dma.write(&nothing, &[]).unwrap();
    dma.mark_dirty(&nothing).unwrap();
    assert_eq!(
        bits(&report(&dma, 0, 12 * PAGE, PAGE).unwrap()),
        [0, 1, 6, 10, 11]
    );
    assert_eq!(bits(&report(&dma, 0, 12 * PAGE, PAGE).unwrap()), []);
}

/// D44: the mark comes after the data. A report in the middle of a write may see the page clean or dirty; whoever copies
/// pages when a report says so has them all in the end.
#[test]
fn the_mark_comes_after_the_data() {
    const SIZE: usize = 1 << 20;
    let dma = Dma::new(1).unwrap();
    add(&dma, mapped(0, SIZE as u64));
    dma.start_logging(SIZE as u64, &[]).unwrap();
    let segment = one(&dma, 0, SIZE as u64);
    let mut copy = vec![0; SIZE];
    let mut follow = || {
        if !bits(&report(&dma, 0, SIZE as u64, SIZE as u64).unwrap()).is_empty() {
            dma.read(&segment, &mut copy).unwrap();
        }
        (copy[0], copy[SIZE - 1])
    };
    for round in 1..=100 {
        let data = vec![round; SIZE];
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| dma.write(&segment, &data).unwrap());
            while !writer.is_finished() {
                follow();
            }
        });
        assert_eq!(follow(), (round, round));
    }
}

/// D5: several regions, message regions among them, and a start in the middle.
#[test]
fn reports_over_any_range() {
    let dma = Dma::new(10).unwrap();
    add(&dma, mapped(0, 100 * PAGE));
    add(&dma, message(100 * PAGE, 30 * PAGE));
    add(&dma, mapped(130 * PAGE, 200 * PAGE));
    dma.start_logging(PAGE, &[]).unwrap();
    let pages = [0, 63, 64, 99, 130, 131, 192, 193, 200, 329];
    let dirty = || touch(&dma, &pages);
    for page_size in [PAGE / 4, PAGE, 4 * PAGE] {
        for (from, to) in [
            (0, 330),
            (4, 330),
            (60, 200),
            (64, 128),
            (96, 132),
            (192, 328),
        ] {
            dirty();
            let found = bits(&report(&dma, from * PAGE, (to - from) * PAGE, page_size).unwrap());
            let wanted: BTreeSet<u64> = pages
                .into_iter()
                .filter(|page| (from..to).contains(page))
                .flat_map(|page| {
                    let first = (page - from) * PAGE / page_size;
                    first..=((page - from + 1) * PAGE - 1) / page_size
                })
                .collect();
            // A report from a region's base within it may say more: the rest of its last word.
            let found: BTreeSet<u64> = found.into_iter().collect();
            assert_eq!(found, wanted, "{from}..{to} in {page_size:#x}");
            // The rest is still there, and only the rest.
            let rest = bits(&report(&dma, 0, 330 * PAGE, PAGE).unwrap());
            let left = pages.into_iter().filter(|page| !(from..to).contains(page));
            assert_eq!(
                rest,
                left.collect::<Vec<_>>(),
                "{from}..{to} in {page_size:#x}"
            );
        }
    }
}

/// A logged page of which the range holds a part is reported, and stays for whoever asks for the other part.
#[test]
fn pages_cut_by_the_range_stay_dirty() {
    let dma = Dma::new(10).unwrap();
    add(&dma, mapped(0, 256 * PAGE));
    dma.start_logging(16 * PAGE, &[]).unwrap();
    touch(&dma, &[40]); // in the log: page 2, which is pages 32 to 47 of the system
    assert_eq!(
        bits(&report(&dma, 24 * PAGE, 16 * PAGE, PAGE).unwrap()),
        [8, 9, 10, 11, 12, 13, 14, 15]
    );
    assert_eq!(
        bits(&report(&dma, 40 * PAGE, 16 * PAGE, PAGE).unwrap()),
        [0, 1, 2, 3, 4, 5, 6, 7]
    );
    assert_eq!(
        bits(&report(&dma, 32 * PAGE, 16 * PAGE, PAGE).unwrap()).len(),
        16
    );
    assert_eq!(bits(&report(&dma, 32 * PAGE, 16 * PAGE, PAGE).unwrap()), []);
}

#[test]
fn ranges_are_honoured() {
    let range = |page: u64, pages: u64| LogRange {
        iova: page * PAGE,
        length: pages * PAGE,
    };
    let dma = Dma::new(10).unwrap();
    add(&dma, mapped(0, 100 * PAGE));
    add(&dma, mapped(200 * PAGE, 100 * PAGE));
    add(&dma, mapped(400 * PAGE, 100 * PAGE));
    for bad in [
        LogRange { iova: 0, length: 0 },
        LogRange {
            iova: 2,
            length: u64::MAX,
        },
    ] {
        let error = Error::BadRange {
            iova: bad.iova,
            length: bad.length,
        };
        assert_eq!(dma.start_logging(PAGE, &[range(0, 1), bad]), Err(error));
        assert_eq!(dma.logging_page_size(), None);
    }
    // Unsorted, overlapping, touching; one begins and ends within a page.
    let odd = LogRange {
        iova: 50 * PAGE + 100,
        length: 10,
    };
    dma.start_logging(PAGE, &[range(90, 120), odd, range(10, 10), range(15, 10)])
        .unwrap();
    let all: Vec<u64> = (0..100).chain(200..300).chain(400..500).collect();
    touch(&dma, &all);
    let found = |from| bits(&report(&dma, from * PAGE, 100 * PAGE, PAGE).unwrap());
    assert_eq!(
        found(0),
        (10..25).chain([50]).chain(90..100).collect::<Vec<_>>()
    );
    assert_eq!(found(200), (0..10).collect::<Vec<_>>());
    assert_eq!(
        report(&dma, 400 * PAGE, PAGE, PAGE),
        Err(Error::NotLogged { iova: 400 * PAGE })
    );
    assert_eq!(found(0), []);
    // More ranges with the same page size add to those; no ranges add everything.
    dma.start_logging(PAGE, &[range(450, 1)]).unwrap();
    touch(&dma, &[450, 451, 12]);
    assert_eq!((found(400), found(0)), (vec![50], vec![12]));
    dma.start_logging(PAGE, &[]).unwrap();
    touch(&dma, &[499, 99]);
    assert!(found(400).contains(&99) && found(0).contains(&99));
    // A region outside of all ranges may be smaller than a page of the log.
    dma.stop_logging().unwrap();
    dma.start_logging(
        1 << 20,
        &[LogRange {
            iova: 1 << 40,
            length: 1,
        }],
    )
    .unwrap();
    add(&dma, mapped(1 << 41, PAGE));
}

/// An unmapped region's log is gone; the others' stay.
#[test]
fn removal_while_logging() {
    let dma = published();
    add(&dma, mapped(100 * PAGE, 16 * PAGE));
    mark(&dma, 100, 2);
    remove(&dma, 16 * PAGE, 32 * PAGE);
    assert_eq!(
        report(&dma, 16 * PAGE, PAGE, PAGE).unwrap_err().errno(),
        libc::ENOENT
    );
    assert_eq!(
        bits(&report(&dma, 100 * PAGE, 16 * PAGE, PAGE).unwrap()),
        [0, 1]
    );
    add(&dma, mapped(16 * PAGE, 32 * PAGE));
    expect(&dma, PAGE, &[]);
}

/// Marks set by threads while reports are fetched: each is in exactly the reports after it, none is lost.
#[test]
fn no_mark_is_lost() {
    const PAGES: u64 = 4096;
    let dma = Dma::new(1).unwrap();
    add(&dma, mapped(0, PAGES * PAGE));
    dma.start_logging(PAGE, &[]).unwrap();
    let mut seen = vec![0_u32; usize::try_from(PAGES).unwrap()];
    let mut fetch = |dma: &Dma| {
        for bit in bits(&report(dma, 0, PAGES * PAGE, PAGE).unwrap()) {
            seen[usize::try_from(bit).unwrap()] += 1;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3_u64)
            .map(|thread| {
                let dma = &dma;
                scope.spawn(move || {
                    for page in (thread..PAGES).step_by(3) {
                        let segment = one(dma, page * PAGE, PAGE);
                        if page % 2 == 0 {
                            dma.mark_dirty(&segment).unwrap();
                        } else {
                            dma.write(&segment, &[0; 4096]).unwrap();
                        }
                    }
                })
            })
            .collect();
        while !threads
            .iter()
            .all(std::thread::ScopedJoinHandle::is_finished)
        {
            fetch(&dma);
        }
    });
    fetch(&dma);
    // Marked once each, so each was reported once.
    assert!(
        seen.iter().all(|&n| n == 1),
        "{:?}",
        seen.iter().position(|&n| n != 1)
    );
}

#[derive(Clone, Debug)]
struct Case {
    bases: Vec<u64>,
    log: u32,
    marks: Vec<(u64, u64)>,
    report: (u64, u64, u32),
}

fn cases() -> impl Strategy<Value = Case> {
    let bases = prop::collection::vec(1..40_u64, 1..4);
    let marks = prop::collection::vec((0..40_960_u64, 1..3_000_u64), 0..12);
    (bases, 9..12_u32, marks, (0..80_u64, 1..90_u64, 9..14_u32)).prop_map(
        |(bases, log, marks, report)| Case {
            bases,
            log,
            marks,
            report,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// Any layout of adjacent regions (in units of half a KiB, so that no page size fits), any report: whatever was marked
    /// and lies in the range is reported, nothing far from a mark is, and nothing is lost for the next report.
    #[test]
    fn any_report(case in cases()) {
        let dma = Dma::new(10).unwrap();
        let mut end = 0;
        for size in &case.bases {
            // At least a page of the log each.
            let size = (size * 512).max(1 << case.log);
            add(&dma, with_file(end, size, 0, Access::File, memfd(end + size)));
            end += size;
        }
        let page = 1_u64 << case.log;
        dma.start_logging(page, &[]).unwrap();
        let marks: Vec<_> = case.marks.iter().filter(|(at, len)| at + len <= end).copied().collect();
        for &(at, len) in &marks {
            let mut out = [MaybeUninit::uninit(); 8];
            let n = dma.translate(at, len, RW, &mut out).unwrap();
            for entry in &out[..n] {
                // SAFETY: the first `n` entries were filled.
                dma.mark_dirty(unsafe { entry.assume_init_ref() }).unwrap();
            }
        }
        let (start, len, shift) = case.report;
        let (iova, length, size) = (start * 512, len * 512, 1_u64 << shift);
        let dirty = |from: u64, to: u64| marks.iter().any(|&(at, len)| at < to && from < at + len);
        if let Ok(bitmap) = report(&dma, iova, length, size) {
            let found: BTreeSet<u64> = bits(&bitmap).into_iter().collect();
            for bit in 0..length.div_ceil(size) {
                let (from, to) = (iova + bit * size, (iova + (bit + 1) * size).min(iova + length));
                if dirty(from, to) {
                    prop_assert!(found.contains(&bit), "bit {bit} is missing");
                } else if found.contains(&bit) {
                    prop_assert!(dirty(from.saturating_sub(page), to.max(from + size) + page), "bit {bit} is not dirty");
                }
            }
            // What is dirty outside of what was returned is in the next report.
            let rest = bits(&report(&dma, 0, end, 512).unwrap());
            for unit in 0..end / 512 {
                let (from, to) = (unit * 512, (unit + 1) * 512);
                let returned = from >= iova && found.contains(&((from - iova) / size));
                prop_assert!(!dirty(from, to) || returned || rest.contains(&unit), "unit {unit} is lost");
            }
            // And what was returned whole is clean, pages that the range cut apart excepted.
            if rest.iter().any(|unit| {
                let from = unit * 512;
                from >= iova + page && from + 512 + page <= iova + length
            }) {
                prop_assert!(false, "reported twice: {rest:?}");
            }
        }
    }
}
