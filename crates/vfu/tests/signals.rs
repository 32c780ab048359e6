//! Signals end waiting for a client or for its next request, and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    clippy::items_after_statements,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod rig;

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use rig::{BAR, Event, Rig, message, write};
use vfu::wire::Command;
use vfu::{Errno, Mode};

extern "C" fn ignore(_: libc::c_int) {}

/// Calls `what` under a rain of signals on this thread.
fn under_signals<T>(what: impl FnOnce() -> T) -> T {
    // SAFETY: all zeroes is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = ignore as *const () as usize; // and no SA_RESTART
    // SAFETY: a handler that does nothing.
    let result = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    assert_eq!(result, 0);
    // SAFETY: no preconditions.
    let thread = unsafe { libc::pthread_self() };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // SAFETY: the thread lives until this one was joined.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                std::thread::yield_now();
            }
        });
        let value = what();
        done.store(true, Ordering::Relaxed);
        value
    })
}

#[test]
fn waiting_ends() {
    let mut rig = Rig::new(Mode::Blocking);
    let errno = under_signals(|| rig.ctx.attach()).unwrap_err().errno();
    assert_eq!(errno.get(), libc::EINTR);
    // a client that has sent half of its VERSION message is kept
    let stream = UnixStream::connect(&rig.path).unwrap();
    assert_eq!(
        under_signals(|| rig.ctx.attach())
            .unwrap_err()
            .errno()
            .get(),
        libc::EINTR
    );
    let mut client = vfu::client::Client::start(
        stream,
        &vfu::client::Hello::default(),
        vfu::client::NoMemory,
    )
    .unwrap();
    while rig.ctx.attach().is_err() {}
    client.greet().unwrap();
    let errno = under_signals(|| rig.run()).unwrap_err().errno();
    assert_eq!(errno.get(), libc::EINTR);
    assert!(rig.ctx.is_attached());
}

/// D38, D70: a message that has begun is received whole, and a reply is sent whole.
#[test]
fn messages_are_not_lost() {
    let mut rig = Rig::new(Mode::Blocking);
    let mut client = rig.connect();
    let data = vec![7; 1 << 20];
    let expected = data.clone();
    let writer = std::thread::spawn(move || {
        let bytes = message(1, Command::RegionWrite, 0, &write(BAR, 0, &data));
        client.send_raw(&bytes, &[]).unwrap();
        let mut back = vec![0; 1 << 20];
        assert_eq!(client.receive_any().unwrap().header.error, 0);
        client.region_read(BAR, 0, &mut back).unwrap();
        assert!(
            back.iter()
                .enumerate()
                .all(|(index, byte)| *byte == index as u8)
        );
    });
    let error = under_signals(|| {
        loop {
            match rig.run().unwrap_err() {
                error if error.errno().get() == libc::EINTR => {}
                error => break error,
            }
        }
    });
    assert_eq!(error.errno(), Errno::ENOTCONN);
    writer.join().unwrap();
    let events = rig.device.take();
    assert_eq!(
        events[..2],
        [Event::Write(BAR, 0, expected), Event::Read(BAR, 0, 1 << 20)]
    );
}
