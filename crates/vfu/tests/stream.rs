//! Messages in bursts and in pieces, headers that cannot be, and clients that do not read.
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

use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use rig::{BAR, Event, Rig, access, fields, memfd, message, open_fds, write};
use vfu::client::{Client, Error, Hello, NoMemory};
use vfu::wire::{Command, Header, MAX_MESSAGE, NO_REPLY, TYPE_REPLY};
use vfu::{Errno, Mode, Quiesce, ResetKind};

#[test]
fn a_burst_is_served_in_one_run() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    for index in 0..64_u32 {
        client
            .region_write_posted(BAR, 0, &index.to_le_bytes())
            .unwrap();
    }
    assert_eq!(rig.run().unwrap().requests, 64);
    let written: Vec<_> = (0..64_u32)
        .map(|index| Event::Write(BAR, 0, index.to_le_bytes().to_vec()))
        .collect();
    assert_eq!(rig.device.take(), written);
    assert_eq!(rig.run().unwrap().requests, 0);
}

#[test]
fn descriptors_belong_to_the_last_message_of_a_burst() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let memory = memfd(0x3000);
    let before = open_fds();
    let read = client
        .send(Command::RegionRead, &access(BAR, 0, 4), &[])
        .unwrap();
    let map = |iova| fields(&[32 | 7 << 32, 0, iova, 0x1000]);
    let first = client
        .send(Command::DmaMap, &map(0x1000), &[memory.as_raw_fd()])
        .unwrap();
    let second = client
        .send(Command::DmaMap, &map(0x2000), &[memory.as_raw_fd()])
        .unwrap();
    let message = client
        .send(
            Command::DmaMap,
            &fields(&[32 | 3 << 32, 0, 0x3000, 0x1000]),
            &[],
        )
        .unwrap();
    while rig.run().unwrap().requests > 0 {}
    client.receive(read).unwrap();
    for ticket in [first, second, message] {
        client.receive(ticket).unwrap();
    }
    let dma = rig.ctx.dma().unwrap();
    for (iova, mapped) in [(0x1000, true), (0x2000, true), (0x3000, false)] {
        let info = dma.info(dma.find_exact(iova, 0x1000).unwrap()).unwrap();
        assert_eq!(info.vaddr.is_some(), mapped, "{iova:#x}");
    }
    drop(client);
    rig.run().unwrap_err();
    drop(dma);
    assert_eq!(open_fds(), before - 2); // both ends of the connection
}

/// D39: a header, or anything else, in pieces.
#[test]
fn every_cut_of_a_message_is_put_together() {
    for mode in [Mode::NonBlocking, Mode::Blocking] {
        let bytes = message(7, Command::RegionRead, 0, &access(BAR, 8, 4));
        for cut in 1..bytes.len() {
            let mut rig = Rig::new(mode);
            let mut client = rig.connect();
            client.send_raw(&bytes[..cut], &[]).unwrap();
            if mode == Mode::NonBlocking {
                assert_eq!(rig.run().unwrap().requests, 0);
            }
            client.send_raw(&bytes[cut..], &[]).unwrap();
            if mode == Mode::NonBlocking {
                assert_eq!(rig.run().unwrap().requests, 1, "cut at {cut}");
                let reply = client.receive_any().unwrap();
                assert_eq!(
                    (reply.header.id, &reply.payload[16..]),
                    (7, &[8, 9, 10, 11][..])
                );
            } else {
                // a blocking context serves until the client goes
                let thread = std::thread::spawn(move || {
                    assert_eq!(client.receive_any().unwrap().payload[16..], [8, 9, 10, 11]);
                });
                assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
                thread.join().unwrap();
            }
        }
    }
}

/// More requests than a receive takes, so that messages are cut, also behind refused ones: none is lost, and none comes
/// before another one.
#[test]
fn a_long_burst_is_answered_in_order() {
    for mode in [Mode::NonBlocking, Mode::Blocking] {
        for refused in [0, 1] {
            let mut rig = Rig::new(mode);
            let mut client = rig.connect();
            let requests: Vec<u8> = (0..600)
                .flat_map(|id| {
                    let flags = if id % 2 == refused { TYPE_REPLY } else { 0 };
                    // 36 bytes, of which no buffer holds a round number
                    message(id, Command::RegionWrite, flags, &write(BAR, 0, &[1; 4]))
                })
                .collect();
            client.send_raw(&requests, &[]).unwrap();
            let socket = client.as_fd().as_raw_fd();
            // SAFETY: no pointers.
            assert_eq!(unsafe { libc::shutdown(socket, libc::SHUT_WR) }, 0);
            while rig.run().is_ok() {} // a blocking context serves until the client has gone
            drop(rig);
            let mut answers = Vec::new();
            while let Ok(reply) = client.receive_any() {
                answers.push((reply.header.id, reply.header.error));
            }
            let expected: Vec<_> = (0..600)
                .map(|id| (id, if id % 2 == refused { 22 } else { 0 }))
                .collect();
            assert_eq!(answers, expected, "{mode:?}, {refused}");
        }
    }
}

