//! Crate `vfio_user` of rust-vmm, the client that cloud-hypervisor uses: every call that it offers, against our server.
//!
//! It reads replies of exactly the length that it expects, and looks at no error number: a reply that is a byte longer or shorter than
//! the protocol says puts it out of step, and the next call fails or waits for ever.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod rig;

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rig::{Event, MEM, RW, Rig, drain, eventfd, memfd};
use vfio_user::Client;
use vfu::{Context, Errno, IrqIndex, MmapArea, Mode, RegionSetup, ResetKind};

const PLAIN: u32 = rig::BAR;
const WHOLE: u32 = 2;
const SPARSE: u32 = 4;
const CONFIG: u32 = 7;
const PAGE: u64 = 4096;

/// `VFIO_IRQ_SET_*`.
const DATA_NONE: u32 = 1;
const DATA_BOOL: u32 = 2;
const DATA_EVENTFD: u32 = 4;
const MASK: u32 = 8;
const UNMASK: u32 = 16;
const TRIGGER: u32 = 32;

/// Writes to the last registers of [`PLAIN`] make the device do something.
const COPY: u64 = rig::BAR_SIZE - 8;
const RAISE: u64 = rig::BAR_SIZE - 16;

/// The rig's device, with a BAR that can be mapped whole, one that can be mapped in parts, and an interrupt pin.
fn rig() -> Rig {
    let mut rig = Rig::bare(Mode::Blocking);
    rig.ctx.pci_init(3, 0, 0).unwrap();
    rig.ctx.pci_set_id(0x494f, 0x0dc8, 1, 2);
    rig.bar(PLAIN, rig::BAR_SIZE);
    let mappable = |index: u32, size, offset| RegionSetup {
        index: index as i32,
        size,
        flags: RW | MEM,
        callback: true,
        fd: Some(marked(size + offset).into()),
        offset,
    };
    rig.ctx.setup_region(mappable(WHOLE, PAGE, 0), []).unwrap();
    let areas = [(0, PAGE), (4 * PAGE, 2 * PAGE), (7 * PAGE, PAGE)];
    rig.ctx
        .setup_region(
            mappable(SPARSE, 8 * PAGE, PAGE),
            areas.map(|(base, len)| MmapArea { base, len }),
        )
        .unwrap();
    rig.ctx.set_irq_count(IrqIndex::Intx, 1).unwrap();
    rig.ctx.set_irq_count(IrqIndex::Msix, 8).unwrap();
    rig.ctx.setup_dma(16).unwrap();
    rig.ctx.realize().unwrap();
    rig.device.hook = Some(Box::new(act));
    rig
}

/// Memory whose first bytes say how much there is.
fn marked(size: u64) -> OwnedFd {
    let fd = memfd(size);
    let file = File::from(fd);
    file.write_all_at(&size.to_le_bytes(), 0).unwrap();
    file.into()
}

/// What the device does: copies 16 bytes of client memory to the page behind them, or raises an interrupt.
fn act(ctx: &Context, event: &Event) -> Result<(), Errno> {
    match event {
        Event::Write(PLAIN, COPY, address) => {
            let address = u64::from_le_bytes(address.as_slice().try_into().unwrap());
            let mut data = [0; 16];
            ctx.read_client(address, &mut data)
                .and_then(|()| ctx.write_client(address + PAGE, &data))
                .map_err(|error| error.errno())
        }
        Event::Write(PLAIN, RAISE, vector) => ctx
            .irqs()
            .trigger(vector[0].into())
            .map_err(|error| error.errno()),
        _ => Ok(()),
    }
}

/// Runs `client` on a thread of its own, and the server on this one until the client has gone; returns what
/// happened to the device, without quiescing.
fn with_client(rig: &mut Rig, client: impl FnOnce(&mut Client) + Send + 'static) -> Vec<Event> {
    let thread = start(rig.path.clone(), client);
    rig.ctx.attach().unwrap();
    let gone = rig.run().unwrap_err();
    thread.join().unwrap();
    assert_eq!(gone.errno(), Errno::ENOTCONN);
    let mut events = rig.device.take();
    assert_eq!(events.pop(), Some(Event::Reset(ResetKind::LostConnection)));
    events.retain(|event| *event != Event::Quiesce);
    events
}

