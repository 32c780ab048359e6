//! Every command, the life of a context, quiesce and resets, one thread being client and server by turns.
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

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rig::{BAR, BAR_SIZE, Event, RW, Rig, access, drain, eventfd, fields, memfd, open_fds, write};
use vfu::client::{Client, Hello, NoMemory};
use vfu::pci::region::CONFIG;
use vfu::wire::Command;
use vfu::{
    Context, Errno, IoEventFd, IrqIndex, Level, MmapArea, Mode, Quiesce, RegionFlags, RegionSetup,
    ResetKind, SharedFd,
};

const EINVAL: i32 = libc::EINVAL;

fn shared(fd: &OwnedFd) -> SharedFd {
    // SAFETY: the tests keep the descriptor open for longer than the context.
    SharedFd::Borrowed(unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) })
}

#[test]
fn creation_fails_with_the_system_s_errors() {
    let rig = Rig::bare(Mode::NonBlocking);
    let errno = |path: &str| {
        Context::listen(path, Mode::Blocking)
            .unwrap_err()
            .errno()
            .get()
    };
    assert_eq!(errno(rig.path.to_str().unwrap()), libc::EADDRINUSE);
    assert_eq!(errno("/nonexistent/directory/socket"), libc::ENOENT);
    assert_eq!(errno(&"x".repeat(108)), libc::ENAMETOOLONG);
    assert_eq!(errno("a\0b"), EINVAL);
    let one = Context::listen("", Mode::Blocking).unwrap();
    let _two = Context::listen("", Mode::Blocking).unwrap();
    assert!(one.path().is_empty());
    assert!(rig.path.exists());
    let path = rig.path.clone();
    drop(rig);
    assert!(!path.exists());
}

#[test]
fn life_of_a_context() {
    let mut rig = Rig::bare(Mode::NonBlocking);
    assert_eq!(rig.run().unwrap_err().errno().get(), EINVAL);
    rig.ctx.realize().unwrap();
    rig.ctx.realize().unwrap();
    assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
    let listening = rig.ctx.poll_fd();
    let client = rig.connect();
    assert_ne!(rig.ctx.poll_fd(), listening);
    assert_eq!(rig.run().unwrap().requests, 0);
    drop(client);
    assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
    assert_eq!(rig.ctx.poll_fd(), listening);
    assert_eq!(
        rig.device.take(),
        [Event::Quiesce, Event::Reset(ResetKind::LostConnection)]
    );
    let _client = rig.connect();
    rig.ctx.shutdown(&mut rig.device).unwrap();
    assert_eq!(rig.device.take(), [Event::Reset(ResetKind::LostConnection)]); // not asked to quiesce
    assert!(!rig.path.exists());
    assert_eq!(rig.ctx.poll_fd(), None);
}

#[test]
fn the_connection_is_closed_after_the_reset_callback() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let client = rig.connect();
    let connection = rig.ctx.poll_fd();
    rig.device.hook = Some(Box::new(move |ctx, event| {
        assert_eq!(*event, Event::Reset(ResetKind::LostConnection));
        assert_eq!(ctx.poll_fd(), connection);
        Ok(())
    }));
    drop(client);
    rig.run().unwrap_err();
    assert_eq!(rig.device.take().len(), 2);
}

