//! One connection served: receive, check, quiesce, handle, reply; and what happens when it is lost.
//!
//! 1. The session is borrowed while it serves, so nothing that a callback may call can need it (see `context`).
//! 2. Every complete message that has been received is served before a call returns, unless a quiesce is pending or a reply waits for
//!    the client to read: the descriptor to poll does not tell of messages that wait here.
//! 3. A request that waits for a quiesce stays in the inbox, with its descriptors. Nothing else is received meanwhile.
//! 4. A client that is gone is noticed by a receive or a failed send. All that belonged to it is given back then.

mod attach;
mod dma;
mod feature;
mod info;
mod irqs;
mod lone;
mod regions;
mod serve;

use crate::context::{Arrival, Context, Mode, Served};
use crate::device::{Device, Quiesce, ResetKind};
use crate::error::{Errno, Error, Result};
use crate::log::Level;
use crate::migration::MigrationState;
use crate::sys::socket::How;
use crate::transport::inbox::{Fill, Inbox};
use crate::transport::outbox::{Outbox, Progress};
use crate::transport::stream::Channel;

/// Receives in one run of a non-blocking context, so that a client that trickles bytes does not hold it.
const MAX_RECEIVES: usize = 64;

/// What waits for the device to be quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    Nothing,
    /// The first message of the inbox.
    Request,
    /// The reset after a lost connection.
    Reset,
}

/// What comes after what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Another message is received.
    Receive,
    /// The same, and this is what the first receive has brought.
    Received(Fill),
    /// Another message is received, once; then as `Return`.
    ReceiveOnce,
    /// The caller receives. Only a message that has begun is received to its end.
    Return,
}

/// How serving one message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// On to the next.
    Next,
    /// A quiesce is pending.
    Parked,
    /// The client has gone, and the device was reset.
    Lost,
}

/// The part of a context that only one call at a time may use.
#[derive(Debug)]
pub(crate) struct Session {
    inbox: Inbox,
    outbox: Outbox,
    pending: Pending,
    served: Served,
}

impl Session {
    pub(crate) const fn new() -> Self {
        Self {
            inbox: Inbox::new(),
            outbox: Outbox::new(),
            pending: Pending::Nothing,
            served: Served {
                requests: 0,
                failed: None,
            },
        }
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.pending != Pending::Nothing
    }

    pub(crate) const fn has_unsent(&self) -> bool {
        self.outbox.is_waiting()
    }

    /// Whether a call of `run` would have something to do without receiving anything.
    pub(crate) fn has_left(&self) -> bool {
        !self.is_pending() && self.has_work()
    }

    /// Gets ready for a DMA command that is sent from outside a callback.
    pub(crate) fn prepare_exchange(&mut self, ctx: &Context) -> Result<()> {
        ctx.link.disturb();
        if self.is_pending() {
            return Err(Error::Quiescing);
        }
        let outbox = &mut self.outbox;
        if outbox.is_waiting() {
            // half a reply must not be followed by a command
            match ctx
                .link
                .with(|channel| outbox.flush(channel, true))
                .unwrap_or(Progress::Closed)
            {
                Progress::Sent => {}
                Progress::Waits => return Err(Error::TimedOut),
                Progress::Closed => return Err(Error::NotConnected),
                Progress::Failed(errno) => return Err(Progress::failed(errno)),
            }
        }
        self.expose_tail(ctx)
    }

    /// Lets a DMA command know of the message that has begun.
    #[cold]
    fn expose_tail(&mut self, ctx: &Context) -> Result<()> {
        let mut crossing = ctx.link.crossing.borrow_mut();
        if self.inbox.has_tail() && crossing.is_empty() {
            self.inbox.move_tail(&mut crossing)?;
        }
        Ok(())
    }

    /// Runs, whatever waits.
    #[inline(never)]
    fn run_from(
        &mut self,
        ctx: &Context,
        device: &mut dyn Device,
        arrival: Option<Arrival<'_>>,
    ) -> Result<Served> {
        ctx.link.disturb();
        if self.is_pending() {
            return Err(Error::Quiescing);
        }
        if !ctx.link.is_attached() {
            ctx.log(Level::Error, format_args!("run: {}", Error::NotConnected));
            return Err(Error::NotConnected);
        }
        self.served = Served::default();
        if !ctx.link.crossing.borrow().is_empty() {
            self.inbox.absorb(&mut ctx.link.crossing.borrow_mut())?;
        }
        let then = match arrival {
            None => Then::Receive,
            Some(Arrival::Readable) => Then::ReceiveOnce,
            Some(_) => Then::Return,
        };
        if let Some(Arrival::Message { count, fds, lost }) = arrival {
            self.inbox.take(count, fds, lost);
        }
        self.go_on(ctx, device, then)
    }

