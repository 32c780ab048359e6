//! DWARF to a plain description of functions, structures and enumerations.
//!
//! [`Library::open`] takes a shared object and finds its debug information: in the file, beside it, or under
//! `/usr/lib/debug`. One pass over the top level of each unit makes an index of names; everything else is read when
//! it is asked for. See [`model`] for what comes out.
//!
//! Input is hostile: a truncated or damaged file gives an [`Error`] with a sentence, never a panic, and a damaged part
//! does not hide the rest ([`Library::damage`]). A [`Library`] may be shared between threads; nothing blocks but
//! reading files.
#![forbid(unsafe_code)]

pub mod error;
mod files;
mod index;
mod library;
pub mod model;
mod records;
mod spell;
mod types;
mod units;

pub use error::{Error, Result};
pub use library::Library;
pub use model::{
    Bits, DeclId, Enumeration, Field, Function, Kind, Language, Location, Parameter, Prototype,
    Qualifiers, Record, RecordKind, Type, Typedef,
};