#[test]
fn device_and_region_information() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let memory = memfd(0x4000);
    let setup = RegionSetup {
        index: 2,
        size: 0x4000,
        flags: (RegionFlags::RW | RegionFlags::MEM).bits(),
        fd: Some(shared(&memory)),
        offset: 0x1000,
        ..RegionSetup::default()
    };
    rig.ctx
        .setup_region(
            setup,
            [
                MmapArea {
                    base: 0,
                    len: 0x1000,
                },
                MmapArea {
                    base: 0x2000,
                    len: 0x1000,
                },
            ],
        )
        .unwrap();
    let mut client = rig.connect();

    let info = fields(&[32, 0]);
    assert_eq!(
        rig.round_trip(&mut client, Command::DeviceGetInfo, &info)
            .unwrap(),
        fields(&[16 | 3 << 32, 9 | 5 << 32])
    );
    assert_eq!(
        rig.refused(&mut client, Command::DeviceGetInfo, &info[..8]),
        EINVAL
    );
    assert_eq!(
        rig.refused(&mut client, Command::DeviceGetInfo, &fields(&[8, 0])),
        EINVAL
    );

    let ask = |argsz: u64, index: u64| fields(&[argsz, index, 0, 0]);
    let reply = rig
        .round_trip(&mut client, Command::DeviceGetRegionInfo, &ask(32, 2))
        .unwrap();
    assert_eq!(reply, fields(&[80 | 7 << 32, 2, 0x4000, 0x1000]));
    let ticket = client
        .send(Command::DeviceGetRegionInfo, &ask(1024, 2), &[])
        .unwrap();
    rig.run().unwrap();
    let reply = client.receive(ticket).unwrap();
    let areas = [1 | 1 << 16, 2, 0, 0x1000, 0x2000, 0x1000];
    assert_eq!(
        reply.payload,
        fields(&[&[80 | 15 << 32, 2 | 32 << 32, 0x4000, 0x1000][..], &areas].concat())
    );
    assert_eq!(reply.fds.len(), 1);
    for index in [9, u64::from(u32::MAX)] {
        assert_eq!(
            rig.refused(&mut client, Command::DeviceGetRegionInfo, &ask(32, index)),
            EINVAL
        );
    }
    let reply = rig
        .round_trip(&mut client, Command::DeviceGetRegionInfo, &ask(32, 5))
        .unwrap();
    assert_eq!(reply, fields(&[32, 5, 0, 0]));

    // D28: set up again without descriptor
    rig.bar(2, 0x1000);
    let reply = rig
        .round_trip(&mut client, Command::DeviceGetRegionInfo, &ask(1024, 2))
        .unwrap();
    assert_eq!(reply, fields(&[32 | 3 << 32, 2, 0x1000, 0]));
}

#[test]
fn region_accesses() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let reply = rig
        .round_trip(&mut client, Command::RegionRead, &access(BAR, 0x10, 4))
        .unwrap();
    assert_eq!(
        reply,
        [access(BAR, 0x10, 4), vec![0x10, 0x11, 0x12, 0x13]].concat()
    );
    let reply = rig
        .round_trip(
            &mut client,
            Command::RegionWrite,
            &write(BAR, BAR_SIZE - 1, &[7]),
        )
        .unwrap();
    assert_eq!(reply, access(BAR, BAR_SIZE - 1, 1));
    assert!(
        rig.round_trip(&mut client, Command::RegionRead, &access(BAR, 0, 0))
            .unwrap()
            .is_empty()
    );
    assert!(
        rig.round_trip(&mut client, Command::RegionWrite, &access(BAR, 0, 0))
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        rig.device.take(),
        [
            Event::Read(BAR, 0x10, 4),
            Event::Write(BAR, BAR_SIZE - 1, vec![7])
        ]
    );
    for bad in [
        access(BAR, BAR_SIZE, 1),
        access(BAR, BAR_SIZE - 3, 4),
        access(BAR, u64::MAX, 256),
        access(BAR, 0, (1 << 20) + 1),
        access(9, 0, 1),
        access(3, 0, 1),
        access(BAR, 0, 4)[..8].to_vec(),
    ] {
        assert_eq!(
            rig.refused(&mut client, Command::RegionRead, &bad),
            EINVAL,
            "{bad:?}"
        );
    }
    assert_eq!(
        rig.refused(&mut client, Command::RegionWrite, &access(BAR, 0, 4)),
        EINVAL
    );
    assert!(rig.device.take().is_empty());
}

/// A client in wide use reads as many bytes as it asked for, whatever the header says.
#[test]
fn failed_accesses_keep_their_payload() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    rig.device.hook = Some(Box::new(|_, _| Err(Errno::new(0xbeef))));
    let mut payload_of = |command, request: &[u8]| {
        let ticket = client.send(command, request, &[]).unwrap();
        assert_eq!(rig.run().unwrap().failed, Some(Errno::new(0xbeef)));
        match client.receive(ticket).unwrap_err() {
            vfu::client::Error::Refused { errno, payload, .. } => {
                assert_eq!(errno.get(), 0xbeef);
                payload.len()
            }
            other => panic!("{other}"),
        }
    };
    assert_eq!(payload_of(Command::RegionRead, &access(BAR, 0, 4)), 20);
    assert_eq!(
        payload_of(Command::RegionWrite, &write(BAR, 0, &[1; 4])),
        16
    );
}

