//! The context of one emulated device: what it consists of, and the life of its connection.
//!
//! 1. A context belongs to one thread at a time (`Send`, not `Sync`). [`Dma`] and [`Irqs`] are its parts for other threads.
//! 2. Callbacks may call anything here. What they can reach lies in cells, or behind borrows that end inside one
//!    function; only the session, which `attach`, `run`, `device_quiesced` and `shutdown` need, stays borrowed while
//!    a request is served, and these four are refused then.
//! 3. Nothing allocates while a request is served, except what the request itself asks for (a region to be mapped,
//!    a buffer for a message above 4 KiB).

mod memory;
mod setup;

use core::cell::{Cell, OnceCell, RefCell, RefMut};
use core::fmt;
use core::ptr::NonNull;
use std::ffi::{CStr, CString};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use crate::device::Device;
use crate::dma::Dma;
use crate::error::{Errno, Error, Result};
use crate::irq::Irqs;
use crate::log::{Level, Logger};
use crate::migration::MigrationState;
use crate::pci::{self, Function};
use crate::readiness::Readiness;
use crate::region::{self, SharedFd};
use crate::session::Session;
use crate::transport::Link;

pub use memory::Transfer;

/// Whether calls wait for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// [`Context::attach`] waits for a client, [`Context::run`] serves until something fails.
    Blocking,
    /// Neither ever waits, whatever the client does.
    NonBlocking,
}

/// What [`Context::run`] and [`Context::device_quiesced`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Served {
    /// Requests that reached their handler. Requests that were refused before (bad header, migration state, quiesce
    /// failure) do not count.
    pub requests: usize,
    /// The error that the last failed request was answered with.
    pub failed: Option<Errno>,
}

impl Served {
    /// Whether there was nothing to serve.
    #[must_use]
    pub const fn nothing(&self) -> bool {
        self.requests == 0 && self.failed.is_none()
    }
}

/// What a caller of [`Context::run_received`] found at [`poll_fd`](Context::poll_fd).
#[derive(Debug)]
pub enum Arrival<'a> {
    /// Nothing yet; what was received before may wait to be served.
    Nothing,
    /// There is something to receive, or the client has gone.
    Readable,
    /// This was received, with one `recvmsg` to [`Context::receive_place`].
    Message {
        /// So many bytes, one at least.
        count: usize,
        /// The descriptors that came with them. They are taken out.
        fds: &'a mut Vec<OwnedFd>,
        /// Descriptors were lost on the way (`MSG_CTRUNC`).
        lost: bool,
    },
}

/// One emulated device that listens for one client at a time. See the [crate documentation](crate).
pub struct Context {
    pub(crate) mode: Mode,
    pub(crate) log: Logger,
    pub(crate) realized: Cell<bool>,
    pub(crate) regions: region::Table,
    pub(crate) function: RefCell<Function>,
    pub(crate) irqs: Irqs,
    pub(crate) irq_counts: Cell<[u32; 5]>,
    pub(crate) dma: OnceCell<Dma>,
    pub(crate) migration: Cell<Option<MigrationState>>,
    pub(crate) link: Link,
    session: RefCell<Session>,
    path: Option<CString>, // none with pipes; an empty CString would allocate
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("path", &self.path)
            .field("mode", &self.mode)
            .field("realized", &self.realized.get())
            .field("attached", &self.is_attached())
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Creates a device and listens at `path`, which must not exist. Clients may connect from now on; they are served
    /// after [`attach`](Self::attach). An empty path listens where nobody can connect by name.
    ///
    /// # Errors
    /// EINVAL if the path contains a NUL byte, ENAMETOOLONG above 107 bytes, ENOMEM, and what `socket`, `bind` and `listen`
    /// fail with: EADDRINUSE if the path exists, ENOENT without its directory, EACCES.
    pub fn listen(path: impl AsRef<Path>, mode: Mode) -> Result<Self> {
        let bytes = path.as_ref().as_os_str().as_bytes();
        if bytes.len() > crate::sys::socket::MAX_PATH {
            return Err(Error::PathTooLong {
                length: bytes.len(),
            });
        }
        let mut text = Vec::new();
        text.try_reserve_exact(bytes.len() + 1)
            .map_err(crate::sys::memory::out_of_memory("a path", bytes.len() + 1))?;
        text.extend_from_slice(bytes); // within the capacity reserved above, as is the NUL that CString adds
        let path = CString::new(text).map_err(|_| Error::Argument {
            what: "a NUL byte in the socket path",
            value: 0,
        })?;
        let parts = Parts::new()?;
        let link = Link::listen(&path, mode)?;
        Ok(Self::assemble(parts, link, mode, Some(path)))
    }

