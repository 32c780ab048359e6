//! Why a configuration space call failed, with values and errno.
//!
//! `Display` allocates nothing. errno values are the API's; a row's errno never changes.

use super::event::Level;

/// A failed call or step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Configuration space exists already (EEXIST).
    #[error("PCI configuration space is already set up")]
    AlreadyInitialised,
    /// Unknown header type (EINVAL).
    #[error("invalid PCI header type {0}: only 0 is supported")]
    BadHeaderType(i32),
    /// Unknown PCI type (EINVAL).
    #[error("invalid PCI type {0}: 0 to 3 exist")]
    BadType(i32),
    /// A callback failed with this errno.
    #[error("device callback failed with errno {0}")]
    Callback(i32),
    /// A callback handled another number of bytes than asked (EINVAL).
    #[error("region callback returned {returned}, expected {asked}")]
    CallbackCount {
        /// Bytes it was asked to handle.
        asked: usize,
        /// What it returned.
        returned: isize,
    },
    /// The place for a capability is wrong: in the header, in the other list's space, or not aligned (EINVAL).
    #[error("invalid offset {pos:#x} for PCI capability {name}")]
    CapabilityPosition {
        /// Offset asked for.
        pos: usize,
        /// Name of the capability.
        name: &'static str,
    },
    /// The capability does not end inside configuration space (EINVAL).
    #[error(
        "PCI capability {name} of {size} bytes at {pos:#x} does not fit into {limit} bytes of config space"
    )]
    CapabilityEnd {
        /// Offset asked for, 0 for automatic.
        pos: usize,
        /// Its size.
        size: usize,
        /// Bytes of configuration space.
        limit: usize,
        /// Name of the capability.
        name: &'static str,
    },
    /// Unknown flags (EINVAL).
    #[error("bad capability flags {0:#x}")]
    CapabilityFlags(u32),
    /// The list has no room (ENOSPC).
    #[error("all {0} PCI capabilities of this list are in use")]
    CapabilityListFull(usize),
    /// The first extended capability must be at 0x100 (EINVAL).
    #[error("the first extended PCI capability must be at 0x100, not {0:#x}")]
    CapabilityNotFirst(usize),
    /// The place is taken (EINVAL).
    #[error("PCI capability {name} at {pos:#x} overlaps the one at {other:#x}")]
    CapabilityOverlap {
        /// Offset asked for.
        pos: usize,
        /// The one that is there.
        other: usize,
        /// Name of the capability.
        name: &'static str,
    },
    /// A vendor capability is smaller than its own header (EINVAL).
    #[error("PCI capability {name} says it has {size} bytes, its header alone has {least}")]
    CapabilitySize {
        /// Size it gives.
        size: usize,
        /// Smallest size.
        least: usize,
        /// Name of the capability.
        name: &'static str,
    },
    /// A capability id that the library does not handle (ENOTSUP).
    #[error("unsupported {} PCI capability id {id:#x}", if *.extended { "extended" } else { "standard" })]
    CapabilityUnknown {
        /// Which list.
        extended: bool,
        /// The id.
        id: u16,
    },
    /// A capability list in configuration space leads outside it, or in a circle (EINVAL).
    #[error("PCI capability list is damaged at {0:#x}")]
    ListDamaged(usize),
    /// Fewer bytes were given than the capability has (EINVAL).
    #[error("PCI capability data is missing or shorter than the capability")]
    MissingData,
    /// A write to reserved, read-only or unknown registers (EINVAL).
    #[error("bad write to PCI config space {offset:#x}, {len} bytes")]
    BadWrite {
        /// First byte.
        offset: u64,
        /// Length.
        len: usize,
    },
    /// More MSI vectors enabled than offered (EINVAL).
    #[error("MSI: multiple message enable {mme} exceeds the capability's {mmc}")]
    MsiVectors {
        /// Value written.
        mme: u16,
        /// Largest allowed.
        mmc: u16,
    },
    /// CALLBACK needs a callback on the config region (EINVAL).
    #[error("capability flag CALLBACK: the config region has no callback")]
    NoCallback,
    /// No extended capabilities on this PCI type (EINVAL).
    #[error("PCI type {0} has no extended capabilities")]
    NoExtended(i32),
    /// The device has no function-level reset (EINVAL).
    #[error("function-level reset is not a capability of this device")]
    NoFunctionReset,
    /// No room left after the last capability (ENOSPC).
    #[error("no config space left for PCI capability {name} of {size} bytes from {pos:#x}")]
    NoSpace {
        /// First offset tried.
        pos: usize,
        /// Its size.
        size: usize,
        /// Name of the capability.
        name: &'static str,
    },
    /// The end of the list (ENOENT).
    #[error("no such PCI capability")]
    NotFound,
    /// Registers that exist but cannot be written (ENOTSUP).
    #[error(
        "write of {len} bytes at {offset:#x} of the PCI Power Management capability is not supported"
    )]
    NotWritable {
        /// Offset in the capability.
        offset: usize,
        /// Length.
        len: usize,
    },
    /// Allocation failed (ENOMEM).
    #[error("out of memory: {bytes} bytes")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// An access or a search outside configuration space (EINVAL).
    #[error("PCI config space offset {offset:#x} with {len} bytes is outside its {limit} bytes")]
    OutOfRange {
        /// First byte.
        offset: u64,
        /// Length.
        len: usize,
        /// Bytes of configuration space.
        limit: usize,
    },
    /// A write to a read-only capability or a capability's header (EPERM).
    #[error("write at {offset:#x}: PCI capability {name} at {start:#x} is read-only there")]
    ReadOnly {
        /// First byte.
        offset: usize,
        /// Start of the capability.
        start: usize,
        /// Its name.
        name: &'static str,
    },
}

impl Error {
    /// The errno that the API promises; never 0.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match *self {
            Self::AlreadyInitialised => libc::EEXIST,
            Self::Callback(0) => libc::EINVAL,
            Self::Callback(errno) => errno,
            Self::CapabilityListFull(_) | Self::NoSpace { .. } => libc::ENOSPC,
            Self::CapabilityUnknown { .. } | Self::NotWritable { .. } => libc::ENOTSUP,
            Self::NotFound => libc::ENOENT,
            Self::OutOfMemory { .. } => libc::ENOMEM,
            Self::ReadOnly { .. } => libc::EPERM,
            Self::BadHeaderType(_)
            | Self::BadType(_)
            | Self::BadWrite { .. }
            | Self::CallbackCount { .. }
            | Self::CapabilityEnd { .. }
            | Self::CapabilityFlags(_)
            | Self::CapabilityNotFirst(_)
            | Self::CapabilityOverlap { .. }
            | Self::CapabilityPosition { .. }
            | Self::CapabilitySize { .. }
            | Self::ListDamaged(_)
            | Self::MissingData
            | Self::MsiVectors { .. }
            | Self::NoCallback
            | Self::NoExtended(_)
            | Self::NoFunctionReset
            | Self::OutOfRange { .. } => libc::EINVAL,
        }
    }

    /// Severity of the log line. A search without a hit is normal operation.
    #[must_use]
    pub const fn level(&self) -> Level {
        match self {
            Self::CapabilityFlags(_)
            | Self::NoCallback
            | Self::NoExtended(_)
            | Self::NotFound
            | Self::ReadOnly { .. } => Level::Debug,
            _ => Level::Error,
        }
    }
}
