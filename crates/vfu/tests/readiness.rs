//! The descriptor for event loops: readable when there is something to do, not readable when there is not, and always the same.
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

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rig::{BAR, Rig, access, fields, open_fds};
use vfu::client::{Client, Hello};
use vfu::wire::Command;
use vfu::{Context, Errno, Mode, Quiesce, Readiness};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

const MEMORY: u64 = 0x10_0000;

/// Whether it is readable now.
fn ready(fd: &impl AsFd) -> bool {
    let mut poll = libc::pollfd {
        fd: fd.as_fd().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd.
    let count = unsafe { libc::poll(&raw mut poll, 1, 0) };
    assert!(poll.revents & !libc::POLLIN == 0, "{:#x}", poll.revents);
    count == 1
}

/// Waits until it is readable.
fn wait(fd: &impl AsFd) {
    const HANGS: i32 = 60_000;
    let mut poll = libc::pollfd {
        fd: fd.as_fd().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd.
    let count = unsafe { libc::poll(&raw mut poll, 1, HANGS) };
    assert_eq!(count, 1, "it never becomes readable");
}

/// A loop that is told of edges only.
struct Edges(Epoll);

impl Edges {
    fn of(fd: &impl AsRawFd) -> Self {
        let epoll = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        let fd = fd.as_raw_fd();
        epoll.ctl(ControlOperation::Add, fd, event).unwrap();
        Self(epoll)
    }

    fn next(&self) -> bool {
        let mut events = [EpollEvent::default()];
        self.0.wait(0, &mut events).unwrap() == 1
    }
}

fn no_one(ctx: &Context) {
    assert_eq!(ctx.attach().unwrap_err().errno().get(), libc::EAGAIN);
}

#[test]
fn clients_come_and_go_and_it_stays() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let readiness = rig.ctx.readiness().unwrap();
    let edges = Edges::of(&readiness);
    let number = readiness.as_raw_fd();
    assert!(!ready(&readiness) && !edges.next());
    for _ in 0..3 {
        let stream = UnixStream::connect(&rig.path).unwrap();
        assert!(ready(&readiness) && edges.next());
        no_one(&rig.ctx); // it is accepted; its VERSION is not there yet
        assert!(!ready(&readiness));
        let mut client = Client::start(stream, &Hello::default(), vfu::client::NoMemory).unwrap();
        assert!(ready(&readiness) && edges.next());
        rig.ctx.attach().unwrap();
        client.greet().unwrap();
        assert!(!ready(&readiness));
        // the next one has to wait, and is no reason to wake up
        let second = UnixStream::connect(&rig.path).unwrap();
        assert!(!ready(&readiness) && !edges.next());
        for _ in 0..2 {
            let ticket = client
                .send(Command::DeviceGetInfo, &fields(&[16, 0]), &[])
                .unwrap();
            assert!(ready(&readiness) && edges.next());
            assert_eq!(rig.run().unwrap().requests, 1);
            assert!(!ready(&readiness));
            client.receive(ticket).unwrap();
            assert!(rig.run().unwrap().nothing());
        }
        drop(client);
        assert!(ready(&readiness) && edges.next());
        assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
        assert!(ready(&readiness) && edges.next()); // the second one
        drop(second);
        assert_eq!(rig.ctx.attach().unwrap_err().errno().get(), libc::ENOMSG);
        assert!(!ready(&readiness));
        assert_eq!(rig.ctx.readiness().unwrap().as_raw_fd(), number);
    }
}

#[test]
fn asked_for_late() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let ticket = client
        .send(Command::DeviceGetInfo, &fields(&[16, 0]), &[])
        .unwrap();
    let readiness = rig.ctx.readiness().unwrap();
    assert!(ready(&readiness));
    rig.run().unwrap();
    assert!(!ready(&readiness));
    client.receive(ticket).unwrap();
}

#[test]
fn a_pending_quiesce_is_no_reason_to_wake_up() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let readiness = rig.ctx.readiness().unwrap();
    let edges = Edges::of(&readiness);
    for client_goes in [false, true] {
        let mut client = rig.connect();
        rig.device.quiesce = vec![Ok(Quiesce::Pending)];
        let payload = fields(&[32 | 3 << 32, 0, MEMORY, 4096]);
        let map = client.send(Command::DmaMap, &payload, &[]).unwrap();
        assert_eq!(rig.run().unwrap_err().errno(), Errno::EBUSY);
        while edges.next() {}
        let info = client
            .send(Command::DeviceGetInfo, &fields(&[16, 0]), &[])
            .unwrap();
        let client = (!client_goes).then_some(client);
        assert!(!ready(&readiness) && !edges.next());
        rig.ctx.device_quiesced(&mut rig.device, Ok(())).unwrap();
        if let Some(mut client) = client {
            assert!(ready(&readiness) && edges.next());
            rig.run().unwrap();
            client.receive(map).unwrap();
            client.receive(info).unwrap();
            assert!(!ready(&readiness));
        }
        // the client has gone, or goes now: if that was not noticed yet, there is something to do
        assert_eq!(ready(&readiness), rig.ctx.is_attached());
        assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
        assert!(!ready(&readiness));
    }
}

#[test]
fn a_reset_that_waits_for_the_device_is_none_either() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let readiness = rig.ctx.readiness().unwrap();
    let client = rig.connect();
    rig.device.quiesce = vec![Ok(Quiesce::Pending)];
    drop(client);
    assert!(ready(&readiness));
    assert_eq!(rig.run().unwrap_err().errno(), Errno::EBUSY);
    let _second = UnixStream::connect(&rig.path).unwrap();
    assert!(!ready(&readiness));
    rig.ctx.device_quiesced(&mut rig.device, Ok(())).unwrap();
    assert!(ready(&readiness)); // the second client
}

