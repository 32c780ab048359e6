//! The listening socket, the connection, and what was agreed with the client.
//!
//! [`Link`] is the part that callbacks may reach: its borrows end inside each function, and nothing but `accept` and
//! `close`, which no callback can cause, changes which connection it is.

pub(crate) mod exchange;
pub(crate) mod inbox;
pub(crate) mod outbox;
pub(crate) mod stream;

use core::cell::{Cell, OnceCell, RefCell};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::context::Mode;
use crate::error::{Error, Result};
use crate::readiness::{Next, Readiness, Watch};
use crate::region::SharedFd;
use crate::sys::socket;
use inbox::Inbox;
use stream::{Channel, Ends};

/// Bytes that the system is asked to take from us before the client reads any: twice the largest reply, since it counts
/// its own overhead.
const SEND_BUFFER: i32 = 2 << 20 | 1 << 16;

/// Seconds that a non-blocking context waits for the client in the only place where it has to: for the answer to a
/// DMA command of its own.
const DMA_PATIENCE: i64 = 10;

/// What the client can do, from its VERSION message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Most bytes of data in one message to the client.
    pub(crate) max_data: u32,
    /// Most descriptors in one message to the client.
    pub(crate) max_fds: usize,
    /// It may send `REGION_WRITE_MULTI`.
    pub(crate) write_multiple: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_data: 1 << 20,
            max_fds: 1,
            write_multiple: false,
        }
    }
}

#[derive(Debug, Default)]
struct Peer {
    /// `None` for a pipe.
    socket: Option<OwnedFd>,
    /// Our end of the second socket, for our own commands.
    twin: Option<OwnedFd>,
}

/// How clients come, and the one that is there.
#[derive(Debug)]
pub(crate) struct Link {
    listener: RefCell<Option<OwnedFd>>,
    pipe: Option<Ends>,
    peer: RefCell<Option<Peer>>,
    /// How to reach the peer; its descriptors are those of `peer`.
    channel: Cell<Option<Channel>>,
    twin: Cell<Option<Channel>>,
    /// A version was agreed on.
    attached: Cell<bool>,
    pub(crate) limits: Cell<Limits>,
    /// Why the connection cannot go on; the next run resets the context.
    dead: Cell<Option<Error>>,
    /// The connection's socket while all is calm, else -1. See [`calm`](Self::calm).
    calm: Cell<RawFd>,
    /// What arrived while a DMA command waited for its reply, with the message that had begun before.
    pub(crate) crossing: RefCell<Inbox>,
    pub(crate) twin_inbox: RefCell<Inbox>,
    next_id: Cell<u16>,
    pub(crate) warned: Cell<bool>,
    /// For event loops that asked for it.
    watch: OnceCell<Watch>,
}

impl Link {
    pub(crate) fn listen(path: &CStr, mode: Mode) -> Result<Self> {
        let listener = socket::listen(path, mode == Mode::NonBlocking)?;
        Ok(Self::new(Some(listener), None))
    }

    pub(crate) fn pipe(input: SharedFd, output: SharedFd) -> Self {
        Self::new(None, Some(Ends { input, output }))
    }

    fn new(listener: Option<OwnedFd>, pipe: Option<Ends>) -> Self {
        Self {
            listener: RefCell::new(listener),
            pipe,
            peer: RefCell::new(None),
            channel: Cell::new(None),
            twin: Cell::new(None),
            attached: Cell::new(false),
            limits: Cell::new(Limits::default()),
            dead: Cell::new(None),
            calm: Cell::new(-1),
            crossing: RefCell::new(Inbox::new()),
            twin_inbox: RefCell::new(Inbox::new()),
            next_id: Cell::new(0),
            warned: Cell::new(false),
            watch: OnceCell::new(),
        }
    }

    /// See [`Context::readiness`](crate::Context::readiness). The caller brings it up to date.
    pub(crate) fn readiness(&self) -> Result<Readiness> {
        if let Some(watch) = self.watch.get() {
            return Ok(watch.handle());
        }
        let listener = self.listener.borrow();
        let listener = listener.as_ref().ok_or(Error::NoReadiness {
            context: match &self.pipe {
                Some(_) => "a context over pipes",
                None => "a context that was shut down",
            },
        })?;
        let watch = Watch::new(listener.as_fd())?;
        Ok(self.watch.get_or_init(|| watch).handle())
    }

