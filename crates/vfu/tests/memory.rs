//! Client memory: DMA regions, scatter entries, messages over both sockets, requests that cross them.
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

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc;

use rig::{BAR, Event, Rig, access, fields, memfd, message, open_fds};
use vfu::client::{Client, Hello, Memory};
use vfu::dma::{PROT_READ, PROT_WRITE, Segment};
use vfu::wire::{Command, ERROR, Header, TYPE_REPLY};
use vfu::{Context, Errno, Error, Mode, Quiesce, Transfer};

const EINVAL: i32 = libc::EINVAL;

fn segment(ctx: &Context, iova: u64, length: u64, prot: u32) -> Segment {
    let mut list = [std::mem::MaybeUninit::uninit()];
    assert_eq!(
        ctx.dma()
            .unwrap()
            .translate(iova, length, prot, &mut list)
            .unwrap(),
        1
    );
    // SAFETY: one entry was needed, so the first was written.
    unsafe { list[0].assume_init() }
}

/// Memory that counts the commands and remembers where they went.
#[derive(Debug, Clone)]
struct Counted {
    bytes: Vec<u8>,
    commands: Vec<(bool, u64, usize)>,
}

impl Counted {
    fn new(size: usize) -> Self {
        Self {
            bytes: (0..size).map(|index| (index % 251) as u8).collect(),
            commands: Vec::new(),
        }
    }
}