#[test]
fn a_client_that_does_not_read_its_replies() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let readiness = rig.ctx.readiness().unwrap();
    let edges = Edges::of(&readiness);
    let mut client = rig.connect();
    let mut tickets = Vec::new();
    while !rig.ctx.wants_write() {
        let payload = access(BAR, 0, 1 << 20);
        tickets.push(client.send(Command::RegionRead, &payload, &[]).unwrap());
        rig.run().unwrap();
    }
    while edges.next() {}
    assert!(!ready(&readiness));
    let late = client
        .send(Command::DeviceGetInfo, &fields(&[16, 0]), &[])
        .unwrap();
    assert!(!ready(&readiness)); // it cannot be served before the replies are out
    let reader = std::thread::spawn(move || {
        for ticket in tickets {
            client.receive(ticket).unwrap();
        }
        client.receive(late).unwrap();
    });
    // woken up as there is room, and for the late one
    while rig.run().unwrap().requests == 0 {
        wait(&readiness);
    }
    reader.join().unwrap();
    assert!(!rig.ctx.wants_write());
}

/// Memory full of sevens.
struct Sevens;

impl vfu::client::Memory for Sevens {
    fn read(&mut self, _: u64, data: &mut [u8]) -> Result<(), Errno> {
        data.fill(7);
        Ok(())
    }

    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Errno> {
        Ok(())
    }
}

#[test]
fn a_request_that_came_during_a_transfer_by_message() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect_with(&Hello::default(), Sevens);
    rig.map(&mut client, MEMORY, 4096, None).unwrap();
    let readiness = rig.ctx.readiness().unwrap();
    let edges = Edges::of(&readiness);
    let ticket = client
        .send(Command::DeviceGetInfo, &fields(&[16, 0]), &[])
        .unwrap();
    assert!(edges.next());
    let client = std::thread::spawn(move || {
        client.receive(ticket).unwrap(); // answers the device's read meanwhile
        client
    });
    let mut data = [0; 64];
    rig.ctx.read_client(MEMORY, &mut data).unwrap();
    assert_eq!(data, [7; 64]);
    // it is not in the socket any more
    assert!(ready(&readiness) && edges.next());
    assert!(rig.ctx.wait(Some(Duration::ZERO)).unwrap());
    assert_eq!(rig.run().unwrap().requests, 1);
    assert!(!ready(&readiness));
    assert!(!rig.ctx.wait(Some(Duration::ZERO)).unwrap());
    drop(client.join().unwrap());
}

#[test]
fn a_request_that_came_during_a_transfer_inside_a_callback() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect_with(&Hello::default(), Sevens);
    rig.map(&mut client, MEMORY, 4096, None).unwrap();
    let readiness = rig.ctx.readiness().unwrap();
    rig.device.hook = Some(Box::new(|ctx, event| {
        if matches!(event, rig::Event::Write(..)) {
            ctx.read_client(MEMORY, &mut [0; 64]).unwrap();
        }
        Ok(())
    }));
    for _ in 0..3 {
        let payload = rig::write(BAR, 0, &[1; 4]);
        let write = client.send(Command::RegionWrite, &payload, &[]).unwrap();
        assert!(ready(&readiness));
        let peer = std::thread::spawn(move || {
            let info = client
                .send(Command::DeviceGetInfo, &fields(&[16, 0]), &[])
                .unwrap();
            client.receive(write).unwrap(); // answers the device's read meanwhile
            client.receive(info).unwrap();
            client
        });
        let mut requests = 0;
        while requests < 2 {
            wait(&readiness); // for whatever is left: in memory, or in the socket
            requests += rig.run().unwrap().requests;
        }
        client = peer.join().unwrap();
        assert!(!ready(&readiness));
    }
}

#[test]
fn where_there_is_nothing_to_wait_for() {
    let refused = |ctx: &Context, what: &str| {
        let error = ctx.readiness().unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL);
        assert!(error.to_string().contains(what), "{error}");
    };
    let mut rig = Rig::new(Mode::NonBlocking);
    rig.ctx.shutdown(&mut rig.device).unwrap();
    refused(&rig.ctx, "shut down");
    let (input, output) = std::io::pipe().unwrap();
    let (input, output) = (
        vfu::SharedFd::Owned(input.into()),
        vfu::SharedFd::Owned(output.into()),
    );
    let pipes = Context::pipe(input, output, Mode::NonBlocking).unwrap();
    refused(&pipes, "pipes");
    drop((pipes, rig));
    refused(&Rig::bare(Mode::Blocking).ctx, "blocking");
}

#[test]
fn it_outlives_its_context() {
    fn any_thread<T: Send + Sync + Clone>(_: &T) {}
    let _alone = Rig::bare(Mode::NonBlocking); // to the end: descriptors are counted
    let rig = Rig::second(Mode::NonBlocking);
    let before = open_fds();
    let readiness: Readiness = rig.ctx.readiness().unwrap();
    any_thread(&readiness);
    let edges = Edges::of(&readiness);
    let client = rig.connect();
    let second = UnixStream::connect(&rig.path).unwrap();
    // as a child process that was forked would: the connection is not closed with the context
    let fd = rig.ctx.poll_fd().unwrap();
    // SAFETY: an open descriptor, for as long as the context lives.
    let copy = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }
        .try_clone_to_owned()
        .unwrap();
    drop(rig);
    drop((client, second));
    assert!(!ready(&readiness) && !edges.next());
    drop((copy, edges));
    assert_eq!(open_fds(), before); // the listening socket has gone, the readiness is still there
    drop(readiness);
    assert_eq!(open_fds(), before - 1);
}
