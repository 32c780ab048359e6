//! Adding, finding and removing regions: results, order of checks, and what stays open.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod dma_common;

use std::os::fd::AsRawFd;

use dma_common::*;
use vfu::dma::{Access, Added, Dma, Error, MAX_REGION_SIZE, NewRegion, PROT_READ, Segment};

fn errno(result: Result<impl std::fmt::Debug, Error>) -> i32 {
    result.unwrap_err().errno()
}

#[test]
fn a_mapped_region_has_the_layout_of_the_specification() {
    let dma = Dma::new(10).unwrap();
    let info = add(&dma, mapped(0x10_0000, 3 * PAGE));
    assert_eq!(
        (info.iova, info.size, info.prot, info.offset),
        (0x10_0000, 3 * PAGE, RW, 0)
    );
    assert_eq!(info.access, Access::Mapped);
    assert_eq!(info.vaddr, info.mapping);
    assert_eq!(info.mapping_len as u64, 3 * PAGE);
    assert_eq!(info.page_size as u64, PAGE);
    // SAFETY: the region stays until the end of the test, and its fields are plain numbers.
    let c = unsafe { dma.c_info(info.id).unwrap().read() };
    assert_eq!((c.iova_base as usize, c.iova_len), (0x10_0000, 3 * 4096));
    assert_eq!(
        (c.vaddr, c.mapping_base, c.mapping_len),
        (c.mapping_base, c.vaddr, 3 * 4096)
    );
    assert_eq!((c.page_size, c.prot), (4096, 3));
    assert_eq!(dma.info(info.id), Ok(info));
    assert_eq!(dma.find_exact(0x10_0000, 3 * PAGE), Ok(info.id));
}

#[test]
fn message_and_file_regions_have_no_address() {
    let dma = Dma::new(10).unwrap();
    let by_message = add(&dma, message(0, 0x123));
    let by_file = add(
        &dma,
        with_file(0x1000, 0x123, 7, Access::File, memfd(0x1000)),
    );
    for info in [by_message, by_file] {
        assert_eq!(
            (info.vaddr, info.mapping, info.mapping_len),
            (None, None, 0)
        );
        assert_eq!(info.page_size as u64, PAGE);
    }
    assert_eq!(
        (by_message.access, by_file.access),
        (Access::Message, Access::File)
    );
    assert_eq!(by_file.offset, 7);
}

#[test]
fn checks_come_in_order() {
    let dma = Dma::new(1).unwrap();
    let region = |iova, size| NewRegion {
        iova,
        size,
        ..message(0, 1)
    };
    // Too large, before anything else.
    assert_eq!(
        errno(dma.add(region(u64::MAX, MAX_REGION_SIZE + PAGE))),
        libc::ENOSPC
    );
    assert_eq!(dma.add(region(5, 0)), Err(Error::Empty { iova: 5 }));
    add(&dma, region(PAGE, PAGE));
    // Overlap before the number of regions.
    for (iova, size) in [
        (0, PAGE + 1),
        (2 * PAGE - 1, 1),
        (PAGE, PAGE - 1),
        (PAGE, PAGE + 1),
        (0, 8 * PAGE),
    ] {
        let error = dma.add(region(iova, size)).unwrap_err();
        assert_eq!(
            error,
            Error::Overlap {
                iova,
                size,
                other_iova: PAGE,
                other_size: PAGE
            }
        );
        assert_eq!(error.errno(), libc::EINVAL);
    }
    assert_eq!(dma.add(region(0, PAGE)), Err(Error::TooMany { max: 1 }));
    assert_eq!(errno(dma.add(region(0, PAGE))), libc::EINVAL);
    assert_eq!(
        dma.add(NewRegion {
            prot: 4,
            ..region(0, 1)
        }),
        Err(Error::BadProt { prot: 4 })
    );
    assert_eq!(
        dma.add(NewRegion {
            access: Access::File,
            ..region(0, 1)
        }),
        Err(Error::BadFd {
            access: Access::File
        })
    );
    assert_eq!(
        dma.add(NewRegion {
            fd: Some(memfd(1)),
            ..region(0, 1)
        }),
        Err(Error::BadFd {
            access: Access::Message
        })
    );
    assert_eq!(dma.len(), 1);
}

