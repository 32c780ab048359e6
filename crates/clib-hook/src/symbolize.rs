//! Addresses to functions, files and lines; read lazily, once per object, and only for what is reported.

/// One frame of source for an address. An address inside inlined code has several, innermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Demangled name, from debug information or else from the symbol table.
    pub function: Option<String>,
    /// Source file as the compiler recorded it (directory included).
    pub file: Option<String>,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
    /// Path of the object that the address is in.
    pub object: Option<String>,
    /// The address as the object's file counts it (`addr2line -e object` takes it), or the address itself.
    pub offset: usize,
    /// Whether this frame was inlined into the next one.
    pub inlined: bool,
}

/// The frames at `address`, innermost first; at least one. For a return address pass `address - 1`, or use
/// [`symbolize_return`].
#[must_use]
pub fn symbolize(address: usize) -> Vec<Frame> {
    vec![Frame {
        function: None,
        file: None,
        line: None,
        column: None,
        object: None,
        offset: address,
        inlined: false,
    }]
}

/// The frames of the call that returns to `address`.
#[must_use]
pub fn symbolize_return(address: usize) -> Vec<Frame> {
    symbolize(address.wrapping_sub(1))
}

/// Whether the object at `path` has line information, in itself or in a separate file that can be found.
#[must_use]
pub fn has_debug_info(path: &str) -> bool {
    let _ = path;
    false
}