#[test]
fn nothing_of_an_earlier_reply_shows() {
    let mut rig = Rig::new(Mode::NonBlocking);
    rig.bar(3, 0x1000);
    let mut client = rig.connect();
    rig.round_trip(&mut client, Command::RegionRead, &access(BAR, 1, 64))
        .unwrap();
    struct Lazy;
    impl vfu::Device for Lazy {
        fn region_read(&mut self, _: &Context, _: u32, _: u64, _: &mut [u8]) -> Result<(), Errno> {
            Ok(())
        }
    }
    let ticket = client
        .send(Command::RegionRead, &access(BAR, 0, 64), &[])
        .unwrap();
    assert_eq!(rig.ctx.run(&mut Lazy).unwrap().requests, 1);
    assert_eq!(client.receive(ticket).unwrap().payload[16..], [0; 64]);
}

#[test]
fn unknown_commands() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    for command in [
        Command::Version,
        Command::DmaRead,
        Command::DmaWrite,
        Command::DeviceFeature,
        Command::MigDataRead,
    ] {
        assert_eq!(rig.refused(&mut client, command, &[0; 32]), EINVAL);
    }
    for number in [0, 14, 19, u16::MAX] {
        let header = vfu::wire::Header {
            id: 1,
            command: number,
            size: 17,
            flags: 0,
            error: 0,
        };
        client
            .send_raw(&[&header.encode()[..], &[0]].concat(), &[])
            .unwrap();
        assert_eq!(rig.run().unwrap().requests, 1);
        let reply = client.receive_any().unwrap().header;
        assert_eq!((reply.command, reply.error), (number, 22));
    }
}

#[test]
fn posted_requests_get_no_reply_whatever_becomes_of_them() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    client.region_write_posted(BAR, 0, &[1]).unwrap();
    client.region_write_posted(BAR, u64::MAX, &[1]).unwrap();
    let served = rig.run().unwrap();
    assert_eq!((served.requests, served.failed), (2, Some(Errno::EINVAL)));
    let read = client
        .send(Command::RegionRead, &access(BAR, 0, 1), &[])
        .unwrap();
    rig.run().unwrap();
    assert_eq!(client.receive_any().unwrap().payload[16..], [0]);
    let _ = read;
}

#[test]
fn several_writes_in_one_message() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let one = |offset: u64, data: &[u8]| {
        let mut bytes = access(BAR, offset, data.len() as u32);
        bytes.extend_from_slice(data);
        bytes.resize(24, 0);
        bytes
    };
    let request = [fields(&[3]), one(0, &[1]), one(8, &[2; 8]), one(16, &[])].concat();
    assert_eq!(
        rig.round_trip(&mut client, Command::RegionWriteMulti, &request)
            .unwrap(),
        fields(&[3])
    );
    assert_eq!(
        rig.device.take(),
        [
            Event::Write(BAR, 0, vec![1]),
            Event::Write(BAR, 8, vec![2; 8])
        ]
    );
    let request = [
        fields(&[3]),
        one(0, &[1]),
        one(BAR_SIZE, &[2]),
        one(0, &[3]),
    ]
    .concat();
    assert_eq!(
        rig.refused(&mut client, Command::RegionWriteMulti, &request),
        EINVAL
    );
    assert_eq!(rig.device.take(), [Event::Write(BAR, 0, vec![1])]);
}

#[test]
fn ioeventfds() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let (first, second) = (eventfd(0), eventfd(0));
    let event = |fd: Option<&OwnedFd>, offset, shadow: Option<&OwnedFd>| IoEventFd {
        region: BAR,
        fd: fd.map(shared),
        offset,
        size: 8,
        flags: 1,
        datamatch: 5,
        shadow: shadow.map(shared),
        shadow_offset: 0x40,
    };
    for bad in [(9, 0), (BAR, BAR_SIZE - 7), (BAR, u64::MAX - 3)] {
        let event = IoEventFd {
            region: bad.0,
            ..event(None, bad.1, None)
        };
        assert_eq!(
            rig.ctx.create_ioeventfd(event).unwrap_err().errno().get(),
            EINVAL
        ); // D31
    }
    rig.ctx
        .create_ioeventfd(event(Some(&first), 0, None))
        .unwrap();
    rig.ctx.create_ioeventfd(event(None, 8, None)).unwrap();
    rig.ctx
        .create_ioeventfd(event(Some(&first), 16, Some(&second)))
        .unwrap();
    let mut client = rig.connect();
    let ask = |argsz: u64, index: u64| fields(&[argsz, index]);
    assert_eq!(
        rig.round_trip(&mut client, Command::DeviceGetRegionIoFds, &ask(16, 1))
            .unwrap(),
        fields(&[160, 1 | 3 << 32])
    );
    let ticket = client
        .send(Command::DeviceGetRegionIoFds, &ask(160, 1), &[])
        .unwrap();
    rig.run().unwrap();
    let reply = client.receive(ticket).unwrap();
    let none = u64::from(u32::MAX);
    let entries = [
        [16, 8, 2 << 32, 1 | 1 << 32, 0x40, 5],
        [8, 8, none, 1, 0x40, 5],
        [0, 8, 0, 1, 0x40, 5],
    ];
    assert_eq!(
        reply.payload,
        [fields(&[160, 1 | 3 << 32]), fields(&entries.concat())].concat()
    );
    assert_eq!(reply.fds.len(), 2);
    for bad in [
        ask(15, 1),
        ask((1 << 20) + 1, 1),
        ask(16, 9),
        ask(16, 5),
        ask(16 | 1 << 32, 1),
        ask(16, 1 | 1 << 32),
    ] {
        assert_eq!(
            rig.refused(&mut client, Command::DeviceGetRegionIoFds, &bad),
            EINVAL
        );
    }
}

