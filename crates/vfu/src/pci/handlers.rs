//! Writes inside capabilities: which bits of which register a client can change.
//!
//! A write that covers a register in part is merged into it byte by byte (for write-1-to-clear bits, bytes not written
//! count as 0). The piece lies inside the capability and behind its header.

use super::access::Step;
use super::capability::{Capability, Kind};
use super::error::Error;
use super::event::{Event, Events};
use super::header::merge16;
use super::regs::{
    CAP_EXP_SIZEOF, CAP_MSI_SIZEOF, EXP_DEVCAP, EXP_DEVCAP_FLR, EXP_DEVCTL, EXP_DEVCTL_BCR_FLR,
};
use super::space::ConfigSpace;

/// Writes `data` at `at` bytes into `cap`.
pub(super) fn write(
    space: &ConfigSpace,
    cap: &Capability,
    at: usize,
    data: &[u8],
    events: &mut Events,
) -> Result<Step, Error> {
    match cap.kind {
        Kind::PowerManagement => power_management(space, cap, at, data, events)?,
        Kind::Msi => msi(space, cap, at, data, events)?,
        Kind::MsiX => msix(space, cap, at, data, events),
        Kind::Vendor => space.write(cap.start + at, data),
        Kind::SerialNumber => {
            return Err(Error::ReadOnly {
                offset: cap.start + at,
                start: cap.start,
                name: cap.kind.name(),
            });
        }
        Kind::Express => return express(space, cap, at, data, events),
    }
    Ok(Step::Done { len: data.len() })
}

/// Power state, PME enable and data select can be written; PME status is write-1-to-clear; the rest is read-only.
const PMCSR_WRITABLE: u16 = 0x1f03;
const PMCSR_RW1C: u16 = 0x8000;

fn power_management(
    space: &ConfigSpace,
    cap: &Capability,
    at: usize,
    data: &[u8],
    events: &mut Events,
) -> Result<(), Error> {
    match (at, data) {
        (4, &[low, high]) => {
            let register = Register {
                name: "PMCSR",
                at: 4,
                writable: PMCSR_WRITABLE,
                rw1c: PMCSR_RW1C,
            };
            register.write(space, cap, 4, &[low, high], events);
            Ok(())
        }
        (2, [_, _]) | (6 | 7, [_]) => Err(Error::NotWritable {
            offset: at,
            len: data.len(),
        }),
        _ => Err(Error::BadWrite {
            offset: (cap.start + at) as u64,
            len: data.len(),
        }),
    }
}

const MSI_ENABLE: u16 = 0x1;
const MSI_64_BIT: u16 = 0x80;
const MSI_MASKING: u16 = 0x100;
const MSI_MAX_LOG2_VECTORS: u16 = 5;

/// Overlays the bytes, then applies what is writable. Where data and mask registers are follows from the 64-bit and
/// masking bits of the header; the bytes behind the last register are reserved.
fn msi(
    space: &ConfigSpace,
    cap: &Capability,
    at: usize,
    data: &[u8],
    events: &mut Events,
) -> Result<(), Error> {
    let mut old = [0; CAP_MSI_SIZEOF];
    space.read(cap.start, &mut old);
    let mut new = old;
    for (to, from) in new.iter_mut().skip(at).zip(data) {
        *to = *from;
    }
    let control = u16::from_le_bytes([old[2], old[3]]);
    let wanted = u16::from_le_bytes([new[2], new[3]]);
    if (control ^ wanted) & MSI_ENABLE != 0 {
        set_control(
            space,
            cap,
            "MSI control",
            control,
            wanted,
            MSI_ENABLE,
            events,
        );
    }
    let (mmc, mme) = (control >> 1 & 7, wanted >> 4 & 7);
    if mme != control >> 4 & 7 {
        let most = mmc.min(MSI_MAX_LOG2_VECTORS);
        if mme > most {
            return Err(Error::MsiVectors { mme, mmc: most });
        }
        set_control(
            space,
            cap,
            "MSI control",
            space.u16(cap.start + 2),
            wanted,
            7 << 4,
            events,
        );
    }
    let wide = control & MSI_64_BIT != 0;
    let data_at = if wide { 12 } else { 8 };
    // (name, offset, length, mask of its lowest byte)
    let registers = [
        ("MSI address", 4, 4, 0xfc),
        ("MSI upper address", 8, if wide { 4 } else { 0 }, 0xff),
        ("MSI data", data_at, 2, 0xff),
        (
            "MSI mask",
            data_at + 4,
            if control & MSI_MASKING != 0 { 4 } else { 0 },
            0xff,
        ),
    ];
    for (name, start, len, first_mask) in registers {
        let mut value = [0; 4];
        let Some((before, after)) = old.get(start..start + len).zip(new.get(start..start + len))
        else {
            continue;
        };
        if before == after {
            continue;
        }
        for (i, (to, (&before, &after))) in
            value.iter_mut().zip(before.iter().zip(after)).enumerate()
        {
            let mask = if i == 0 { first_mask } else { 0xff };
            *to = (before & !mask) | (after & mask);
        }
        space.write(cap.start + start, value.get(..len).unwrap_or(&[]));
        events.push(Event::RegisterSet {
            name,
            value: u32::from_le_bytes(value),
        });
    }
    Ok(())
}

