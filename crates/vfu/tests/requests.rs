//! Requests for information, accesses to regions, ioeventfds and configuration space, one thread being client and server by turns.

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

use rig::{BAR, BAR_SIZE, Event, RW, Rig, access, eventfd, fields, memfd, write};
use vfu::client::{Hello, NoMemory};
use vfu::pci::region::CONFIG;
use vfu::wire::Command;
use vfu::{
    Context, Errno, IoEventFd, MmapArea, Mode, RegionFlags, RegionSetup, ResetKind, SharedFd,
};

const EINVAL: i32 = libc::EINVAL;

fn shared(fd: &OwnedFd) -> SharedFd {
    // SAFETY: the tests keep the descriptor open for longer than the context.
    SharedFd::Borrowed(unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) })
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