/// Requests behind each other, cut at every place, with a run after every piece.
#[test]
fn bytes_one_by_one() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let mut bytes = Vec::new();
    for id in 0..5 {
        bytes.extend(message(
            id,
            Command::RegionWrite,
            0,
            &write(BAR, id.into(), &[id as u8; 3]),
        ));
    }
    let mut served = 0;
    for byte in bytes {
        client.send_raw(&[byte], &[]).unwrap();
        served += rig.run().unwrap().requests;
    }
    assert_eq!(served, 5);
    assert_eq!(rig.device.take().len(), 5);
}

/// D1: more than a socket buffer holds.
#[test]
fn a_megabyte_both_ways() {
    for mode in [Mode::NonBlocking, Mode::Blocking] {
        let mut rig = Rig::new(mode);
        let client = rig.connect();
        let data: Vec<u8> = (0..1_usize << 20)
            .map(|index| ((index * 7) >> 3) as u8)
            .collect();
        let expected = data.clone();
        let thread = std::thread::spawn(move || {
            let mut client = client;
            client.region_write(BAR, 0, &data).unwrap();
            let mut back = vec![0; data.len()];
            client.region_read(BAR, 0, &mut back).unwrap();
            assert!(
                back.iter()
                    .enumerate()
                    .all(|(index, byte)| *byte == index as u8)
            );
            client.region_write(BAR, 0, &[1]).unwrap();
        });
        while rig.run().is_ok() {}
        thread.join().unwrap();
        let events = rig.device.take();
        assert_eq!(events[0], Event::Write(BAR, 0, expected));
        assert_eq!(events[1], Event::Read(BAR, 0, 1 << 20));
        assert_eq!(events[2], Event::Write(BAR, 0, vec![1]));
    }
}

/// D38, D9: what cannot be a request is answered with EINVAL, its body is not taken for another one, and its
/// descriptors are closed.
#[test]
fn bodies_of_refused_headers_are_not_requests() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let memory = memfd(4096);
    let before = open_fds();
    let inner = message(1, Command::DeviceReset, 0, &[]);
    client
        .send_raw(
            &message(2, Command::RegionWrite, TYPE_REPLY, &inner),
            &[memory.as_raw_fd()],
        )
        .unwrap();
    let served = rig.run().unwrap();
    assert_eq!((served.requests, served.failed), (0, Some(Errno::EINVAL)));
    let reply = client.receive_any().unwrap().header;
    assert_eq!(
        (reply.id, reply.size, reply.flags, reply.error),
        (2, 16, 0x21, 22)
    );
    assert_eq!(rig.run().unwrap().requests, 0);
    assert!(rig.device.take().is_empty());
    assert_eq!(open_fds(), before);
    rig.round_trip(&mut client, Command::RegionRead, &access(BAR, 0, 1))
        .unwrap();
}

#[test]
fn a_size_that_cannot_be_ends_the_connection_after_the_answer() {
    for size in [0, 15, MAX_MESSAGE as u32 + 1, u32::MAX] {
        let mut rig = Rig::new(Mode::NonBlocking);
        let mut client = rig.connect();
        let header = Header {
            id: 3,
            command: Command::DeviceReset as u16,
            size,
            flags: 0,
            error: 0,
        };
        client.send_raw(&header.encode(), &[]).unwrap();
        assert_eq!(rig.run().unwrap().failed, Some(Errno::EINVAL));
        assert_eq!(client.receive_any().unwrap().header.error, 22);
        assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
        assert!(matches!(client.receive_any(), Err(Error::Closed)));
        assert_eq!(
            rig.device.take(),
            [Event::Quiesce, Event::Reset(ResetKind::LostConnection)]
        );
        let mut next = rig.connect();
        rig.round_trip(&mut next, Command::RegionRead, &access(BAR, 0, 1))
            .unwrap();
    }
}