/// Function mask and enable.
const MSIX_WRITABLE: u16 = 0xc000;

fn msix(space: &ConfigSpace, cap: &Capability, at: usize, data: &[u8], events: &mut Events) {
    let register = Register {
        name: "MSI-X control",
        at: 2,
        writable: MSIX_WRITABLE,
        rw1c: 0,
    };
    register.write(space, cap, at, data, events);
}

/// Stores the bits of `mask` from `wanted` in a message control register.
fn set_control(
    space: &ConfigSpace,
    cap: &Capability,
    name: &'static str,
    old: u16,
    wanted: u16,
    mask: u16,
    events: &mut Events,
) {
    let value = (old & !mask) | (wanted & mask);
    space.set_u16(cap.start + 2, value);
    events.push(Event::RegisterSet {
        name,
        value: u32::from(value),
    });
}

/// A 16-bit register of a capability.
#[derive(Clone, Copy)]
struct Register {
    name: &'static str,
    /// Offset in the capability.
    at: usize,
    /// Bits that take the value written.
    writable: u16,
    /// Bits that a written 1 clears.
    rw1c: u16,
}

impl Register {
    /// Applies the bytes of `data` (which start at `at` of the capability) that fall on this register. False if none do.
    fn write(
        self,
        space: &ConfigSpace,
        cap: &Capability,
        at: usize,
        data: &[u8],
        events: &mut Events,
    ) -> bool {
        let Some((skip, bytes)) = self.part(at, data) else {
            return false;
        };
        let register = cap.start + self.at;
        let old = space.u16(register);
        let written = merge16(old & !self.rw1c, skip, bytes);
        let value = (old & !self.writable & !(self.rw1c & written)) | (written & self.writable);
        if value != old {
            space.set_u16(register, value);
            events.push(Event::RegisterSet {
                name: self.name,
                value: u32::from(value),
            });
        }
        true
    }

    /// Bytes of `data` that fall on this register, and the register's byte they start at.
    fn part(self, at: usize, data: &[u8]) -> Option<(usize, &[u8])> {
        let from = self.at.max(at);
        let to = (self.at + 2).min(at + data.len());
        if from >= to {
            return None;
        }
        Some((from - self.at, data.get(from - at..to - at)?))
    }
}

/// The registers of the PCI Express capability that take writes; all others are read-only. Device control comes first,
/// its reset bit is handled apart. Retrain link and electromechanical interlock control always read 0.
const EXPRESS: [Register; 13] = [
    Register {
        name: "device control",
        at: EXP_DEVCTL,
        writable: 0x7fff,
        rw1c: 0,
    },
    Register {
        name: "device status",
        at: 10,
        writable: 0,
        rw1c: 0x004f,
    },
    Register {
        name: "link control",
        at: 16,
        writable: 0xcfdb,
        rw1c: 0,
    },
    Register {
        name: "link status",
        at: 18,
        writable: 0,
        rw1c: 0xc000,
    },
    Register {
        name: "slot control",
        at: 24,
        writable: 0x77ff,
        rw1c: 0,
    },
    Register {
        name: "slot status",
        at: 26,
        writable: 0,
        rw1c: 0x011f,
    },
    Register {
        name: "root control",
        at: 28,
        writable: 0x001f,
        rw1c: 0,
    },
    Register {
        name: "root status",
        at: 34,
        writable: 0,
        rw1c: 0x0001,
    },
    Register {
        name: "device control 2",
        at: 40,
        writable: 0xffff,
        rw1c: 0,
    },
    Register {
        name: "link control 2",
        at: 48,
        writable: 0xffff,
        rw1c: 0,
    },
    Register {
        name: "link status 2",
        at: 50,
        writable: 0,
        rw1c: 0x0020,
    },
    Register {
        name: "slot control 2",
        at: 56,
        writable: 0,
        rw1c: 0,
    },
    Register {
        name: "slot status 2",
        at: 58,
        writable: 0,
        rw1c: 0,
    },
];

fn express(
    space: &ConfigSpace,
    cap: &Capability,
    at: usize,
    data: &[u8],
    events: &mut Events,
) -> Result<Step, Error> {
    debug_assert!(at + data.len() <= CAP_EXP_SIZEOF);
    let mut taken = false;
    for register in EXPRESS {
        taken |= register.write(space, cap, at, data, events);
    }
    if !taken {
        return Err(Error::BadWrite {
            offset: (cap.start + at) as u64,
            len: data.len(),
        });
    }
    let reset = EXPRESS[0]
        .part(at, data)
        .is_some_and(|(skip, bytes)| merge16(0, skip, bytes) & EXP_DEVCTL_BCR_FLR != 0);
    if !reset {
        return Ok(Step::Done { len: data.len() });
    }
    if space.u32(cap.start + EXP_DEVCAP) & EXP_DEVCAP_FLR == 0 {
        return Err(Error::NoFunctionReset);
    }
    events.push(Event::FunctionResetAsked);
    Ok(Step::FunctionReset { len: data.len() })
}