/// D25, D26: ranges that wrap or are empty; one may end exactly at the top, and is usable there.
#[test]
fn the_ends_of_the_address_space() {
    let dma = Dma::new(10).unwrap();
    let top = u64::MAX - PAGE + 1;
    assert_eq!(
        dma.add(message(top, PAGE + 1)),
        Err(Error::Wraps {
            start: top,
            size: PAGE + 1
        })
    );
    assert_eq!(dma.add(message(top, 0)), Err(Error::Empty { iova: top }));
    add(&dma, mapped(top, PAGE));
    let entry = one(&dma, u64::MAX, 1);
    assert_eq!(
        (entry.dma_addr, entry.offset, entry.length),
        (top, PAGE - 1, 1)
    );
    assert_eq!(one(&dma, top, PAGE).length, PAGE);
    assert_eq!(errno(translate(&dma, top, PAGE + 1, 0)), libc::ENOENT);
    add(&dma, message(0, 1));
    assert_eq!(all_regions(&dma).len(), 2);
    assert_eq!(errno(translate(&dma, top, PAGE + 1, 0)), libc::ENOENT);
}

/// D33: the limit is exact, also 0 and beyond 32 bits.
#[test]
fn the_number_of_regions_is_exact() {
    let none = Dma::new(0).unwrap();
    assert_eq!(errno(none.add(message(0, 1))), libc::EINVAL);
    let dma = Dma::new(64).unwrap();
    for i in 0..64 {
        add(&dma, message(i * 16, 16));
    }
    assert_eq!(
        dma.add(message(64 * 16, 16)),
        Err(Error::TooMany { max: 64 })
    );
    remove(&dma, 0, 16);
    add(&dma, message(64 * 16, 16));
    let large = Dma::new(1 << 33).unwrap();
    assert_eq!(large.max_regions(), 1 << 33);
    add(&large, message(0, 1));
}

/// D12: the mapping covers the whole region also when the file offset is not a multiple of the page.
#[test]
fn an_unaligned_offset_is_mapped_to_the_end() {
    let dma = Dma::new(10).unwrap();
    let file = memfd(4 * PAGE);
    let region = with_file(0, PAGE, 0x800, Access::Mapped, file.try_clone().unwrap());
    let info = add(&dma, region);
    assert_eq!(info.mapping_len as u64, 2 * PAGE);
    assert_eq!(
        info.vaddr.unwrap().addr().get() - info.mapping.unwrap().addr().get(),
        0x800
    );
    let data: Vec<u8> = (0..4096_u32)
        .map(|i| u8::try_from(i % 251).unwrap())
        .collect();
    dma.write(&one(&dma, 0, PAGE), &data).unwrap();
    assert_eq!(file_bytes(&file, 0x800, 4096), data);
    assert_eq!(file_bytes(&file, 0, 0x800), vec![0; 0x800]);
    // A region of three pages at a whole page: exactly three.
    let info = add(
        &dma,
        with_file(0x10_0000, 3 * PAGE, PAGE, Access::Mapped, file),
    );
    assert_eq!(info.mapping_len as u64, 3 * PAGE);
}

#[test]
fn a_repetition_changes_nothing() {
    let dma = Dma::new(2).unwrap();
    let file = memfd(2 * PAGE);
    let same = |access| with_file(0, PAGE, 0, access, file.try_clone().unwrap());
    let first = add(&dma, same(Access::Mapped));
    let fds = open_fds();
    assert_eq!(dma.add(same(Access::Mapped)), Ok(Added::Same(first)));
    // The access mode is not compared.
    assert_eq!(dma.add(same(Access::File)), Ok(Added::Same(first)));
    let differs = Err(Error::Differs {
        iova: 0,
        size: PAGE,
    });
    assert_eq!(
        dma.add(NewRegion {
            offset: PAGE,
            ..same(Access::Mapped)
        }),
        differs
    );
    assert_eq!(
        dma.add(NewRegion {
            prot: PROT_READ,
            ..same(Access::Mapped)
        }),
        differs
    );
    assert_eq!(dma.add(message(0, PAGE)), differs);
    assert_eq!(dma.add(mapped(0, PAGE)), differs);
    assert_eq!(open_fds(), fds, "descriptors of refused regions are closed");
    assert_eq!(dma.len(), 1);

    let first = add(&dma, message(PAGE, PAGE));
    assert_eq!(dma.add(message(PAGE, PAGE)), Ok(Added::Same(first)));
    assert_eq!(
        dma.add(mapped(PAGE, PAGE)),
        Err(Error::Differs {
            iova: PAGE,
            size: PAGE
        })
    );
}

