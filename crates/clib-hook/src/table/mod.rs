//! THE table: one row per function that the crate knows. Hooks, documentation, plans and "did you mean" come from it.

/// Functions that belong together; torture switches them on and off by group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Group {
    /// Memory of the C and C++ heaps.
    Memory,
    /// Descriptors: open, close, duplicate.
    Descriptor,
    /// Sockets.
    Socket,
    /// Files: read, write, stat, streams.
    File,
    /// Mappings.
    Mapping,
    /// Threads and their locks.
    Thread,
    /// Clocks and timers.
    Time,
    /// Processes and signals.
    Process,
    /// The Python C API's allocators and constructors; off unless asked for.
    Python,
}

impl Group {
    /// All groups.
    pub const ALL: [Self; 9] = [
        Self::Memory,
        Self::Descriptor,
        Self::Socket,
        Self::File,
        Self::Mapping,
        Self::Thread,
        Self::Time,
        Self::Process,
        Self::Python,
    ];

    /// Its name, as on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Descriptor => "fd",
            Self::Socket => "socket",
            Self::File => "file",
            Self::Mapping => "mapping",
            Self::Thread => "thread",
            Self::Time => "time",
            Self::Process => "process",
            Self::Python => "python",
        }
    }

    /// The group of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.name() == name)
    }
}
