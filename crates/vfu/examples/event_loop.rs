//! Several cards served by one thread, which waits for all of them with epoll.
//!
//! `cargo run -p vfu --example event_loop -- /tmp/first.sock /tmp/second.sock ...`. The cards stand in a ring: what a guest writes to
//! register 0 of one can be read from register 4 of the next, whose interrupt is raised. Registers of BAR 0, little-endian:
//!
//! | offset | register | |
//! |---|---|---|
//! | 0 | out | 32-bit, goes to the next card |
//! | 4 | in | 32-bit, came from the card before |

use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use vfu::builder::{Bar, BarIndex, Builder, Capability};
use vfu::{Context, Device, Errno, Error, Irqs, Level, Mode, Readiness, ResetKind};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

const OUT: u64 = 0;
const IN: u64 = 4;

/// Clients that come or have something to say at once, per wait.
const EVENTS: usize = 16;

struct Card {
    out: u32,
    inbox: Rc<Cell<u32>>,
    next_inbox: Rc<Cell<u32>>,
    next_irqs: Irqs,
}

impl Device for Card {
    fn region_read(
        &mut self,
        _: &Context,
        _: u32,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), Errno> {
        let value = match offset {
            OUT => self.out,
            IN => self.inbox.get(),
            _ => return Err(Errno::EINVAL),
        };
        let data: &mut [u8; 4] = data.try_into().map_err(|_| Errno::EINVAL)?;
        *data = value.to_le_bytes();
        Ok(())
    }

    fn region_write(
        &mut self,
        ctx: &Context,
        _: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Errno> {
        if offset != OUT {
            return Err(Errno::EINVAL);
        }
        self.out = u32::from_le_bytes(data.try_into().map_err(|_| Errno::EINVAL)?);
        self.next_inbox.set(self.out);
        if let Err(error) = self.next_irqs.trigger(0) {
            ctx.log(Level::Info, format_args!("the next card: {error}"));
        }
        Ok(())
    }

    fn reset(&mut self, _: &Context, _: ResetKind) -> Result<(), Errno> {
        self.out = 0;
        self.inbox.set(0);
        Ok(())
    }
}

#[expect(clippy::print_stderr, reason = "an example says what happens")]
pub(crate) fn build(path: impl AsRef<Path>) -> vfu::Result<Context> {
    Builder::new(0x1af4, 0xd3a2)
        .class(0x07, 0x80, 0)
        .bar(BarIndex::Bar0, Bar::memory32(16))
        .capabilities(&[Capability::Msi { vectors: 1 }])
        .log(
            Box::new(|_: Level, line: &str| eprintln!("{line}")),
            Level::Info,
        )
        .build(path, Mode::NonBlocking)
}

/// Does one thing for one card.
fn turn(ctx: &Context, card: &mut Card) -> vfu::Result<()> {
    if !ctx.is_attached() {
        let _ = ctx.attach(); // what fails is in the log, and the next client may do better
        return Ok(());
    }
    match ctx.run(card) {
        Err(Error::NotConnected) => Ok(()), // the client has gone
        result => result.map(drop),
    }
}

/// Serves all of them, for as long as nothing fails.
pub(crate) fn serve(contexts: Vec<Context>) -> Result<(), Box<dyn std::error::Error>> {
    let irqs: Vec<Irqs> = contexts.iter().map(Context::irqs).collect();
    let inboxes: Vec<Rc<Cell<u32>>> = irqs.iter().map(|_| Rc::default()).collect();
    let mut cards: Vec<(Context, Card)> = Vec::new();
    let mut registered: Vec<Readiness> = Vec::new();
    let epoll = Epoll::new()?;
    for (index, ctx) in contexts.into_iter().enumerate() {
        let readiness = ctx.readiness()?; // stays the same while clients come and go
        let event = EpollEvent::new(EventSet::IN, index as u64);
        epoll.ctl(ControlOperation::Add, readiness.as_raw_fd(), event)?;
        registered.push(readiness);
        let next = (index + 1) % inboxes.len();
        let card = Card {
            out: 0,
            inbox: Rc::clone(&inboxes[index]),
            next_inbox: Rc::clone(&inboxes[next]),
            next_irqs: irqs[next].clone(),
        };
        cards.push((ctx, card));
    }
    let mut events = [EpollEvent::default(); EVENTS];
    loop {
        let count = match epoll.wait(-1, &mut events) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        for event in &events[..count] {
            if let Some((ctx, card)) = cards.get_mut(usize::try_from(event.data())?) {
                turn(ctx, card)?;
            }
        }
    }
}

#[expect(clippy::print_stderr, reason = "an example says what happens")]
fn main() -> ExitCode {
    let mut contexts = Vec::new();
    for path in std::env::args_os().skip(1) {
        match build(&path) {
            Ok(ctx) => contexts.push(ctx),
            Err(error) => {
                eprintln!("event_loop: {}: {error}", path.display());
                return ExitCode::FAILURE; // the sockets made so far are removed
            }
        }
    }
    if contexts.is_empty() {
        eprintln!("usage: event_loop SOCKET...");
        return ExitCode::FAILURE;
    }
    match serve(contexts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("event_loop: {error}");
            ExitCode::FAILURE
        }
    }
}
