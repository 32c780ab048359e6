//! An allocator whose blocks end (or start) at inaccessible pages.

use crate::record::GuardFault;

/// On which side of a block an access faults at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Past its end.
    Over,
    /// Before its start.
    Under,
}

/// How the libraries' memory is guarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardOptions {
    /// Which side is exact.
    pub side: Side,
    /// Bytes of address space that freed blocks may keep inaccessible before the oldest is used again.
    pub quarantine: usize,
    /// What fresh memory is filled with; `None` leaves it zero.
    pub fill: Option<u8>,
}

impl Default for GuardOptions {
    fn default() -> Self {
        Self {
            side: Side::Over,
            quarantine: 256 << 20,
            fill: Some(0xa5),
        }
    }
}

/// A block whose surroundings were overwritten by less than an access to the inaccessible page (its size is not a multiple of 16).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The block and its allocation.
    pub fault: GuardFault,
    /// Where the damage was noticed: backtrace of the release; empty when found by [`check`].
    pub noticed: Vec<usize>,
}

/// What the guard knows about an address that an access faulted at.
#[must_use]
pub fn explain(address: usize) -> Option<GuardFault> {
    let _ = address;
    None
}

/// Looks at the surroundings of every live block, and returns the damage found now and at releases since the last call.
#[must_use]
pub fn check() -> Vec<Damage> {
    Vec::new()
}

/// Blocks that were served without a guard because too many are live (the kernel limits mappings).
#[must_use]
pub fn unguarded() -> u64 {
    0
}