/// D64: what the client does to the flags of its descriptor after mapping does not matter.
#[test]
fn changed_status_flags_do_not_matter() {
    let dma = Dma::new(2).unwrap();
    for access in [Access::Mapped, Access::File] {
        let file = memfd(PAGE);
        let first = add(
            &dma,
            with_file(0, PAGE, 0, access, file.try_clone().unwrap()),
        );
        // SAFETY: the descriptor is open.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_APPEND) };
        assert_eq!(result, 0);
        let again = with_file(0, PAGE, 0, access, file.try_clone().unwrap());
        assert_eq!(dma.add(again), Ok(Added::Same(first)));
        dma.remove(first.id).unwrap();
    }
}

/// D22: a region is there, and translates, while its unregister callback would run.
#[test]
fn removal_has_two_phases() {
    let dma = Dma::new(10).unwrap();
    let fds = open_fds();
    for i in [3, 1, 2] {
        add(&dma, mapped(i * 0x10_0000, PAGE));
    }
    add(
        &dma,
        with_file(0x50_0000, PAGE, 0, Access::File, memfd(PAGE)),
    );
    assert_eq!(errno(dma.find_exact(0x10_0000, 2 * PAGE)), libc::ENOENT);
    assert_eq!(errno(dma.find_exact(0x10_0001, PAGE)), libc::ENOENT);
    assert_eq!(errno(dma.find_exact(0, 0)), libc::ENOENT);
    let mut order = Vec::new();
    while let Some(id) = dma.first() {
        let info = dma.info(id).unwrap();
        let entry = one(&dma, info.iova, info.size);
        dma.write(&entry, &[7; 4096]).unwrap();
        order.push(info.iova);
        dma.remove(id).unwrap();
        assert_eq!(
            dma.remove(id),
            Err(Error::Stale {
                handle: entry.handle
            })
        );
        assert_eq!(errno(dma.info(id)), libc::EINVAL);
        assert_eq!(errno(dma.segment_to_iovec(&entry)), libc::EINVAL);
        assert_eq!(errno(translate(&dma, info.iova, 1, 0)), libc::ENOENT);
    }
    assert_eq!(order, [0x10_0000, 0x20_0000, 0x30_0000, 0x50_0000]);
    assert!(dma.is_empty());
    assert_eq!((open_fds(), mappings()), (fds, 0));
}

/// A failure of `mmap` passes through and loses nothing; so does one of `fstat`-able things that cannot be mapped.
#[test]
fn what_cannot_be_mapped_is_refused() {
    let dma = Dma::new(10).unwrap();
    let fds = open_fds();
    let read_only = reopen_read_only(&memfd(PAGE));
    let error = dma
        .add(with_file(0, PAGE, 0, Access::Mapped, read_only))
        .unwrap_err();
    assert_eq!(
        error,
        Error::Map {
            len: 4096,
            errno: libc::EACCES
        }
    );
    let (reader, writer) = std::io::pipe().unwrap();
    let pipe = with_file(0, PAGE, 0, Access::Mapped, reader.into());
    let error = dma
        .add(NewRegion {
            prot: PROT_READ,
            ..pipe
        })
        .unwrap_err();
    assert_eq!(error.errno(), libc::ENODEV);
    drop(writer);
    // Beyond what a file offset can be.
    let error = dma
        .add(with_file(
            0,
            PAGE,
            u64::MAX - 5,
            Access::Mapped,
            memfd(PAGE),
        ))
        .unwrap_err();
    assert_eq!(
        error,
        Error::Wraps {
            start: u64::MAX - 5,
            size: PAGE
        }
    );
    let error = dma
        .add(with_file(0, PAGE, 1 << 63, Access::File, memfd(PAGE)))
        .unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL);
    assert_eq!((open_fds(), dma.len()), (fds, 0));
    add(&dma, mapped(0, PAGE));
}

/// Mapped regions do not use up descriptors: a client may map far more than a process may open.
#[test]
fn a_mapped_region_keeps_no_descriptor() {
    let dma = Dma::new(10_000).unwrap();
    let file = memfd(PAGE);
    let before = open_fds();
    for i in 0..2_000 {
        add(
            &dma,
            with_file(i * PAGE, PAGE, 0, Access::Mapped, file.try_clone().unwrap()),
        );
    }
    assert_eq!(open_fds(), before);
    drop(dma);
    assert_eq!(open_fds(), before);
}

