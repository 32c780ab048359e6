//! The library as it is installed: `make install` into a directory, then what C programs and linkers see.
//!
//! Everything here goes through the installed tree and its pkg-config file, never through the build
//! directory, since that is what users have.

mod install;
mod programs;
mod symbols;
mod tree;