fn start(path: PathBuf, client: impl FnOnce(&mut Client) + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut connection = Client::new(Path::new(&path)).unwrap();
        client(&mut connection);
        connection.shutdown().unwrap();
    })
}

fn raw(fds: &[OwnedFd]) -> Vec<RawFd> {
    fds.iter().map(AsRawFd::as_raw_fd).collect()
}

#[test]
fn new_learns_about_every_region() {
    let mut rig = rig();
    let events = with_client(&mut rig, |client| {
        for index in 0..9 {
            let region = client.region(index).unwrap();
            let (size, flags) = match index {
                PLAIN => (rig::BAR_SIZE, 0b0011),
                WHOLE => (PAGE, 0b1111), // read, write, mmap, capabilities
                SPARSE => (8 * PAGE, 0b1111),
                CONFIG => (4096, 0b0011),
                _ => (0, 0),
            };
            assert_eq!((region.index, region.size), (index, size));
            assert_eq!(region.flags, flags, "region {index}");
            let areas: Vec<_> = region
                .sparse_areas
                .iter()
                .map(|area| (area.offset, area.size))
                .collect();
            match index {
                WHOLE => assert_eq!(areas, [(0, PAGE)]),
                SPARSE => assert_eq!(areas, [(0, PAGE), (4 * PAGE, 2 * PAGE), (7 * PAGE, PAGE)]),
                _ => assert_eq!(areas, []),
            }
            let Some(file) = &region.file_offset else {
                assert!(![WHOLE, SPARSE].contains(&index));
                continue;
            };
            let start = if index == SPARSE { PAGE } else { 0 };
            assert_eq!(file.start(), start);
            let mut mark = [0; 8];
            file.file().read_exact_at(&mut mark, 0).unwrap();
            assert_eq!(u64::from_le_bytes(mark), size + start);
        }
        assert!(client.region(9).is_none());
        // Our devices can be reset. The crate has the test for the flag the wrong way round.
        assert!(!client.resettable());
    });
    assert_eq!(events, []);
}

#[test]
fn regions_are_read_and_written() {
    let mut rig = rig();
    let events = with_client(&mut rig, |client| {
        let mut id = [0; 4];
        client.region_read(CONFIG, 0, &mut id).unwrap();
        assert_eq!(id, [0x4f, 0x49, 0xc8, 0x0d]);
        client.region_write(CONFIG, 4, &[6, 0]).unwrap();
        let mut command = [0; 2];
        client.region_read(CONFIG, 4, &mut command).unwrap();
        assert_eq!(command, [6, 0]);
        for length in [1, 2, 4, 8, 100, 4096, 1 << 20] {
            let mut data = vec![0; length];
            client.region_read(PLAIN, 3, &mut data).unwrap();
            assert!((3..).zip(&data).all(|(at, byte)| at as u8 == *byte));
            client.region_write(PLAIN, 5, &data).unwrap();
        }
    });
    let mut expected = Vec::new();
    for length in [1, 2, 4, 8, 100, 4096, 1 << 20] {
        expected.push(Event::Read(PLAIN, 3, length));
        let data = (3..3 + length).map(|at| at as u8).collect();
        expected.push(Event::Write(PLAIN, 5, data));
    }
    assert!(events == expected);
}

#[test]
fn memory_is_mapped_used_and_unmapped() {
    let mut rig = rig();
    let events = with_client(&mut rig, |client| {
        let memory = File::from(memfd(16 * PAGE));
        let fd = memory.as_raw_fd();
        client.dma_map(0, 0x10_0000, 4 * PAGE, fd).unwrap();
        client.dma_map(8 * PAGE, 0x20_0000, 4 * PAGE, fd).unwrap();
        // refused, which the crate does not see: it overlaps
        client.dma_map(0, 0x10_1000, 4 * PAGE, fd).unwrap();
        for (address, place) in [(0x10_0000_u64, 0), (0x20_0000, 8 * PAGE)] {
            memory.write_all_at(&[0xa5; 16], place).unwrap();
            client
                .region_write(PLAIN, COPY, &address.to_le_bytes())
                .unwrap();
            let mut data = [0; 32];
            memory.read_exact_at(&mut data, place + PAGE).unwrap();
            assert_eq!(data[..16], [0xa5; 16]);
            assert_eq!(data[16..], [0; 16]);
        }
        client.dma_unmap(0x10_0000, 4 * PAGE).unwrap();
        client.dma_map(0, 0x10_1000, 4 * PAGE, fd).unwrap();
        client.dma_unmap(0x10_1000, 4 * PAGE).unwrap();
        // the other one is left for the end of the connection
    });
    let copy = |address: u64| Event::Write(PLAIN, COPY, address.to_le_bytes().to_vec());
    let size = 4 * PAGE;
    assert_eq!(
        events,
        [
            Event::Register(0x10_0000, size),
            Event::Register(0x20_0000, size),
            copy(0x10_0000),
            copy(0x20_0000),
            Event::Unregister(0x10_0000, size),
            Event::Register(0x10_1000, size),
            Event::Unregister(0x10_1000, size),
            Event::Unregister(0x20_0000, size),
        ]
    );
}

