//! Translation, scatter-gather and direct access, alone and from many threads.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod dma_common;

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dma_common::*;
use proptest::prelude::*;
use vfu::dma::{Access, Direct, Dma, Error, NewRegion, PROT_READ, PROT_WRITE, Segment};

#[test]
fn translation_crosses_adjacent_regions() {
    let dma = Dma::new(10).unwrap();
    for i in 0..3 {
        add(&dma, mapped(0x1000 + i * PAGE, PAGE));
    }
    let list = translate(&dma, 0x1800, 2 * PAGE, RW).unwrap();
    let fields: Vec<_> = list
        .iter()
        .map(|s| (s.dma_addr, s.offset, s.length, s.writeable))
        .collect();
    assert_eq!(
        fields,
        [
            (0x1000, 0x800, 0x800, 1),
            (0x2000, 0, 0x1000, 1),
            (0x3000, 0, 0x800, 1)
        ]
    );
    let read_only = translate(&dma, 0x1800, 16, PROT_READ).unwrap();
    assert_eq!((read_only[0].writeable, read_only[0].reserved), (0, [0; 7]));
    for segment in &list {
        let (address, len) = dma.segment_to_iovec(segment).unwrap();
        let id = dma.find_exact(segment.dma_addr, PAGE).unwrap();
        let base = dma.info(id).unwrap().vaddr.unwrap().addr().get();
        assert_eq!((address.addr().get() - base) as u64, segment.offset);
        assert_eq!(len as u64, segment.length);
        assert!(dma.is_mappable(segment));
    }
}

#[test]
fn too_few_entries() {
    let dma = Dma::new(10).unwrap();
    for i in 0..3 {
        add(&dma, message(i * PAGE, PAGE));
    }
    assert_eq!(dma.translate(0, 1, RW, &mut []), Ok(1));
    let mut one = [MaybeUninit::uninit()];
    assert_eq!(dma.translate(0, 2 * PAGE, RW, &mut one), Ok(2));
    // SAFETY: the first entry was filled.
    assert_eq!(unsafe { one[0].assume_init() }.length, PAGE);
    assert_eq!(dma.translate(0, 3 * PAGE, RW, &mut one), Ok(3));
    // A hole is found also behind the entries that fit.
    assert_eq!(
        dma.translate(0, 4 * PAGE, RW, &mut one),
        Err(Error::NotCovered { iova: 3 * PAGE })
    );
    assert_eq!(dma.translate(1 << 50, 0, RW, &mut one), Ok(0));
}

/// Protection is checked in the regions that got an entry, and in ascending order with holes.
#[test]
fn protection() {
    let dma = Dma::new(10).unwrap();
    add(&dma, message(0, PAGE));
    add(
        &dma,
        NewRegion {
            prot: PROT_READ,
            ..message(PAGE, PAGE)
        },
    );
    add(
        &dma,
        NewRegion {
            prot: 0,
            ..message(2 * PAGE, PAGE)
        },
    );
    let forbidden = Error::Forbidden {
        region: PAGE,
        prot: PROT_READ,
    };
    assert_eq!(translate(&dma, 0, 2 * PAGE, PROT_WRITE), Err(forbidden));
    assert_eq!(
        translate(&dma, PAGE, 8 * PAGE, RW),
        Err(forbidden),
        "before the hole"
    );
    assert_eq!(forbidden.errno(), libc::EACCES);
    let mut one = [MaybeUninit::uninit()];
    assert_eq!(dma.translate(0, 2 * PAGE, PROT_WRITE, &mut one), Ok(2));
    assert_eq!(
        translate(&dma, 2 * PAGE, PAGE, PROT_READ).map(|list| list.len()),
        Ok(1)
    );
}

/// D3: lengths near 2^64 are refused, also right after the region was used.
#[test]
fn wrapping_lengths_are_refused() {
    let dma = Dma::new(10).unwrap();
    add(&dma, mapped(0x1000, PAGE));
    for _ in 0..2 {
        assert!(translate(&dma, 0x1000, PAGE, RW).is_ok());
        for len in [
            u64::MAX,
            u64::MAX - 0x1000,
            0xffff_ffff_ffff_ff00,
            u64::MAX / 2,
            PAGE + 1,
        ] {
            assert_eq!(
                translate(&dma, 0x1000, len, RW).unwrap_err().errno(),
                libc::ENOENT
            );
            assert_eq!(
                translate(&dma, 0x1fff, len, RW).unwrap_err().errno(),
                libc::ENOENT
            );
        }
    }
    assert_eq!(
        translate(&dma, 0xfff, 2, RW),
        Err(Error::NotCovered { iova: 0xfff })
    );
}

