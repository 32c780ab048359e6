//! Adding and finding capabilities.

use super::*;

#[test]
fn automatic_and_explicit_places() {
    let mut rig = Rig::new(PciType::Conventional);
    assert_eq!(rig.add(0, 0, &pm()), Ok(0x40));
    assert_eq!(rig.add(0, CAP_FLAG_READONLY, &vendor(b"abc")), Ok(0x48));
    assert_eq!(rig.add(0, 0, &vendor(b"Hello world.")), Ok(0x50));
    assert_eq!(rig.add(0x80, 0, &vendor(b"Hello world.")), Ok(0x80));
    assert_eq!(rig.add(0x90, 0, &vendor(b"Hello world.")), Ok(0x90));
    assert_eq!(rig.add(0, 0, &pm()), Ok(0xa0));
    let bytes = rig.bytes();
    assert_eq!(bytes[0x34], 0x40);
    assert_eq!(bytes[0x40..0x44], [1, 0x48, 0, 0]);
    assert_eq!(bytes[0x48..0x4e], *b"\x09\x50\x06abc");
    assert_eq!(bytes[0x81], 0x90);
    assert_eq!(bytes[0xa1], 0);
}

#[test]
fn extended_places() {
    let mut rig = Rig::express();
    let ext = CAP_FLAG_EXTENDED;
    assert_eq!(errno(rig.add(0x200, ext, &serial_number())), libc::EINVAL);
    assert_eq!(rig.add(0, ext, &serial_number()), Ok(0x100));
    assert_eq!(rig.add(0, ext, &ext_vendor(b"abcde")), Ok(0x10c));
    assert_eq!(rig.add(0, ext, &ext_vendor(b"Hello world.")), Ok(0x11c));
    assert_eq!(rig.add(0x200, ext, &ext_vendor(b"Hello world.")), Ok(0x200));
    assert_eq!(rig.add(0x258, ext, &ext_vendor(b"Hello world.")), Ok(0x258));
    assert_eq!(errno(rig.add(0x281, ext, &serial_number())), libc::EINVAL);
    assert_eq!(errno(rig.add(0x80, ext, &serial_number())), libc::EINVAL);
    assert_eq!(errno(rig.add(4094, ext, &serial_number())), libc::EINVAL);
    let bytes = rig.bytes();
    assert_eq!(bytes[0x100..0x104], [3, 0, 0xc1, 0x10]);
    assert_eq!(bytes[0x10c..0x110], [0x0b, 0, 0xc0, 0x11]);
    assert_eq!(bytes[0x258..0x25c], [0x0b, 0, 0, 0]);
}

#[test]
fn checks_run_in_order() {
    let mut rig = Rig::new(PciType::Conventional);
    assert_eq!(rig.add(0, 999, &[]), Err(Error::CapabilityFlags(999)));
    assert_eq!(
        rig.add(0, CAP_FLAG_CALLBACK | CAP_FLAG_EXTENDED, &[]),
        Err(Error::NoCallback)
    );
    assert_eq!(
        rig.add(0, CAP_FLAG_EXTENDED, &[]),
        Err(Error::NoExtended(0))
    );
    assert_eq!(rig.add(0, 0, &[]), Err(Error::MissingData));
    assert_eq!(errno(rig.add(256, 0, &[0x81, 0])), libc::ENOTSUP);
    assert_eq!(errno(rig.add(256, 0, &pm())), libc::EINVAL);
    assert_eq!(errno(rig.add(0x3c, 0, &pm())), libc::EINVAL);
    assert_eq!(errno(rig.add(usize::MAX, 0, &pm())), libc::EINVAL);
    let mut rig = Rig::express();
    assert_eq!(
        errno(rig.add(0, CAP_FLAG_EXTENDED, &[102, 0, 0, 0])),
        libc::ENOTSUP
    );
    // The id has 16 bits, and the wrong list's ids are unknown.
    assert_eq!(
        errno(rig.add(0, CAP_FLAG_EXTENDED, &[3, 1, 0, 0])),
        libc::ENOTSUP
    );
    assert_eq!(errno(rig.add(0, 0, &[3, 0, 0, 0])), libc::ENOTSUP);
}

