//! `examples/event_loop.rs`: several clients at a time, served by one thread.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod rig;

#[path = "../examples/event_loop.rs"]
#[allow(dead_code, reason = "its main function reads the command line")]
mod example;

use std::os::fd::{AsRawFd, OwnedFd};

use vfu::client::{Client, IrqSet, IrqSetAction, IrqSetData};

const MSI: u32 = 1;

fn read(client: &mut Client, register: u64) -> u32 {
    let mut value = [0; 4];
    client.region_read(0, register, &mut value).unwrap();
    u32::from_le_bytes(value)
}

fn connect(path: &std::path::Path) -> (Client, OwnedFd) {
    let mut client = Client::connect(path).unwrap();
    let event = rig::eventfd(0);
    let fds = [event.as_raw_fd()];
    let set = IrqSet {
        index: MSI,
        start: 0,
        action: IrqSetAction::Trigger,
        data: IrqSetData::Eventfd(&fds),
    };
    client.set_irqs(&set).unwrap();
    (client, event)
}

#[test]
fn what_one_writes_the_next_one_reads() {
    const CARDS: usize = 3;
    let paths: Vec<_> = (0..CARDS).map(|_| rig::unique("loop")).collect();
    let contexts = paths.iter().map(|path| example::build(path).unwrap());
    let contexts: Vec<_> = contexts.collect();
    // ends with this process
    std::thread::spawn(|| example::serve(contexts).map_err(|error| error.to_string()));
    let mut guests: Vec<_> = paths.iter().map(|path| connect(path)).collect();
    for round in 0..100_u32 {
        let card = round as usize % CARDS;
        let next = (card + 1) % CARDS;
        let (client, _) = &mut guests[card];
        client.region_write(0, 0, &round.to_le_bytes()).unwrap();
        assert_eq!(read(client, 0), round);
        let (client, event) = &mut guests[next];
        assert_eq!(rig::drain(event), Some(1));
        assert_eq!(read(client, 4), round);
        assert!(client.region_write(0, 4, &[0; 4]).is_err());
        if round % 10 == 9 {
            // it goes, and another comes; the others do not notice
            guests[next] = connect_again(&paths[next], &mut guests, next);
            assert_eq!(read(&mut guests[next].0, 4), 0);
        }
    }
    drop(guests);
    for path in paths {
        std::fs::remove_file(path).unwrap();
    }
}

/// One client at a time: the old one has to go before the new one is served.
fn connect_again(
    path: &std::path::Path,
    guests: &mut [(Client, OwnedFd)],
    index: usize,
) -> (Client, OwnedFd) {
    let (old, _) = &guests[index];
    // SAFETY: no pointers.
    unsafe { libc::shutdown(old.as_raw_fd(), libc::SHUT_RDWR) };
    connect(path)
}
