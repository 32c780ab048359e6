//! What each library under test holds: blocks, descriptors, mappings.

/// What kind of thing is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A block of memory; the key is its address.
    Memory = 1,
    /// A file descriptor; the key is its number.
    Descriptor = 2,
    /// A mapping; the key is its first address.
    Mapping = 3,
}

/// Something that a library under test acquired and has not given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What kind of thing.
    pub kind: Kind,
    /// Address of the block or mapping, or number of the descriptor.
    pub key: usize,
    /// Bytes as asked for; 0 for descriptors.
    pub size: usize,
    /// The function that returned it, by its name in the table.
    pub function: &'static str,
    /// [`crate::LibraryInfo::id`] of the library that called it.
    pub library: u16,
    /// Return address of that call.
    pub site: usize,
    /// Return addresses from `site` outwards, as far as frames are of libraries under test.
    pub backtrace: Vec<usize>,
    /// Larger is later; see [`crate::session::Mark`].
    pub sequence: u64,
    /// What [`crate::Session::set_test`] said at the time.
    pub test: u32,
    /// Thread that made the call (kernel's id).
    pub thread: i32,
}
