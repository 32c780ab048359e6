//! PCI configuration space and capabilities of an emulated device.
//!
//! [`Function`] owns the configuration space buffer and the capability table. An access by the client is carried out in
//! *steps*, each a short call that returns what the caller has to do next:
//!
//! ```text
//! while done < count {
//!     let step = function.write_step(&regions, offset + done, &data[done..], &mut events);   // or read_step
//!     // every borrow ends here; log what `events` holds
//!     match step? {
//!         Step::Done { len } => done += len,
//!         Step::Callback { len } => done += callback_result(len, call the config region's callback, errno)?,
//!         Step::FunctionReset { len } => { reset_result(call the reset callback, errno)?; done += len }
//!     }
//! }
//! ```
//!
//! Invariants:
//!
//! 1. The buffer is written by C code at any time through the pointer of [`Function::base`]. No Rust reference to it ever
//!    exists; bytes are copied in and out, and everything read back (list pointers, ids, sizes) is checked on each use.
//! 2. Steps never call back, never allocate, and hold nothing when they return; a callback may therefore re-enter and
//!    change regions or capabilities between two steps.
//! 3. No offset, length or byte that a client sends can panic, loop without end or touch a byte outside the buffer.
//! 4. Capabilities never overlap, so the lowest one an access touches is unique.
//!
//! This module must not know the wire format, sockets, C types or callbacks. Sources: PCI Local Bus 3.0 chapter 6,
//! PCI Express Base chapter 7, Linux `pci_regs.h`.

mod access;
mod capability;
mod error;
mod event;
mod function;
mod handlers;
mod header;
pub mod region;
pub mod regs;
mod space;

#[cfg(test)]
mod tests;

pub use access::{Step, callback_result, reset_result};
pub use capability::{
    CAP_FLAG_CALLBACK, CAP_FLAG_EXTENDED, CAP_FLAG_READONLY, CapabilityData, MAX_CAPS, RawData,
};
pub use error::Error;
pub use event::{Event, Events, Level};
pub use function::{Function, PciType};
pub use region::{MmapArea, Region, RegionError, RegionRequest, Regions, check_region};
pub use space::ConfigSpace;
