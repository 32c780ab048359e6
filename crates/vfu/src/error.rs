//! The one table that maps what went wrong to an errno.
//!
//! 1. Every error of the server side is an [`Error`]; [`Error::errno`] is what a C caller sees in `errno`, and what a
//!    client sees in the `error_no` of its reply.
//! 2. Errors carry the values they are about and read as sentences. `Display` does not allocate: an error has to be
//!    printable when there is no memory left.
//! 3. Errors from device callbacks pass through unchanged ([`Errno`]), also numbers that no system defines (0xbeef).

use core::fmt;

use crate::wire::Command;
use crate::{dma, pci};

/// An error number, as a device callback returns it and a client reads it in `error_no`. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

impl Errno {
    /// Bad argument.
    pub const EINVAL: Self = Self(libc::EINVAL);
    /// Not now: a quiesce is under way, or the context is in use further up the stack.
    pub const EBUSY: Self = Self(libc::EBUSY);
    /// Input or output failed.
    pub const EIO: Self = Self(libc::EIO);
    /// Not permitted.
    pub const EPERM: Self = Self(libc::EPERM);
    /// Not supported.
    pub const ENOTSUP: Self = Self(libc::ENOTSUP);
    /// No memory.
    pub const ENOMEM: Self = Self(libc::ENOMEM);
    /// No such thing.
    pub const ENOENT: Self = Self(libc::ENOENT);
    /// No client is connected.
    pub const ENOTCONN: Self = Self(libc::ENOTCONN);

    /// From a raw number. 0 and negative numbers are no errors, and would turn a failure into a success reply; they
    /// become EINVAL.
    #[must_use]
    pub const fn new(raw: i32) -> Self {
        if raw > 0 { Self(raw) } else { Self::EINVAL }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }

    /// The symbol, for the numbers that occur often.
    fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            libc::EPERM => "EPERM",
            libc::ENOENT => "ENOENT",
            libc::EINTR => "EINTR",
            libc::EIO => "EIO",
            libc::EBADF => "EBADF",
            libc::EAGAIN => "EAGAIN",
            libc::ENOMEM => "ENOMEM",
            libc::EACCES => "EACCES",
            libc::EFAULT => "EFAULT",
            libc::EBUSY => "EBUSY",
            libc::EEXIST => "EEXIST",
            libc::ENODEV => "ENODEV",
            libc::ENOTDIR => "ENOTDIR",
            libc::EINVAL => "EINVAL",
            libc::ENFILE => "ENFILE",
            libc::EMFILE => "EMFILE",
            libc::ENOTTY => "ENOTTY",
            libc::ENOSPC => "ENOSPC",
            libc::EROFS => "EROFS",
            libc::EPIPE => "EPIPE",
            libc::ENAMETOOLONG => "ENAMETOOLONG",
            libc::ENOMSG => "ENOMSG",
            libc::EPROTO => "EPROTO",
            libc::ENOBUFS => "ENOBUFS",
            libc::ENOTSUP => "ENOTSUP",
            libc::EADDRINUSE => "EADDRINUSE",
            libc::ECONNRESET => "ECONNRESET",
            libc::ENOTCONN => "ENOTCONN",
            libc::ETIMEDOUT => "ETIMEDOUT",
            libc::ECONNREFUSED => "ECONNREFUSED",
            _ => return None,
        })
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

