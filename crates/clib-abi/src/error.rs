//! What can be wrong with a library's debug information, as sentences for the person who runs the tests.
//!
//! Nothing here is fatal to a caller: a library without usable debug information is simply not compared.

use std::path::PathBuf;

/// Result of every fallible function in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a description could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The debug information contradicts itself or ends too early.
    #[error("{}: damaged debug information: {detail}; build the library again with -g", path.display())]
    Damaged {
        /// The file that holds the damaged part.
        path: PathBuf,
        /// What was found, with its place.
        detail: String,
    },

    /// Built for another machine than the one this runs on.
    #[error("{}: built for {found}, not for x86-64; its declarations cannot be compared here", path.display())]
    ForeignArchitecture {
        /// The library.
        path: PathBuf,
        /// The architecture that its header names.
        found: String,
    },

    /// Stripped, and no separate debug file was found either.
    #[error("{}: no debug information (looked in {searched}); build with -g or install the library's debug package", path.display())]
    NoDebugInformation {
        /// The library.
        path: PathBuf,
        /// The places that were tried, separated by commas.
        searched: String,
    },

    /// Not an ELF file, or one whose headers are broken.
    #[error("{}: not a usable ELF file: {detail}", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What the reader stumbled over.
        detail: String,
    },

    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },

    /// An identifier that this library never gave out.
    #[error(
        "no declaration has the identifier {0:#x}; identifiers are valid for the library that returned them only"
    )]
    UnknownId(u64),
}
