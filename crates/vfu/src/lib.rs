//! vfio-user in safe Rust: protocol, server, client.
//!
//! A device is a [`Device`]; a [`Context`] listens for one client at a time and serves it. The context does not own
//! the device: [`Context::run`] takes both, and every callback gets the context back as `&Context`.

pub mod builder;
pub mod client;
pub mod context;
pub mod device;
pub mod dma;
pub mod error;
pub mod irq;
pub mod log;
pub mod migration;
pub mod pci;
pub mod region;
mod session;
mod sys;
mod transport;
mod version;
pub mod wire;

pub use context::{ARRIVAL_SIZE, Arrival, Context, Mode, Served, Transfer};
pub use device::{Access, Device, Quiesce, ResetKind};
pub use dma::Dma;
pub use error::{Errno, Error, Result};
pub use irq::{IrqIndex, Irqs};
pub use log::{Level, Log};
pub use migration::MigrationState;
pub use pci::MmapArea;
pub use region::{IoEventFd, RegionFlags, RegionSetup, SharedFd};
pub use sys::memory::try_box;