/// All the bytes that `len` asks for, by reading and writing each kind of region.
#[test]
fn direct_access() {
    let dma = Dma::new(10).unwrap();
    for (i, access) in [Access::Mapped, Access::File].into_iter().enumerate() {
        let iova = i as u64 * 0x10_0000;
        let file = memfd(4 * PAGE);
        add(
            &dma,
            with_file(iova, 2 * PAGE, PAGE, access, file.try_clone().unwrap()),
        );
        let segment = one(&dma, iova + 100, 5000);
        let data: Vec<u8> = (0..5000_u32)
            .map(|n| u8::try_from(n % 253).unwrap())
            .collect();
        assert_eq!(dma.write(&segment, &data), Ok(Direct::Done));
        assert_eq!(file_bytes(&file, PAGE + 100, 5000), data);
        let mut back = vec![0; 5000];
        assert_eq!(dma.read(&segment, &mut back), Ok(Direct::Done));
        assert_eq!(back, data);
        let error = dma.read(&segment, &mut back[1..]).unwrap_err();
        assert_eq!(
            error,
            Error::BufferSize {
                expected: 5000,
                found: 4999
            }
        );
        assert_eq!(dma.is_mappable(&segment), access == Access::Mapped);
        let read_only = translate(&dma, iova, 1, PROT_READ).unwrap()[0];
        assert_eq!(
            dma.write(&read_only, &[1]).unwrap_err().errno(),
            libc::EPERM
        );
    }
    add(&dma, message(0x20_0000, PAGE));
    let segment = one(&dma, 0x20_0010, 32);
    let Ok(Direct::ByMessage(located)) = dma.write(&segment, &[0; 32]) else {
        panic!()
    };
    assert_eq!(
        (located.iova, located.length, located.access),
        (0x20_0010, 32, Access::Message)
    );
    assert_eq!(
        dma.read(&segment, &mut [0; 32]),
        Ok(Direct::ByMessage(located))
    );
    assert_eq!(dma.locate(&segment), Ok(located));
    let error = dma.segment_to_iovec(&segment).unwrap_err();
    assert_eq!(
        (error, error.errno()),
        (Error::NotMapped { iova: 0x20_0010 }, libc::EFAULT)
    );
}

/// Memory without the right protection would fault: refused instead.
#[test]
fn unreadable_memory_is_refused() {
    let dma = Dma::new(10).unwrap();
    add(
        &dma,
        NewRegion {
            prot: 0,
            ..mapped(0, PAGE)
        },
    );
    add(
        &dma,
        NewRegion {
            prot: PROT_READ,
            ..mapped(PAGE, PAGE)
        },
    );
    let none = translate(&dma, 0, 8, PROT_READ).unwrap()[0];
    assert_eq!(
        dma.read(&none, &mut [0; 8]).unwrap_err().errno(),
        libc::EACCES
    );
    let forged = Segment {
        writeable: 1,
        ..translate(&dma, PAGE, 8, PROT_READ).unwrap()[0]
    };
    assert_eq!(
        dma.write(&forged, &[0; 8]).unwrap_err().errno(),
        libc::EACCES
    );
    assert_eq!(dma.read(&forged, &mut [0; 8]), Ok(Direct::Done));
}

#[test]
fn file_errors_are_eio() {
    let dma = Dma::new(10).unwrap();
    // The file ends in the middle of the region.
    add(&dma, with_file(0, 2 * PAGE, 0, Access::File, memfd(PAGE)));
    let across = one(&dma, PAGE - 4, 8);
    let error = dma.read(&across, &mut [0; 8]).unwrap_err();
    assert_eq!(
        (error, error.errno()),
        (
            Error::Io {
                offset: PAGE,
                errno: 0
            },
            libc::EIO
        )
    );
    // Opened for reading.
    let read_only = reopen_read_only(&memfd(PAGE));
    add(&dma, with_file(0x10_0000, PAGE, 0, Access::File, read_only));
    let error = dma.write(&one(&dma, 0x10_0000, 8), &[0; 8]).unwrap_err();
    assert_eq!(
        (error, error.errno()),
        (
            Error::Io {
                offset: 0,
                errno: libc::EBADF
            },
            libc::EIO
        )
    );
}

