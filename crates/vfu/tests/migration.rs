//! Migration states and data, dirty page logging, and what a device that stands still may be asked.
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

use rig::{BAR, Event, Rig, access, fields, memfd, write};
use vfu::client::{Client, Hello, NoMemory};
use vfu::wire::Command;
use vfu::{Errno, MigrationState, Mode};

const EINVAL: i32 = libc::EINVAL;
const GET: u64 = 1 << 16;
const SET: u64 = 1 << 17;
const PROBE: u64 = 1 << 18;

fn rig() -> Rig {
    let rig = Rig::new(Mode::NonBlocking);
    rig.ctx.setup_migration();
    rig
}

fn feature(argsz: u64, flags: u64, data: &[u64]) -> Vec<u8> {
    fields(&[&[argsz | flags << 32][..], data].concat())
}

fn set_state(state: u64) -> Vec<u8> {
    feature(16, SET | 2, &[state])
}

#[test]
fn states_are_walked_step_by_step() {
    let mut rig = rig();
    let mut client = rig.connect();
    rig.round_trip(&mut client, Command::DeviceFeature, &set_state(3))
        .unwrap();
    assert_eq!(
        rig.device.take(),
        [
            Event::Quiesce,
            Event::Transition(MigrationState::Stop),
            Event::Transition(MigrationState::StopCopy)
        ]
    );
    let reply = rig
        .round_trip(
            &mut client,
            Command::DeviceFeature,
            &feature(16, GET | 2, &[]),
        )
        .unwrap();
    assert_eq!(reply, feature(16, GET | 2, &[3]));
    for unreachable in [0, 5, 6, 7, 8, 0xabcd] {
        assert_eq!(
            rig.refused(&mut client, Command::DeviceFeature, &set_state(unreachable)),
            EINVAL
        );
    }
    rig.round_trip(&mut client, Command::DeviceFeature, &set_state(3))
        .unwrap();
    assert!(
        rig.device
            .take()
            .iter()
            .all(|event| *event == Event::Quiesce)
    );
    // a step that fails ends the walk where it is
    rig.device.hook = Some(Box::new(|_, event| match event {
        Event::Transition(MigrationState::Running) => Err(Errno::new(0xbeef)),
        _ => Ok(()),
    }));
    assert_eq!(
        rig.refused(&mut client, Command::DeviceFeature, &set_state(2)),
        0xbeef
    );
    assert_eq!(rig.ctx.migration_state(), Some(MigrationState::Stop));
}

#[test]
fn features_that_are_refused() {
    let mut rig = rig();
    let mut client = rig.connect();
    for bad in [
        feature(16, GET | 1, &[0])[..7].to_vec(),
        feature(16, 1, &[]),
        feature(16, SET | 1, &[0]),
        feature(8, GET | 1, &[]),
        feature(8, GET | 2, &[]),
        feature(8, SET | 2, &[4]),
        feature(2, PROBE | 1, &[]),
        feature(16, PROBE | GET | SET | 1, &[]),
        feature(16, GET | SET | 2, &[4]),
        feature(64, GET | 3, &[]),
        feature(64, GET | 6, &[0, 0]),
        // D6: structures that are not there
        feature(8, SET | 2, &[]),
        feature(8, SET | 6, &[]),
        feature(64, GET | 8, &[]),
        feature(64, GET | 8, &[0, 0]),
    ] {
        assert_eq!(
            rig.refused(&mut client, Command::DeviceFeature, &bad),
            EINVAL,
            "{bad:?}"
        );
    }
    for good in [PROBE | 1, PROBE | GET | 2, PROBE | SET | 6, PROBE | 8] {
        let probe = feature(24, good, &[1, 2]);
        assert_eq!(
            rig.round_trip(&mut client, Command::DeviceFeature, &probe)
                .unwrap(),
            probe
        );
    }
    let reply = rig
        .round_trip(
            &mut client,
            Command::DeviceFeature,
            &feature(16, GET | 1, &[]),
        )
        .unwrap();
    assert_eq!(reply, feature(16, GET | 1, &[5]));
}

/// D19: only what changes something asks the device to be quiet.
#[test]
fn questions_do_not_quiesce() {
    let mut rig = rig();
    let mut client = rig.connect();
    rig.round_trip(
        &mut client,
        Command::DeviceFeature,
        &feature(16, GET | 2, &[]),
    )
    .unwrap();
    rig.round_trip(
        &mut client,
        Command::DeviceFeature,
        &feature(16, PROBE | SET | 2, &[4]),
    )
    .unwrap();
    assert!(rig.device.take().is_empty());
}