    /// Serves what waits, and what is received as `then` says.
    fn go_on(&mut self, ctx: &Context, device: &mut dyn Device, then: Then) -> Result<Served> {
        let served = self.serve_on(ctx, device, then)?;
        if !self.is_pending() && self.inbox.is_calm() && self.outbox.is_calm() {
            ctx.link.settle();
        }
        Ok(served)
    }

    fn serve_on(
        &mut self,
        ctx: &Context,
        device: &mut dyn Device,
        mut then: Then,
    ) -> Result<Served> {
        let mut receives = 0;
        loop {
            if self.has_work() && !self.serve_waiting(ctx, device)? {
                return if ctx.mode == Mode::Blocking {
                    Err(Error::NotConnected)
                } else {
                    Ok(self.served)
                };
            }
            let busy = self.served.requests > 0 || self.served.failed.is_some();
            if ctx.mode == Mode::NonBlocking && (busy || receives == MAX_RECEIVES) {
                return Ok(self.served);
            }
            if let Some(why) = ctx.link.dead() {
                return Err(self.lose(ctx, device, &why));
            }
            receives += 1;
            let fill = match then {
                Then::Return if !self.inbox.has_tail() => return Ok(self.served),
                Then::Return | Then::Receive => self.receive(ctx),
                Then::ReceiveOnce => {
                    then = Then::Return;
                    self.receive(ctx)
                }
                Then::Received(fill) => {
                    then = Then::Receive;
                    fill
                }
            };
            match fill {
                Fill::More => {}
                Fill::Nothing => return Ok(self.served),
                Fill::Closed => {
                    let state = if self.inbox.is_empty() {
                        ""
                    } else {
                        "in the middle of a message"
                    };
                    return Err(self.lose(ctx, device, &Error::ConnectionReset { state }));
                }
                Fill::Failed(errno) => return Err(receive_failed(ctx, errno)),
            }
        }
    }

    /// See [`Context::receive_place`].
    pub(crate) fn place(&mut self) -> Result<&mut [u8]> {
        self.inbox.place()
    }

    #[inline]
    fn has_work(&self) -> bool {
        self.inbox.has_message() || self.outbox.is_waiting()
    }

    /// Sends what waits to be sent, then serves what waits to be served. False if something has to come first: the client
    /// has to read, or a new client to come.
    #[inline(never)]
    fn serve_waiting(&mut self, ctx: &Context, device: &mut dyn Device) -> Result<bool> {
        loop {
            if self.outbox.is_waiting() && !self.flush(ctx, device)? {
                return Ok(false);
            }
            let Some(header) = self.inbox.first() else {
                if ctx.link.crossing.borrow().is_empty() {
                    return Ok(true);
                }
                self.inbox.absorb(&mut ctx.link.crossing.borrow_mut())?;
                if !self.inbox.has_message() {
                    return Ok(true);
                }
                continue;
            };
            match self.serve(ctx, device, &header)? {
                Flow::Next => {}
                Flow::Parked => return Err(Error::Quiescing),
                Flow::Lost => return Ok(false),
            }
        }
    }

    #[cold]
    fn flush(&mut self, ctx: &Context, device: &mut dyn Device) -> Result<bool> {
        let wait = ctx.mode == Mode::Blocking;
        let outbox = &mut self.outbox;
        match ctx.link.with(|channel| outbox.flush(channel, wait)) {
            Some(Progress::Sent) => Ok(true),
            Some(Progress::Waits) => Ok(false),
            Some(Progress::Closed) | None => Err(self.lose(
                ctx,
                device,
                &Error::ConnectionReset {
                    state: "before it had read a reply",
                },
            )),
            Some(Progress::Failed(errno)) => Err(Progress::failed(errno)),
        }
    }

