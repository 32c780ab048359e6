//! Dispatch: how an access is cut, who handles each piece, and what flags and callbacks do.

use super::*;

#[test]
fn reads_copy_across_header_and_plain_space() {
    let mut rig = Rig::express();
    rig.space().write(60, &[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(rig.read(60, 8).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(rig.read(0, 4096).unwrap(), rig.bytes());
}

#[test]
fn accesses_outside_are_refused() {
    let mut rig = Rig::new(PciType::Conventional);
    assert_eq!(errno(rig.read(255, 2)), libc::EINVAL);
    assert_eq!(errno(rig.read(256, 1)), libc::EINVAL);
    assert_eq!(errno(rig.read(u64::MAX, 256)), libc::EINVAL);
    assert_eq!(errno(rig.write(253, &[0; 4])), libc::EINVAL);
    let mut events = Events::new();
    assert_eq!(
        errno(rig.function.write_step(&rig.regions, 0, &[], &mut events)),
        libc::EINVAL
    );
    assert_eq!(
        errno(Function::new().read_step(&rig.regions, 0, &mut [0])),
        libc::EINVAL
    );
}

#[test]
fn plain_space_is_read_only_without_a_callback() {
    let mut rig = Rig::express();
    assert_eq!(errno(rig.write(0x40, &[1])), libc::EINVAL);
    let mut rig = Rig::express().with_callback();
    rig.write(0x40, &[1]).unwrap();
    rig.read(0x41, 2).unwrap();
    assert_eq!(rig.calls, [(0x40, 1), (0x41, 2)]);
}

#[test]
fn an_access_is_cut_at_capabilities() {
    let mut rig = Rig::express().with_callback();
    rig.add(0x50, 0, &vendor(&[1, 2, 3, 4, 5])).unwrap();
    rig.add(0x60, CAP_FLAG_CALLBACK, &vendor(&[9])).unwrap();
    rig.read(0x3c, 0x30).unwrap();
    assert_eq!(rig.calls, [(0x40, 0x10), (0x58, 8), (0x60, 4), (0x64, 8)]);
}

#[test]
fn always_cb_sends_everything_to_the_callback() {
    let mut rig = Rig::express().with_callback();
    rig.regions[region::CONFIG].flags |= region::FLAG_ALWAYS_CB;
    rig.add(0x40, CAP_FLAG_READONLY, &pm()).unwrap();
    rig.write(0, &[7; 0x48]).unwrap();
    rig.read(0, 2).unwrap();
    assert_eq!(rig.calls, [(0, 0x48), (0, 2)]);
    assert_eq!(rig.bytes()[0x40], 7);
}

#[test]
fn read_only_capabilities_refuse_writes_everywhere() {
    let mut rig = Rig::express().with_callback();
    let at = rig
        .add(0, CAP_FLAG_READONLY | CAP_FLAG_CALLBACK, &vendor(b"abc"))
        .unwrap() as u64;
    let before = rig.bytes();
    for offset in 0..6 {
        assert_eq!(errno(rig.write(at + offset, &[0xff])), libc::EPERM);
    }
    assert_eq!(rig.bytes(), before);
    assert!(rig.calls.is_empty());
    assert_eq!(rig.read(at + 3, 3).unwrap(), b"abc");
    assert_eq!(rig.calls, [(at + 3, 3)]);
}

#[test]
fn callback_capabilities_get_absolute_offsets_and_their_header_too() {
    let mut rig = Rig::express().with_callback();
    let at = rig.add(0x80, CAP_FLAG_CALLBACK, &vendor(b"Hello")).unwrap() as u64;
    rig.write(at, &[9, 0]).unwrap();
    assert_eq!(rig.read(at + 3, 5).unwrap(), b"Hello");
    assert_eq!(rig.calls, [(at, 2), (at + 3, 5)]);
    // The callback has been taken away: nobody can handle it.
    rig.regions[region::CONFIG].has_callback = false;
    assert_eq!(errno(rig.read(at, 1)), libc::EINVAL);
    assert_eq!(errno(rig.write(at, &[1])), libc::EINVAL);
}

#[test]
fn capability_headers_cannot_be_written() {
    let mut rig = Rig::express();
    let std = rig.add(0, 0, &vendor(&[0; 4])).unwrap() as u64;
    let ext = rig.add(0, CAP_FLAG_EXTENDED, &ext_vendor(&[0; 4])).unwrap() as u64;
    let dsn = rig.add(0, CAP_FLAG_EXTENDED, &serial_number()).unwrap() as u64;
    let before = rig.bytes();
    for offset in (std..std + 3).chain(ext..ext + 8).chain(dsn..dsn + 12) {
        assert_eq!(
            errno(rig.write(offset, &[0x55])),
            libc::EPERM,
            "{offset:#x}"
        );
    }
    assert_eq!(rig.bytes(), before);
    rig.write(std + 3, b"wxyz").unwrap();
    rig.write(ext + 8, b"1234").unwrap();
    assert_eq!(rig.read(std + 3, 4).unwrap(), b"wxyz");
    assert_eq!(rig.read(ext + 8, 4).unwrap(), b"1234");
}

/// D13: the piece inside a capability ends with the capability.
#[test]
fn d13_a_write_does_not_run_past_its_capability() {
    let mut rig = Rig::express();
    let writable = rig.add(0x40, 0, &vendor(&[0; 13])).unwrap() as u64;
    let guarded = rig.add(0x50, CAP_FLAG_READONLY, &vendor(b"safe")).unwrap();
    let before = rig.bytes();
    assert_eq!(errno(rig.write(writable + 8, &[0xff; 16])), libc::EPERM);
    assert_eq!(
        rig.bytes()[guarded..guarded + 7],
        before[guarded..guarded + 7]
    );
    // The earlier piece stays applied.
    assert_eq!(rig.bytes()[0x48..0x50], [0xff; 8]);

    let mut rig = Rig::express();
    let at = rig.add(0x40, 0, &msi(0x180)).unwrap() as u64;
    assert_eq!(errno(rig.write(at + 20, &[0xff; 24])), libc::EINVAL);
    let at = rig.add(0x60, 0, &msix()).unwrap() as u64;
    assert_eq!(errno(rig.write(at + 8, &[0xff; 12])), libc::EINVAL);
    assert!(rig.bytes()[0x6c..].iter().all(|&byte| byte == 0));
}

/// D14: whatever a callback returns, an access ends.
#[test]
fn d14_a_callback_must_handle_exactly_what_it_was_asked() {
    for returned in [0, 1, 3, 5, isize::MAX] {
        let mut rig = Rig::express().with_callback();
        rig.callback = Callback::Returns(returned, 0);
        assert_eq!(errno(rig.read(0x80, 4)), libc::EINVAL, "{returned}");
        assert_eq!(errno(rig.write(0x80, &[0; 4])), libc::EINVAL, "{returned}");
    }
    let mut rig = Rig::express().with_callback();
    rig.callback = Callback::Returns(-1, libc::EBUSY);
    assert_eq!(errno(rig.read(0x80, 4)), libc::EBUSY);
    rig.callback = Callback::Returns(-1, 0);
    assert_eq!(errno(rig.read(0x80, 4)), libc::EINVAL);
}

/// D16: the lowest capability decides, not the one added first.
#[test]
fn d16_the_lowest_capability_touched_is_handled_first() {
    let mut rig = Rig::express().with_callback();
    rig.add(0x90, 0, &vendor(&[0; 5])).unwrap();
    rig.add(0x80, CAP_FLAG_READONLY, &vendor(&[0; 5])).unwrap();
    assert_eq!(errno(rig.write(0x7e, &[1; 0x20])), libc::EPERM);
    assert_eq!(rig.calls, [(0x7e, 2)]);
    assert_eq!(rig.bytes()[0x80..0xa0], {
        let mut expected = [0; 0x20];
        expected[..3].copy_from_slice(&[9, 0, 8]);
        expected[0x10..0x13].copy_from_slice(&[9, 0x80, 8]);
        expected
    });
}

/// D17: a range that ends where a capability starts does not touch it.
#[test]
fn d17_a_range_that_ends_at_a_capability_does_not_touch_it() {
    let mut rig = Rig::express().with_callback();
    rig.add(0x80, 0, &pm()).unwrap();
    rig.write(0x78, &[1; 8]).unwrap();
    rig.write(0x88, &[1; 8]).unwrap();
    assert_eq!(rig.calls, [(0x78, 8), (0x88, 8)]);
}

/// D18: only a PCI Express capability makes a write quiesce.
#[test]
fn d18_quiescing_follows_the_device_control_register() {
    let mut rig = Rig::express();
    assert!((0..64).all(|offset| !rig.function.needs_quiesce(offset, 64)));
    let at = rig.add(0x40, 0, &express(true)).unwrap() as u64;
    assert!(rig.function.needs_quiesce(at + 8, 2));
    assert!(rig.function.needs_quiesce(at + 9, 1));
    assert!(rig.function.needs_quiesce(at + 4, 8));
    assert!(!rig.function.needs_quiesce(at + 10, 2));
    assert!(!rig.function.needs_quiesce(at + 4, 4));
    assert!(!rig.function.needs_quiesce(at + 8, 0));
    assert!(!rig.function.needs_quiesce(u64::MAX, 4));
}

/// D27, D88: whatever size the config region claims, only allocated bytes are used.
#[test]
fn d27_d88_the_region_size_is_clamped_to_the_buffer() {
    let mut rig = Rig::new(PciType::Conventional);
    rig.regions[region::CONFIG].size = 1 << 40;
    assert_eq!(errno(rig.read(0xfe, 4)), libc::EINVAL);
    assert_eq!(errno(rig.add(0xfc, 0, &pm())), libc::EINVAL);
    assert_eq!(errno(rig.find(true, 0, 3)), libc::EINVAL);

    let mut rig = Rig::express();
    rig.regions[region::CONFIG].size = 256;
    assert_eq!(
        errno(rig.add(0, CAP_FLAG_EXTENDED, &serial_number())),
        libc::ENOSPC
    );
    assert_eq!(
        errno(rig.add(0x100, CAP_FLAG_EXTENDED, &serial_number())),
        libc::EINVAL
    );
    assert_eq!(errno(rig.find(true, 0, 3)), libc::EINVAL);
    assert_eq!(errno(rig.read(0x100, 1)), libc::EINVAL);
}