/// A file shorter than its region is accepted.
#[test]
fn a_short_file_is_mapped() {
    let dma = Dma::new(1).unwrap();
    let info = add(
        &dma,
        with_file(0, 32 * PAGE, 0, Access::Mapped, memfd(16 * PAGE)),
    );
    assert_eq!(info.mapping_len as u64, 32 * PAGE);
}

/// D72: entries of a region that is gone, forged ones, and garbage are refused, also after the slot was used again.
#[test]
fn stale_and_forged_entries_are_refused() {
    let dma = Dma::new(10).unwrap();
    let first = add(&dma, mapped(0, PAGE));
    let entry = one(&dma, 0, PAGE);
    assert_ne!(entry.handle & u64::from(u32::MAX), 0);
    dma.remove(first.id).unwrap();
    add(&dma, mapped(0, PAGE));
    assert_ne!(one(&dma, 0, PAGE).handle, entry.handle);
    let forged = |handle| Segment { handle, ..entry };
    let mut handles = vec![
        0,
        1,
        2,
        3,
        4,
        u64::MAX,
        u64::from(u32::MAX),
        1 << 32,
        entry.handle,
    ];
    handles.extend(
        (0..64)
            .map(|bit| entry.handle ^ (1 << bit))
            .filter(|&handle| {
                // A flipped generation bit can name the new region; flipped protection bits name the same slot.
                handle >> 32 != one(&dma, 0, PAGE).handle >> 32
            }),
    );
    for handle in handles {
        let segment = forged(handle);
        let mut buffer = [0; 4096];
        let stale = Error::Stale { handle };
        assert_eq!(dma.segment_to_iovec(&segment), Err(stale));
        assert_eq!(dma.read(&segment, &mut buffer), Err(stale));
        assert_eq!(dma.write(&segment, &buffer), Err(stale));
        assert_eq!(dma.locate(&segment), Err(stale));
        assert!(!dma.is_mappable(&segment));
    }
    assert_eq!(
        errno(dma.segment_to_iovec(&Segment::default())),
        libc::EINVAL
    );
}

#[test]
fn entries_that_reach_too_far_are_refused() {
    let dma = Dma::new(10).unwrap();
    add(&dma, mapped(0x1000, PAGE));
    let good = one(&dma, 0x1000, PAGE);
    for (offset, length) in [
        (1, PAGE),
        (PAGE + 1, 0),
        (0, u64::MAX),
        (u64::MAX, 2),
        (u64::MAX, u64::MAX),
    ] {
        let segment = Segment {
            offset,
            length,
            ..good
        };
        let error = Error::OutOfBounds {
            offset,
            length,
            size: PAGE,
        };
        assert_eq!(dma.segment_to_iovec(&segment), Err(error));
        assert_eq!(dma.locate(&segment), Err(error));
        assert_eq!(error.errno(), libc::EINVAL);
    }
    let end = Segment {
        offset: PAGE,
        length: 0,
        ..good
    };
    assert_eq!(dma.segment_to_iovec(&end).unwrap().1, 0);
}

#[test]
fn a_dropped_table_releases_everything() {
    let fds = open_fds();
    let dma = Dma::new(100).unwrap();
    let clone = dma.clone();
    for i in 0..50 {
        let access = if i % 2 == 0 {
            Access::Mapped
        } else {
            Access::File
        };
        add(&dma, with_file(i * PAGE, PAGE, 0, access, memfd(PAGE)));
    }
    dma.start_logging(PAGE, &[]).unwrap();
    drop(dma);
    assert_eq!(clone.len(), 50);
    drop(clone);
    assert_eq!(open_fds(), fds);
}

#[test]
fn errors_say_what_was_wrong() {
    let dma = Dma::new(1).unwrap();
    add(&dma, message(0x1000, 0x1000));
    let text = dma.add(message(0x1800, 0x1000)).unwrap_err().to_string();
    assert_eq!(
        text,
        "DMA region 0x1800 (size 0x1000) overlaps region 0x1000 (size 0x1000)"
    );
    let text = dma
        .add(message(0, MAX_REGION_SIZE + 1))
        .unwrap_err()
        .to_string();
    assert_eq!(
        text,
        "DMA region of 0x80000000001 bytes exceeds the limit of 0x80000000000 bytes"
    );
}
