//! Tests of configuration space: a rig that drives accesses as a context does, and one file per concern.

mod accesses;
mod capabilities;
mod headers;
mod properties;
mod regions;
mod registers;

use super::regs::{CAP_ID_EXP, CAP_ID_MSI, CAP_ID_MSIX, CAP_ID_PM, CAP_ID_VNDR};
use super::*;

/// What the device's callbacks do in a test.
#[derive(Clone, Copy, Debug)]
pub(super) enum Callback {
    /// Reads and writes the buffer and handles everything asked.
    Works,
    /// Returns this number and leaves this errno.
    Returns(isize, i32),
}

/// A function with its regions, driven step by step.
pub(super) struct Rig {
    pub(super) function: Function,
    pub(super) regions: [Region; region::COUNT],
    pub(super) callback: Callback,
    /// Result of the reset callback.
    pub(super) reset: (i32, i32),
    pub(super) resets: usize,
    /// Ranges handed to the region callback.
    pub(super) calls: Vec<(u64, usize)>,
    /// Log lines of the last call.
    pub(super) events: Vec<Event>,
}

impl Rig {
    pub(super) fn new(kind: PciType) -> Self {
        let mut rig = Self {
            function: Function::new(),
            regions: [Region::default(); region::COUNT],
            callback: Callback::Works,
            reset: (0, 0),
            resets: 0,
            calls: Vec::new(),
            events: Vec::new(),
        };
        let size = rig
            .function
            .init(kind as i32, 0, 0, &mut Events::new())
            .unwrap();
        rig.regions[region::CONFIG] = Region {
            size: size as u64,
            flags: region::FLAG_RW,
            has_callback: false,
        };
        rig
    }

    pub(super) fn express() -> Self {
        Self::new(PciType::Express)
    }

    pub(super) fn with_callback(mut self) -> Self {
        self.regions[region::CONFIG].has_callback = true;
        self
    }

    pub(super) fn realize(&mut self) {
        let mut events = Events::new();
        self.regions[region::CONFIG].size = self
            .function
            .realize(&self.regions, false, &mut events)
            .unwrap();
        self.keep(&events);
    }

    fn keep(&mut self, events: &Events) {
        assert_eq!(events.dropped(), 0, "events were lost");
        self.events.extend(events.iter());
    }

    pub(super) fn add(&mut self, pos: usize, flags: u32, data: &[u8]) -> Result<usize, Error> {
        let mut events = Events::new();
        let result = self
            .function
            .add_capability(&self.regions, pos, flags, data, &mut events);
        self.keep(&events);
        result
    }

    pub(super) fn find(&self, extended: bool, pos: usize, id: i32) -> Result<usize, Error> {
        self.function
            .find_capability(&self.regions, extended, pos, id)
    }

    /// A whole write, as the context carries it out.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.events.clear();
        let mut done = 0;
        while done < data.len() {
            let mut events = Events::new();
            let rest = &data[done..];
            let at = offset + done as u64;
            let step = self
                .function
                .write_step(&self.regions, at, rest, &mut events);
            self.keep(&events);
            done += match step? {
                Step::Done { len } => check(len, rest.len()),
                Step::Callback { len } => {
                    let len = check(len, rest.len());
                    self.calls.push((at, len));
                    match self.callback {
                        Callback::Works => {
                            self.space()
                                .write(usize::try_from(at).unwrap(), &rest[..len]);
                            callback_result(len, len.cast_signed(), 0)?
                        }
                        Callback::Returns(value, errno) => callback_result(len, value, errno)?,
                    }
                }
                Step::FunctionReset { len } => {
                    self.resets += 1;
                    reset_result(self.reset.0, self.reset.1)?;
                    check(len, rest.len())
                }
            };
        }
        Ok(())
    }

    /// A whole read.
    pub(super) fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let mut data = vec![0xaa; len];
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let rest = &mut data[done..];
            done += match self.function.read_step(&self.regions, at, rest)? {
                Step::Done { len } => check(len, rest.len()),
                Step::Callback { len } => {
                    let len = check(len, rest.len());
                    self.calls.push((at, len));
                    match self.callback {
                        Callback::Works => {
                            let at = usize::try_from(at).unwrap();
                            self.function.space().unwrap().read(at, &mut rest[..len]);
                            callback_result(len, len.cast_signed(), 0)?
                        }
                        Callback::Returns(value, errno) => callback_result(len, value, errno)?,
                    }
                }
                Step::FunctionReset { .. } => panic!("a read asked for a reset"),
            };
        }
        Ok(data)
    }

    pub(super) fn space(&self) -> &ConfigSpace {
        self.function.space().unwrap()
    }

    /// All bytes, read past the rules.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.space().size()];
        self.space().read(0, &mut bytes);
        bytes
    }
}

fn check(len: usize, most: usize) -> usize {
    assert!(len >= 1 && len <= most, "a step of {len} bytes of {most}");
    len
}

pub(super) fn errno<T: core::fmt::Debug>(result: Result<T, Error>) -> i32 {
    result.unwrap_err().errno()
}

/// A standard capability of `size` bytes: `id`, a next pointer that must be ignored, then zeroes.
fn standard(id: u16, size: usize) -> Vec<u8> {
    let mut data = vec![0; size];
    data[0] = u8::try_from(id).unwrap();
    data[1] = 0x99;
    data
}

pub(super) fn pm() -> Vec<u8> {
    standard(CAP_ID_PM, 8)
}

pub(super) fn msi(control: u16) -> Vec<u8> {
    let mut data = standard(CAP_ID_MSI, 24);
    data[2..4].copy_from_slice(&control.to_le_bytes());
    data
}

pub(super) fn msix() -> Vec<u8> {
    standard(CAP_ID_MSIX, 12)
}

/// PCI Express with function-level reset if `flr`.
pub(super) fn express(flr: bool) -> Vec<u8> {
    let mut data = standard(CAP_ID_EXP, 60);
    data[7] = if flr { 0x10 } else { 0 };
    data
}

pub(super) fn vendor(payload: &[u8]) -> Vec<u8> {
    let mut data = standard(CAP_ID_VNDR, 3);
    data[2] = u8::try_from(3 + payload.len()).unwrap();
    data.extend_from_slice(payload);
    data
}

pub(super) fn serial_number() -> Vec<u8> {
    vec![
        3, 0, 0xf1, 0xff, 0xef, 0xbe, 0xad, 0xde, 0xbe, 0xba, 0xfe, 0xca,
    ]
}

pub(super) fn ext_vendor(payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap() << 4;
    let mut data = vec![0x0b, 0, 0xf0, 0xff, 0x1a, 0];
    data.extend_from_slice(&len.to_le_bytes());
    data.extend_from_slice(payload);
    data
}