/// D36: a device that stands still can be looked at, reset and unmapped; and a new client finds it running.
#[test]
fn what_a_stopped_device_may_be_asked() {
    let mut rig = rig();
    let mut client = rig.connect();
    rig.map(&mut client, 0x1000, 0x1000, None).unwrap();
    rig.round_trip(&mut client, Command::DeviceFeature, &set_state(1))
        .unwrap();
    rig.round_trip(&mut client, Command::RegionRead, &access(BAR, 0, 1))
        .unwrap();
    rig.round_trip(&mut client, Command::DeviceGetInfo, &fields(&[16, 0]))
        .unwrap();
    rig.unmap(&mut client, 0x1000, 0x1000).unwrap();
    rig.round_trip(&mut client, Command::DeviceReset, &[])
        .unwrap();
    assert_eq!(rig.ctx.migration_state(), Some(MigrationState::Stop)); // a reset keeps the state
    assert_eq!(
        rig.map(&mut client, 0, 0x1000, None).unwrap_err().errno(),
        Some(Errno::EINVAL)
    );
    rig.round_trip(&mut client, Command::DeviceFeature, &set_state(3))
        .unwrap();
    assert_eq!(
        rig.refused(&mut client, Command::RegionRead, &access(BAR, 0, 1)),
        EINVAL
    );
    assert_eq!(
        rig.refused(&mut client, Command::RegionWrite, &write(BAR, 0, &[1])),
        EINVAL
    );
    drop(client);
    rig.run().unwrap_err();
    let mut client = rig.connect();
    assert_eq!(rig.ctx.migration_state(), Some(MigrationState::Running));
    rig.round_trip(&mut client, Command::RegionRead, &access(BAR, 0, 1))
        .unwrap();
}

#[test]
fn data_moves_in_the_right_states_only() {
    let mut rig = rig();
    let mut client: Client = rig.connect_with(&Hello::with("\"max_data_xfer_size\":16"), NoMemory);
    let read = |size: u64| fields(&[(size + 8) | size << 32]);
    let put = |data: &[u8]| {
        [
            fields(&[(data.len() as u64 + 8) | (data.len() as u64) << 32]),
            data.to_vec(),
        ]
        .concat()
    };
    assert_eq!(
        rig.refused(&mut client, Command::MigDataRead, &read(4)),
        EINVAL
    );
    assert_eq!(
        rig.refused(&mut client, Command::MigDataWrite, &put(&[1])),
        EINVAL
    );
    rig.device.migration_out = vec![1, 2, 3, 4, 5];
    rig.round_trip(&mut client, Command::DeviceFeature, &set_state(6))
        .unwrap();
    let reply = rig
        .round_trip(&mut client, Command::MigDataRead, &read(4))
        .unwrap();
    assert_eq!(
        reply,
        [&fields(&[12 | 4 << 32])[..], &[1, 2, 3, 4]].concat()
    );
    // as long as asked for also when there is less, and nothing of the request behind its 8 bytes counts (D63)
    let long = [&read(4)[..], &[9; 100]].concat();
    let reply = rig
        .round_trip(&mut client, Command::MigDataRead, &long)
        .unwrap();
    assert_eq!(reply, [&fields(&[9 | 1 << 32])[..], &[5, 0, 0, 0]].concat());
    assert_eq!(
        rig.refused(&mut client, Command::MigDataRead, &read(17)),
        EINVAL
    );
    assert_eq!(
        rig.refused(&mut client, Command::MigDataRead, &read(4)[..7]),
        EINVAL
    );
    rig.round_trip(&mut client, Command::DeviceFeature, &set_state(4))
        .unwrap();
    assert!(
        rig.round_trip(&mut client, Command::MigDataWrite, &put(&[7, 8]))
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        rig.refused(&mut client, Command::MigDataWrite, &put(&[7, 8])[..9]),
        EINVAL
    );
    assert_eq!(
        rig.refused(&mut client, Command::MigDataWrite, &put(&[0; 17])),
        EINVAL
    );
    assert_eq!(rig.device.migration_in, [7, 8]);
}

/// D63: a device that says it gave more than it was asked for.
#[test]
fn more_data_than_asked_for_is_an_error() {
    struct Generous;
    impl vfu::Device for Generous {
        fn migration_transition(
            &mut self,
            _: &vfu::Context,
            _: MigrationState,
        ) -> Result<(), Errno> {
            Ok(())
        }
        fn migration_read(&mut self, _: &vfu::Context, data: &mut [u8]) -> Result<usize, Errno> {
            Ok(data.len() + 1)
        }
    }
    let rig = rig();
    let mut client = rig.connect();
    let mut ask = |command, payload: &[u8]| {
        let ticket = client.send(command, payload, &[]).unwrap();
        rig.ctx.run(&mut Generous).unwrap();
        client.receive(ticket)
    };
    ask(Command::DeviceFeature, &set_state(6)).unwrap();
    let error = ask(Command::MigDataRead, &fields(&[12 | 4 << 32])).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EINVAL));
}

