//! THE table: one row per function that the crate knows. Hooks, documentation, plans and "did you mean" come from it.
//!
//! Rows are data and nothing else: what they mean is done in `dispatch` and `effects`. A function that is not in the
//! table can still be counted, replaced, and made to return a value that the user names.

use std::{collections::HashMap, sync::OnceLock};

mod descriptor;
mod file;
mod mapping;
mod memory;
mod names;
mod process;
mod python;
mod socket;
mod thread;
mod time;

pub use names::{errno_by_name, errno_name, near};

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

/// How a call shows that it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It cannot fail.
    Never,
    /// Returns NULL and sets errno.
    Null,
    /// Returns -1 (also `MAP_FAILED`, `SEM_FAILED`, `EOF`) and sets errno.
    MinusOne,
    /// Returns the errno itself and leaves `errno` alone.
    Code,
    /// Returns this status, which is no errno; sets errno besides.
    Status(i32),
    /// Returns this value and sets errno and the error flag of the stream in the given argument.
    Stream(i32, u8),
    /// Throws `std::bad_alloc`.
    Throw,
    /// Returns NULL with a Python `MemoryError` set.
    PythonNull,
}

/// Whether a call may transfer less than was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partial {
    /// It transfers no bytes, or all of them.
    No,
    /// The byte count is this argument.
    Bytes {
        /// Which argument.
        arg: u8,
        /// Whether it reads (0 then means end of file).
        reads: bool,
    },
    /// An array of `struct iovec` and its length.
    Vector {
        /// Which argument is the array; its length is the next one.
        arg: u8,
        /// Whether it reads.
        reads: bool,
    },
    /// A `struct msghdr`.
    Message {
        /// Which argument.
        arg: u8,
        /// Whether it reads.
        reads: bool,
    },
}

/// Where an allocation's size stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// In this argument.
    Arg(u8),
    /// In the product of two arguments.
    Product(u8, u8),
    /// It is that of the C string that was made, with its NUL.
    String,
    /// Only the allocator knows.
    Unknown,
}

/// What a call opens, closes or otherwise changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that is kept account of.
    None,
    /// Returns a new block.
    Allocate(Size),
    /// Stores a new block's address where the argument points, unless it fails.
    AllocateAt(u8, Size),
    /// As `asprintf`: stores a new string where argument 0 points; the variable arguments begin at this one.
    Format(u8),
    /// As `realloc`: the block in argument 0 becomes the one returned.
    Reallocate(Size),
    /// As `getline`: the block that argument 0 points to may be replaced.
    Line,
    /// Releases the block in argument 0.
    Free,
    /// Tells a block's usable size.
    UsableSize,
    /// Returns a new descriptor.
    Open,
    /// Stores two new descriptors where the argument points.
    OpenPair(u8),
    /// Returns a stream (`FILE *`) with a descriptor of its own.
    OpenStream,
    /// Returns a directory stream with a descriptor of its own.
    OpenDirectory,
    /// Returns argument 1 as a copy of argument 0, closing what it was.
    DuplicateOnto,
    /// As `fcntl`: returns a new descriptor for `F_DUPFD` and `F_DUPFD_CLOEXEC`.
    Control,
    /// Stores descriptors that were passed (`SCM_RIGHTS`) in the message of argument 1.
    Receive,
    /// The same for an array of messages in argument 1.
    ReceiveMany,
    /// Closes the descriptor in argument 0.
    Close,
    /// Closes the stream in argument 0.
    CloseStream,
    /// As `freopen`: the stream in argument 2 gets another file.
    ReopenStream,
    /// Closes the directory stream in argument 0.
    CloseDirectory,
    /// Closes descriptors from argument 0 to argument 1.
    CloseRange,
    /// Returns a mapping of argument 1 bytes.
    Map,
    /// Unmaps argument 1 bytes from argument 0.
    Unmap,
    /// As `mremap`.
    Remap,
    /// Attaches a System V segment.
    Attach,
    /// Detaches the System V segment at argument 0.
    Detach,
    /// Ends the process.
    Exit,
    /// May load objects.
    Load,
    /// Returns a function's address: `dlsym`, `dlvsym`.
    Lookup,
}

