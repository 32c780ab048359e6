//! Setup of the header, and writes to its registers.

use super::region::*;
use super::*;

#[test]
fn init_checks_in_order() {
    let mut function = Function::new();
    let mut init =
        |kind, header, revision| function.init(kind, header, revision, &mut Events::new());
    assert_eq!(init(4, 1, 0), Err(Error::BadType(4)));
    assert_eq!(init(-1, 0, 0), Err(Error::BadType(-1)));
    assert_eq!(init(0, 1, 0), Err(Error::BadHeaderType(1)));
    assert_eq!(init(2, 0, 0), Ok(4096));
    assert_eq!(init(3, 0, 0).unwrap_err().errno(), libc::EEXIST);
    assert_eq!(init(3, 2, 0).unwrap_err().errno(), libc::EINVAL);
    assert_eq!(function.allocated(), 4096);
    assert_eq!(Rig::new(PciType::PciX1).function.allocated(), 256);
}

#[test]
fn the_buffer_is_zeroed_and_stays_where_it_is() {
    let mut rig = Rig::express();
    assert!(rig.bytes().iter().all(|&byte| byte == 0));
    let base = rig.function.base();
    rig.realize();
    rig.add(0, 0, &pm()).unwrap();
    let moved = rig.function;
    assert_eq!(moved.base(), base);
    assert!(Function::new().base().is_null());
}

#[test]
fn ids_and_class() {
    let mut rig = Rig::new(PciType::Conventional);
    rig.function.set_id(0x1111, 0x2222, 0x3333, 0x4444);
    rig.function.set_class(1, 8, 2);
    assert_eq!(rig.read(0, 4).unwrap(), [0x11, 0x11, 0x22, 0x22]);
    assert_eq!(rig.read(0x2c, 4).unwrap(), [0x33, 0x33, 0x44, 0x44]);
    assert_eq!(rig.read(9, 3).unwrap(), [2, 8, 1]);
    let none = Function::new();
    none.set_id(1, 2, 3, 4);
    none.set_class(1, 2, 3);
}

/// D24: the revision id is stored.
#[test]
fn d24_the_revision_is_stored() {
    let mut function = Function::new();
    let mut events = Events::new();
    function.init(0, 0, 0x42, &mut events).unwrap();
    assert_eq!(function.space().unwrap().u8(8), 0x42);
    assert_eq!(events.iter().count(), 0);
    let mut function = Function::new();
    function.init(0, 0, 0x1ff, &mut events).unwrap();
    assert_eq!(function.space().unwrap().u8(8), 0xff);
    assert_eq!(
        events.iter().next(),
        Some(Event::RevisionTruncated { revision: 0x1ff })
    );
}

#[test]
fn realize_without_init_allocates_what_the_region_says() {
    for (region_size, stored, allocated) in [(0, 256, 256), (4096, 4096, 4096), (100, 100, 256)] {
        let mut function = Function::new();
        let mut regions = [Region::default(); COUNT];
        regions[CONFIG].size = region_size;
        assert_eq!(
            function.realize(&regions, false, &mut Events::new()),
            Ok(stored)
        );
        assert_eq!(function.allocated(), allocated);
    }
}

#[test]
fn realize_describes_bars_pin_and_capabilities() {
    let mut rig = Rig::express();
    rig.regions[0] = Region {
        size: 0x1000,
        flags: FLAG_RW | FLAG_MEM,
        has_callback: false,
    };
    rig.regions[2] = Region {
        flags: FLAG_RW | FLAG_MEM | FLAG_PREFETCH,
        ..rig.regions[0]
    };
    rig.regions[4] = Region {
        flags: FLAG_RW | FLAG_MEM | FLAG_64_BITS,
        ..rig.regions[0]
    };
    rig.add(0, 0, &pm()).unwrap();
    let mut events = Events::new();
    rig.function
        .realize(&rig.regions, true, &mut events)
        .unwrap();
    let bars: Vec<u32> = (0..6)
        .map(|index| rig.space().u32(0x10 + 4 * index))
        .collect();
    assert_eq!(bars, [0, 1, 8, 1, 4, 0]);
    assert_eq!(
        events.iter().collect::<Vec<_>>(),
        [Event::PrefetchWithout64Bits { index: 2 }]
    );
    assert_eq!(rig.space().u8(0x3d), 1);
    assert_eq!(rig.space().u16(6), 0x10);
}