/// D65: more descriptors than one message carries.
#[test]
fn too_many_ioeventfds_are_an_error_and_not_silence() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let fds: Vec<OwnedFd> = (0..254).map(|_| eventfd(0)).collect();
    for fd in &fds {
        let event = IoEventFd {
            region: BAR,
            fd: Some(shared(fd)),
            offset: 0,
            size: 4,
            flags: 0,
            datamatch: 0,
            shadow: None,
            shadow_offset: 0,
        };
        rig.ctx.create_ioeventfd(event).unwrap();
    }
    let mut client = rig.connect();
    let ask = fields(&[16 + 254 * 48, 1]);
    assert_eq!(
        rig.refused(&mut client, Command::DeviceGetRegionIoFds, &ask),
        EINVAL
    );
}

/// A descriptor that went stale: the client gets an error, not silence.
#[test]
fn a_reply_with_a_closed_descriptor_becomes_an_error() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let memory = memfd(4096);
    // SAFETY: nothing is done with the number while it is closed but to send it, which fails.
    let stale = SharedFd::Borrowed(unsafe { BorrowedFd::borrow_raw(900) });
    let setup = RegionSetup {
        index: 2,
        size: 4096,
        flags: RW | 4,
        fd: Some(stale),
        ..RegionSetup::default()
    };
    rig.ctx.setup_region(setup, []).unwrap();
    let mut client = rig.connect();
    assert_eq!(
        rig.refused(
            &mut client,
            Command::DeviceGetRegionInfo,
            &fields(&[128, 2, 0, 0])
        ),
        libc::EBADF
    );
    drop(memory);
}

fn irqs(flags: u64, index: u64, start: u64, count: u32) -> Vec<u8> {
    let mut payload = fields(&[20 | flags << 32, index | start << 32]);
    payload.extend(count.to_le_bytes());
    payload
}

const MSIX: u64 = 2;

#[test]
fn interrupts_come_and_go() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let before = open_fds();
    let (a, b) = (eventfd(0), eventfd(libc::EFD_NONBLOCK));
    let handle = rig.ctx.irqs();
    assert_eq!(handle.trigger(0).unwrap_err().errno(), Errno::ENOENT);
    assert_eq!(handle.trigger(8).unwrap_err().errno().get(), EINVAL);
    rig.round_trip_fds(
        &mut client,
        Command::DeviceSetIrqs,
        &irqs(36, MSIX, 3, 2),
        &[&a, &b],
    )
    .unwrap();
    handle.trigger(3).unwrap();
    handle.trigger(3).unwrap();
    std::thread::scope(|scope| scope.spawn(|| handle.trigger(4).unwrap()).join().unwrap());
    assert_eq!((drain(&a), drain(&b)), (Some(2), Some(1)));

    // loop-back
    rig.round_trip(&mut client, Command::DeviceSetIrqs, &irqs(33, MSIX, 0, 8))
        .unwrap();
    let mut bools = irqs(34, MSIX, 3, 2);
    bools.extend([0, 1]);
    rig.round_trip(&mut client, Command::DeviceSetIrqs, &bools)
        .unwrap();
    assert_eq!((drain(&a), drain(&b)), (Some(1), Some(2)));

    // D20: a range that does not start at 0 is disabled
    rig.round_trip(&mut client, Command::DeviceSetIrqs, &irqs(36, MSIX, 4, 1))
        .unwrap();
    assert_eq!(handle.trigger(4).unwrap_err().errno(), Errno::ENOENT);
    handle.trigger(3).unwrap();
    rig.round_trip(&mut client, Command::DeviceSetIrqs, &irqs(33, MSIX, 0, 0))
        .unwrap();
    assert_eq!(handle.trigger(3).unwrap_err().errno(), Errno::ENOENT);
    assert_eq!(open_fds(), before + 2);

    rig.round_trip_fds(
        &mut client,
        Command::DeviceSetIrqs,
        &irqs(36, MSIX, 0, 1),
        &[&a],
    )
    .unwrap();
    rig.round_trip_fds(
        &mut client,
        Command::DeviceSetIrqs,
        &irqs(36, 3, 0, 1),
        &[&b],
    )
    .unwrap();
    handle.notify(IrqIndex::Err).unwrap();
    assert_eq!(drain(&b), Some(1));
    assert_eq!(
        handle.notify(IrqIndex::Req).unwrap_err().errno(),
        Errno::ENOENT
    );
    drop(client);
    rig.run().unwrap_err();
    assert_eq!(handle.trigger(0).unwrap_err().errno(), Errno::ENOENT);
    assert_eq!(open_fds(), before - 2 + 2);
}

