//! Writes inside capabilities, register by register.

use super::*;

fn at(rig: &mut Rig, data: &[u8]) -> u64 {
    rig.add(0, 0, data).unwrap() as u64
}

#[test]
fn power_management_lengths() {
    let mut rig = Rig::express();
    let pm = at(&mut rig, &pm());
    for (offset, len, expected) in [
        (2, 1, libc::EINVAL),
        (2, 2, libc::ENOTSUP),
        (3, 2, libc::EINVAL),
        (4, 1, libc::EINVAL),
        (4, 4, libc::EINVAL),
        (5, 2, libc::EINVAL),
        (6, 1, libc::ENOTSUP),
        (6, 2, libc::EINVAL),
        (7, 1, libc::ENOTSUP),
    ] {
        assert_eq!(
            errno(rig.write(pm + offset, &[1; 4][..len])),
            expected,
            "+{offset} {len}"
        );
    }
    rig.write(pm + 4, &[1, 2]).unwrap();
    assert_eq!(rig.read(pm + 4, 2).unwrap(), [1, 2]);
}

/// D78: only writable bits of PMCSR change, and PME status is cleared by a 1.
#[test]
fn d78_pmcsr_masks() {
    let mut rig = Rig::express();
    let mut data = pm();
    data[4..6].copy_from_slice(&0xe008_u16.to_le_bytes());
    let pm = at(&mut rig, &data);
    let control = usize::try_from(pm + 4).unwrap();
    rig.write(pm + 4, &0x7ff7_u16.to_le_bytes()).unwrap();
    assert_eq!(rig.space().u16(control), 0xff0b);
    rig.write(pm + 4, &0x8000_u16.to_le_bytes()).unwrap();
    assert_eq!(rig.space().u16(control), 0x6008);
    rig.write(pm + 4, &0x8000_u16.to_le_bytes()).unwrap();
    assert_eq!(rig.space().u16(control), 0x6008);
}

#[test]
fn msi_vectors_are_limited() {
    let mut rig = Rig::express();
    let msi = at(&mut rig, &msi(0x188));
    assert_eq!(errno(rig.write(msi + 2, &[0xff, 0xff])), libc::EINVAL);
    // Enable is applied before the vector count is refused.
    assert_eq!(rig.read(msi + 2, 2).unwrap(), [0x89, 0x01]);
    assert_eq!(errno(rig.write(msi + 2, &[0x50])), libc::EINVAL);
    rig.write(msi + 2, &[0x41, 0]).unwrap();
    assert_eq!(rig.read(msi + 2, 2).unwrap(), [0xc9, 0x01]);
    rig.write(msi + 2, &[0; 22]).unwrap();
    assert_eq!(
        rig.read(msi + 2, 22).unwrap(),
        [&[0x88, 1][..], &[0; 20]].concat()
    );
}

#[test]
fn msi_registers_with_64_bits_and_masking() {
    let mut rig = Rig::express();
    let msi = at(&mut rig, &msi(0x180));
    rig.write(msi + 4, &[0xff; 20]).unwrap();
    let expected = [&[0xfc][..], &[0xff; 9], &[0, 0], &[0xff; 4], &[0; 4]].concat();
    assert_eq!(rig.read(msi + 4, 20).unwrap(), expected);
    rig.write(msi + 5, &[0x12]).unwrap();
    assert_eq!(rig.read(msi + 4, 4).unwrap(), [0xfc, 0x12, 0xff, 0xff]);
}

/// D75: the register layout follows the header; the capability keeps the 24 bytes of the C API.
#[test]
fn d75_msi_layout_follows_its_header() {
    let mut rig = Rig::express();
    let narrow = at(&mut rig, &msi(0x000));
    let masking = at(&mut rig, &msi(0x100));
    let wide = at(&mut rig, &msi(0x080));
    assert_eq!([narrow, masking, wide], [0x40, 0x58, 0x70]);
    for start in [narrow, masking, wide] {
        rig.write(start + 4, &[0xff; 20]).unwrap();
    }
    let zeroes = |count| vec![0; count];
    let ones = |count| vec![0xff; count];
    assert_eq!(
        rig.read(narrow + 5, 19).unwrap(),
        [ones(5), zeroes(14)].concat()
    );
    assert_eq!(
        rig.read(masking + 5, 19).unwrap(),
        [ones(5), zeroes(2), ones(4), zeroes(8)].concat()
    );
    assert_eq!(
        rig.read(wide + 5, 19).unwrap(),
        [ones(9), zeroes(10)].concat()
    );
}

#[test]
fn msix_changes_two_bits_only() {
    let mut rig = Rig::express();
    let mut data = msix();
    data[2] = 0x1f;
    let msix = at(&mut rig, &data);
    rig.write(msix + 2, &[0xff; 10]).unwrap();
    assert_eq!(
        rig.read(msix + 2, 10).unwrap(),
        [&[0x1f, 0xc0][..], &[0; 8]].concat()
    );
    rig.write(msix + 2, &[0, 0]).unwrap();
    rig.write(msix + 3, &[0xc0, 0xff]).unwrap();
    assert_eq!(rig.read(msix + 2, 4).unwrap(), [0x1f, 0xc0, 0, 0]);
    rig.write(msix + 4, &[0]).unwrap();
    rig.write(msix + 2, &[0xff]).unwrap();
    assert_eq!(rig.read(msix + 2, 2).unwrap(), [0x1f, 0xc0]);
}

