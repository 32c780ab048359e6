//! What only the inside can arrange: accesses that are under way while the table changes.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::*;

const PAGE: u64 = 4096;
const RW: u32 = PROT_READ | PROT_WRITE;

fn memfd(name: &str, len: u64) -> OwnedFd {
    let name = CString::new(name).unwrap();
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

fn add(dma: &Dma, iova: u64, size: u64, access: Access, fd: OwnedFd) -> RegionInfo {
    let region = NewRegion {
        iova,
        size,
        prot: RW,
        offset: 0,
        access,
        fd: Some(fd),
    };
    let Ok(Added::New(info)) = dma.add(region) else {
        panic!("not added")
    };
    info
}

fn segment(dma: &Dma, iova: u64, len: u64) -> Segment {
    let mut out = [MaybeUninit::uninit()];
    assert_eq!(dma.translate(iova, len, RW, &mut out), Ok(1));
    // SAFETY: the one entry was filled.
    unsafe { out[0].assume_init() }
}

fn open(name: &str) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().contains(name))
        .count()
}

fn mapped(name: &str) -> usize {
    std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .matches(name)
        .count()
}

/// An access holds a pin. The remover does not wait for it, new accesses are refused, and the last pin to go releases.
#[test]
fn the_last_pin_releases() {
    let dma = Dma::new(10).unwrap();
    for (access, name) in [(Access::Mapped, "pin-mapped"), (Access::File, "pin-file")] {
        let count = if access == Access::Mapped {
            mapped
        } else {
            open
        };
        let id = add(&dma, 0, PAGE, access, memfd(name, PAGE)).id;
        let entry = segment(&dma, 0, 8);
        let (first, second) = (
            dma.table.slots.pin(id.0.get()).unwrap(),
            dma.table.slots.pin(id.0.get()).unwrap(),
        );
        dma.remove(id).unwrap();
        assert_eq!(dma.len(), 0);
        assert_eq!(
            dma.read(&entry, &mut [0; 8]),
            Err(Error::Stale {
                handle: entry.handle
            })
        );
        assert_eq!(
            dma.segment_to_iovec(&entry),
            Err(Error::Stale {
                handle: entry.handle
            })
        );
        // The place is free at once, also in a full table; the slot is not.
        let again = add(&dma, 0, PAGE, access, memfd("pin-other", PAGE));
        assert_ne!(again.id, id);
        assert_eq!(first.body().iova, 0);
        drop(first);
        assert_eq!(count(name), 1);
        std::thread::scope(|scope| {
            scope.spawn(move || drop(second));
        });
        assert_eq!(count(name), 0, "{access:?}");
        dma.remove(again.id).unwrap();
    }
    // The two slots are used again, in another generation.
    let handles: Vec<u64> = (0..2)
        .map(|i| {
            add(&dma, i * PAGE, PAGE, Access::File, memfd("pin-file", PAGE))
                .id
                .0
                .get()
        })
        .collect();
    assert!(
        handles.iter().all(|handle| handle >> 32 != 0),
        "{handles:x?}"
    );
}

/// While an access is under way a report fetches by atomic operations; the result is the same.
#[test]
fn a_report_beside_an_access() {
    let dma = Dma::new(10).unwrap();
    let id = add(
        &dma,
        0,
        512 * PAGE,
        Access::Mapped,
        memfd("report", 512 * PAGE),
    )
    .id;
    dma.start_logging(PAGE, &[]).unwrap();
    for pinned in [false, true] {
        let pin = pinned.then(|| dma.table.slots.pin(id.0.get()).unwrap());
        // SAFETY: this thread alone changes the table.
        let owned = unsafe { dma.table.slots.owned(id.0.get()) }.unwrap();
        assert_eq!(owned.freeze(|alone| alone), !pinned);
        for page_size in [PAGE, 2 * PAGE] {
            dma.mark_dirty(&segment(&dma, 3 * PAGE, 300 * PAGE))
                .unwrap();
            let mut out = vec![0xff; Dma::report_size(512 * PAGE, page_size).unwrap()];
            dma.report(0, 512 * PAGE, page_size, &mut out).unwrap();
            let set: u32 = out.iter().map(|byte| byte.count_ones()).sum();
            assert_eq!(
                u64::from(set),
                if page_size == PAGE { 300 } else { 151 },
                "{pinned}"
            );
            dma.report(0, 512 * PAGE, page_size, &mut out).unwrap();
            assert!(out.iter().all(|&byte| byte == 0));
        }
        drop(pin);
    }
}