/// D59: pipes and sockets are no eventfds, and do not stay open.
#[test]
fn other_descriptors_than_eventfds_are_refused() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let (reader, writer) = std::io::pipe().unwrap();
    let writer = OwnedFd::from(writer);
    drop(reader);
    let before = open_fds();
    let result = rig.round_trip_fds(
        &mut client,
        Command::DeviceSetIrqs,
        &irqs(36, MSIX, 0, 1),
        &[&writer],
    );
    assert_eq!(result.unwrap_err().errno(), Some(Errno::EINVAL));
    assert_eq!(open_fds(), before);
    assert_eq!(
        rig.ctx.irqs().trigger(0).unwrap_err().errno(),
        Errno::ENOENT
    );
}

#[test]
fn interrupt_requests_that_are_refused() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    let (a, b) = (eventfd(0), eventfd(0));
    let before = open_fds();
    for (payload, fds) in [
        (irqs(33, 5, 0, 1), vec![]),
        (irqs(33, 0, 0, 0), vec![]), // none configured
        (irqs(8 | 16 | 1, MSIX, 0, 1), vec![]),
        (irqs(1, MSIX, 0, 1), vec![]),
        (irqs(32, MSIX, 0, 1), vec![]),
        (irqs(32 | 3, MSIX, 0, 1), vec![]),
        (irqs(33, MSIX, 8, 1), vec![]),
        (irqs(33, MSIX, 7, 2), vec![]),
        (irqs(33, MSIX, 1, u32::MAX), vec![]),
        (irqs(9, 3, 0, 1), vec![]),
        (irqs(33, 4, 0, 2), vec![]),
        (irqs(33, MSIX, 1, 0), vec![]),
        (irqs(9, MSIX, 0, 0), vec![]),
        (irqs(33, MSIX, 0, 1), vec![&a]),
        (irqs(36, MSIX, 0, 2), vec![&a]),
        (irqs(36, MSIX, 0, 1), vec![&a, &b]),
        (irqs(34, MSIX, 0, 1), vec![]),
        (irqs(8 | 4, MSIX, 0, 1), vec![&a]),
        (irqs(33, MSIX, 0, 1)[..19].to_vec(), vec![]),
    ] {
        let result = rig.round_trip_fds(&mut client, Command::DeviceSetIrqs, &payload, &fds);
        assert_eq!(
            result.unwrap_err().errno(),
            Some(Errno::EINVAL),
            "{payload:?}"
        );
        assert_eq!(open_fds(), before);
    }
    assert!(rig.device.take().is_empty());
}

#[test]
fn masks_reach_the_device() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    rig.round_trip(&mut client, Command::DeviceSetIrqs, &irqs(9, MSIX, 2, 3))
        .unwrap();
    rig.round_trip(&mut client, Command::DeviceSetIrqs, &irqs(17, MSIX, 0, 8))
        .unwrap();
    let mut bools = irqs(10, MSIX, 4, 3);
    bools.extend([1, 0, 1]); // D21
    rig.round_trip(&mut client, Command::DeviceSetIrqs, &bools)
        .unwrap();
    let state = |start, count, masked| Event::IrqState(IrqIndex::Msix, start, count, masked);
    assert_eq!(
        rig.device.take(),
        [
            state(2, 3, true),
            state(0, 8, false),
            state(4, 1, true),
            state(6, 1, true)
        ]
    );
}

