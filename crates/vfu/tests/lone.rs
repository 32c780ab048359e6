//! A request that comes alone and whole is served in one pass (`session/lone.rs`). Here every kind of request is sent both
//! so and in two pieces, which goes the ordinary way: what can be seen of the two must be the same.
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

use std::cell::RefCell;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rig::{BAR, BAR_SIZE, Event, Rig, access, fields, message, write};
use vfu::client::Client;
use vfu::pci::region::CONFIG;
use vfu::wire::{Command, Header, NO_REPLY};
use vfu::{Errno, IrqIndex, MigrationState, Mode, Quiesce, RegionSetup};

/// All that can be seen of a request: what the run returns, the replies, the device's events, the log.
type Seen = Vec<String>;

/// How the device is before the request, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Device {
    /// Nothing special.
    Plain,
    /// Callbacks fail with ENOSPC.
    Fails,
    /// It has to be waited for.
    QuiescesLater,
    /// It cannot be made quiet.
    RefusesToQuiesce,
    /// Stands still, for migration.
    Stopped,
    /// The same, and its state is copied.
    Copied,
    /// Asks the client for memory, behind a request that crosses the answer.
    UsesMemory,
}

const MARKER: u16 = 0xfffe;

fn rig(device: Device) -> Rig {
    let rig = Rig::bare(Mode::NonBlocking);
    rig.ctx.pci_init(3, 0, 0).unwrap();
    rig.bar(BAR, BAR_SIZE);
    let silent = RegionSetup {
        index: 2,
        size: 0x1000,
        flags: 7,
        ..RegionSetup::default()
    };
    rig.ctx.setup_region(silent, []).unwrap();
    rig.ctx.set_irq_count(IrqIndex::Msix, 8).unwrap();
    rig.ctx.setup_dma(64).unwrap();
    if matches!(device, Device::Stopped | Device::Copied) {
        rig.ctx.setup_migration();
    }
    rig.ctx.realize().unwrap();
    rig
}

fn set_state(rig: &mut Rig, client: &mut Client, state: MigrationState) {
    let payload = fields(&[16 | (2 | 1 << 17) << 32, u64::from(state.to_wire())]);
    rig.round_trip(client, Command::DeviceFeature, &payload)
        .unwrap();
}

/// Gets a device ready. Afterwards the next request that comes alone is served in one pass.
fn prepare(device: Device) -> (Rig, Client) {
    let mut rig = rig(device);
    let mut client = rig.connect();
    match device {
        Device::Stopped => set_state(&mut rig, &mut client, MigrationState::Stop),
        Device::Copied => {
            set_state(&mut rig, &mut client, MigrationState::Stop);
            set_state(&mut rig, &mut client, MigrationState::StopCopy);
        }
        Device::UsesMemory => rig.map(&mut client, 0, 0x1000, None).unwrap(),
        _ => rig
            .round_trip(&mut client, Command::RegionRead, &access(BAR, 0, 1))
            .map(|_| ())
            .unwrap(),
    }
    rig.device.take();
    rig.lines.lock().unwrap().clear();
    match device {
        Device::Fails => rig.device.hook = Some(Box::new(|_, _| Err(Errno::new(libc::ENOSPC)))),
        Device::QuiescesLater => rig.device.quiesce = vec![Ok(Quiesce::Pending)],
        Device::RefusesToQuiesce => rig.device.quiesce = vec![Err(Errno::EIO)],
        Device::UsesMemory => {
            let crossing = message(5, Command::RegionRead, 0, &access(BAR, 9, 1));
            let answer = Header {
                id: 1,
                command: Command::DmaRead as u16,
                size: 36,
                flags: 1,
                error: 0,
            };
            let answer = [&answer.encode()[..], &fields(&[0x10, 4]), &[1, 2, 3, 4]].concat();
            let stream = RefCell::new(Some([crossing, answer].concat()));
            let raw = client.as_fd().try_clone_to_owned().unwrap();
            rig.device.hook = Some(Box::new(move |ctx, event| {
                if let (Event::Read(..), Some(bytes)) = (event, stream.borrow_mut().take()) {
                    let mut socket = UnixStream::from(raw.try_clone().unwrap());
                    socket.write_all(&bytes).unwrap();
                    let mut data = [0; 4];
                    ctx.read_client(0x10, &mut data).unwrap();
                    assert_eq!(data, [1, 2, 3, 4]);
                }
                Ok(())
            }));
        }
        Device::Plain | Device::Stopped | Device::Copied => {}
    }
    (rig, client)
}

/// Sends `bytes` in pieces that end at `cuts`, with a run after each, and a request behind them whose reply is the last.
fn see(device: Device, bytes: &[u8], cuts: &[usize]) -> Seen {
    let (mut rig, mut client) = prepare(device);
    let mut seen = Seen::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        client.send_raw(&bytes[start..end], &[]).unwrap();
        start = end;
        let result = rig.run();
        if end < bytes.len() {
            assert_eq!(result.unwrap().requests, 0);
        } else {
            seen.push(format!("{result:?}"));
        }
    }
    if rig.ctx.is_quiescing() {
        let result = rig.ctx.device_quiesced(&mut rig.device, Ok(()));
        seen.push(format!("quiesced: {result:?}"));
    }
    let marker = message(MARKER, Command::RegionRead, 0, &access(BAR, 0, 1));
    if client.send_raw(&marker, &[]).is_ok() {
        let served = rig.run();
        seen.push(format!("behind it: {served:?}"));
    }
    seen.extend(rig.device.take().iter().map(|event| format!("{event:?}")));
    for line in &*rig.lines.lock().unwrap() {
        seen.push(format!("{line:?}"));
    }
    drop(rig); // so that receiving ends
    while let Ok(reply) = client.receive_any() {
        seen.push(format!("{:?} {:?}", reply.header, reply.payload));
    }
    seen
}