/// A bitmap that an access may be about to mark outlives the end of logging, and is counted as long.
#[test]
fn a_bitmap_waits_for_its_pin() {
    let dma = Dma::new(10).unwrap();
    let bytes = || {
        dma.table
            .slots
            .bitmap_bytes
            .load(core::sync::atomic::Ordering::Relaxed)
    };
    let id = add(&dma, 0, 64 * PAGE, Access::Mapped, memfd("wait", 64 * PAGE)).id;
    dma.start_logging(PAGE, &[]).unwrap();
    let pin = dma.table.slots.pin(id.0.get()).unwrap();
    let held = pin.bitmap().unwrap();
    dma.stop_logging().unwrap();
    assert_eq!(bytes(), 8);
    assert!(pin.bitmap().is_none());
    dma.start_logging(2 * PAGE, &[]).unwrap();
    assert_eq!(bytes(), 16);
    held.mark(0, PAGE); // into the old one
    let mut out = [0xff; 8];
    dma.report(0, 64 * PAGE, PAGE, &mut out).unwrap();
    assert_eq!(out, [0; 8]);
    drop(pin);
    dma.stop_logging().unwrap();
    assert_eq!(bytes(), 0);
    // Also when the region is removed before the access ends, and the table dropped after it.
    dma.start_logging(PAGE, &[]).unwrap();
    let pin = dma.table.slots.pin(id.0.get()).unwrap();
    let held = pin.bitmap().unwrap();
    dma.remove(id).unwrap();
    held.mark(0, PAGE);
    assert_eq!(bytes(), 8);
    drop(pin);
    assert_eq!(bytes(), 0);
}

/// Of two changes at once, the second is refused and nothing else.
#[test]
fn a_second_change_is_refused() {
    let dma = Dma::new(10).unwrap();
    let fd = memfd("busy", PAGE);
    let id = add(&dma, 0, PAGE, Access::Mapped, fd.try_clone().unwrap()).id;
    let change = dma.table.change().unwrap();
    let region = NewRegion {
        iova: PAGE,
        size: 1,
        prot: 0,
        offset: 0,
        access: Access::Mapped,
        fd: Some(fd),
    };
    assert_eq!(dma.add(region), Err(Error::Busy));
    assert_eq!(open("busy"), 0);
    assert_eq!(dma.remove(id), Err(Error::Busy));
    assert_eq!(dma.start_logging(PAGE, &[]), Err(Error::Busy));
    assert_eq!(dma.stop_logging(), Err(Error::Busy));
    assert_eq!(dma.report(0, PAGE, PAGE, &mut []), Err(Error::Busy));
    assert_eq!(Error::Busy.errno(), libc::EBUSY);
    drop(change);
    dma.remove(id).unwrap();
}

/// D69: what a file system claims as its unit is believed only if it can be one.
#[test]
fn units_of_files() {
    for (block, wanted) in [
        (512, PAGE),
        (4096, PAGE),
        (2 << 20, 2 << 20),
        (1 << 30, 1 << 30),
        (0, PAGE),
        (-4096, PAGE),
        (12_288, PAGE),
        (i64::MAX, PAGE),
        (1 << 62, PAGE),
    ] {
        assert_eq!(table::unit(PAGE, block), wanted, "{block}");
    }
}