impl Memory for Counted {
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Errno> {
        self.commands.push((false, addr, data.len()));
        self.bytes.read(addr, data)
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Errno> {
        self.commands.push((true, addr, data.len()));
        self.bytes.write(addr, data)
    }
}

/// Runs `device` on this thread against a client on another, which serves its memory until the device is done.
fn with_client(hello: &Hello, size: usize, device: impl FnOnce(&mut Rig)) -> Counted {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect_with(hello, Counted::new(size));
    rig.map(&mut client, 0, size as u64, None).unwrap();
    let thread = std::thread::spawn(move || {
        // the server closes the connection when it is done
        loop {
            match client.serve_memory(std::time::Duration::from_secs(60)) {
                Ok(_) => {}
                Err(vfu::client::Error::Closed) => return client.memory().clone(),
                Err(error) => panic!("{error}"),
            }
        }
    });
    device(&mut rig);
    rig.ctx.shutdown(&mut rig.device).unwrap();
    thread.join().unwrap()
}

#[test]
fn messages_in_pieces_that_the_client_takes() {
    for hello in [
        Hello::with("\"max_data_xfer_size\":4096"),
        Hello::with("\"max_data_xfer_size\":4096,\"twin_socket\":{\"supported\":true}"),
    ] {
        let memory = with_client(&hello, 0x8000, |rig| {
            let entry = segment(&rig.ctx, 0x1000, 2 * 4096 + 42, PROT_WRITE);
            let mut data = vec![0; 2 * 4096 + 42];
            rig.ctx
                .read_segment(&entry, &mut data, Transfer::Direct)
                .unwrap();
            assert!(
                data.iter()
                    .enumerate()
                    .all(|(index, byte)| *byte == ((0x1000 + index) % 251) as u8)
            );
            data.fill(0xaa);
            rig.ctx
                .write_segment(&entry, &data, Transfer::Message)
                .unwrap();
        });
        let pieces = [(0x1000, 4096), (0x2000, 4096), (0x3000, 42)];
        let both = [false, true].map(|write| pieces.map(|(addr, length)| (write, addr, length)));
        assert_eq!(memory.commands, both.concat());
        assert_eq!(memory.bytes[0xfff], (0xfff % 251) as u8);
        assert!(
            memory.bytes[0x1000..0x302a]
                .iter()
                .all(|byte| *byte == 0xaa)
        );
        assert_eq!(memory.bytes[0x302a], (0x302a % 251) as u8);
    }
}

#[test]
fn a_megabyte_by_message() {
    let memory = with_client(&Hello::twin(), 2 << 20, |rig| {
        let mut data = vec![0; 1 << 20];
        rig.ctx.read_client(0x800, &mut data).unwrap();
        assert!(
            data.iter()
                .enumerate()
                .all(|(index, byte)| *byte == ((0x800 + index) % 251) as u8)
        );
        data.fill(3);
        rig.ctx.write_client(0x10_0000, &data).unwrap();
    });
    assert_eq!(
        memory.commands,
        [(false, 0x800, 1 << 20), (true, 0x10_0000, 1 << 20)]
    );
    assert!(memory.bytes[0x10_0000..].iter().all(|byte| *byte == 3));
}

#[test]
fn entries_are_checked() {
    let mut rig = Rig::new(Mode::NonBlocking);
    assert_eq!(
        rig.ctx.read_client(0, &mut [0]).unwrap_err().errno(),
        Errno::ENOENT
    );
    let mut client = rig.connect();
    let memory = memfd(0x2000);
    rig.map(&mut client, 0, 0x2000, Some(&memory)).unwrap();
    let read = segment(&rig.ctx, 0x10, 4, PROT_READ);
    let errno = |result: vfu::Result<()>| result.unwrap_err().errno().get();
    assert_eq!(
        errno(rig.ctx.write_segment(&read, &[0; 4], Transfer::Direct)),
        libc::EPERM
    );
    assert_eq!(
        errno(rig.ctx.write_segment(&read, &[0; 4], Transfer::Message)),
        libc::EPERM
    );
    assert_eq!(
        errno(rig.ctx.read_segment(&read, &mut [0; 5], Transfer::Direct)),
        EINVAL
    );
    assert_eq!(
        errno(
            rig.ctx
                .read_segment(&Segment::default(), &mut [], Transfer::Direct)
        ),
        EINVAL
    );
    rig.ctx.write_client(0x10, &[1, 2, 3, 4]).unwrap();
    let mut data = [0; 4];
    rig.ctx
        .read_segment(&read, &mut data, Transfer::Direct)
        .unwrap();
    assert_eq!(data, [1, 2, 3, 4]);
    assert_eq!(
        errno(rig.ctx.read_client(0x1ffe, &mut [0; 4])),
        libc::ENOENT
    );
    assert_eq!(
        errno(rig.ctx.read_client(u64::MAX - 1, &mut [0; 4])),
        libc::ENOENT
    );

    // D72: entries of a region that is gone, also when another one is where it was
    rig.unmap(&mut client, 0, 0x2000).unwrap();
    assert_eq!(
        errno(rig.ctx.read_segment(&read, &mut data, Transfer::Direct)),
        EINVAL
    );
    rig.map(&mut client, 0, 0x2000, Some(&memory)).unwrap();
    assert_eq!(
        errno(rig.ctx.read_segment(&read, &mut data, Transfer::Direct)),
        EINVAL
    );
    assert_eq!(
        errno(rig.ctx.read_segment(&read, &mut data, Transfer::Message)),
        EINVAL
    );
}

/// A client that answers by hand what `ctx` asks for, on a thread of its own.
fn answered_by(
    hello: &Hello,
    answer: impl FnOnce(&mut Client<Counted>, Header) + Send + 'static,
    device: impl FnOnce(&mut Rig),
) {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect_with(hello, Counted::new(0x1000));
    rig.map(&mut client, 0, 0x1000, None).unwrap();
    let (done, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let command = client.receive_any().unwrap();
        answer(&mut client, command.header);
        wait.recv().unwrap();
        client
    });
    device(&mut rig);
    done.send(()).unwrap();
    thread.join().unwrap();
}