fn same_both_ways(device: Device, bytes: &[u8]) {
    let whole = see(device, bytes, &[]);
    for cut in [15, bytes.len() - 1] {
        let pieces = see(device, bytes, &[cut]);
        assert_eq!(whole, pieces, "{device:?}, {bytes:?}, cut at {cut}");
    }
}

fn numbered(command: u16, flags: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = message(7, Command::RegionRead, flags, payload);
    bytes[2..4].copy_from_slice(&command.to_le_bytes());
    bytes
}

const DEVICES: [Device; 6] = [
    Device::Plain,
    Device::Fails,
    Device::QuiescesLater,
    Device::RefusesToQuiesce,
    Device::Stopped,
    Device::Copied,
];

#[test]
fn accesses_to_regions() {
    let places = [
        (BAR, 0x10, 4),
        (BAR, 0, 0),
        (BAR, BAR_SIZE - 4, 4),
        (BAR, BAR_SIZE - 3, 4),
        (BAR, BAR_SIZE, 0),
        (BAR, u64::MAX - 1, 4),
        (BAR, 0, (1 << 20) + 1),
        (2, 0, 4), // no callback
        (3, 0, 1), // no size
        (9, 0, 1), // no region
        (u32::MAX, 0, 1),
        (CONFIG as u32, 0, 4),
        (CONFIG as u32, 4, 2), // the command register
        (CONFIG as u32, 0x10, 4),
        (CONFIG as u32, 0xfe, 4),
    ];
    for device in DEVICES {
        for (region, offset, count) in places {
            let read = access(region, offset, count);
            let data = vec![0xff; count.min(8) as usize];
            let mut written = write(region, offset, &data);
            written[12..16].copy_from_slice(&count.to_le_bytes());
            for flags in [0, NO_REPLY] {
                let read = numbered(Command::RegionRead as u16, flags, &read);
                same_both_ways(device, &read);
                let written = numbered(Command::RegionWrite as u16, flags, &written);
                same_both_ways(device, &written);
            }
        }
    }
}

#[test]
fn all_commands_with_all_flags() {
    let info = fields(&[32, 0, 0, 0]);
    let unmap = fields(&[24, 0, 0x1000]);
    for device in [Device::Plain, Device::QuiescesLater, Device::Stopped] {
        for command in 0..=20 {
            for payload in [&[][..], &info[..4], &info[..16], &info, &unmap] {
                same_both_ways(device, &numbered(command, 0, payload));
            }
            for flags in [1, 2, 0x0f, 0x10, 0x20, 0x30, 0xffff_fff0, u32::MAX] {
                same_both_ways(device, &numbered(command, flags, &info));
            }
        }
    }
}

#[test]
fn sizes_that_cannot_be() {
    for size in [0_u32, 15, (1 << 20) + 33, u32::MAX] {
        let mut bytes = numbered(Command::RegionRead as u16, 0, &access(BAR, 0, 4));
        bytes[4..8].copy_from_slice(&size.to_le_bytes());
        let whole = see(Device::Plain, &bytes, &[]);
        let pieces = see(Device::Plain, &bytes, &[10]);
        assert_eq!(whole, pieces, "{size}");
    }
}

#[test]
fn two_requests_and_one_and_a_half() {
    let one = message(1, Command::RegionRead, 0, &access(BAR, 1, 3));
    let two = message(2, Command::RegionWrite, 0, &write(BAR, 2, &[7; 5]));
    let (mut rig, mut client) = prepare(Device::Plain);
    for cut in 0..=two.len() {
        client
            .send_raw(&[&one[..], &two[..cut]].concat(), &[])
            .unwrap();
        let first = rig.run().unwrap().requests;
        client.send_raw(&two[cut..], &[]).unwrap();
        let second = rig.run().unwrap().requests;
        let all_at_once = usize::from(cut == two.len());
        assert_eq!((first, second), (1 + all_at_once, 1 - all_at_once), "{cut}");
        let ids = [(); 2].map(|()| client.receive_any().unwrap().header.id);
        assert_eq!(ids, [1, 2]);
        let events = rig.device.take();
        assert_eq!(events[0], Event::Read(BAR, 1, 3));
        assert_eq!(events[1], Event::Write(BAR, 2, vec![7; 5]));
    }
}

/// What crossed the device's own command is served by the run that served the request, as after a request in pieces.
#[test]
fn the_device_uses_memory_by_message() {
    let read = numbered(Command::RegionRead as u16, 0, &access(BAR, 1, 3));
    let whole = see(Device::UsesMemory, &read, &[]);
    assert!(whole[0].contains("requests: 2"), "{whole:?}");
    assert_eq!(whole, see(Device::UsesMemory, &read, &[20]));
}