#[test]
fn function_level_reset() {
    let mut rig = Rig::express();
    let exp = at(&mut rig, &express(true));
    rig.write(exp + 8, &[0x10, 0x80]).unwrap();
    assert_eq!(rig.resets, 1);
    assert_eq!(rig.events.last(), Some(&Event::FunctionResetAsked));
    // The bit is not stored, the rest is.
    assert_eq!(rig.read(exp + 8, 2).unwrap(), [0x10, 0]);
    rig.reset = (-1, libc::EIO);
    assert_eq!(errno(rig.write(exp + 9, &[0x80])), libc::EIO);
    rig.reset = (-1, 0);
    assert_eq!(
        errno(rig.write(exp + 8, &[0, 0x80, 0xff, 0xff])),
        libc::EINVAL
    );
    assert_eq!(rig.resets, 3);

    let mut rig = Rig::express();
    let exp = at(&mut rig, &express(false));
    assert_eq!(
        rig.write(exp + 8, &[0x20, 0x80]),
        Err(Error::NoFunctionReset)
    );
    assert_eq!(rig.read(exp + 8, 2).unwrap(), [0x20, 0]);
    assert_eq!(rig.resets, 0);
}

#[test]
fn control_2_registers_are_stored_verbatim() {
    let mut rig = Rig::express();
    let exp = at(&mut rig, &express(false));
    rig.write(exp + 40, &[0xde, 0xad]).unwrap();
    rig.write(exp + 48, &[0xbe, 0xef]).unwrap();
    assert_eq!(rig.read(exp + 40, 2).unwrap(), [0xde, 0xad]);
    assert_eq!(rig.read(exp + 48, 2).unwrap(), [0xbe, 0xef]);
    rig.write(exp + 56, &[0xff, 0xff]).unwrap();
    assert_eq!(rig.read(exp + 56, 2).unwrap(), [0, 0]);
}

/// D55: every length is merged byte by byte, status bits are cleared by ones, link, slot and root control are stored.
#[test]
fn d55_express_registers() {
    let mut rig = Rig::express();
    let exp = at(&mut rig, &express(false));
    let start = usize::try_from(exp).unwrap();
    for status in [10, 18, 26, 34, 50] {
        rig.space().set_u16(start + status, 0xffff);
    }
    // 4-byte writes, as guests make them: control is stored, status bits written as 1 are cleared.
    rig.write(exp + 8, &[0x3f, 0x58, 0x0f, 0]).unwrap();
    assert_eq!(rig.read(exp + 8, 4).unwrap(), [0x3f, 0x58, 0xf0, 0xff]);
    rig.write(exp + 16, &[0xff; 4]).unwrap();
    assert_eq!(rig.read(exp + 16, 4).unwrap(), [0xdb, 0xcf, 0xff, 0x3f]);
    rig.write(exp + 24, &[0xff; 4]).unwrap();
    assert_eq!(rig.read(exp + 24, 4).unwrap(), [0xff, 0x77, 0xe0, 0xfe]);
    // Root capabilities lie in the same word and are read-only.
    rig.write(exp + 28, &[0xff; 4]).unwrap();
    assert_eq!(rig.read(exp + 28, 4).unwrap(), [0x1f, 0, 0, 0]);
    rig.write(exp + 32, &[0xff; 4]).unwrap();
    assert_eq!(rig.read(exp + 32, 4).unwrap(), [0, 0, 0xfe, 0xff]);
    rig.write(exp + 50, &[0xff, 0xff]).unwrap();
    assert_eq!(rig.read(exp + 50, 2).unwrap(), [0xdf, 0xff]);
    // Single bytes.
    rig.write(exp + 9, &[0x10]).unwrap();
    assert_eq!(rig.read(exp + 8, 2).unwrap(), [0x3f, 0x10]);
    rig.space().set_u16(start + 18, 0xffff);
    rig.write(exp + 18, &[0xff]).unwrap();
    assert_eq!(rig.read(exp + 18, 2).unwrap(), [0xff, 0xff]);
    // Writes that touch nothing but read-only registers.
    for (offset, len) in [
        (2, 2),
        (4, 4),
        (12, 4),
        (20, 4),
        (30, 2),
        (32, 2),
        (36, 4),
        (44, 4),
        (52, 4),
    ] {
        assert_eq!(
            errno(rig.write(exp + offset, &[0xff; 4][..len])),
            libc::EINVAL,
            "+{offset}"
        );
    }
}

#[test]
fn errors_name_values_and_have_an_errno() {
    let error = Error::ReadOnly {
        offset: 0x41,
        start: 0x40,
        name: "MSI",
    };
    assert_eq!(
        error.to_string(),
        "write at 0x41: PCI capability MSI at 0x40 is read-only there"
    );
    let error = Error::CapabilityUnknown {
        extended: true,
        id: 0x66,
    };
    assert_eq!(
        error.to_string(),
        "unsupported extended PCI capability id 0x66"
    );
    assert_eq!(error.level(), Level::Error);
    assert_eq!(Error::Callback(0).errno(), libc::EINVAL);
    assert_eq!(Error::OutOfMemory { bytes: 1 }.errno(), libc::ENOMEM);
}