fn reply(command: Header, flags: u32, error: u32, payload: &[u8]) -> Vec<u8> {
    let size = 16 + payload.len() as u32;
    let mut bytes = Header {
        size,
        flags,
        error,
        ..command
    }
    .encode()
    .to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn answers_that_make_no_sense() {
    type Answer = fn(Header) -> Vec<u8>;
    let cases: [(Answer, i32); 8] = [
        (
            |command| reply(command, TYPE_REPLY | ERROR, 5, &[]),
            libc::EIO,
        ),
        (|command| reply(command, TYPE_REPLY | ERROR, 0, &[]), EINVAL),
        (
            |command| reply(command, TYPE_REPLY | ERROR, 4097, &[1, 2, 3]),
            EINVAL,
        ), // D47: with a payload
        (
            |command| {
                reply(
                    Header {
                        id: command.id + 1,
                        ..command
                    },
                    TYPE_REPLY,
                    0,
                    &fields(&[0, 4]),
                )
            },
            libc::EPROTO,
        ),
        (
            |command| {
                reply(
                    command,
                    TYPE_REPLY,
                    0,
                    &[&fields(&[8, 4])[..], &[0; 4]].concat(),
                )
            },
            EINVAL,
        ),
        (
            |command| {
                reply(
                    command,
                    TYPE_REPLY,
                    0,
                    &[&fields(&[0, 5])[..], &[0; 4]].concat(),
                )
            },
            EINVAL,
        ),
        (|command| reply(command, TYPE_REPLY, 0, &[]), EINVAL),
        (
            |command| reply(command, TYPE_REPLY, 0, &fields(&[0, 4])),
            EINVAL,
        ),
    ];
    for (number, (answer, errno)) in cases.into_iter().enumerate() {
        let then = move |client: &mut Client<Counted>, command| {
            client.send_raw(&answer(command), &[]).unwrap();
            let next = client.receive_any().unwrap().header;
            client
                .send_raw(
                    &reply(
                        next,
                        TYPE_REPLY,
                        0,
                        &[&fields(&[0, 4])[..], &[9; 4]].concat(),
                    ),
                    &[],
                )
                .unwrap();
        };
        answered_by(&Hello::default(), then, |rig| {
            let mut data = [0; 4];
            let error = rig.ctx.read_client(0, &mut data).unwrap_err();
            assert_eq!(error.errno().get(), errno, "case {number}: {error}");
            // the stream of messages is in order: the next one works
            rig.ctx.read_client(0, &mut data).unwrap();
            assert_eq!(data, [9; 4]);
            assert!(rig.run().unwrap().failed.is_none());
        });
    }
}

#[test]
fn a_longer_answer_is_cut() {
    let then = |client: &mut Client<Counted>, command| {
        let payload = [&fields(&[0, 4])[..], &[7; 4], &[1; 100]].concat();
        client
            .send_raw(&reply(command, TYPE_REPLY, 0, &payload), &[])
            .unwrap();
    };
    answered_by(&Hello::default(), then, |rig| {
        let mut data = [0; 4];
        rig.ctx.read_client(0, &mut data).unwrap();
        assert_eq!(data, [7; 4]);
        assert_eq!(rig.run().unwrap().requests, 0);
    });
}

/// D46: requests that cross a DMA command are no answers to it, and are not lost; not even half of one.
#[test]
fn requests_cross_dma_commands() {
    let read = message(0x99, Command::RegionRead, 0, &access(BAR, 3, 2));
    for cut in 0..=read.len() {
        let first = read.clone();
        let then = move |client: &mut Client<Counted>, command| {
            let answer = reply(
                command,
                TYPE_REPLY,
                0,
                &[&fields(&[0, 4])[..], &[8; 4]].concat(),
            );
            client.send_raw(&first, &[]).unwrap();
            client
                .send_raw(&[&answer[..], &first[..cut]].concat(), &[])
                .unwrap();
            client.send_raw(&first[cut..], &[]).unwrap();
            for _ in 0..2 {
                let reply = client.receive_any().unwrap();
                assert_eq!((reply.header.id, &reply.payload[16..]), (0x99, &[3, 4][..]));
            }
        };
        answered_by(&Hello::default(), then, |rig| {
            let mut data = [0; 4];
            rig.ctx.read_client(0, &mut data).unwrap();
            assert_eq!(data, [8; 4]);
            let mut served = 0;
            while served < 2 {
                served += rig.run().unwrap().requests;
            }
            assert_eq!(rig.device.take().len(), 2 + 2); // and the map with its quiesce
        });
    }
}

/// The same from inside a callback, behind a burst of which half a message was received with the request that is served.
#[test]
fn requests_cross_dma_commands_of_callbacks() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect_with(&Hello::default(), Counted::new(0x1000));
    rig.map(&mut client, 0, 0x1000, None).unwrap();
    let before = open_fds();
    let memory = memfd(0x1000);
    let got = Rc::new(RefCell::new(Vec::new()));
    let copy = Rc::clone(&got);
    rig.device.hook = Some(Box::new(move |ctx, event| {
        if let Event::Write(BAR, 0, _) = event {
            let mut data = [0; 8];
            ctx.read_client(0x10, &mut data).unwrap();
            copy.borrow_mut().extend(data);
        }
        Ok(())
    }));
    let write = message(1, Command::RegionWrite, 0, &rig::write(BAR, 0, &[1]));
    let read = message(2, Command::RegionRead, 0, &access(BAR, 5, 1));
    let map = message(
        3,
        Command::DmaMap,
        0,
        &fields(&[32 | 7 << 32, 0, 0x10000, 0x1000]),
    );
    client
        .send_raw(&[&write[..], &read, &read[..20]].concat(), &[])
        .unwrap();
    let thread = std::thread::spawn(move || {
        let command = client.receive_any().unwrap();
        assert_eq!(command.header.command, Command::DmaRead as u16);
        client.send_raw(&read[20..], &[]).unwrap();
        client
            .send_raw(&map, &[std::os::fd::AsRawFd::as_raw_fd(&memory)])
            .unwrap();
        let payload = [&fields(&[0x10, 8])[..], &[4; 8]].concat();
        client
            .send_raw(&reply(command.header, TYPE_REPLY, 0, &payload), &[])
            .unwrap();
        let ids: Vec<_> = (0..4)
            .map(|_| client.receive_any().unwrap().header)
            .map(|h| (h.id, h.error))
            .collect();
        assert_eq!(ids, [(1, 0), (2, 0), (2, 0), (3, 0)]);
        client
    });
    assert_eq!(rig.run().unwrap().requests, 4);
    let client = thread.join().unwrap();
    assert_eq!(*got.borrow(), [4; 8]);
    assert!(
        rig.ctx
            .dma()
            .unwrap()
            .info(rig.ctx.dma().unwrap().find_exact(0x10000, 0x1000).unwrap())
            .unwrap()
            .vaddr
            .is_some()
    );
    drop(client);
    rig.run().unwrap_err();
    assert_eq!(open_fds(), before - 2);
}

