//! What a step or a setup call wants logged.
//!
//! Log handlers are user callbacks and may re-enter, so nothing is logged while a borrow is held: events are collected in
//! a fixed array and read by the caller afterwards. No allocation.

use core::fmt;

/// Severity, with the numbers of `syslog.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Level {
    /// `LOG_ERR`
    Error = 3,
    /// `LOG_WARNING`
    Warning = 4,
    /// `LOG_INFO`
    Info = 6,
    /// `LOG_DEBUG`
    Debug = 7,
}

/// One thing worth a log line; `Display` gives its text without a newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A client wrote a base address register.
    BarWritten {
        /// 0 to 5
        index: usize,
        /// The value written.
        written: u32,
        /// The value it has now.
        value: u32,
    },
    /// A capability was added.
    CapabilityAdded {
        /// Its name.
        name: &'static str,
        /// Its offset in configuration space.
        offset: usize,
        /// Its size in bytes.
        size: usize,
    },
    /// The command register changed.
    CommandChanged {
        /// Before the write.
        old: u16,
        /// After it.
        new: u16,
    },
    /// Command bits were written that this device does not have; they were ignored.
    CommandBitsIgnored {
        /// The bits.
        bits: u16,
    },
    /// The client asked for a function-level reset.
    FunctionResetAsked,
    /// A BAR is prefetchable but not 64 bits wide, which PCI Express does not allow.
    PrefetchWithout64Bits {
        /// 0 to 5
        index: usize,
    },
    /// A register changed.
    RegisterSet {
        /// Its name.
        name: &'static str,
        /// Its value now.
        value: u32,
    },
    /// `revision` did not fit the 8-bit register; the low byte was used.
    RevisionTruncated {
        /// The value given.
        revision: i32,
    },
    /// The ROM BAR was written but the device has no ROM region.
    RomWriteIgnored {
        /// The value written.
        value: u32,
    },
    /// The status register was written.
    StatusWritten {
        /// Error bits that the write cleared.
        cleared: u16,
    },
}

impl Event {
    /// Severity of the log line.
    #[must_use]
    pub const fn level(&self) -> Level {
        match self {
            Self::PrefetchWithout64Bits { .. } | Self::RevisionTruncated { .. } => Level::Warning,
            Self::RomWriteIgnored { .. } | Self::StatusWritten { .. } => Level::Info,
            Self::BarWritten { .. }
            | Self::CapabilityAdded { .. }
            | Self::CommandChanged { .. }
            | Self::CommandBitsIgnored { .. }
            | Self::FunctionResetAsked
            | Self::RegisterSet { .. } => Level::Debug,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BarWritten {
                index,
                written,
                value,
            } => {
                write!(
                    f,
                    "BAR{index} set to {value:#010x} (written {written:#010x})"
                )
            }
            Self::CapabilityAdded { name, offset, size } => {
                write!(
                    f,
                    "added PCI capability {name} of {size} bytes at {offset:#x}"
                )
            }
            Self::CommandChanged { old, new } => write!(f, "PCI command {old:#06x} -> {new:#06x}"),
            Self::CommandBitsIgnored { bits } => write!(f, "PCI command bits {bits:#06x} ignored"),
            Self::FunctionResetAsked => f.write_str("client asks for a function-level reset"),
            Self::PrefetchWithout64Bits { index } => {
                write!(f, "BAR{index} is prefetchable but not 64 bits wide")
            }
            Self::RegisterSet { name, value } => write!(f, "{name} set to {value:#x}"),
            Self::RevisionTruncated { revision } => {
                write!(
                    f,
                    "PCI revision {revision} does not fit 8 bits, low byte used"
                )
            }
            Self::RomWriteIgnored { value } => {
                write!(
                    f,
                    "write of {value:#010x} to the ROM BAR ignored: no ROM region"
                )
            }
            Self::StatusWritten { cleared } => {
                write!(f, "PCI status written, bits {cleared:#06x} cleared")
            }
        }
    }
}

const CAPACITY: usize = 8;

/// The events of one call, in order. Holds more than any call produces; a surplus would be counted, not stored.
#[derive(Debug, Default)]
pub struct Events {
    list: [Option<Event>; CAPACITY],
    dropped: usize,
}

impl Events {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            list: [None; CAPACITY],
            dropped: 0,
        }
    }

    /// Adds an event.
    pub fn push(&mut self, event: Event) {
        match self.list.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some(event),
            None => self.dropped = self.dropped.saturating_add(1),
        }
    }

    /// The events, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.list.iter().map_while(|slot| *slot)
    }

    /// Forgets all events, so that the list can be used again.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// How many events did not fit. Always 0 in practice; tests hold it there.
    #[must_use]
    pub const fn dropped(&self) -> usize {
        self.dropped
    }
}