impl Effect {
    /// Whether the call is given blocks of the heap to release, resize or measure.
    pub(crate) const fn takes_blocks(self) -> bool {
        matches!(
            self,
            Self::Reallocate(_) | Self::Line | Self::Free | Self::UsableSize
        )
    }

    /// Whether the call may release something, so that it is watched in every object.
    #[must_use]
    pub const fn releases(self) -> bool {
        matches!(
            self,
            Self::Reallocate(_)
                | Self::Line
                | Self::Free
                | Self::UsableSize
                | Self::DuplicateOnto
                | Self::Close
                | Self::CloseStream
                | Self::ReopenStream
                | Self::CloseDirectory
                | Self::CloseRange
                | Self::Map
                | Self::Unmap
                | Self::Remap
                | Self::Detach
                | Self::Load
                | Self::Lookup
        )
    }
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// The plain name.
    pub name: &'static str,
    /// Other symbols that are the same function: fortified, 64-bit, old and internal forms with the same arguments in the same
    /// places.
    pub aliases: &'static [&'static str],
    /// C prototype.
    pub prototype: &'static str,
    /// Which group torture counts it in.
    pub group: Group,
    /// How it fails.
    pub failure: Failure,
    /// errnos that it may really give, the likeliest first; empty if it cannot fail, or fails without one.
    pub errnos: &'static [i32],
    /// Whether a failing call must still be made (a failed `close` closes all the same).
    pub performs: bool,
    /// Short counts.
    pub partial: Partial,
    /// What it opens or closes.
    pub effect: Effect,
}

impl Function {
    /// Whether torture may make it fail.
    #[must_use]
    pub const fn fallible(&self) -> bool {
        !matches!(self.failure, Failure::Never)
    }

    const fn new(group: Group, name: &'static str, prototype: &'static str) -> Self {
        Self {
            name,
            aliases: &[],
            prototype,
            group,
            failure: Failure::Never,
            errnos: &[],
            performs: false,
            partial: Partial::No,
            effect: Effect::None,
        }
    }

    const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn null(mut self, errnos: &'static [i32]) -> Self {
        self.failure = Failure::Null;
        self.errnos = errnos;
        self
    }

    const fn minus_one(mut self, errnos: &'static [i32]) -> Self {
        self.failure = Failure::MinusOne;
        self.errnos = errnos;
        self
    }

    const fn fails(mut self, failure: Failure, errnos: &'static [i32]) -> Self {
        self.failure = failure;
        self.errnos = errnos;
        self
    }

    const fn still_done(mut self) -> Self {
        self.performs = true;
        self
    }

    const fn reads(mut self, arg: u8) -> Self {
        self.partial = Partial::Bytes { arg, reads: true };
        self
    }

    const fn writes(mut self, arg: u8) -> Self {
        self.partial = Partial::Bytes { arg, reads: false };
        self
    }

    const fn partial(mut self, partial: Partial) -> Self {
        self.partial = partial;
        self
    }

    const fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }
}

/// Number of a row in [`all`].
pub(crate) type Row = u16;

const PARTS: [&[Function]; 9] = [
    memory::ROWS,
    descriptor::ROWS,
    socket::ROWS,
    file::ROWS,
    mapping::ROWS,
    thread::ROWS,
    time::ROWS,
    process::ROWS,
    python::ROWS,
];

const LENGTH: usize = {
    let mut length = 0;
    let mut part = 0;
    while part < PARTS.len() {
        length += PARTS[part].len();
        part += 1;
    }
    length
};

static TABLE: [Function; LENGTH] = {
    let mut table = [memory::ROWS[0]; LENGTH];
    let (mut part, mut at) = (0, 0);
    while part < PARTS.len() {
        let mut row = 0;
        while row < PARTS[part].len() {
            table[at] = PARTS[part][row];
            at += 1;
            row += 1;
        }
        part += 1;
    }
    table
};

/// All rows.
#[must_use]
pub fn all() -> &'static [Function] {
    &TABLE
}