/// D11, D87.
#[test]
fn interrupt_counts() {
    let mut rig = Rig::new(Mode::NonBlocking);
    assert_eq!(
        rig.ctx
            .set_irq_count(IrqIndex::Err, 2)
            .unwrap_err()
            .errno()
            .get(),
        EINVAL
    );
    rig.ctx.set_irq_count(IrqIndex::Msix, 100).unwrap(); // after realize: the table grows
    let mut client = rig.connect();
    let event = eventfd(0);
    rig.round_trip_fds(
        &mut client,
        Command::DeviceSetIrqs,
        &irqs(36, MSIX, 99, 1),
        &[&event],
    )
    .unwrap();
    rig.ctx.irqs().trigger(99).unwrap();
    assert_eq!(drain(&event), Some(1));
    let reply = rig
        .round_trip(&mut client, Command::DeviceGetIrqInfo, &fields(&[16, 2]))
        .unwrap();
    assert_eq!(reply, fields(&[16 | 1 << 32, 2 | 100 << 32]));
    for bad in [fields(&[16, 5]), fields(&[8, 2]), fields(&[16])] {
        assert_eq!(
            rig.refused(&mut client, Command::DeviceGetIrqInfo, &bad),
            EINVAL
        );
    }
}

const MAP: [u64; 4] = [32 | 3 << 32, 0, 0x1000, 0x1000];

#[test]
fn quiesce_now_later_and_never() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    assert_eq!(
        rig.ctx
            .device_quiesced(&mut rig.device, Ok(()))
            .unwrap_err()
            .errno()
            .get(),
        EINVAL
    );
    rig.device.quiesce = vec![
        Err(Errno::new(libc::ENOTTY)),
        Err(Errno::EBUSY),
        Ok(Quiesce::Pending),
        Ok(Quiesce::Done),
    ];
    let ticket = client.send(Command::DmaMap, &fields(&MAP), &[]).unwrap();
    assert_eq!(rig.run().unwrap().requests, 0);
    assert_eq!(
        client.receive(ticket).unwrap_err().errno().unwrap().get(),
        libc::ENOTTY
    );

    // D4: a quiesce that fails later fails the request, with an answer
    let ticket = client.send(Command::DmaMap, &fields(&MAP), &[]).unwrap();
    assert_eq!(rig.run().unwrap_err().errno(), Errno::EBUSY);
    assert!(rig.ctx.is_quiescing());
    let served = rig
        .ctx
        .device_quiesced(&mut rig.device, Err(Errno::new(libc::ENOTTY)))
        .unwrap();
    assert_eq!(served.failed.unwrap().get(), libc::ENOTTY);
    assert_eq!(
        client.receive(ticket).unwrap_err().errno().unwrap().get(),
        libc::ENOTTY
    );

    let ticket = client.send(Command::DmaMap, &fields(&MAP), &[]).unwrap();
    assert_eq!(rig.run().unwrap_err().errno(), Errno::EBUSY);
    assert_eq!(
        rig.ctx
            .device_quiesced(&mut rig.device, Ok(()))
            .unwrap()
            .requests,
        1
    );
    client.receive(ticket).unwrap();
    rig.unmap(&mut client, 0x1000, 0x1000).unwrap();
    let quiesce = Event::Quiesce;
    assert_eq!(
        rig.device.take(),
        [
            quiesce.clone(),
            quiesce.clone(),
            quiesce.clone(),
            Event::Register(0x1000, 0x1000),
            quiesce,
            Event::Unregister(0x1000, 0x1000)
        ]
    );
}

#[test]
fn a_lost_connection_waits_for_the_quiesce_once() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    rig.map(&mut client, 0, 0x1000, None).unwrap();
    rig.map(&mut client, 0x5000, 0x1000, None).unwrap();
    rig.device.take();
    rig.device.quiesce = vec![Ok(Quiesce::Pending)];
    drop(client);
    for _ in 0..3 {
        assert_eq!(rig.run().unwrap_err().errno(), Errno::EBUSY);
    }
    assert_eq!(rig.device.take(), [Event::Quiesce]);
    let _ = rig.ctx.device_quiesced(&mut rig.device, Ok(())).unwrap();
    let gone = [
        Event::Unregister(0, 0x1000),
        Event::Unregister(0x5000, 0x1000),
        Event::Reset(ResetKind::LostConnection),
    ];
    assert_eq!(rig.device.take(), gone);
    assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
}

