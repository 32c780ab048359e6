//! vfio-user in safe Rust: PCI devices for virtual machines, served over a UNIX socket.
//!
//! A device is a [`Device`]: what happens when the client, usually a VMM, reads and writes its registers. A
//! [`Builder`](builder::Builder) describes it and makes a [`Context`], which listens for one client at a time. The context
//! does not own the device: [`Context::run`] takes both, and every callback gets the context back as `&Context`.
//!
//! ```no_run
//! use vfu::builder::{Bar, BarIndex, Builder};
//! use vfu::{Context, Device, Errno, Mode};
//!
//! /// One register that counts how often it was read.
//! #[derive(Default)]
//! struct Counter(u8);
//!
//! impl Device for Counter {
//!     fn region_read(&mut self, _: &Context, _: u32, _: u64, data: &mut [u8]) -> Result<(), Errno> {
//!         self.0 = self.0.wrapping_add(1);
//!         data.fill(self.0);
//!         Ok(())
//!     }
//! }
//!
//! let ctx = Builder::new(0x1234, 0x5678)
//!     .bar(BarIndex::Bar0, Bar::memory32(16))
//!     .build("/run/counter.sock", Mode::Blocking)?;
//! ctx.attach()?;
//! let gone = ctx.run(&mut Counter::default()).unwrap_err();
//! assert_eq!(gone.errno(), Errno::ENOTCONN);
//! # Ok::<(), vfu::Error>(())
//! ```
//!
//! # Loops
//!
//! A blocking context waits in [`Context::attach`] and [`Context::run`]. A non-blocking one never waits: call `attach`, and
//! once it succeeded `run`, whenever the descriptor of [`Context::readiness`] is readable. It is `AsFd`, and the same for the whole life of
//! the context: register it once with poll, epoll, or tokio's `AsyncFd`.
//!
//! # Threads
//!
//! A context belongs to one thread at a time. From any thread: [`Dma`] ([`Context::dma`]) translates and copies client
//! memory, [`Irqs`] ([`Context::irqs`]) triggers interrupts. Both are cheap to clone and stay safe to use when the client, or the
//! context, is gone.
//!
//! # Memory and clients
//!
//! The server half never panics on what a client sends, and answers ENOMEM when memory is short. Clients are hostile; what
//! they announce is checked before it is used, and what they leave behind is given back when they go.
//!
//! The [`client`] half is for tests and tools.

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
pub mod readiness;
pub mod region;
mod session;
mod sys;
mod transport;
mod version;
pub mod wire;

pub use context::{Arrival, Context, Mode, Served, Transfer};
pub use device::{Access, Device, Quiesce, ResetKind};
pub use dma::Dma;
pub use error::{Errno, Error, Result};
pub use irq::{IrqIndex, Irqs};
pub use log::{Level, Log};
pub use migration::MigrationState;
pub use pci::MmapArea;
pub use readiness::Readiness;
pub use region::{IoEventFd, RegionFlags, RegionSetup, SharedFd};
pub use sys::memory::try_box;

/// The guide's examples are compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/rust-api.md")]
struct RustApiGuide;
