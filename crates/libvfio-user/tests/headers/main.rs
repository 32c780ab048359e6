//! The public headers: that they compile everywhere, and that what they declare is the ABI.
//!
//! The facts stand in `layouts.txt` and `constants.txt`, written from the specification. A C program prints what the headers
//! really say; both must agree, in C and in C++, with every compiler found. The facts are then held against the Rust
//! types and constants that stand for them, and must cover everything the headers declare.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program: what fails ends it"
)]

mod compiler;
mod constants;
mod counterparts;
mod declared;
mod layouts;
mod matrix;
