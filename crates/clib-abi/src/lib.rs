//! DWARF to a plain description of functions, structures and enumerations.
#![forbid(unsafe_code)]