#[test]
fn without_config_space_nothing_can_be_added_or_found() {
    let mut function = Function::new();
    let regions = [Region::default(); region::COUNT];
    let mut events = Events::new();
    let result = function.add_capability(&regions, 0, 0, &pm()[..], &mut events);
    assert_eq!(errno(result), libc::EINVAL);
    assert_eq!(
        errno(function.find_capability(&regions, false, 0, 1)),
        libc::EINVAL
    );
}

#[test]
fn lists_have_room_for_128() {
    let mut rig = Rig::express();
    for _ in 0..MAX_CAPS {
        rig.add(0, CAP_FLAG_EXTENDED, &serial_number()).unwrap();
    }
    let full = rig.add(0, CAP_FLAG_EXTENDED, &[0xff; 4]);
    assert_eq!(full, Err(Error::CapabilityListFull(MAX_CAPS)));
    rig.add(0, 0, &pm()).unwrap();
}

#[test]
fn short_data_is_refused_and_changes_nothing() {
    let mut rig = Rig::express();
    let before = rig.bytes();
    assert_eq!(rig.add(0, 0, &pm()[..7]), Err(Error::MissingData));
    assert_eq!(rig.add(0, 0, &vendor(b"abc")[..5]), Err(Error::MissingData));
    assert_eq!(
        rig.add(0, CAP_FLAG_EXTENDED, &ext_vendor(b"abc")[..7]),
        Err(Error::MissingData)
    );
    assert_eq!(rig.bytes(), before);
    assert_eq!(rig.add(0, 0, &pm()), Ok(0x40));
}

#[test]
fn raw_data_reads_what_the_header_says() {
    let mut rig = Rig::express();
    let data = vendor(b"raw");
    let mut events = Events::new();
    // SAFETY: the array holds a whole vendor capability and outlives the call.
    let raw = unsafe { RawData::new(data.as_ptr()) };
    assert_eq!(
        rig.function
            .add_capability(&rig.regions, 0, 0, &raw, &mut events),
        Ok(0x40)
    );
    assert_eq!(rig.read(0x43, 3).unwrap(), b"raw");
    // SAFETY: NULL is allowed.
    let null = unsafe { RawData::new(core::ptr::null()) };
    let result = rig
        .function
        .add_capability(&rig.regions, 0, 0, &null, &mut events);
    assert_eq!(result, Err(Error::MissingData));
}

/// D17: neighbours may touch, and a capability may end with configuration space.
#[test]
fn d17_ranges_are_half_open() {
    let mut rig = Rig::new(PciType::Conventional);
    assert_eq!(rig.add(0x50, 0, &pm()), Ok(0x50));
    assert_eq!(rig.add(0x48, 0, &pm()), Ok(0x48));
    assert_eq!(rig.add(0x58, 0, &pm()), Ok(0x58));
    assert_eq!(rig.add(0xf8, 0, &pm()), Ok(0xf8));
    assert_eq!(errno(rig.add(0xf9, 0, &pm())), libc::EINVAL);
    assert_eq!(errno(rig.add(0x100, 0, &pm())), libc::EINVAL);
    assert!(matches!(
        rig.add(0x4f, 0, &vendor(&[0])),
        Err(Error::CapabilityOverlap { .. })
    ));
    assert!(matches!(
        rig.add(0x45, 0, &vendor(&[0])),
        Err(Error::CapabilityOverlap { .. })
    ));
    let mut rig = Rig::express();
    rig.add(0, CAP_FLAG_EXTENDED, &serial_number()).unwrap();
    assert_eq!(
        rig.add(4096 - 12, CAP_FLAG_EXTENDED, &serial_number()),
        Ok(4096 - 12)
    );
}