fn index() -> &'static HashMap<&'static str, Row> {
    static INDEX: OnceLock<HashMap<&'static str, Row>> = OnceLock::new();
    INDEX.get_or_init(|| {
        let mut index = HashMap::new();
        for (row, function) in (0..).zip(&TABLE) {
            index.insert(function.name, row);
            for alias in function.aliases {
                index.insert(alias, row);
            }
        }
        index
    })
}

/// The row for a symbol, by any of its names.
#[must_use]
pub fn find(symbol: &str) -> Option<&'static Function> {
    index().get(symbol).map(|row| &TABLE[usize::from(*row)])
}

/// The row's number for a symbol.
pub(crate) fn row(symbol: &str) -> Option<Row> {
    index().get(symbol).copied()
}

/// The table's own copy of a symbol that it knows, or `"?"`.
pub(crate) fn symbol_name(symbol: &str) -> &'static str {
    index().get_key_value(symbol).map_or("?", |(name, _)| name)
}

/// Symbols that must never be redirected: they look at their own frame or return twice, are part of how code is
/// entered and left, or pass arguments that a thunk does not keep (vector registers wider than 128 bits).
#[must_use]
pub fn never_hooked(symbol: &str) -> bool {
    const NAMES: [&str; 34] = [
        "__tls_get_addr",
        "__cxa_finalize",
        "__cxa_atexit",
        "__cxa_thread_atexit_impl",
        "__gmon_start__",
        "_ITM_deregisterTMCloneTable",
        "_ITM_registerTMCloneTable",
        "__errno_location",
        "__stack_chk_fail",
        "setjmp",
        "_setjmp",
        "__sigsetjmp",
        "sigsetjmp",
        "longjmp",
        "_longjmp",
        "siglongjmp",
        "__longjmp_chk",
        "vfork",
        "__vfork",
        "getcontext",
        "setcontext",
        "swapcontext",
        "makecontext",
        "__gxx_personality_v0",
        "__gcc_personality_v0",
        "__gnu_objc_personality_v0",
        "rust_eh_personality",
        "__libc_start_main",
        "mcount",
        "__fentry__",
        "_mcount",
        "__fdelt_chk",
        "__morestack",
        "pthread_exit",
    ];
    symbol.is_empty()
        || NAMES.contains(&symbol)
        || symbol.starts_with("_Unwind_")
        || symbol.starts_with("_ZGV")
        || symbol.starts_with("__asan_")
        || symbol.starts_with("__tsan_")
        || symbol.starts_with("__ubsan_")
        || symbol.starts_with("__sanitizer_")
        || symbol.starts_with("__gcov_")
        || symbol.starts_with("__llvm_profile_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_for_one_row() {
        let mut seen = HashMap::new();
        for function in all() {
            for name in function.aliases.iter().chain([&function.name]) {
                assert_eq!(
                    seen.insert(*name, function.name),
                    None,
                    "{name} stands in two rows"
                );
                assert!(!never_hooked(name), "{name} is both known and never hooked");
            }
        }
        assert!(all().len() > 250, "the table lost rows: {}", all().len());
    }

    #[test]
    fn rows_are_consistent() {
        for function in all() {
            let name = function.name;
            assert!(
                function.prototype.contains(name) || name.starts_with('_'),
                "{name}: {}",
                function.prototype
            );
            let wants_errno = !matches!(
                function.failure,
                Failure::Never | Failure::Throw | Failure::PythonNull | Failure::Status(_)
            );
            assert!(
                !wants_errno || !function.errnos.is_empty(),
                "{name} fails without an errno"
            );
            assert!(
                function.fallible() || function.errnos.is_empty(),
                "{name} cannot fail but has errnos"
            );
            for errno in function.errnos {
                assert!(
                    errno_name(*errno).is_some(),
                    "{name}: errno {errno} has no name"
                );
            }
        }
    }

    #[test]
    fn fortified_and_old_forms_are_the_plain_function() {
        for (symbol, plain) in [
            ("__read_chk", "read"),
            ("open64", "open"),
            ("__xstat", "__xstat"),
            ("_Znam", "operator new[]"),
        ] {
            assert_eq!(find(symbol).map(|function| function.name), Some(plain));
        }
    }
}