    #[inline]
    fn receive(&mut self, ctx: &Context) -> Fill {
        let Some(channel) = ctx.link.channel() else {
            return Fill::Closed;
        };
        if ctx.mode == Mode::NonBlocking {
            return self.inbox.fill(channel, How::POLL, false);
        }
        self.receive_waiting(channel)
    }

    fn receive_waiting(&mut self, channel: Channel) -> Fill {
        if self.inbox.has_tail() {
            self.inbox.fill(channel, How::FILL, true)
        } else {
            self.inbox.fill(channel, How::WAIT_OR_SIGNAL, false)
        }
    }

    /// See [`Context::device_quiesced`].
    pub(crate) fn quiesced(
        &mut self,
        ctx: &Context,
        device: &mut dyn Device,
        outcome: Result<(), Errno>,
    ) -> Result<Served> {
        ctx.link.disturb();
        self.served = Served::default();
        match core::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => {
                ctx.log(
                    Level::Debug,
                    format_args!("device_quiesced: {}", Error::NothingPending),
                );
                return Err(Error::NothingPending);
            }
            Pending::Reset => {
                match outcome {
                    Ok(()) => self.reset(ctx, device),
                    Err(errno) => ctx.log(
                        Level::Error,
                        format_args!("quiesce failed, connection not reset: {errno}"),
                    ),
                }
                return Ok(self.served);
            }
            Pending::Request => {}
        }
        let Some(header) = self.inbox.first() else {
            return Ok(self.served);
        };
        let flow = match outcome {
            Ok(()) => self.handle(ctx, device, &header, true)?,
            Err(errno) => {
                let error = Error::Callback {
                    callback: "quiesce",
                    errno,
                };
                self.refuse(ctx, device, &header, &error, true)?
            }
        };
        if flow == Flow::Next {
            match self.serve_waiting(ctx, device) {
                Ok(_) | Err(Error::Quiescing | Error::NotConnected) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.served)
    }

    /// See [`Context::shutdown`].
    pub(crate) fn shutdown(&mut self, ctx: &Context, device: &mut dyn Device) {
        ctx.link.disturb();
        self.pending = Pending::Nothing;
        self.reset(ctx, device);
    }

    /// Ends a connection that was lost: quiesces the device and resets the context. Returns what `run` fails with.
    #[cold]
    fn lose(&mut self, ctx: &Context, device: &mut dyn Device, why: &Error) -> Error {
        ctx.log(Level::Info, format_args!("context is reset: {why}"));
        match device.quiesce(ctx) {
            Ok(Quiesce::Done) => {
                self.reset(ctx, device);
                Error::NotConnected
            }
            Ok(Quiesce::Pending) | Err(Errno::EBUSY) => {
                self.pending = Pending::Reset;
                Error::Quiescing
            }
            Err(errno) => {
                let error = Error::Callback {
                    callback: "quiesce",
                    errno,
                };
                ctx.log(Level::Error, format_args!("context is not reset: {error}"));
                error
            }
        }
    }

    /// Gives back all that belonged to the client, in the order that devices rely on: memory, the device itself,
    /// interrupts, and last the connection.
    #[cold]
    fn reset(&mut self, ctx: &Context, device: &mut dyn Device) {
        dma::remove_all(ctx, device);
        if let Some(dma) = ctx.dma.get()
            && let Err(error) = dma.stop_logging()
        {
            ctx.log(
                Level::Warning,
                format_args!("dirty logging goes on: {error}"),
            );
        }
        if let Err(errno) = device.reset(ctx, ResetKind::LostConnection) {
            ctx.log(
                Level::Warning,
                format_args!("the device's reset failed: {errno}"),
            );
        }
        ctx.irqs.clear();
        if ctx.migration.get().is_some() {
            ctx.migration.set(Some(MigrationState::Running));
        }
        self.inbox.clear();
        self.outbox.clear();
        ctx.link.close();
    }
}

#[cold]
fn receive_failed(ctx: &Context, errno: Errno) -> Error {
    let error = Fill::failed(errno);
    if !is_interrupt(&error) {
        ctx.log(Level::Error, format_args!("receive: {error}"));
    }
    error
}

/// Whether a signal came.
fn is_interrupt(error: &Error) -> bool {
    error.errno().get() == libc::EINTR
}