/// D51: automatic placement goes around capabilities that are in the way.
#[test]
fn d51_automatic_placement_never_overlaps() {
    let mut rig = Rig::new(PciType::Conventional);
    rig.add(0x58, 0, &pm()).unwrap();
    rig.add(0x40, 0, &pm()).unwrap();
    assert_eq!(rig.add(0, 0, &pm()), Ok(0x48));
    assert_eq!(rig.add(0, 0, &vendor(&[0; 13])), Ok(0x60));
    let mut rig = Rig::express();
    let ext = CAP_FLAG_EXTENDED;
    rig.add(0, ext, &serial_number()).unwrap();
    rig.add(0x118, ext, &serial_number()).unwrap();
    rig.add(0x10c, ext, &ext_vendor(&[])).unwrap();
    assert_eq!(rig.add(0, ext, &serial_number()), Ok(0x124));
}

/// D85: a vendor capability has at least its own header.
#[test]
fn d85_vendor_sizes_below_the_header_are_refused() {
    let mut rig = Rig::express();
    for size in 0..3 {
        assert_eq!(errno(rig.add(0, 0, &[9, 0, size])), libc::EINVAL);
    }
    for size in 0..8_u8 {
        let data = [0x0b, 0, 0, 0, 0, 0, size << 4, 0];
        assert_eq!(errno(rig.add(0, CAP_FLAG_EXTENDED, &data)), libc::EINVAL);
    }
    assert_eq!(rig.add(0, 0, &[9, 0, 3]), Ok(0x40));
    assert_eq!(
        rig.add(0, CAP_FLAG_EXTENDED, &[0x0b, 0, 0, 0, 0, 0, 0x80, 0]),
        Ok(0x100)
    );
}

/// D86: standard capabilities stay below 0x100, where 8-bit links reach.
#[test]
fn d86_standard_capabilities_stay_below_0x100() {
    let mut rig = Rig::express();
    for expected in [0x40, 0x7c, 0xb8] {
        assert_eq!(rig.add(0, 0, &express(false)), Ok(expected));
    }
    assert_eq!(errno(rig.add(0, 0, &msi(0))), libc::ENOSPC);
    assert_eq!(rig.add(0, 0, &pm()), Ok(0xf4));
    assert_eq!(errno(rig.add(0, 0, &pm())), libc::ENOSPC);
    assert_eq!(errno(rig.add(0x100, 0, &pm())), libc::EINVAL);
    assert_eq!(errno(rig.add(0x200, 0, &pm())), libc::EINVAL);
    assert_eq!(rig.add(0, CAP_FLAG_EXTENDED, &serial_number()), Ok(0x100));
}

#[test]
fn finding_standard_capabilities() {
    let mut rig = Rig::new(PciType::Conventional);
    assert_eq!(errno(rig.find(false, 0, 1)), libc::ENOENT);
    rig.add(0, 0, &pm()).unwrap();
    rig.add(0, 0, &vendor(b"abc")).unwrap();
    rig.add(0x80, 0, &vendor(b"abc")).unwrap();
    assert_eq!(rig.find(false, 0, 1), Ok(0x40));
    assert_eq!(errno(rig.find(false, 0x40, 1)), libc::ENOENT);
    assert_eq!(rig.find(false, 0, 9), Ok(0x48));
    assert_eq!(rig.find(false, 0x48, 9), Ok(0x80));
    assert_eq!(errno(rig.find(false, 0x80, 9)), libc::ENOENT);
    for pos in [8192, 256, 255, usize::MAX] {
        assert_eq!(errno(rig.find(false, pos, 1)), libc::EINVAL);
    }
    // Not a capability: the bytes found are followed. 0x4a holds the size, 6.
    assert_eq!(errno(rig.find(false, 0x49, 9)), libc::ENOENT);
    assert_eq!(errno(rig.find(false, 0, -1)), libc::ENOENT);
    assert_eq!(errno(rig.find(false, 0, 0x101)), libc::ENOENT);
}