#[test]
fn dirty_pages() {
    let mut rig = rig();
    let mut client = rig.connect();
    let memory = memfd(0x20000);
    rig.map(&mut client, 0x10_0000, 0x20000, Some(&memory))
        .unwrap();
    rig.map(&mut client, 0x20_0000, 0x10000, None).unwrap();
    let report = |iova, length, page: u64| feature(8 + 24 + 8, GET | 8, &[iova, length, page]);
    assert_eq!(
        rig.refused(
            &mut client,
            Command::DeviceFeature,
            &report(0x10_0000, 0x20000, 4096)
        ),
        EINVAL
    );
    for bad in [0, 1, 3000, 1 << 63] {
        // D61
        assert_eq!(
            rig.refused(
                &mut client,
                Command::DeviceFeature,
                &feature(24, SET | 6, &[bad, 0])
            ),
            EINVAL,
            "{bad}"
        );
    }
    rig.round_trip(
        &mut client,
        Command::DeviceFeature,
        &feature(24, SET | 6, &[4096, 0]),
    )
    .unwrap();
    rig.ctx.write_client(0x10_1fff, &[1, 2]).unwrap();
    let reply = rig
        .round_trip(
            &mut client,
            Command::DeviceFeature,
            &report(0x10_0000, 0x20000, 4096),
        )
        .unwrap();
    assert_eq!(
        reply,
        feature(40, GET | 8, &[0x10_0000, 0x20000, 4096, 0b110])
    );
    let reply = rig
        .round_trip(
            &mut client,
            Command::DeviceFeature,
            &report(0x10_0000, 0x20000, 4096),
        )
        .unwrap();
    assert_eq!(reply[32..], [0; 8]);
    for (range, errno) in [
        ((0x50_0000, 0x1000), libc::ENOENT),
        ((0x20_0000, 0x10000), EINVAL),
        ((0x10_0000, 0x100), EINVAL),
    ] {
        let request = report(range.0, range.1, 4096);
        assert_eq!(
            rig.refused(&mut client, Command::DeviceFeature, &request),
            errno,
            "{range:x?}"
        );
    }
    // D62: nothing is allocated for what cannot be answered
    let huge = feature(u64::from(u32::MAX), GET | 8, &[0x10_0000, 1 << 50, 4096]);
    assert_eq!(
        rig.refused(&mut client, Command::DeviceFeature, &huge),
        EINVAL
    );

    // D57: an unmap with bitmap
    rig.ctx.write_client(0x10_0000, &[1]).unwrap();
    let unmap = |page: u64, bitmap: u64| {
        fields(&[(40 + bitmap) | 1 << 32, 0x10_0000, 0x20000, page, bitmap])
    };
    assert_eq!(
        rig.refused(&mut client, Command::DmaUnmap, &unmap(4096, 16)),
        EINVAL
    );
    let reply = rig
        .round_trip(&mut client, Command::DmaUnmap, &unmap(2048, 8))
        .unwrap();
    assert_eq!(reply, [unmap(2048, 8), fields(&[0b11])].concat());
    assert_eq!(
        rig.refused(
            &mut client,
            Command::DeviceFeature,
            &report(0x10_0000, 0x20000, 4096)
        ),
        libc::ENOENT
    );

    // D37: logging ends with the connection
    drop(client);
    rig.run().unwrap_err();
    assert_eq!(rig.ctx.dma().unwrap().logging_page_size(), None);
    let mut client = rig.connect();
    rig.round_trip(
        &mut client,
        Command::DeviceFeature,
        &feature(24, SET | 6, &[8192, 0]),
    )
    .unwrap();
    rig.round_trip(
        &mut client,
        Command::DeviceFeature,
        &feature(8, SET | 7, &[]),
    )
    .unwrap();
}

/// D7: a device that can be migrated and uses no client memory.
#[test]
fn logging_without_client_memory() {
    let mut rig = Rig::bare(Mode::NonBlocking);
    rig.ctx.setup_migration();
    rig.ctx.realize().unwrap();
    let mut client = rig.connect();
    assert_eq!(
        rig.refused(
            &mut client,
            Command::DeviceFeature,
            &feature(24, SET | 6, &[4096, 0])
        ),
        EINVAL
    );
    assert_eq!(
        rig.refused(
            &mut client,
            Command::DeviceFeature,
            &feature(40, GET | 8, &[0, 4096, 4096])
        ),
        EINVAL
    );
    rig.round_trip(
        &mut client,
        Command::DeviceFeature,
        &feature(8, SET | 7, &[]),
    )
    .unwrap();
}

/// A device with state moves from one server to another, through the client's own calls.
#[test]
fn a_device_moves() {
    let mut source = rig();
    source.device.migration_out = (0..=255).cycle().take(10_000).collect();
    let expected = source.device.migration_out.clone();
    let mut target = Rig::second(Mode::NonBlocking);
    target.ctx.setup_migration();
    target.ctx.realize().unwrap();
    let (from, to) = (source.connect(), target.connect());
    let mover = std::thread::spawn(move || {
        let (mut from, mut to) = (from, to);
        from.set_migration_state(MigrationState::PreCopy).unwrap();
        to.set_migration_state(MigrationState::Resume).unwrap();
        from.set_migration_state(MigrationState::StopCopy).unwrap();
        loop {
            let data = from.migration_read(1000).unwrap();
            if data.is_empty() {
                break;
            }
            to.migration_write(&data).unwrap();
        }
        to.set_migration_state(MigrationState::Running).unwrap();
        assert_eq!(
            to.migration_state().unwrap(),
            MigrationState::Running.to_wire()
        );
    });
    while source.run().is_ok() | target.run().is_ok() {}
    mover.join().unwrap();
    assert_eq!(target.device.migration_in, expected);
}
