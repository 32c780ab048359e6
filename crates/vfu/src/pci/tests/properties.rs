//! Whatever the layout, whatever the device scribbles into its registers, whatever the client sends: nothing panics, every
//! access ends, and only bytes inside the access change.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

#[derive(Clone, Debug)]
struct Adding {
    pos: usize,
    flags: u32,
    data: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Act {
    Write(u64, Vec<u8>),
    Read(u64, usize),
    Add(Adding),
    Find(bool, usize, i32),
    /// The device writes through its pointer.
    Scribble(usize, Vec<u8>),
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(pm()),
        any::<u16>().prop_map(msi),
        Just(msix()),
        any::<bool>().prop_map(express),
        vec(any::<u8>(), 0..40).prop_map(|payload| vendor(&payload)),
        Just(serial_number()),
        vec(any::<u8>(), 0..60).prop_map(|payload| ext_vendor(&payload)),
        vec(any::<u8>(), 0..70),
    ]
}

fn adding() -> impl Strategy<Value = Adding> {
    let pos = prop_oneof![
        Just(0),
        0_usize..0x110,
        (0_usize..1100).prop_map(|word| word * 4),
        any::<usize>()
    ];
    (pos, 0_u32..9, data()).prop_map(|(pos, flags, data)| Adding { pos, flags, data })
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..0x140, 2 => 0_u64..0x1004, 1 => any::<u64>()]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (offset(), vec(any::<u8>(), 1..70)).prop_map(|(offset, data)| Act::Write(offset, data)),
        2 => (offset(), 1_usize..300).prop_map(|(offset, len)| Act::Read(offset, len)),
        3 => adding().prop_map(Act::Add),
        1 => (any::<bool>(), prop_oneof![0_usize..0x1100, any::<usize>()], -1_i32..20)
            .prop_map(|(extended, pos, id)| Act::Find(extended, pos, id)),
        1 => (0_usize..4096, vec(any::<u8>(), 1..8)).prop_map(|(at, data)| Act::Scribble(at, data)),
    ]
}

fn rig(kind: u8, callback: bool, config_size: u64) -> Rig {
    let kind = [
        PciType::Conventional,
        PciType::PciX1,
        PciType::PciX2,
        PciType::Express,
    ][usize::from(kind)];
    let mut rig = Rig::new(kind);
    rig.regions[region::CONFIG].size = config_size;
    rig.regions[region::CONFIG].has_callback = callback;
    rig.regions[0] = Region {
        size: 1 << 20,
        flags: 0x17,
        has_callback: true,
    };
    rig.regions[3] = Region {
        size: 64,
        flags: 3,
        has_callback: true,
    };
    rig.realize();
    rig
}

/// Bytes that a write of `[offset, offset + len)` changed outside itself.
fn strays(before: &[u8], after: &[u8], offset: u64, len: usize) -> Vec<usize> {
    let inside = |at: usize| at as u64 >= offset && (at as u64) < offset.saturating_add(len as u64);
    (0..before.len())
        .filter(|&at| before[at] != after[at] && !inside(at))
        .collect()
}

/// The same cases in every run.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 400,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x7666_696f),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// The device scribbles too: nothing panics and everything ends.
    #[test]
    fn nothing_panics(kind in 0_u8..4, callback: bool, size in prop_oneof![Just(256), Just(4096), 64_u64..5000],
                      acts in vec(act(), 1..60)) {
        let mut rig = rig(kind, callback, size);
        let allocated = rig.space().size();
        for act in acts {
            match act {
                Act::Write(offset, data) => drop(rig.write(offset, &data)),
                Act::Read(offset, len) => drop(rig.read(offset, len)),
                Act::Add(add) => drop(rig.add(add.pos, add.flags, &add.data)),
                Act::Find(extended, pos, id) => {
                    if let Ok(found) = rig.find(extended, pos, id) {
                        prop_assert!(found < allocated);
                    }
                }
                Act::Scribble(at, data) => rig.space().write(at, &data),
            }
        }
    }

    /// Without the device's own writes, a client changes nothing outside its access, and nothing that is read-only.
    #[test]
    fn writes_stay_inside_and_read_only_stays(kind in 0_u8..4, adds in vec(adding(), 0..12),
                                              writes in vec((offset(), vec(any::<u8>(), 1..70)), 1..40)) {
        let mut rig = rig(kind, false, 4096);
        let mut guarded = vec![(0, 4), (8, 4), (0x2c, 4), (0x34, 8)];
        for add in adds {
            if let Ok(at) = rig.add(add.pos, add.flags, &add.data) {
                let cap = *rig.function.table.touching(at, 1).unwrap();
                let size = if add.flags & CAP_FLAG_READONLY != 0 { cap.size } else { cap.header_size() };
                guarded.push((at, size));
            }
        }
        let first = rig.bytes();
        for (offset, data) in writes {
            let before = rig.bytes();
            let _ = rig.write(offset, &data);
            let after = rig.bytes();
            prop_assert_eq!(strays(&before, &after, offset, data.len()), Vec::<usize>::new());
        }
        let last = rig.bytes();
        for (at, len) in guarded {
            prop_assert_eq!(&first[at..at + len], &last[at..at + len]);
        }
    }

    /// Capabilities never overlap, never touch the header, and the lists lead to each of them.
    #[test]
    fn capabilities_never_overlap(kind in 0_u8..4, adds in vec(adding(), 1..40)) {
        let mut rig = rig(kind, false, 4096);
        let mut places: Vec<(usize, usize, bool)> = Vec::new();
        for add in adds {
            if let Ok(start) = rig.add(add.pos, add.flags, &add.data) {
                let cap = *rig.function.table.touching(start, 1).unwrap();
                prop_assert_eq!(cap.start, start);
                let limit = if cap.extended() { rig.space().size() } else { 256 };
                let least = if cap.extended() { 256 } else { 64 };
                prop_assert!(start >= least && cap.end() <= limit);
                prop_assert!(places.iter().all(|&(from, to, _)| cap.end() <= from || start >= to));
                places.push((start, cap.end(), cap.extended()));
            }
        }
        for extended in [false, true] {
            let mut link = if extended { 0x100 } else { usize::from(rig.space().u8(0x34)) };
            for &(start, _, _) in places.iter().filter(|place| place.2 == extended) {
                prop_assert_eq!(link, start);
                link = if extended {
                    (rig.space().u32(start) >> 20) as usize
                } else {
                    usize::from(rig.space().u8(start + 1))
                };
            }
            prop_assert!(link == 0 || (extended && link == 0x100));
        }
    }
}