/// What a call of this crate, or a request of a client, failed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An allocation failed.
    #[error("out of memory: {bytes} bytes for {what} could not be allocated")]
    OutOfMemory {
        /// What the memory was for.
        what: &'static str,
        /// How much of it.
        bytes: usize,
    },
    /// A system call failed.
    #[error("{call} failed: {errno}")]
    System {
        /// The call, by its C name.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// A callback of the device failed.
    #[error("the device's {callback} callback failed: {errno}")]
    Callback {
        /// Which callback.
        callback: &'static str,
        /// What it returned.
        errno: Errno,
    },
    /// A request from the DMA table failed.
    #[error(transparent)]
    Dma(#[from] dma::Error),
    /// A request to the configuration space failed.
    #[error(transparent)]
    Pci(#[from] pci::Error),
    /// A region cannot be set up as asked.
    #[error(transparent)]
    Region(#[from] pci::RegionError),

    // The life of a context.
    /// [`run`](crate::Context::run) before [`realize`](crate::Context::realize).
    #[error("the context is not realized: call realize before run")]
    NotRealized,
    /// A quiesce that the device postponed is still to be completed.
    #[error("the device is quiescing: call device_quiesced first")]
    Quiescing,
    /// `run`, `attach`, `device_quiesced` or `shutdown` from inside a callback of the same context.
    #[error("the context is serving a request: this call cannot be made from inside a callback")]
    Reentered,
    /// No client is connected, or it has just gone.
    #[error("no client is connected")]
    NotConnected,
    /// A second `attach`.
    #[error("a client is attached already")]
    AlreadyAttached,
    /// A non-blocking call found nothing to do yet.
    #[error("no client is waiting, or it has not sent all of its VERSION message yet")]
    WouldBlock,
    /// `device_quiesced` when nothing is waiting for it.
    #[error("no quiesce is pending")]
    NothingPending,
    /// The path of a socket does not fit.
    #[error("the socket path of {length} bytes is too long: 107 fit, so choose a shorter one")]
    PathTooLong {
        /// Bytes of the path.
        length: usize,
    },
    /// No socket can be made at the path. The path itself is the caller's to name.
    #[error("cannot listen at the socket path: {errno}, {}", bind_advice(*errno))]
    Listen {
        /// What `bind` failed with.
        errno: Errno,
    },
    /// There is nothing that an event loop could wait for.
    #[error("{context} has no descriptor for event loops")]
    NoReadiness {
        /// What it is.
        context: &'static str,
    },
    /// A setup argument is wrong.
    #[error("{what}: {value:#x} is not valid")]
    Argument {
        /// Which argument.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A setup call that makes sense once, or only before realize.
    #[error("{what} is set up already")]
    AlreadySetUp {
        /// What.
        what: &'static str,
    },
    /// Something that was never set up is needed.
    #[error("{what} was not set up")]
    NotSetUp {
        /// What.
        what: &'static str,
    },

    // What a client did wrong.
    /// The connection ended in the middle of a message.
    #[error("the client closed the connection {state}")]
    ConnectionReset {
        /// Where it was.
        state: &'static str,
    },
    /// The peer closed before it sent anything.
    #[error("the client closed the connection before it sent a message")]
    NoMessage,
    /// Descriptors of a message were lost on the way.
    #[error("descriptors that came with a message were lost (too many open files?)")]
    DescriptorsLost,
    /// A header that cannot be one of a request.
    #[error("header of message {id:#06x}: {field} {value:#x} is not valid")]
    Header {
        /// The message.
        id: u16,
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// The VERSION message was refused.
    #[error("VERSION: {what}")]
    Version {
        /// Why.
        what: &'static str,
    },
    /// The VERSION message's text was refused.
    #[error("VERSION: byte {offset} of the JSON text: {what}")]
    Json {
        /// Where.
        offset: usize,
        /// Why.
        what: &'static str,
    },
    /// A command that no client may send, or nobody knows.
    #[error("command {number} is unknown")]
    UnknownCommand {
        /// Its number.
        number: u16,
    },
    /// A request is too short for its structure or its argsz, or too long.
    #[error("{command}: {field} is {value:#x}, {rule} {limit:#x}")]
    Length {
        /// The command.
        command: Command,
        /// Which field or length.
        field: &'static str,
        /// Its value.
        value: u64,
        /// How it relates to the limit.
        rule: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A field of a request is wrong.
    #[error("{command}: {field} {value:#x} is not valid")]
    Field {
        /// The command.
        command: Command,
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The command needs something that this device does not have.
    #[error("{command}: {what}")]
    Unsupported {
        /// The command.
        command: Command,
        /// What is missing.
        what: &'static str,
    },
    /// The command cannot be served in this migration state.
    #[error("{command}: not allowed in migration state {state}")]
    MigrationState {
        /// The command.
        command: Command,
        /// The state's number on the wire.
        state: u32,
    },
    /// Access outside a region.
    #[error("region {region}: {count:#x} bytes at {offset:#x} are outside its {size:#x} bytes")]
    RegionBounds {
        /// Index of the region.
        region: u32,
        /// Where.
        offset: u64,
        /// How much.
        count: u32,
        /// Its size.
        size: u64,
    },
    /// An interrupt that is not there.
    #[error("interrupt {subindex} does not exist: there are {capacity}")]
    NoSuchIrq {
        /// Which.
        subindex: u32,
        /// How many there are.
        capacity: u32,
    },
    /// An interrupt for which the client gave no eventfd.
    #[error("interrupt {subindex} has no eventfd")]
    NoEventfd {
        /// Which.
        subindex: u32,
    },
    /// A descriptor that came as eventfd is something else.
    #[error("descriptor {position} of the message is not an eventfd")]
    NotEventfd {
        /// Position in the message.
        position: usize,
    },

    // What a client answered wrong to our own commands.
    /// The client answered `DMA_READ` or `DMA_WRITE` with an error.
    #[error("the client refused DMA at {addr:#x}: {errno}")]
    DmaRefused {
        /// Address asked for.
        addr: u64,
        /// Its error.
        errno: Errno,
    },
    /// Descriptors came with the client's answer, which has no use for any.
    #[error("descriptors came with the client's answer to DMA at {addr:#x}")]
    DmaReplyDescriptors {
        /// Address asked for.
        addr: u64,
    },
    /// The client answered with something else than asked for.
    #[error("the client's answer to DMA at {addr:#x} is wrong: {field} {value:#x}")]
    DmaReply {
        /// Address asked for.
        addr: u64,
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The client's answer carries another message id.
    #[error("the client answered message {got:#06x} instead of {expected:#06x}")]
    DmaReplyId {
        /// What it sent.
        got: u16,
        /// What was asked for.
        expected: u16,
    },
    /// The client did not answer in time.
    #[error("the client did not answer a DMA command in time")]
    TimedOut,
    /// Another exchange of DMA messages is under way further up the stack.
    #[error("a DMA message exchange is under way already")]
    ExchangeBusy,
    /// Too much arrived while waiting for the reply to a DMA command.
    #[error(
        "the client sent more than {limit} bytes of requests while a DMA command waited for its reply"
    )]
    CrossingLimit {
        /// How much may be queued.
        limit: usize,
    },
}

/// Why a socket cannot be made at a path, and what to do about it.
const fn bind_advice(errno: Errno) -> &'static str {
    match errno.get() {
        libc::EADDRINUSE => {
            "the path exists: stop the server that listens there, or remove the file that one left behind"
        }
        libc::ENOENT => "its directory does not exist: create it, or choose another path",
        libc::ENOTDIR => "part of it is no directory: choose another path",
        libc::EACCES | libc::EPERM | libc::EROFS => {
            "no file may be created in its directory: choose another path, or change the permissions"
        }
        _ => "bind failed: choose another path",
    }
}

impl Error {
    /// The errno of this error: the C caller's, and the `error_no` of a reply.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::System { errno, .. }
            | Self::Listen { errno }
            | Self::Callback { errno, .. }
            | Self::DmaRefused { errno, .. } => *errno,
            Self::Dma(error) => Errno::new(error.errno()),
            Self::Pci(error) => Errno::new(error.errno()),
            Self::Region(error) => Errno::new(error.errno()),
            Self::OutOfMemory { .. } => Errno::ENOMEM,
            Self::Quiescing | Self::Reentered | Self::ExchangeBusy => Errno::EBUSY,
            Self::NotConnected => Errno::ENOTCONN,
            Self::WouldBlock => Errno(libc::EAGAIN),
            Self::PathTooLong { .. } => Errno(libc::ENAMETOOLONG),
            Self::AlreadySetUp { .. } => Errno(libc::EEXIST),
            Self::ConnectionReset { .. } | Self::CrossingLimit { .. } => Errno(libc::ECONNRESET),
            Self::NoMessage => Errno(libc::ENOMSG),
            Self::DescriptorsLost | Self::DmaReplyDescriptors { .. } => Errno(libc::EFAULT),
            Self::NoEventfd { .. } => Errno::ENOENT,
            Self::DmaReplyId { .. } => Errno(libc::EPROTO),
            Self::TimedOut => Errno(libc::ETIMEDOUT),
            Self::NotRealized
            | Self::AlreadyAttached
            | Self::NothingPending
            | Self::Argument { .. }
            | Self::NoReadiness { .. }
            | Self::NotSetUp { .. }
            | Self::Header { .. }
            | Self::Version { .. }
            | Self::Json { .. }
            | Self::UnknownCommand { .. }
            | Self::Length { .. }
            | Self::Field { .. }
            | Self::Unsupported { .. }
            | Self::MigrationState { .. }
            | Self::RegionBounds { .. }
            | Self::NoSuchIrq { .. }
            | Self::NotEventfd { .. }
            | Self::DmaReply { .. } => Errno::EINVAL,
        }
    }
}

/// Result of this crate's calls.
pub type Result<T, E = Error> = core::result::Result<T, E>;