    /// Whether somebody asked for [`readiness`](Self::readiness).
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.watch.get().is_some()
    }

    /// Brings [`readiness`](Self::readiness) up to date. `resting`: nothing can be done now. `waiting`: something is left to do.
    pub(crate) fn update_readiness(&self, resting: bool, waiting: bool) -> Result<()> {
        let Some(watch) = self.watch.get() else {
            return Ok(());
        };
        let listener = self.listener.borrow().as_ref().map(AsRawFd::as_raw_fd);
        let connection = self.channel.get().map(Channel::raw);
        let next = match connection {
            _ if resting => Next::Rest,
            None => Next::Accept,
            Some(_) if waiting || self.has_left() => Next::Proceed,
            Some(_) => Next::Receive,
        };
        watch.update(listener, connection, next)
    }

    /// Whether a run would have something to do without receiving anything.
    pub(crate) fn has_left(&self) -> bool {
        self.dead().is_some() || !self.crossing.borrow().is_empty()
    }

    fn forget(&self, fd: RawFd) {
        if let Some(watch) = self.watch.get() {
            watch.forget(fd);
        }
    }

    #[inline]
    pub(crate) fn is_attached(&self) -> bool {
        self.attached.get()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.channel.get().is_some()
    }

    /// Whether descriptors can be passed.
    pub(crate) const fn is_socket(&self) -> bool {
        self.pipe.is_none()
    }

    pub(crate) fn poll_fd(&self) -> Option<RawFd> {
        if let Some(channel) = self.channel.get() {
            return Some(channel.raw());
        }
        self.listener.borrow().as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Accepts a client. False when nobody waits at a non-blocking socket.
    pub(crate) fn accept(&self, mode: Mode) -> Result<bool> {
        let peer = if self.pipe.is_some() {
            Peer::default()
        } else {
            let listener = self.listener.borrow();
            let listener = listener.as_ref().ok_or(Error::NotSetUp {
                what: "the listening socket",
            })?;
            let Some(connection) = socket::accept(listener.as_fd())? else {
                return Ok(false);
            };
            Self::socket_peer(connection, mode)
        };
        self.connect(peer);
        Ok(true)
    }

    /// Takes a client that was accepted elsewhere.
    pub(crate) fn adopt(&self, connection: OwnedFd, mode: Mode) {
        self.connect(Self::socket_peer(connection, mode));
    }

    fn socket_peer(connection: OwnedFd, mode: Mode) -> Peer {
        socket::want_send_buffer(connection.as_fd(), SEND_BUFFER);
        if mode == Mode::NonBlocking {
            socket::limit_waiting(connection.as_fd(), DMA_PATIENCE);
        }
        Peer {
            socket: Some(connection),
            twin: None,
        }
    }

    fn connect(&self, peer: Peer) {
        let channel = match (&peer.socket, &self.pipe) {
            (Some(socket), _) => Some(Channel::Socket(socket.as_raw_fd())),
            (None, Some(ends)) => Some(Channel::Pipe {
                input: ends.input.as_raw_fd(),
                output: ends.output.as_raw_fd(),
            }),
            (None, None) => None,
        };
        self.channel.set(channel);
        *self.peer.borrow_mut() = Some(peer);
        self.dead.set(None);
        self.warned.set(false);
    }

    /// A second socket for our own commands: ours stays here, the other is for the client.
    pub(crate) fn make_twin(&self, mode: Mode) -> Result<OwnedFd> {
        let (ours, theirs) = socket::pair()?;
        if mode == Mode::NonBlocking {
            socket::limit_waiting(ours.as_fd(), DMA_PATIENCE);
        }
        if let Some(peer) = self.peer.borrow_mut().as_mut() {
            self.twin.set(Some(Channel::Socket(ours.as_raw_fd())));
            peer.twin = Some(ours);
        }
        Ok(theirs)
    }

    /// A version was agreed on.
    pub(crate) fn attach(&self, limits: Limits) {
        self.limits.set(limits);
        self.attached.set(true);
    }

    /// The connection, if there is one.
    #[inline]
    pub(crate) const fn channel(&self) -> Option<Channel> {
        self.channel.get()
    }

    /// The second socket, if there is one.
    pub(crate) const fn twin(&self) -> Option<Channel> {
        self.twin.get()
    }

    /// Calls `f` with the connection, if there is one.
    #[inline]
    pub(crate) fn with<T>(&self, f: impl FnOnce(Channel) -> T) -> Option<T> {
        self.channel.get().map(f)
    }

    /// The connection's socket, if the next message that arrives can be served at once: a version was agreed on, the
    /// connection is alive, and nothing waits anywhere: no message or part of one, no reply, no quiesce. One word for all
    /// of it, so that a run has one thing to look at.
    ///
    /// Whoever changes any of this calls [`disturb`](Self::disturb) first; only the session, which alone can tell that
    /// nothing waits, calls [`settle`](Self::settle).
    #[inline]
    pub(crate) const fn calm(&self) -> Option<RawFd> {
        let socket = self.calm.get();
        if socket < 0 { None } else { Some(socket) }
    }

    /// From now on, a run has to look at everything.
    #[inline]
    pub(crate) fn disturb(&self) {
        self.calm.set(-1);
    }

    /// Nothing waits in the session: calm, if that is so here, too.
    pub(crate) fn settle(&self) {
        if let Some(Channel::Socket(socket)) = self.channel.get()
            && self.attached.get()
            && self.dead.get().is_none()
            && self.crossing.borrow().is_empty()
        {
            self.calm.set(socket);
        }
    }

    /// Remembers that the connection cannot go on.
    pub(crate) fn kill(&self, why: Error) {
        self.disturb();
        self.dead.set(Some(self.dead.get().unwrap_or(why)));
    }

    #[inline]
    pub(crate) fn dead(&self) -> Option<Error> {
        self.dead.get()
    }

    /// A number for our next command.
    pub(crate) fn next_id(&self) -> u16 {
        let id = self.next_id.get().wrapping_add(1);
        self.next_id.set(id);
        id
    }

    /// Closes the connection.
    pub(crate) fn close(&self) {
        self.disturb();
        self.attached.set(false);
        self.limits.set(Limits::default());
        self.dead.set(None);
        self.crossing.borrow_mut().clear();
        self.twin_inbox.borrow_mut().clear();
        if let Some(channel) = self.channel.take() {
            self.forget(channel.raw());
        }
        self.twin.set(None);
        let peer = self.peer.borrow_mut().take();
        drop(peer);
    }

    /// Closes the listening socket; true if it was open.
    pub(crate) fn stop_listening(&self) -> bool {
        let listener = self.listener.borrow_mut().take();
        if let Some(listener) = &listener {
            self.forget(listener.as_raw_fd());
        }
        listener.is_some()
    }
}
