//! The library as it is installed: `make install` into a directory, then what C programs and linkers see.
//!
//! Everything here goes through the installed tree and its pkg-config file, never through the build
//! directory, since that is what users have.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test program: what fails ends it, and nobody else uses its modules"
)]

mod install;
mod programs;
mod symbols;
mod tree;