    /// Creates a device that serves the one client at the other ends of two pipes. No descriptors can be passed, so that
    /// the client's memory is reached by messages only.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn pipe(input: SharedFd, output: SharedFd, mode: Mode) -> Result<Self> {
        Ok(Self::assemble(
            Parts::new()?,
            Link::pipe(input, output),
            mode,
            None,
        ))
    }

    fn assemble(parts: Parts, link: Link, mode: Mode, path: Option<CString>) -> Self {
        Self {
            mode,
            log: Logger::new(),
            realized: Cell::new(false),
            regions: region::Table::new(),
            function: RefCell::new(Function::new()),
            irqs: parts.irqs,
            irq_counts: Cell::new([0, 0, 0, 1, 1]),
            dma: OnceCell::new(),
            migration: Cell::new(None),
            link,
            session: RefCell::new(Session::new()),
            path,
        }
    }

    /// Finishes the device: configuration space exists and its registers describe the BARs and capabilities, the table
    /// of interrupts has its size. Further calls do nothing.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn realize(&self) -> Result<()> {
        if self.realized.get() {
            return Ok(());
        }
        let counts = self.irq_counts.get();
        self.irqs.grow(counts.into_iter().max().unwrap_or(0))?;
        let mut events = pci::Events::new();
        let size =
            self.function
                .borrow_mut()
                .realize(&self.regions, counts[0] != 0, &mut events)?;
        self.regions.set_config(size);
        self.realized.set(true);
        self.log_events(&events);
        Ok(())
    }

    /// Whether [`realize`](Self::realize) succeeded.
    #[must_use]
    pub fn is_realized(&self) -> bool {
        self.realized.get()
    }

    /// Accepts a client and agrees with it on the version of the protocol. A blocking context waits for both. A
    /// non-blocking one fails with EAGAIN until all of the client's VERSION message is there: call it again when
    /// [`poll_fd`](Self::poll_fd) is readable.
    ///
    /// # Errors
    /// EAGAIN as above. EINVAL if a client is attached already. EINTR when a signal came in `accept`. EINVAL for a VERSION
    /// message that is refused, ENOMSG or ECONNRESET when the client closes before it is complete: that connection is
    /// closed, and another client may be attached. EBUSY inside a callback. ENOMEM. What `accept`, `socketpair`, `recvmsg` and `sendmsg` fail with.
    pub fn attach(&self) -> Result<()> {
        self.attach_client(None)
    }

    /// As [`attach`](Self::attach), for callers that accept a client themselves, from [`poll_fd`](Self::poll_fd).
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn attach_accepted(&self, connection: OwnedFd) -> Result<()> {
        self.attach_client(Some(connection))
    }

    fn attach_client(&self, connection: Option<OwnedFd>) -> Result<()> {
        let mut session = self
            .session
            .try_borrow_mut()
            .map_err(|_| Error::Reentered)?;
        let result = session.attach(self, connection).inspect_err(|error| {
            if *error != Error::WouldBlock {
                self.log(Level::Error, format_args!("attach failed: {error}"));
            }
        });
        drop(session);
        self.with_readiness(result)
    }

    /// Whether a client is connected and has agreed on a version.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.link.is_attached()
    }

    /// Serves requests. A non-blocking context serves those that have arrived completely, with one receive, and returns;
    /// a blocking one serves until something fails, hence never succeeds.
    ///
    /// A request that fails is answered with its error and is no failure of this call; see [`Served::failed`].
    ///
    /// # Errors
    /// EINVAL before [`realize`](Self::realize). EBUSY while a quiesce is pending, and inside a callback. ENOTCONN when no
    /// client is attached, or it has just gone and the device was reset. EINTR when a signal came while waiting for a request. The error of a
    /// quiesce callback that failed for a lost connection. ENOMEM. What `recvmsg` and `sendmsg` fail with.
    #[inline]
    pub fn run(&self, device: &mut dyn Device) -> Result<Served> {
        let served = self.begin_run()?.run(self, device);
        served.or_else(|result| self.with_readiness(result))
    }

    #[inline]
    fn begin_run(&self) -> Result<RefMut<'_, Session>> {
        if !self.realized.get() {
            self.log(Level::Debug, format_args!("run: {}", Error::NotRealized));
            return Err(Error::NotRealized);
        }
        self.session.try_borrow_mut().map_err(|_| Error::Reentered)
    }

    /// Where callers of [`run_received`](Self::run_received) receive a message: initialised memory, one byte at least, that may be
    /// written, and is used by nobody else, until the next call of a method of this context.
    ///
    /// # Errors
    /// ENOMEM. EBUSY inside a callback.
    pub fn receive_place(&self) -> Result<NonNull<[u8]>> {
        let mut session = self
            .session
            .try_borrow_mut()
            .map_err(|_| Error::Reentered)?;
        session.place().map(NonNull::from)
    }

    /// As [`run`](Self::run), for callers that wait for the client themselves: serves what `arrival` brings and what it completes,
    /// and returns when only another message is left to wait for. A message that has begun is waited for here, by a
    /// blocking context.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    #[inline]
    pub fn run_received(&self, device: &mut dyn Device, arrival: Arrival<'_>) -> Result<Served> {
        let served = self.begin_run()?.run_received(self, device, arrival);
        served.or_else(|result| self.with_readiness(result))
    }

    /// Says that the device is quiet now, after [`Device::quiesce`] answered [`Pending`](crate::Quiesce::Pending): what waited
    /// for that is done before this call returns, and so are requests that have arrived meanwhile. With an error, the
    /// waiting request fails with it.
    ///
    /// # Errors
    /// EINVAL if nothing is pending, also inside a callback. Otherwise as [`run`](Self::run), except that a client that has gone is none.
    pub fn device_quiesced(
        &self,
        device: &mut dyn Device,
        outcome: Result<(), Errno>,
    ) -> Result<Served> {
        let mut session = self
            .session
            .try_borrow_mut()
            .map_err(|_| Error::NothingPending)?;
        let result = session.quiesced(self, device, outcome);
        drop(session);
        self.with_readiness(result)
    }

    /// The descriptor for event loops: readable whenever [`attach`](Self::attach), or [`run`](Self::run) once a client is attached, has
    /// something to do. It is the same for the whole life of the context; register it once, for reading, level- or edge-triggered. Who is
    /// told of edges only (tokio's `AsyncFd`, too) calls until nothing is left: EAGAIN from `attach`, [`Served::nothing`] or an
    /// error from `run`.
    ///
    /// It is not readable while a quiesce is pending, nor while a client does not read its replies; and it is when a request came in during a
    /// transfer by message. [`poll_fd`](Self::poll_fd) leaves all this to the caller.
    ///
    /// A context of which this was asked makes a system call more when a client comes or goes and when it begins or ends to wait for one of the
    /// above; no other request costs more.
    ///
    /// # Errors
    /// EINVAL for a blocking context, one over pipes, and after [`shutdown`](Self::shutdown). ENOMEM. What `epoll_create1` and `epoll_ctl` fail
    /// with; `epoll_ctl`, with ENOMEM or ENOSPC, also can make `attach`, `run` and [`device_quiesced`](Self::device_quiesced) fail after
    /// they have done everything else: the next call tries again.
    pub fn readiness(&self) -> Result<Readiness> {
        if self.mode == Mode::Blocking {
            return Err(Error::NoReadiness {
                context: "a blocking context",
            });
        }
        let readiness = self.link.readiness()?;
        self.update_readiness()?;
        Ok(readiness)
    }

    /// The result of a call after which something else may have to be waited for.
    #[inline]
    pub(crate) fn with_readiness<T>(&self, result: Result<T>) -> Result<T> {
        if self.link.is_watched() {
            let updated = self.update_readiness().inspect_err(|_| self.link.disturb());
            let value = result?;
            return updated.map(|()| value);
        }
        result
    }

    /// From inside a callback this does nothing: the call that runs it will.
    #[cold]
    pub(crate) fn update_readiness(&self) -> Result<()> {
        let Ok(session) = self.session.try_borrow() else {
            return Ok(());
        };
        self.link
            .update_readiness(session.is_pending(), session.has_left())
    }

    /// Waits until [`attach`](Self::attach) or [`run`](Self::run) of a non-blocking context has something to do, for at most `patience`; says
    /// whether it has. `None` waits for as long as it takes. For programs that wait for nothing else.
    ///
    /// # Errors
    /// ENOTCONN where [`poll_fd`](Self::poll_fd) is `None`. EINTR when a signal came. What `poll` fails with.
    pub fn wait(&self, patience: Option<Duration>) -> Result<bool> {
        let fd = self.poll_fd().ok_or(Error::NotConnected)?;
        let left = self.session.try_borrow().is_ok_and(|s| s.has_left());
        if !self.wants_write() && (left || self.link.has_left()) {
            return Ok(true);
        }
        crate::sys::wait(fd, self.wants_write(), patience)
    }

    /// Whether a quiesce is pending.
    #[must_use]
    pub fn is_quiescing(&self) -> bool {
        self.session
            .try_borrow()
            .is_ok_and(|session| session.is_pending())
    }

    /// Whether this is called from inside a callback of `run`, `device_quiesced` or `shutdown`.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.session.try_borrow().is_err()
    }

    /// Ends the device: every DMA region is unregistered, in ascending order, the device is reset once with
    /// [`LostConnection`](crate::ResetKind::LostConnection), also if no client was connected, the connection is closed, and the socket's
    /// path removed. The quiesce callback is not called. Dropping a context does the same without callbacks.
    ///
    /// # Errors
    /// EBUSY inside a callback.
    pub fn shutdown(&self, device: &mut dyn Device) -> Result<()> {
        let mut session = self
            .session
            .try_borrow_mut()
            .map_err(|_| Error::Reentered)?;
        session.shutdown(self, device);
        self.unlink();
        Ok(())
    }

    fn unlink(&self) {
        if self.link.stop_listening()
            && let Some(path) = self.path.as_deref().filter(|path| !path.is_empty())
        {
            crate::sys::unlink(path);
        }
    }

    /// The descriptor to poll, for loops that keep track of it themselves (others use [`readiness`](Self::readiness)): readable means, call [`attach`](Self::attach), or [`run`](Self::run) once a client is
    /// attached. It is the connection if there is one, else the listening socket, and changes when a client comes or goes.
    /// `None` for a pipe before `attach`, and after `shutdown`.
    #[must_use]
    pub fn poll_fd(&self) -> Option<RawFd> {
        self.link.poll_fd()
    }

    /// The listening socket, if [`attach`](Self::attach) would accept a client from it now: not while one is connected.
    #[must_use]
    pub fn accept_fd(&self) -> Option<RawFd> {
        if self.link.is_connected() {
            return None;
        }
        self.link.poll_fd()
    }

    /// Whether a reply waits for the client to read: poll for writing, too, and call [`run`](Self::run) when there is room.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.session
            .try_borrow()
            .is_ok_and(|session| session.has_unsent())
    }

    /// The client's memory, for any thread. `None` before [`setup_dma`](Self::setup_dma).
    #[must_use]
    pub fn dma(&self) -> Option<Dma> {
        self.dma.get().cloned()
    }

    /// The device's interrupts, for any thread.
    #[must_use]
    pub fn irqs(&self) -> Irqs {
        self.irqs.clone()
    }

    /// The present migration state; `None` before [`setup_migration`](Self::setup_migration).
    #[must_use]
    pub fn migration_state(&self) -> Option<MigrationState> {
        self.migration.get()
    }

    /// Where the context listens; empty for a pipe.
    #[must_use]
    pub fn path(&self) -> &CStr {
        self.path.as_deref().unwrap_or_default()
    }

    /// Writes a line to the log, if `level` is urgent enough. Does not allocate.
    #[inline]
    pub fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        self.log.line(level, message);
    }

    /// Whether a line of this level would be written.
    #[inline]
    #[must_use]
    pub fn log_enabled(&self, level: Level) -> bool {
        self.log.enabled(level)
    }

    pub(crate) fn log_events(&self, events: &pci::Events) {
        for event in events.iter() {
            self.log(event.level().into(), format_args!("{event}"));
        }
    }
}

impl Drop for Context {
    /// Takes client memory and interrupts away from the handles of other threads, too.
    fn drop(&mut self) {
        self.unlink();
        if let Some(dma) = self.dma.get() {
            while let Some(id) = dma.first() {
                if dma.remove(id).is_err() {
                    break;
                }
            }
        }
        self.irqs.clear();
        self.link.close();
    }
}

/// A context may move to another thread.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Context>();
};

/// What has to be allocated before a socket is made.
struct Parts {
    irqs: Irqs,
}

impl Parts {
    fn new() -> Result<Self> {
        Ok(Self { irqs: Irqs::new()? })
    }
}