/// D43: a connection that dies under a DMA command is reset by the next run, not under the device's feet.
#[test]
fn a_client_that_goes_under_a_dma_command() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect_with(&Hello::twin(), Counted::new(0x1000));
    rig.map(&mut client, 0, 0x1000, None).unwrap();
    rig.device.take();
    let entry = segment(&rig.ctx, 0, 4, PROT_READ);
    let twin: OwnedFd = client.take_twin().unwrap().into_fd();
    drop(twin);
    let error = rig
        .ctx
        .read_segment(&entry, &mut [0; 4], Transfer::Direct)
        .unwrap_err();
    assert_eq!(error.errno(), Errno::ENOTCONN);
    assert!(rig.device.take().is_empty());
    assert!(rig.ctx.dma().unwrap().locate(&entry).is_ok());
    assert_eq!(
        rig.ctx.read_client(0, &mut [0]).unwrap_err().errno(),
        Errno::ENOTCONN
    );
    assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
    assert_eq!(rig.device.take().len(), 3);
    assert!(rig.ctx.dma().unwrap().locate(&entry).is_err());
}

#[test]
fn no_messages_while_a_quiesce_is_pending() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    rig.map(&mut client, 0, 0x1000, None).unwrap();
    rig.device.quiesce.push(Ok(Quiesce::Pending));
    let _ = client.send(Command::DeviceReset, &[], &[]).unwrap();
    assert_eq!(rig.run().unwrap_err(), Error::Quiescing);
    assert_eq!(
        rig.ctx.read_client(0, &mut [0]).unwrap_err().errno(),
        Errno::EBUSY
    );
}