#[test]
fn a_client_that_goes_while_a_callback_runs() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let client = rig.connect();
    let mut client = Some(client);
    let _ = client
        .as_mut()
        .unwrap()
        .send(Command::DmaMap, &fields(&MAP), &[])
        .unwrap();
    rig.device.hook = Some(Box::new(move |_, _| {
        drop(client.take());
        Ok(())
    }));
    assert_eq!(rig.run().unwrap().requests, 1);
    let lost = Event::Reset(ResetKind::LostConnection);
    let map = (0x1000, 0x1000);
    assert_eq!(
        rig.device.take(),
        [
            Event::Quiesce,
            Event::Register(map.0, map.1),
            Event::Quiesce,
            Event::Unregister(map.0, map.1),
            lost
        ]
    );
    assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
}

#[test]
fn resets() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    rig.round_trip(&mut client, Command::DeviceReset, &[])
        .unwrap();
    rig.round_trip(&mut client, Command::DeviceReset, &[1, 2, 3])
        .unwrap();
    rig.device.hook = Some(Box::new(|_, _| Err(Errno::EIO)));
    assert_eq!(
        rig.refused(&mut client, Command::DeviceReset, &[]),
        libc::EIO
    );
    assert!(rig.logged(Level::Info, "resets"));
    let reset = [Event::Quiesce, Event::Reset(ResetKind::Device)];
    assert_eq!(
        rig.device.take(),
        [reset.clone(), reset.clone(), reset].concat()
    );
}

/// D5: a callback that fails without an error number fails all the same.
#[test]
fn failures_without_a_number_are_failures() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    for raw in [0, -5] {
        rig.device.hook = Some(Box::new(move |_, _| Err(Errno::new(raw))));
        assert_eq!(
            rig.refused(&mut client, Command::DeviceReset, &[]),
            EINVAL,
            "{raw}"
        );
    }
}

/// D66: no more descriptors than the client said it takes.
#[test]
fn clients_get_no_more_descriptors_than_they_take() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let memory = memfd(0x1000);
    let setup = RegionSetup {
        index: 2,
        size: 0x1000,
        flags: RW | 4,
        fd: Some(shared(&memory)),
        ..RegionSetup::default()
    };
    rig.ctx.setup_region(setup, []).unwrap();
    let fds = [eventfd(0), eventfd(0)];
    for (offset, fd) in (0..).zip(&fds) {
        let event = IoEventFd {
            region: 2,
            fd: Some(shared(fd)),
            offset,
            size: 1,
            flags: 0,
            datamatch: 0,
            shadow: None,
            shadow_offset: 0,
        };
        rig.ctx.create_ioeventfd(event).unwrap();
    }
    for (most, good) in [(0, false), (1, false), (2, true)] {
        let mut client =
            rig.connect_with(&Hello::with(&format!("\"max_msg_fds\":{most}")), NoMemory);
        let ask = fields(&[16 + 2 * 48, 2]);
        let result = rig.round_trip(&mut client, Command::DeviceGetRegionIoFds, &ask);
        assert_eq!(result.is_ok(), good, "{most}");
        let ticket = client
            .send(Command::DeviceGetRegionInfo, &fields(&[64, 2, 0, 0]), &[])
            .unwrap();
        rig.run().unwrap();
        assert_eq!(
            client.receive(ticket).unwrap().fds.len(),
            usize::from(most > 0)
        );
        drop(client);
        rig.run().unwrap_err();
    }
}

#[test]
fn configuration_space_and_function_level_reset() {
    let mut rig = Rig::bare(Mode::NonBlocking);
    rig.ctx.pci_init(3, 0, 0).unwrap();
    rig.ctx.pci_set_id(0x1234, 0x5678, 1, 2);
    let mut express = [0; 60];
    express[0] = 0x10;
    express[4..8].copy_from_slice(&(1_u32 << 28).to_le_bytes());
    let at = rig.ctx.pci_add_capability(0, 0, &express[..]).unwrap() as u64;
    rig.ctx.realize().unwrap();
    let mut client = rig.connect();
    let config = CONFIG as u32;
    let reply = rig
        .round_trip(&mut client, Command::RegionRead, &access(config, 0, 4))
        .unwrap();
    assert_eq!(reply[16..], [0x34, 0x12, 0x78, 0x56]);
    rig.round_trip(
        &mut client,
        Command::RegionWrite,
        &write(config, at + 8, &[0, 0x80]),
    )
    .unwrap();
    assert_eq!(
        rig.device.take(),
        [Event::Quiesce, Event::Reset(ResetKind::FunctionLevel)]
    );
    rig.round_trip(
        &mut client,
        Command::RegionWrite,
        &write(config, 4, &[2, 0]),
    )
    .unwrap();
    assert!(rig.device.take().is_empty());
    assert_eq!(
        rig.refused(
            &mut client,
            Command::RegionWrite,
            &write(config, 0, &[0; 4])
        ),
        EINVAL
    );
    let mut id = [0; 2];
    rig.ctx.config_read(0, &mut id);
    assert_eq!(id, [0x34, 0x12]);
}