/// D8: marking a message region while logging is nothing; so is a stale entry, without a crash.
#[test]
fn marking_what_is_not_logged() {
    let dma = Dma::new(10).unwrap();
    let id = add(&dma, message(0, PAGE)).id;
    let segment = one(&dma, 0, PAGE);
    dma.start_logging(PAGE, &[]).unwrap();
    assert_eq!(dma.mark_dirty(&segment), Ok(()));
    dma.remove(id).unwrap();
    assert_eq!(
        dma.mark_dirty(&segment),
        Err(Error::Stale {
            handle: segment.handle
        })
    );
    dma.stop_logging().unwrap();
    assert_eq!(dma.mark_dirty(&segment), Ok(()));
}

/// What a list of regions says about an address, one by one.
fn model_translate(
    model: &BTreeMap<u64, (u64, u32)>,
    iova: u64,
    len: u64,
    prot: u32,
    max: usize,
) -> Result<Vec<(u64, u64, u64)>, i32> {
    let mut list = Vec::new();
    let mut cursor = u128::from(iova);
    let end = cursor + u128::from(len);
    while cursor < end {
        let address = u64::try_from(cursor).map_err(|_| libc::ENOENT)?;
        let region = model.range(..=address).next_back();
        let Some((&base, &(size, allowed))) =
            region.filter(|(base, (size, _))| address - *base < *size)
        else {
            return Err(libc::ENOENT);
        };
        if list.len() < max && prot & PROT_WRITE & !allowed != 0 {
            return Err(libc::EACCES);
        }
        let stop = end.min(u128::from(base) + u128::from(size));
        list.push((base, address - base, u64::try_from(stop - cursor).unwrap()));
        cursor = stop;
    }
    Ok(list)
}