/// D23: a capability added after realize shows in the status register.
#[test]
fn d23_late_capabilities_set_the_status_bit() {
    let mut rig = Rig::express();
    rig.realize();
    assert_eq!(rig.space().u16(6), 0);
    rig.add(0, CAP_FLAG_EXTENDED, &serial_number()).unwrap();
    assert_eq!(rig.space().u16(6), 0);
    rig.add(0, 0, &pm()).unwrap();
    assert_eq!(rig.space().u16(6), 0x10);
}

#[test]
fn registers_that_cannot_be_written() {
    let mut rig = Rig::express();
    rig.space().write(0, &[0x5a; 64]);
    let before = rig.bytes();
    for offset in [
        0, 1, 2, 3, 5, 7, 0xa, 0xb, 0xe, 0xf, 0x11, 0x12, 0x27, 0x28, 0x2c, 0x2e, 0x31, 0x34,
    ] {
        assert_eq!(
            errno(rig.write(offset, &[0xff])),
            libc::EINVAL,
            "{offset:#x}"
        );
    }
    for offset in 0x35..0x3c {
        assert_eq!(
            errno(rig.write(offset, &[0xff])),
            libc::EINVAL,
            "{offset:#x}"
        );
    }
    for offset in [8, 9, 0x3d, 0x3e, 0x3f] {
        rig.write(offset, &[0xff]).unwrap();
    }
    assert_eq!(rig.bytes(), before);
    rig.write(8, &[0xff; 4]).unwrap();
    rig.write(0x3d, &[0xff; 3]).unwrap();
    assert_eq!(rig.bytes(), before);
}

#[test]
fn byte_registers_are_stored() {
    let mut rig = Rig::express();
    rig.write(0x3c, &[11]).unwrap();
    assert_eq!(errno(rig.write(0x0c, &[0x10, 0x20, 0, 0])), libc::EINVAL);
    assert_eq!(rig.bytes()[0x0c..0x0e], [0x10, 0x20]);
    assert_eq!(rig.bytes()[0x3c], 11);
}

/// D10: short writes leave the other bytes of a register alone.
#[test]
fn d10_short_writes_are_merged() {
    let mut rig = Rig::express();
    rig.regions[0] = Region {
        size: 0x100,
        flags: FLAG_RW | FLAG_MEM,
        has_callback: false,
    };
    rig.realize();
    rig.write(4, &[0x07, 0x04]).unwrap();
    rig.write(4, &[0x02]).unwrap();
    assert_eq!(rig.space().u16(4), 0x0402);
    rig.write(0x10, &0xfebc_de00_u32.to_le_bytes()).unwrap();
    rig.write(0x10, &[0xff, 0x12]).unwrap();
    assert_eq!(rig.space().u32(0x10), 0xfebc_1200);
    rig.write(0x10, &[0xff]).unwrap();
    assert_eq!(rig.space().u32(0x10), 0xfebc_1200);
}

/// D53: bits that the device does not have are masked, and the write succeeds.
#[test]
fn d53_unknown_command_bits_are_ignored() {
    let mut rig = Rig::express();
    rig.write(4, &0xffff_u16.to_le_bytes()).unwrap();
    assert_eq!(rig.space().u16(4), 0x0517);
    assert_eq!(
        rig.events,
        [
            Event::CommandBitsIgnored { bits: 0xfae8 },
            Event::CommandChanged {
                old: 0,
                new: 0x0517
            }
        ]
    );
    rig.write(4, &0x0040_u16.to_le_bytes()).unwrap();
    assert_eq!(rig.space().u16(4), 0);
    // Bits that the device itself set stay.
    rig.space().set_u16(4, 0x0008);
    rig.write(4, &0x0006_u16.to_le_bytes()).unwrap();
    assert_eq!(rig.space().u16(4), 0x000e);
}