#[test]
fn finding_extended_capabilities() {
    let mut rig = Rig::express();
    assert_eq!(errno(rig.find(true, 0, 3)), libc::ENOENT);
    rig.add(0, CAP_FLAG_EXTENDED, &serial_number()).unwrap();
    rig.add(0, CAP_FLAG_EXTENDED, &ext_vendor(b"abcde"))
        .unwrap();
    rig.add(0x200, CAP_FLAG_EXTENDED, &ext_vendor(b"abcde"))
        .unwrap();
    assert_eq!(rig.find(true, 0, 3), Ok(0x100));
    assert_eq!(rig.find(true, 0, 0xb), Ok(0x10c));
    assert_eq!(rig.find(true, 0x10c, 0xb), Ok(0x200));
    assert_eq!(errno(rig.find(true, 0x100, 3)), libc::ENOENT);
    for pos in [8192, 4096, 4095, 4092, usize::MAX - 2] {
        assert_eq!(errno(rig.find(true, pos, 3)), libc::EINVAL);
    }
}

/// D50: lists end, whatever the device wrote into them.
#[test]
fn d50_walks_end() {
    let mut rig = Rig::express();
    rig.add(0, 0, &pm()).unwrap();
    rig.add(0, CAP_FLAG_EXTENDED, &serial_number()).unwrap();
    // The end of the extended list is the end, not offset 0 with the vendor id.
    rig.function.set_id(0x000b, 0, 0, 0);
    assert_eq!(errno(rig.find(true, 0x100, 0xb)), libc::ENOENT);
    // Circles.
    rig.space().set_u8(0x41, 0x40);
    rig.space().set_u32(0x100, 0x1000_0003);
    assert_eq!(errno(rig.find(false, 0, 9)), libc::EINVAL);
    assert_eq!(errno(rig.find(true, 0, 0xb)), libc::EINVAL);
    assert_eq!(errno(rig.add(0, 0, &pm())), libc::EINVAL);
    assert_eq!(
        errno(rig.add(0, CAP_FLAG_EXTENDED, &serial_number())),
        libc::EINVAL
    );
    // Links that lead outside.
    rig.space().set_u32(0x100, 0xffe0_0003);
    assert_eq!(errno(rig.find(true, 0, 0xb)), libc::EINVAL);
    assert_eq!(
        errno(rig.add(0, CAP_FLAG_EXTENDED, &serial_number())),
        libc::EINVAL
    );
    rig.space().set_u8(0x34, 0xff);
    assert_eq!(errno(rig.add(0, 0, &pm())), libc::EINVAL);
    // 256 bytes have no extended list.
    let rig = Rig::new(PciType::Conventional);
    assert_eq!(errno(rig.find(true, 0, 3)), libc::EINVAL);
    assert_eq!(errno(rig.find(true, 0x40, 3)), libc::EINVAL);
}

#[test]
fn an_unknown_last_member_is_an_error_not_an_abort() {
    let mut rig = Rig::express();
    rig.space().set_u8(0x34, 0x60);
    rig.space().set_u8(0x60, 0x42);
    assert_eq!(rig.add(0, 0, &pm()), Err(Error::ListDamaged(0x60)));
    // An explicit place needs no size of the last one, and is linked behind it.
    assert_eq!(rig.add(0x80, 0, &pm()), Ok(0x80));
    assert_eq!(rig.bytes()[0x61], 0x80);
}

#[test]
fn a_member_whose_id_the_device_changed_keeps_its_size() {
    let mut rig = Rig::express();
    rig.add(0, 0, &pm()).unwrap();
    rig.space().set_u8(0x40, 0x42);
    assert_eq!(rig.add(0, 0, &pm()), Ok(0x48));
}