#[test]
fn the_first_descriptor_of_a_short_header_is_not_lost() {
    // D9: one byte and fifty descriptors
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let memory = memfd(4096);
    let before = open_fds();
    client.send_raw(&[1], &[memory.as_raw_fd(); 50]).unwrap();
    assert_eq!(rig.run().unwrap().requests, 0);
    assert_eq!(open_fds(), before + 50);
    drop(client);
    assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
    assert_eq!(open_fds(), before - 2);
}

/// D40: a client that does not read gets its replies when it does, and the server is free meanwhile.
#[test]
fn unread_replies_wait() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let count = 1 << 20;
    let mut tickets = Vec::new();
    let mut sent = 0;
    while !rig.ctx.wants_write() {
        tickets.push(
            client
                .send(Command::RegionRead, &access(BAR, sent, count), &[])
                .unwrap(),
        );
        sent += 1;
        assert!(sent < 64, "the socket takes more than 64 MiB?");
        let _ = rig.run().unwrap();
    }
    for _ in 0..10 {
        assert_eq!(rig.run().unwrap().requests, 0);
    }
    let last = client
        .send(Command::RegionRead, &access(BAR, 1, 2), &[])
        .unwrap();
    assert_eq!(rig.run().unwrap().requests, 0); // one after the other
    let reader = std::thread::spawn(move || {
        for (index, ticket) in tickets.into_iter().enumerate() {
            let reply = client.receive(ticket).unwrap();
            assert_eq!(reply.payload.len(), 16 + count as usize);
            assert!(
                reply.payload[16..]
                    .iter()
                    .enumerate()
                    .all(|(at, byte)| *byte == (at + index) as u8)
            );
        }
        assert_eq!(client.receive(last).unwrap().payload[16..], [1, 2]);
    });
    while !reader.is_finished() {
        let _ = rig.run();
    }
    reader.join().unwrap();
}

#[test]
fn a_client_that_goes_with_its_replies_unread() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    while !rig.ctx.wants_write() {
        let _ = client
            .send(Command::RegionRead, &access(BAR, 0, 1 << 20), &[])
            .unwrap();
        let _ = rig.run().unwrap();
    }
    drop(client);
    assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
    assert!(!rig.ctx.wants_write());
    let mut next = rig.connect();
    rig.round_trip(&mut next, Command::RegionRead, &access(BAR, 0, 1))
        .unwrap();
}

/// D40: the version exchange of a non-blocking context waits for nothing.
#[test]
fn a_version_message_byte_by_byte() {
    let mut rig = Rig::new(Mode::NonBlocking);
    assert_eq!(rig.ctx.attach().unwrap_err().errno().get(), libc::EAGAIN);
    let listening = rig.ctx.poll_fd().unwrap();
    let mut stream = UnixStream::connect(&rig.path).unwrap();
    let mut bytes = message(1, Command::Version, NO_REPLY, &[0, 0, 7, 0, b'{', b'}', 0]);
    let read = message(2, Command::RegionRead, 0, &access(BAR, 0, 1));
    bytes.extend(&read); // and a request behind it
    let version = bytes.len() - read.len();
    for byte in &bytes[..version - 1] {
        stream.write_all(&[*byte]).unwrap();
        assert_eq!(rig.ctx.attach().unwrap_err().errno().get(), libc::EAGAIN);
        assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
    }
    assert_ne!(rig.ctx.poll_fd().unwrap(), listening);
    stream.write_all(&bytes[version - 1..]).unwrap();
    rig.ctx.attach().unwrap();
    assert!(rig.ctx.is_attached());
    // what follows VERSION is still in the socket, where polling sees it
    let mut poll = libc::pollfd {
        fd: rig.ctx.poll_fd().unwrap(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 0) }, 1);
    assert_eq!(rig.run().unwrap().requests, 1);
    let mut connection = vfu::client::Connection::new(stream.into());
    let reply = connection.receive().unwrap(); // NO_REPLY does not hold for VERSION
    assert_eq!(reply.payload[..4], [0, 0, 2, 0]);
    assert_eq!(connection.receive().unwrap().header.id, 2);
}