#[test]
fn maps_that_are_refused() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let memory = memfd(0x4000);
    let before = open_fds();
    let map = |flags: u64, iova: u64, size: u64| fields(&[32 | flags << 32, 0, iova, size]);
    let errno_of = |rig: &mut Rig, client: &mut Client, payload: &[u8], fds: &[&OwnedFd]| {
        rig.round_trip_fds(client, Command::DmaMap, payload, fds)
            .unwrap_err()
            .errno()
            .unwrap()
            .get()
    };
    assert_eq!(
        errno_of(&mut rig, &mut client, &map(3, 0, (8 << 40) + 4096), &[]),
        libc::ENOSPC
    );
    for (payload, fds) in [
        (map(7, 0, 0x1000), vec![]),
        (map(11, 0, 0x1000), vec![]),
        (map(15, 0, 0x1000), vec![&memory]),
        (map(3, u64::MAX - 0xfff, 0x2000), vec![]), // D25
        (map(3, 0, 0), vec![]),                     // D26
        (map(3, 0, 0x1000)[..31].to_vec(), vec![&memory]),
    ] {
        assert_eq!(
            errno_of(&mut rig, &mut client, &payload, &fds),
            EINVAL,
            "{payload:?}"
        );
        assert_eq!(open_fds(), before);
    }
    assert!(
        rig.device
            .take()
            .iter()
            .all(|event| *event == Event::Quiesce)
    );

    rig.map(&mut client, 0x1000, 0x1000, Some(&memory)).unwrap();
    assert_eq!(
        rig.map(&mut client, 0x1800, 0x1000, None)
            .unwrap_err()
            .errno(),
        Some(Errno::EINVAL)
    );
    rig.device.take();
    rig.map(&mut client, 0x1000, 0x1000, Some(&memory)).unwrap(); // D76: again the same
    assert_eq!(rig.device.take(), [Event::Quiesce]);
    assert_eq!(
        rig.unmap(&mut client, 0x1000, 0x800).unwrap_err().errno(),
        Some(Errno::ENOENT)
    );
    rig.unmap(&mut client, 0x1000, 0x1000).unwrap();

    // a device that cannot take it
    rig.device.hook = Some(Box::new(|_, _| Err(Errno::ENOMEM)));
    assert_eq!(
        rig.map(&mut client, 0x1000, 0x1000, Some(&memory))
            .unwrap_err()
            .errno(),
        Some(Errno::ENOMEM)
    );
    assert!(rig.ctx.dma().unwrap().is_empty());
    assert_eq!(open_fds(), before);
}

/// D22: a region can be used inside its own unregister callback.
#[test]
fn regions_are_there_during_both_callbacks() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let memory = memfd(0x1000);
    rig.device.hook = Some(Box::new(|ctx, event| {
        if let Event::Register(iova, _) | Event::Unregister(iova, _) = event {
            let mut byte = [0];
            ctx.read_client(*iova, &mut byte).unwrap();
            ctx.write_client(*iova, &[byte[0] + 1]).unwrap();
        }
        Ok(())
    }));
    rig.map(&mut client, 0x1000, 0x1000, Some(&memory)).unwrap();
    rig.unmap(&mut client, 0x1000, 0x1000).unwrap();
    let mut byte = [0];
    std::os::unix::fs::FileExt::read_at(&std::fs::File::from(memory), &mut byte, 0).unwrap();
    assert_eq!(byte, [2]);
    let reply = rig
        .round_trip(
            &mut client,
            Command::DmaUnmap,
            &fields(&[24 | 2 << 32, 0, 0]),
        )
        .unwrap();
    assert_eq!(reply, fields(&[24 | 2 << 32, 0, 0]));
}

#[test]
fn without_dma_maps_do_nothing() {
    let mut rig = Rig::bare(Mode::NonBlocking);
    rig.ctx.realize().unwrap();
    let mut client = rig.connect();
    let memory = memfd(0x1000);
    let before = open_fds();
    rig.map(&mut client, 0, 0x1000, Some(&memory)).unwrap();
    assert!(
        rig.round_trip(&mut client, Command::DmaUnmap, &[0xff])
            .unwrap()
            .is_empty()
    );
    assert!(rig.device.take().is_empty());
    assert_eq!(open_fds(), before);
    assert_eq!(
        rig.ctx.read_client(0, &mut [0]).unwrap_err().errno().get(),
        EINVAL
    );
}

#[test]
fn a_device_that_removes_a_region_itself_does_not_keep_the_others() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    rig.map(&mut client, 0x1000, 0x1000, None).unwrap();
    rig.map(&mut client, 0x2000, 0x1000, None).unwrap();
    rig.device.hook = Some(Box::new(|ctx, event| {
        if let Event::Unregister(iova, size) = event {
            let dma = ctx.dma().unwrap();
            dma.remove(dma.find_exact(*iova, *size).unwrap()).unwrap();
        }
        Ok(())
    }));
    rig.device.take();
    rig.ctx.shutdown(&mut rig.device).unwrap();
    let unregistered = rig.device.take();
    assert!(
        unregistered.contains(&Event::Unregister(0x2000, 0x1000)),
        "{unregistered:?}"
    );
    assert_eq!(rig.ctx.dma().unwrap().first(), None);
}
