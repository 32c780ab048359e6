//! The common case in one pass: a request that comes alone, whole and without descriptors, while nothing waits.
//!
//! 1. This is an abbreviation and no other behaviour. A request that is served here passes the same checks, in the same
//!    order, by the same functions as in [`serve`](super::serve). Left out is what has nothing to do then: the search for
//!    messages in the stream, for descriptors, for replies and requests that wait. `tests/lone.rs` sends every request
//!    both ways.
//! 2. [`Link::calm`](crate::transport::Link::calm) says whether nothing waits. The message stays out of the inbox, whose
//!    positions do not move; whatever turns out to be odd is taken in, and goes the ordinary way from where it is.

use std::os::fd::RawFd;

use super::serve::{dispatch, needs_quiesce};
use super::{Flow, Session, Then};
use crate::context::{Arrival, Context, Mode, Served};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::transport::inbox::{Calm, Fill};
use crate::transport::outbox::Progress;
use crate::transport::stream::Channel;
use crate::wire::{Command, Header};

/// `Ok`: all is calm as before. `Err`: it went the ordinary way, with this result, and what waits may be something else now.
pub(crate) type Calmly = Result<Served, Result<Served>>;

impl Session {
    /// See [`Context::run`].
    #[inline(always)]
    pub(crate) fn run(&mut self, ctx: &Context, device: &mut dyn Device) -> Calmly {
        let Some(socket) = ctx.link.calm().filter(|_| ctx.mode == Mode::NonBlocking) else {
            return Err(self.run_from(ctx, device, None));
        };
        match self.inbox.receive_calmly(socket) {
            Calm::Lone(header) => self.serve_lone(ctx, device, socket, false, &header),
            Calm::Fill(Fill::Nothing) => Ok(Served::default()),
            Calm::Fill(fill) => Err(self.received(ctx, device, Then::Received(fill))),
        }
    }

    /// See [`Context::run_received`].
    #[inline(always)]
    pub(crate) fn run_received(
        &mut self,
        ctx: &Context,
        device: &mut dyn Device,
        arrival: Arrival<'_>,
    ) -> Calmly {
        if let Arrival::Message {
            count,
            fds,
            lost: false,
        } = &arrival
            && fds.is_empty()
            && let Some(socket) = ctx.link.calm()
            && let Some(header) = self.inbox.lone_header(*count)
        {
            let wait = ctx.mode == Mode::Blocking;
            return self.serve_lone(ctx, device, socket, wait, &header);
        }
        Err(self.run_from(ctx, device, Some(arrival)))
    }

    #[inline(always)]
    fn serve_lone(
        &mut self,
        ctx: &Context,
        device: &mut dyn Device,
        socket: RawFd,
        wait: bool,
        header: &Header,
    ) -> Calmly {
        if self.is_doubtful(ctx, header)
            || header.command != Command::RegionRead as u16
                && needs_quiesce(ctx, header, self.inbox.lone(header))
        {
            self.inbox.take_lone(header);
            return Err(self.received(ctx, device, Then::Return));
        }
        self.outbox.begin();
        let payload = self.inbox.lone(header);
        if let Err(error) = dispatch(ctx, device, header, payload, &mut [], &mut self.outbox) {
            return Err(self.lone_failed(ctx, device, header, &error));
        }
        let sent = self
            .outbox
            .reply(Channel::Socket(socket), header, None, wait);
        if sent == Progress::Sent && ctx.link.calm().is_some() {
            return Ok(Served {
                requests: 1,
                failed: None,
            });
        }
        Err(self.lone_answered(ctx, device, header, sent))
    }

    /// Goes on the ordinary way after a receive that brought something else.
    #[cold]
    #[inline(never)]
    fn received(&mut self, ctx: &Context, device: &mut dyn Device, then: Then) -> Result<Served> {
        ctx.link.disturb();
        self.served = Served::default();
        self.go_on(ctx, device, then)
    }

    /// The handler failed.
    #[cold]
    #[inline(never)]
    fn lone_failed(
        &mut self,
        ctx: &Context,
        device: &mut dyn Device,
        header: &Header,
        error: &Error,
    ) -> Result<Served> {
        ctx.link.disturb();
        self.served = Served {
            requests: 1,
            failed: None,
        };
        let flow = self.fail(ctx, device, header, error, false)?;
        self.after_lone(ctx, device, flow)
    }

    /// The reply is not on its way as it should, or the handler has left something to do.
    #[cold]
    #[inline(never)]
    fn lone_answered(
        &mut self,
        ctx: &Context,
        device: &mut dyn Device,
        header: &Header,
        sent: Progress,
    ) -> Result<Served> {
        ctx.link.disturb();
        self.served = Served {
            requests: 1,
            failed: None,
        };
        let flow = if let Progress::Sent | Progress::Waits = sent {
            Flow::Next
        } else {
            self.reply_failed(ctx, device, header, None, false, Some(sent))?
        };
        self.after_lone(ctx, device, flow)
    }

    fn after_lone(&mut self, ctx: &Context, device: &mut dyn Device, flow: Flow) -> Result<Served> {
        if !ctx.link.crossing.borrow().is_empty() {
            self.inbox.absorb(&mut ctx.link.crossing.borrow_mut())?;
        }
        match (flow, ctx.mode) {
            (Flow::Lost, Mode::Blocking) => Err(Error::NotConnected),
            (Flow::Lost, Mode::NonBlocking) => Ok(self.served),
            _ => self.go_on(ctx, device, Then::Return),
        }
    }
}