#[test]
fn version_messages_that_are_refused() {
    let cases: [(&[u8], i32); 4] = [
        (&message(1, Command::DmaMap, 0, &[0; 32]), 22),
        (&message(1, Command::Version, 0, &[9, 0, 0, 0]), 22),
        (&message(1, Command::Version, 0, &[]), 22),
        (&message(1, Command::Version, 0, &[0, 0, 0, 0, b'{', 0]), 22),
    ];
    let rig = Rig::new(Mode::Blocking);
    for (bytes, errno) in cases {
        let mut stream = UnixStream::connect(&rig.path).unwrap();
        stream.write_all(bytes).unwrap();
        assert_eq!(rig.ctx.attach().unwrap_err().errno(), Errno::EINVAL);
        let mut connection = vfu::client::Connection::new(stream.into());
        assert_eq!(connection.receive().unwrap().header.error, errno as u32);
        assert!(matches!(connection.receive(), Err(Error::Closed)));
    }
    drop(UnixStream::connect(&rig.path).unwrap());
    assert_eq!(rig.ctx.attach().unwrap_err().errno().get(), libc::ENOMSG);
    let mut stream = UnixStream::connect(&rig.path).unwrap();
    stream.write_all(&[1; 7]).unwrap();
    drop(stream);
    assert_eq!(
        rig.ctx.attach().unwrap_err().errno().get(),
        libc::ECONNRESET
    );
    rig.connect();
    assert_eq!(rig.ctx.attach().unwrap_err().errno(), Errno::EINVAL);
}

/// D49: descriptors with VERSION.
#[test]
fn version_with_descriptors_is_answered() {
    let rig = Rig::new(Mode::Blocking);
    let memory = memfd(4096);
    let before = open_fds();
    let mut connection =
        vfu::client::Connection::new(UnixStream::connect(&rig.path).unwrap().into());
    connection
        .send_raw(
            &message(1, Command::Version, 0, &[0; 4]),
            &[memory.as_raw_fd()],
        )
        .unwrap();
    assert_eq!(rig.ctx.attach().unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(connection.receive().unwrap().header.error, 22);
    drop(connection);
    assert_eq!(open_fds(), before);
}

/// A pending quiesce leaves buffered requests waiting; they are served when it is over, since polling does not tell of them.
#[test]
fn requests_behind_a_pending_quiesce_are_served_with_it() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    rig.device.quiesce.push(Ok(Quiesce::Pending));
    let map = client
        .send(Command::DmaMap, &fields(&[32 | 3 << 32, 0, 0, 0x1000]), &[])
        .unwrap();
    let read = client
        .send(Command::RegionRead, &access(BAR, 0, 1), &[])
        .unwrap();
    assert_eq!(rig.run().unwrap_err().errno(), Errno::EBUSY);
    assert_eq!(rig.run().unwrap_err().errno(), Errno::EBUSY);
    assert_eq!(rig.device.take(), [Event::Quiesce]);
    let served = rig.ctx.device_quiesced(&mut rig.device, Ok(())).unwrap();
    assert_eq!(served.requests, 2);
    client.receive(map).unwrap();
    client.receive(read).unwrap();
    assert_eq!(
        rig.device.take(),
        [Event::Register(0, 0x1000), Event::Read(BAR, 0, 1)]
    );
    assert_eq!(rig.run().unwrap().requests, 0);
}

/// D66: a client that offers nothing is not offered anything new.
#[test]
fn write_multiple_is_offered_to_those_who_ask() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client: Client = rig.connect_with(
        &Hello {
            minor: 0,
            text: None,
        },
        NoMemory,
    );
    assert!(!client.greeting().text.contains("write_multiple"));
    assert_eq!(client.greeting().minor, 0);
    let mut payload = fields(&[1]);
    payload.extend(write(BAR, 0, &[1, 2, 3, 4, 5, 6, 7, 8]));
    assert_eq!(
        rig.refused(&mut client, Command::RegionWriteMulti, &payload),
        22
    );
    drop(client);
    rig.run().unwrap_err();
    let mut client = rig.connect();
    assert!(client.greeting().text.contains("\"write_multiple\":true"));
    rig.device.take();
    assert_eq!(
        rig.round_trip(&mut client, Command::RegionWriteMulti, &payload)
            .unwrap(),
        fields(&[1])
    );
    assert_eq!(
        rig.device.take(),
        [Event::Write(BAR, 0, vec![1, 2, 3, 4, 5, 6, 7, 8])]
    );
    assert!(client.as_fd().as_raw_fd() >= 0);
}