#[test]
fn interrupts_are_counted_set_and_raised() {
    let mut rig = rig();
    let events = with_client(&mut rig, |client| {
        for (index, count) in [(0, 1), (1, 0), (2, 8), (3, 1), (4, 1)] {
            let info = client.get_irq_info(index).unwrap();
            assert_eq!((info.index, info.count), (index, count));
            assert_eq!(info.flags & 1, 1); // eventfd
        }
        let events: Vec<OwnedFd> = (0..8).map(|_| eventfd(0)).collect();
        client
            .set_irqs(2, DATA_EVENTFD | TRIGGER, 0, 8, &raw(&events))
            .unwrap();
        for vector in [0, 7, 7] {
            client.region_write(PLAIN, RAISE, &[vector]).unwrap();
        }
        let counters = || events.iter().map(drain).collect::<Vec<_>>();
        let expected = [Some(1), None, None, None, None, None, None, Some(2)];
        assert_eq!(counters(), expected);

        // the client raises them itself
        client.set_irqs(2, DATA_NONE | TRIGGER, 2, 3, &[]).unwrap();
        let expected = [None, None, Some(1), Some(1), Some(1), None, None, None];
        assert_eq!(counters(), expected);

        // one vector goes elsewhere, the others stay
        let other = [eventfd(0)];
        client
            .set_irqs(2, DATA_EVENTFD | TRIGGER, 7, 1, &raw(&other))
            .unwrap();
        client.region_write(PLAIN, RAISE, &[7]).unwrap();
        client.region_write(PLAIN, RAISE, &[6]).unwrap();
        assert_eq!(drain(&other[0]), Some(1));
        let expected = [None, None, None, None, None, None, Some(1), None];
        assert_eq!(counters(), expected);

        client.set_irqs(0, DATA_NONE | MASK, 0, 1, &[]).unwrap();
        client.set_irqs(0, DATA_NONE | UNMASK, 0, 1, &[]).unwrap();
        // refused, which the crate does not see: no such vectors; booleans that are not there
        client
            .set_irqs(2, DATA_EVENTFD | TRIGGER, 8, 1, &raw(&other))
            .unwrap();
        client.set_irqs(2, DATA_BOOL | TRIGGER, 0, 1, &[]).unwrap();

        client.set_irqs(2, DATA_NONE | TRIGGER, 0, 0, &[]).unwrap();
        // refused, which the crate does not see: there is nowhere to raise it any more
        client.region_write(PLAIN, RAISE, &[1]).unwrap();
        assert_eq!(counters(), [None; 8]);
    });
    let raise = |vector| Event::Write(PLAIN, RAISE, vec![vector]);
    let state = |masked| Event::IrqState(IrqIndex::Intx, 0, 1, masked);
    assert_eq!(
        events,
        [
            raise(0),
            raise(7),
            raise(7),
            raise(7),
            raise(6),
            state(true),
            state(false),
            raise(1)
        ]
    );
}

#[test]
fn reset_and_shutdown() {
    let mut rig = rig();
    for _ in 0..2 {
        let events = with_client(&mut rig, |client| {
            client.reset().unwrap();
            client.reset().unwrap();
            let mut id = [0; 2];
            client.region_read(CONFIG, 0, &mut id).unwrap();
            assert_eq!(id, [0x4f, 0x49]);
        });
        assert_eq!(events, [const { Event::Reset(ResetKind::Device) }; 2]);
    }
}