/// D55: error bits of the status register are write-1-to-clear.
#[test]
fn d55_status_bits_are_cleared_by_ones() {
    let mut rig = Rig::express();
    rig.space().set_u16(6, 0xf9bf);
    rig.write(6, &0x8100_u16.to_le_bytes()).unwrap();
    assert_eq!(rig.space().u16(6), 0x78bf);
    rig.write(6, &[0xff]).unwrap();
    assert_eq!(rig.space().u16(6), 0x78bf);
    rig.write(4, &[0, 0, 0xff, 0xff]).unwrap();
    assert_eq!(rig.space().u16(6), 0x00bf);
}

/// Writes all ones, reads back, as system software does to learn a BAR's size.
fn size_bar(rig: &mut Rig, offset: u64) -> u32 {
    rig.write(offset, &[0xff; 4]).unwrap();
    u32::from_le_bytes(rig.read(offset, 4).unwrap().try_into().unwrap())
}

#[test]
fn bars_can_be_sized() {
    let mut rig = Rig::express();
    rig.regions[0] = Region {
        size: 0x4000,
        flags: FLAG_RW | FLAG_MEM,
        has_callback: false,
    };
    rig.regions[1] = Region {
        size: 0x20,
        flags: FLAG_RW,
        has_callback: false,
    };
    rig.regions[2] = Region {
        size: 8 << 30,
        flags: FLAG_RW | FLAG_MEM | FLAG_64_BITS | FLAG_PREFETCH,
        has_callback: false,
    };
    rig.realize();
    let sizes: Vec<u32> = (0..6)
        .map(|index| size_bar(&mut rig, 0x10 + 4 * index))
        .collect();
    assert_eq!(sizes, [0xffff_c000, 0xffff_ffe1, 0xc, 0xffff_fffe, 1, 1]);
    rig.write(0x10, &0xe000_1234_u32.to_le_bytes()).unwrap();
    assert_eq!(rig.space().u32(0x10), 0xe000_0000);
}

/// D15: the upper half of a 64-bit BAR starts as 0 and takes any address.
#[test]
fn d15_upper_half_of_a_small_64_bit_bar() {
    let mut rig = Rig::express();
    let flags = FLAG_RW | FLAG_MEM | FLAG_64_BITS;
    rig.regions[0] = Region {
        size: 0x4000,
        flags,
        has_callback: false,
    };
    rig.realize();
    assert_eq!(rig.space().u32(0x14), 0);
    assert_eq!(size_bar(&mut rig, 0x10), 0xffff_c004);
    assert_eq!(size_bar(&mut rig, 0x14), 0xffff_ffff);
    rig.write(0x10, &0x0000_0012_3456_0000_u64.to_le_bytes())
        .unwrap();
    assert_eq!(
        rig.read(0x10, 8).unwrap(),
        0x0000_0012_3456_0004_u64.to_le_bytes()
    );
}

/// D54: the ROM BAR can be sized and programmed if there is a ROM.
#[test]
fn d54_rom_bar() {
    let mut rig = Rig::express();
    for value in [0xffff_f800_u32, 0xffff_fffe, 0xffff_ffff, 0x1234_5678] {
        rig.write(0x30, &value.to_le_bytes()).unwrap();
        assert_eq!(rig.space().u32(0x30), 0);
    }
    rig.space().set_u32(0x30, 0x77);
    rig.write(0x30, &[0; 4]).unwrap();
    assert_eq!(rig.space().u32(0x30), 0);

    rig.regions[ROM] = Region {
        size: 0x1_8000,
        flags: FLAG_READ,
        has_callback: true,
    };
    assert_eq!(size_bar(&mut rig, 0x30), 0xfffe_0001);
    rig.write(0x30, &0xfe00_1001_u32.to_le_bytes()).unwrap();
    assert_eq!(rig.space().u32(0x30), 0xfe00_0001);
    rig.regions[ROM].size = 16;
    assert_eq!(size_bar(&mut rig, 0x30), 0xffff_f801);
}
