//! vfio-user in safe Rust: protocol, server, client.
//!
//! A device is a [`Device`]; a [`Context`] listens for one client at a time and serves it. The context does not own
//! the device: [`Context::run`] takes both, and every callback gets the context back as `&Context`.

pub mod dma;
pub mod pci;