/// The generation of a slot does not wrap: the slot is given up instead.
#[test]
fn a_used_up_slot_is_given_up() {
    let dma = Dma::new(10).unwrap();
    let id = add(&dma, 0, PAGE, Access::Mapped, memfd("wrap", PAGE)).id;
    dma.remove(id).unwrap();
    dma.table.slots.age_for_test(0);
    let last = add(&dma, 0, PAGE, Access::Mapped, memfd("wrap", PAGE)).id;
    assert_eq!(
        (last.0.get() >> 32, last.0.get() & 0xffff_ffff),
        (u64::from(u32::MAX), 4 | 3)
    );
    dma.remove(last).unwrap();
    let next = add(&dma, 0, PAGE, Access::Mapped, memfd("wrap", PAGE)).id;
    assert_eq!((next.0.get() >> 32, next.0.get() & 0xffff_ffff), (0, 8 | 3));
    assert_eq!(
        dma.remove(last),
        Err(Error::Stale {
            handle: last.0.get()
        })
    );
}

/// Pins, marks, reports, removal and reuse of one slot by three threads, without a system call: for Miri, which would see
/// a data race or a use after free.
#[test]
fn slots_under_churn() {
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use bitmap::{Bitmap, Mask};
    use slots::{Body, Slots};

    const SHIFT: u32 = 9;
    let slots = Slots::new();
    let (current, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let handle = current.load(Ordering::Relaxed);
                    if let Ok(pin) = slots.pin(handle) {
                        assert_eq!(pin.body().iova, pin.size() * 2);
                        if let Some(bitmap) = pin.bitmap() {
                            bitmap.mark(0, pin.size());
                        }
                    }
                    if let Ok((_, size)) = slots.peek(handle) {
                        assert_ne!(size, 0);
                    }
                }
            });
        }
        for round in 1..if cfg!(miri) { 60 } else { 2_000 } {
            let size = round % 200 * 512 + 512;
            let info = DmaInfo {
                iova_base: core::ptr::null_mut(),
                iova_len: 0,
                vaddr: core::ptr::null_mut(),
                mapping_base: core::ptr::null_mut(),
                mapping_len: 0,
                page_size: 4096,
                prot: RW,
            };
            let body = Body {
                info: info.into(),
                iova: size * 2,
                offset: 0,
                file: (0, 0),
                prot: RW,
                fd: None,
            };
            let count = || {
                let bytes = bitmap::bytes_for(size, SHIFT);
                slots.bitmap_bytes.fetch_add(bytes, Ordering::Relaxed);
                Bitmap::new(size, SHIFT).unwrap()
            };
            // SAFETY: this thread is the only writer, here and below.
            unsafe { slots.reserve() }.unwrap();
            // SAFETY: reserved just now.
            let handle =
                unsafe { slots.publish(body, core::ptr::null_mut(), size, Some(count())) }.get();
            current.store(handle, Ordering::Relaxed);
            // SAFETY: as above.
            let owned = unsafe { slots.owned(handle) }.unwrap();
            for _ in 0..3 {
                let mask = Mask {
                    fetch: u64::MAX,
                    clear: u64::MAX,
                };
                let bitmap = owned.bitmap().unwrap();
                owned.freeze(|alone| {
                    for at in 0..bitmap.words() {
                        if alone {
                            // SAFETY: frozen.
                            unsafe { bitmap.fetch_exclusive(at, mask) };
                        } else {
                            bitmap.fetch_shared(at, mask);
                        }
                    }
                });
                std::thread::yield_now();
            }
            // SAFETY: as above.
            unsafe { slots.clear_bitmap(handle) };
            if round % 2 == 0 {
                // SAFETY: as above; the region has no bitmap now.
                unsafe { slots.set_bitmap(handle, count()) }.unwrap();
            }
            // SAFETY: as above.
            unsafe { slots.retire(handle) }.unwrap();
            assert!(slots.pin(handle).is_err());
        }
        done.store(true, Ordering::Relaxed);
    });
    // SAFETY: all other threads have ended.
    unsafe { slots.sweep() };
    assert_eq!(slots.bitmap_bytes.load(Ordering::Relaxed), 0);
}
