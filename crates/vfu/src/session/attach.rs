//! Accepting a client and agreeing on a version.
//!
//! Exactly one message is received here, byte for byte: what a client sends behind its VERSION has to stay in the socket, where
//! polling sees it. A connection that has not agreed yet survives between calls of a non-blocking context.

use std::os::fd::OwnedFd;

use super::{Session, is_interrupt};
use crate::context::{Context, Mode};
use crate::error::{Error, Result};
use crate::log::Level;
use crate::sys::socket::How;
use crate::transport::inbox::{Fill, insane};
use crate::transport::outbox::Progress;
use crate::version::{self, Client, MAX_REPLY, Server};
use crate::wire::{Command, Header, NO_REPLY, TYPE_MASK};

impl Session {
    /// See [`Context::attach`].
    pub(crate) fn attach(&mut self, ctx: &Context, connection: Option<OwnedFd>) -> Result<()> {
        if ctx.link.is_attached() {
            return Err(Error::AlreadyAttached);
        }
        ctx.link.disturb();
        if let Some(connection) = connection {
            self.inbox.clear(); // of a client that has not agreed yet
            ctx.link.close();
            ctx.link.adopt(connection, ctx.mode);
        } else if !ctx.link.is_connected() && !ctx.link.accept(ctx.mode)? {
            return Err(Error::WouldBlock);
        }
        let result = self.negotiate(ctx);
        if let Err(error) = &result
            && *error != Error::WouldBlock
            && !is_interrupt(error)
        {
            self.inbox.clear();
            self.outbox.clear();
            ctx.link.close();
        }
        result
    }

    fn negotiate(&mut self, ctx: &Context) -> Result<()> {
        let header = loop {
            if let Some(header) = self.inbox.first() {
                break header;
            }
            let how = if ctx.mode == Mode::Blocking {
                How::WAIT_OR_SIGNAL
            } else {
                How::POLL
            };
            let inbox = &mut self.inbox;
            match ctx
                .link
                .with(|channel| inbox.fill(channel, how, true))
                .unwrap_or(Fill::Closed)
            {
                Fill::More => {}
                Fill::Failed(errno) => return Err(Fill::failed(errno)),
                Fill::Nothing => return Err(Error::WouldBlock),
                Fill::Closed if self.inbox.is_empty() => return Err(Error::NoMessage),
                Fill::Closed => {
                    return Err(Error::ConnectionReset {
                        state: "in the middle of its VERSION message",
                    });
                }
            }
        };
        if header.flags & TYPE_MASK != 0 {
            return Err(Error::Header {
                id: header.id,
                field: "flags",
                value: header.flags,
            });
        }
        if let Some(error) = insane(&header) {
            return Err(error);
        }
        let server = Server {
            migration: ctx.migration.get().map(|_| crate::sys::page_size()),
            socket: ctx.link.is_socket(),
        };
        let result = self.judge(&header, server).and_then(|client| {
            self.outbox.begin();
            self.answer(ctx, &client, server)?;
            Ok(client)
        });
        let header = Header {
            flags: header.flags & !NO_REPLY,
            ..header
        };
        let error = result.as_ref().err().map(|error| error.errno().get());
        let outbox = &mut self.outbox;
        let wait = ctx.mode == Mode::Blocking;
        let sent = ctx
            .link
            .with(|channel| outbox.reply(channel, &header, error, wait));
        let client = result?;
        match sent {
            Some(Progress::Sent | Progress::Waits) => {}
            Some(Progress::Failed(errno)) => return Err(Progress::failed(errno)),
            Some(Progress::Closed) | None => {
                return Err(Error::ConnectionReset {
                    state: "before it had read the reply to VERSION",
                });
            }
        }
        self.inbox.consume(&header);
        ctx.link.attach(client.limits);
        ctx.log(
            Level::Debug,
            format_args!(
                "attached: minor {}, max_msg_fds {}, max_data_xfer_size {}, twin socket {}, write_multiple {}",
                client.minor, client.limits.max_fds, client.limits.max_data, client.twin, client.limits.write_multiple
            ),
        );
        Ok(())
    }

    fn judge(&mut self, header: &Header, server: Server) -> Result<Client> {
        let lost = self.inbox.first_lost_descriptors();
        let (payload, fds) = self.inbox.contents(header);
        if header.command != Command::Version as u16 {
            return Err(Error::UnknownCommand {
                number: header.command,
            });
        }
        if lost || !fds.is_empty() {
            return Err(Error::Version {
                what: "descriptors came with it",
            });
        }
        version::parse(payload, server)
    }

    fn answer(&mut self, ctx: &Context, client: &Client, server: Server) -> Result<()> {
        let mut text = [0; MAX_REPLY];
        let length = version::reply(client, server, &mut text);
        self.outbox
            .payload(length)?
            .copy_from_slice(text.get(..length).unwrap_or_default());
        if client.twin {
            self.outbox.attach_owned(ctx.link.make_twin(ctx.mode)?)?;
        }
        Ok(())
    }
}