#[derive(Clone, Debug)]
enum Op {
    Add {
        at: u64,
        size: u64,
        prot: u32,
    },
    Remove {
        at: u64,
    },
    Translate {
        at: u64,
        len: u64,
        prot: u32,
        max: usize,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // A small space makes neighbours, overlaps and holes likely; some of it lies at the very top.
    let at = prop_oneof![0..600_u64, (u64::MAX - 200)..=u64::MAX];
    let op = prop_oneof![
        4 => (at.clone(), 0..12_u64, 0..4_u32).prop_map(|(at, size, prot)| Op::Add { at, size, prot }),
        2 => at.clone().prop_map(|at| Op::Remove { at }),
        4 => (at, prop_oneof![0..60_u64, Just(u64::MAX)], 0..4_u32, 0..6_usize)
            .prop_map(|(at, len, prot, max)| Op::Translate { at, len, prot, max }),
    ];
    prop::collection::vec(op, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn agrees_with_a_list_of_regions(ops in ops()) {
        let dma = Dma::new(90).unwrap();
        let mut model = BTreeMap::new();
        for op in ops {
            match op {
                Op::Add { at, size, prot } => {
                    let overlap = model.iter().any(|(&base, &(other, _)): (&u64, &(u64, u32))| {
                        u128::from(base) < u128::from(at) + u128::from(size)
                            && u128::from(at) < u128::from(base) + u128::from(other)
                    });
                    let same = model.get(&at) == Some(&(size, prot));
                    let fits = size > 0 && at.checked_add(size - 1).is_some();
                    let expected = fits && (same || !overlap && model.len() < 90);
                    let result = dma.add(NewRegion { prot, ..message(at, size) });
                    prop_assert_eq!(result.is_ok(), expected, "{:?}", result);
                    if expected {
                        model.insert(at, (size, prot));
                    }
                }
                Op::Remove { at } => {
                    if let Some((&base, &(size, _))) = model.range(at..).next() {
                        dma.remove(dma.find_exact(base, size).unwrap()).unwrap();
                        model.remove(&base);
                    }
                }
                Op::Translate { at, len, prot, max } => {
                    let mut out = [MaybeUninit::uninit(); 6];
                    let result = dma.translate(at, len, prot, &mut out[..max]);
                    let expected = model_translate(&model, at, len, prot, max);
                    prop_assert_eq!(result.map_err(|e| e.errno()), expected.as_ref().map(Vec::len).map_err(|e| *e));
                    for (entry, expected) in out[..max].iter().zip(expected.unwrap_or_default()) {
                        // SAFETY: as many entries were filled as there are results.
                        let entry = unsafe { entry.assume_init() };
                        prop_assert_eq!((entry.dma_addr, entry.offset, entry.length), expected);
                        prop_assert_eq!(entry.writeable, u8::from(prot & PROT_WRITE != 0));
                    }
                }
            }
            prop_assert_eq!(dma.len(), model.len());
        }
        let found: Vec<u64> = all_regions(&dma).into_iter().map(|id| dma.info(id).unwrap().iova).collect();
        prop_assert_eq!(found, model.keys().copied().collect::<Vec<_>>());
    }
}

/// Four threads translate, read, write and mark while the owner maps and unmaps: what they get belongs to the region
/// that they asked for, or is refused.
#[test]
fn four_threads_under_churn() {
    const REGIONS: u64 = 64;
    let dma = Dma::new(100).unwrap();
    // Each region's file begins with its address; the churned ones are mapped from a file of their own each time.
    let filled = |iova: u64| {
        let file = memfd(PAGE);
        let bytes = iova.to_le_bytes();
        // SAFETY: the buffer has 8 bytes.
        let n = unsafe { libc::pwrite(file.as_raw_fd(), bytes.as_ptr().cast(), 8, 0) };
        assert_eq!(n, 8);
        file
    };
    let region = |i: u64| {
        let access = if i % 8 == 7 {
            Access::File
        } else {
            Access::Mapped
        };
        with_file(i * 2 * PAGE, PAGE, 0, access, filled(i * 2 * PAGE))
    };
    for i in 0..REGIONS {
        add(&dma, region(i));
    }
    let fds = open_fds();
    let done = AtomicBool::new(false);
    let hits = AtomicU64::new(0);
    let stale = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (dma, done, hits, stale) = (dma.clone(), &done, &hits, &stale);
            scope.spawn(move || {
                let mut i = thread;
                while !done.load(Ordering::Relaxed) {
                    i = i.wrapping_mul(25_214_903_917).wrapping_add(11);
                    let n = (i >> 20) % REGIONS;
                    let iova = n * 2 * PAGE;
                    let Ok(list) = translate(&dma, iova, 16, RW) else {
                        assert_ne!(n % 2, 0, "even regions stay");
                        continue;
                    };
                    assert_eq!(
                        (list.len(), list[0].dma_addr, list[0].length),
                        (1, iova, 16)
                    );
                    let mut bytes = [0; 16];
                    match dma.read(&list[0], &mut bytes) {
                        Ok(Direct::Done) => {
                            assert_eq!(bytes[..8], iova.to_le_bytes());
                            hits.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(Error::Stale { .. }) if n % 2 == 1 => {
                            stale.fetch_add(1, Ordering::Relaxed);
                        }
                        other => panic!("region {n}: {other:?}"),
                    }
                    let _ = dma.write(&list[0], &bytes);
                    let _ = dma.mark_dirty(&list[0]);
                    let _ = dma.segment_to_iovec(&list[0]);
                }
            });
        }
        for round in 0..3_000_u64 {
            let n = round * 2 % REGIONS + 1;
            remove(&dma, n * 2 * PAGE, PAGE);
            add(&dma, region(n));
            match round % 16 {
                3 => dma.start_logging(PAGE, &[]).unwrap(),
                7 | 9 => drop(report(&dma, n * 2 * PAGE, PAGE, PAGE).unwrap()),
                12 => dma.stop_logging().unwrap(),
                _ => {}
            }
        }
        // Every thread has to have read something.
        while hits.load(Ordering::Relaxed) < 1_000 {
            std::thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        open_fds(),
        fds,
        "descriptors of regions that were removed during an access"
    );
    assert_eq!(mappings() as u64, REGIONS / 8 * 7);
}

/// Of two threads that change the table at once, each gets its change done or is told that the other is at it.
#[test]
fn changes_from_two_threads() {
    let dma = Dma::new(1_000).unwrap();
    let (done, busy) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (dma, done, busy) = (&dma, &done, &busy);
            scope.spawn(move || {
                for i in 0..20_000_u64 {
                    match dma.add(message((i % 400 * 2 + thread) * 16, 16)) {
                        Ok(_) => done.fetch_add(1, Ordering::Relaxed),
                        Err(Error::Busy) => busy.fetch_add(1, Ordering::Relaxed),
                        Err(error) => panic!("{error}"),
                    };
                }
            });
        }
    });
    assert_eq!(done.into_inner() + busy.into_inner(), 40_000);
    assert_eq!(all_regions(&dma).len(), dma.len());
}

#[test]
fn large_transfers_are_whole() {
    let dma = Dma::new(2).unwrap();
    let size = 8 << 20;
    for access in [Access::File, Access::Mapped] {
        let file = memfd(size);
        let id = add(
            &dma,
            with_file(0, size, 0, access, file.try_clone().unwrap()),
        )
        .id;
        let data: Vec<u8> = (0..u32::try_from(size).unwrap())
            .map(|n| (n % 249) as u8)
            .collect();
        dma.write(&one(&dma, 0, size), &data).unwrap();
        let mut back = vec![0; data.len()];
        dma.read(&one(&dma, 0, size), &mut back).unwrap();
        assert!(back == data);
        dma.remove(id).unwrap();
    }
}