/// Calls that a callback must not make are refused; all others work, whatever is being served.
#[test]
fn callbacks_may_call_anything() {
    let mut rig = Rig::new(Mode::NonBlocking);
    let mut client = rig.connect();
    rig.device.hook = Some(Box::new(|ctx, _| {
        let mut other = rig::Recorder::default();
        assert_eq!(ctx.run(&mut other).unwrap_err().errno(), Errno::EBUSY);
        assert_eq!(ctx.attach().unwrap_err().errno(), Errno::EBUSY);
        assert_eq!(ctx.shutdown(&mut other).unwrap_err().errno(), Errno::EBUSY);
        assert_eq!(
            ctx.device_quiesced(&mut other, Ok(()))
                .unwrap_err()
                .errno()
                .get(),
            EINVAL
        );
        assert!(ctx.is_serving() && ctx.is_attached() && !ctx.is_quiescing());
        let setup = RegionSetup {
            index: 4,
            size: 64,
            flags: RW | 4,
            callback: true,
            ..RegionSetup::default()
        };
        ctx.setup_region(setup, []).unwrap();
        ctx.setup_migration();
        ctx.set_irq_count(IrqIndex::Msi, 4).unwrap();
        ctx.pci_set_class(1, 2, 3);
        assert!(ctx.pci_find_capability(false, 0, 1).is_err());
        assert!(ctx.poll_fd().is_some() && ctx.dma().is_some());
        ctx.set_log(None, Level::Error);
        Ok(())
    }));
    rig.round_trip(&mut client, Command::RegionRead, &access(BAR, 0, 1))
        .unwrap();
    rig.device.hook = None;
    rig.round_trip(&mut client, Command::RegionRead, &access(4, 0, 64))
        .unwrap();
}

#[test]
fn pipes() {
    use std::io::{Read as _, Write as _};
    let (server_in, mut client_out) = std::io::pipe().unwrap();
    let (mut client_in, server_out) = std::io::pipe().unwrap();
    let ctx = Context::pipe(
        OwnedFd::from(server_in).into(),
        OwnedFd::from(server_out).into(),
        Mode::NonBlocking,
    )
    .unwrap();
    assert_eq!(ctx.poll_fd(), None);
    ctx.realize().unwrap();
    assert_eq!(ctx.attach().unwrap_err().errno().get(), libc::EAGAIN);
    client_out
        .write_all(&rig::message(1, Command::Version, 0, &[0, 0, 1, 0]))
        .unwrap();
    ctx.attach().unwrap();
    client_out
        .write_all(&rig::message(
            2,
            Command::DeviceGetInfo,
            0,
            &fields(&[16, 0]),
        ))
        .unwrap();
    assert_eq!(ctx.run(&mut rig::Recorder::default()).unwrap().requests, 1);
    let mut bytes = [0; 512];
    let mut count = 0;
    while count < 16 || count < u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize + 32 {
        count += client_in.read(&mut bytes[count..]).unwrap();
    }
    let version = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize; // D48: the size is filled in
    assert_eq!(count, version + 32);
    drop(client_out);
    assert_eq!(
        ctx.run(&mut rig::Recorder::default()).unwrap_err().errno(),
        Errno::ENOTCONN
    );
}

#[test]
fn two_clients_one_after_the_other() {
    let mut rig = Rig::new(Mode::NonBlocking);
    for _ in 0..3 {
        let mut client: Client = rig.connect_with(&Hello::default(), NoMemory);
        rig.map(&mut client, 0, 0x1000, None).unwrap();
        drop(client);
        assert_eq!(rig.run().unwrap_err().errno(), Errno::ENOTCONN);
        assert!(rig.ctx.dma().unwrap().is_empty());
    }
}
