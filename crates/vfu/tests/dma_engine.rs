//! The copy engine of `examples/dma.rs`, driven by our client: every byte, every error bit, every interrupt.
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

#[path = "../examples/dma.rs"]
#[allow(dead_code, reason = "its main function reads the command line")]
mod example;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rig::{Lines, eventfd, memfd};
use vfu::client::{Client, DmaMapping, Hello, IrqSet, IrqSetAction, IrqSetData, Memory};
use vfu::{Errno, Level};

const BAR: u32 = 0;
const CONFIG: u32 = 7;
const SOURCE: u64 = 0;
const DESTINATION: u64 = 8;
const LENGTH: u64 = 0x10;
const CONTROL: u64 = 0x18;
const STATUS: u64 = 0x1c;
const COPIED: u64 = 0x20;

const START: u32 = 1;
const PAUSE: u32 = 2;
const BUSY: u32 = 1;
const DONE: u32 = 2;
const ERROR_LENGTH: u32 = 0x100;
const ERROR_SOURCE: u32 = 0x200;
const ERROR_DESTINATION: u32 = 0x400;
const ERROR_OVERLAP: u32 = 0x800;
const ERROR_BUSY: u32 = 0x1000;
const ERROR_ACCESS: u32 = 0x2000;

const INTX: u32 = 0;
const MSIX: u32 = 2;

/// Memory with a descriptor, in two pieces that follow each other.
const SHARED: u64 = 0x10_0000;
const PIECE: u64 = 0x8_0000;
/// Memory without one.
const REMOTE: u64 = 0x1_0000_0000;
const SIZE: u64 = 2 * PIECE;

/// Memory that only messages reach.
#[derive(Clone)]
struct Remote(Arc<Mutex<Vec<u8>>>);

impl Memory for Remote {
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Errno> {
        let mut all = self.0.lock().unwrap();
        Memory::read(&mut *all, addr.wrapping_sub(REMOTE), data)
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Errno> {
        let mut all = self.0.lock().unwrap();
        Memory::write(&mut *all, addr.wrapping_sub(REMOTE), data)
    }
}

struct Guest {
    client: Client<Remote>,
    shared: File,
    remote: Remote,
    vectors: [OwnedFd; 2],
    /// Answers the server's messages.
    twin: Option<JoinHandle<()>>,
    lines: Lines,
}

impl Guest {
    /// Starts a server, and connects.
    fn new(name: &str) -> Self {
        let path = rig::unique(name);
        let lines = Lines::default();
        let sink = lines.clone();
        let log = Box::new(move |level: Level, line: &str| {
            sink.lock().unwrap().push((level, line.to_owned()));
        });
        let ctx = example::build(&path, log).unwrap();
        std::thread::spawn(move || example::serve(&ctx)); // ends with this process
        let remote = Remote(Arc::new(Mutex::new(vec![0; SIZE as usize])));
        let mut client = Client::connect_with(&path, &Hello::twin(), remote.clone()).unwrap();
        std::fs::remove_file(path).unwrap();
        let mut twin = client.take_twin().unwrap();
        let mut answering = remote.clone();
        let shared = File::from(memfd(SIZE));
        for piece in [0, PIECE] {
            let mapping = DmaMapping {
                offset: piece,
                ..DmaMapping::new(SHARED + piece, PIECE, Some(shared.as_fd()))
            };
            client.dma_map(&mapping).unwrap();
        }
        client
            .dma_map(&DmaMapping::new(REMOTE, SIZE, None))
            .unwrap();
        Self {
            client,
            shared,
            remote,
            vectors: [eventfd(0), eventfd(0)],
            twin: Some(std::thread::spawn(move || {
                twin.run(&mut answering).unwrap();
            })),
            lines,
        }
    }

    fn read(&mut self, register: u64) -> u32 {
        let mut value = [0; 4];
        self.client.region_read(BAR, register, &mut value).unwrap();
        u32::from_le_bytes(value)
    }

    fn write(&mut self, register: u64, value: u32) {
        self.client
            .region_write(BAR, register, &value.to_le_bytes())
            .unwrap();
    }

    fn write_long(&mut self, register: u64, value: u64) {
        self.write(register, value as u32);
        self.write(register + 4, (value >> 32) as u32);
    }

    fn read_long(&mut self, register: u64) -> u64 {
        u64::from(self.read(register)) | u64::from(self.read(register + 4)) << 32
    }

    fn start(&mut self, source: u64, destination: u64, length: u64) {
        self.write_long(SOURCE, source);
        self.write_long(DESTINATION, destination);
        self.write_long(LENGTH, length);
        self.write(CONTROL, START);
    }

    fn set_irqs(&mut self, index: u32, action: IrqSetAction, data: IrqSetData<'_>) {
        let set = IrqSet {
            index,
            start: 0,
            action,
            data,
        };
        self.client.set_irqs(&set).unwrap();
    }

    fn use_msix(&mut self) {
        let fds = self.vectors.each_ref().map(AsRawFd::as_raw_fd);
        self.set_irqs(MSIX, IrqSetAction::Trigger, IrqSetData::Eventfd(&fds));
        let control = self.msix_control();
        self.client
            .region_write(CONFIG, control, &[1, 0x80])
            .unwrap();
    }

    /// Walks the list of capabilities as a guest does.
    fn msix_control(&mut self) -> u64 {
        let mut at = [0];
        self.client.region_read(CONFIG, 0x34, &mut at).unwrap();
        loop {
            let mut head = [0; 2];
            self.client
                .region_read(CONFIG, at[0].into(), &mut head)
                .unwrap();
            if head[0] == 0x11 {
                return u64::from(at[0]) + 2;
            }
            assert_ne!(head[1], 0, "there is no MSI-X capability");
            at = [head[1]];
        }
    }

    fn use_pin(&mut self) {
        let fds = [self.vectors[0].as_raw_fd()];
        self.set_irqs(INTX, IrqSetAction::Trigger, IrqSetData::Eventfd(&fds));
    }

    /// Waits until the vector is raised; returns how often it was.
    fn await_vector(&self, vector: usize) -> u64 {
        const HANGS: i32 = 60_000;
        let event = &self.vectors[vector];
        let mut poll = libc::pollfd {
            fd: event.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd.
        let ready = unsafe { libc::poll(&raw mut poll, 1, HANGS) };
        assert_eq!(ready, 1, "vector {vector} is never raised");
        rig::drain(event).unwrap()
    }

    fn pin_is_asserted(&mut self) -> bool {
        let mut status = [0; 2];
        self.client.region_read(CONFIG, 6, &mut status).unwrap();
        status[0] & 8 != 0
    }

    fn fill(&mut self, address: u64, length: u64, seed: u64) -> Vec<u8> {
        let data: Vec<u8> = (0..length)
            .map(|at| ((at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
            .collect();
        self.poke(address, &data);
        data
    }

    fn poke(&mut self, address: u64, data: &[u8]) {
        if address >= REMOTE {
            self.remote.write(address, data).unwrap();
        } else {
            self.shared.write_all_at(data, address - SHARED).unwrap();
        }
    }

    fn peek(&mut self, address: u64, length: u64) -> Vec<u8> {
        let mut data = vec![0; length as usize];
        if address >= REMOTE {
            self.remote.read(address, &mut data).unwrap();
        } else {
            self.shared
                .read_exact_at(&mut data, address - SHARED)
                .unwrap();
        }
        data
    }

    fn logged(&self, part: &str) -> bool {
        let lines = self.lines.lock().unwrap();
        lines.iter().any(|(_, line)| line.contains(part))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let connection = self.client.as_fd().try_clone_to_owned().unwrap();
        // SAFETY: no pointers.
        unsafe { libc::shutdown(connection.as_raw_fd(), libc::SHUT_RDWR) };
        let _ = self.twin.take().map(JoinHandle::join); // the server closes its end
    }
}

#[test]
fn every_byte_arrives_and_no_other_changes() {
    let mut guest = Guest::new("dma-bytes");
    guest.use_msix();
    let lengths = [1, 4095, 4096, 0x1_0000, 0x1_0001, PIECE - 2];
    // shared to shared, to remote, from remote, and within; across the border of the two pieces
    let places = [
        (SHARED, SHARED + PIECE),
        (SHARED + PIECE / 2, REMOTE + 1),
        (REMOTE + 1, SHARED + PIECE / 2),
        (REMOTE, REMOTE + PIECE),
    ];
    for (round, length) in (1..).zip(lengths) {
        for (source, destination) in places {
            let data = guest.fill(source, length, round);
            guest.poke(destination, &vec![0xee; length as usize + 1]);
            guest.start(source, destination, length);
            assert_eq!(guest.await_vector(0), 1);
            assert_eq!(guest.read(STATUS), DONE);
            assert_eq!(guest.read_long(COPIED), length);
            let mut expected = data;
            expected.push(0xee);
            assert!(guest.peek(destination, length + 1) == expected);
            guest.write(STATUS, DONE);
            assert_eq!(guest.read(STATUS), 0);
        }
    }
    assert_eq!(rig::drain(&guest.vectors[1]), None);
}

#[test]
fn nonsense_sets_a_bit_and_moves_nothing() {
    let mut guest = Guest::new("dma-nonsense");
    guest.use_msix();
    let before = [SHARED, REMOTE].map(|start| guest.fill(start, SIZE, start));
    let end = SHARED + SIZE;
    let far = u64::MAX - 0xfff;
    for (source, destination, length, error) in [
        (SHARED, REMOTE, 0, ERROR_LENGTH),
        (SHARED, REMOTE, u64::MAX, ERROR_LENGTH),
        (far, REMOTE, 0x1001, ERROR_LENGTH),
        (SHARED, far, 0x1000, ERROR_LENGTH),
        (0, REMOTE, 0x1000, ERROR_SOURCE),
        (SHARED - 1, REMOTE, 0x1000, ERROR_SOURCE),
        (end - 0xfff, REMOTE, 0x1000, ERROR_SOURCE),
        (far - 1, REMOTE, 0x1000, ERROR_SOURCE),
        (REMOTE, end - 0xfff, 0x1000, ERROR_DESTINATION),
        (SHARED, REMOTE + SIZE - 0xfff, 0x1000, ERROR_DESTINATION),
        (SHARED, REMOTE, SIZE + 1, ERROR_SOURCE),
        (SHARED, SHARED + 0xfff, 0x1000, ERROR_OVERLAP),
        (SHARED, SHARED, 1, ERROR_OVERLAP),
    ] {
        guest.start(source, destination, length);
        assert_eq!(guest.await_vector(1), 1);
        assert_eq!(
            guest.read(STATUS),
            error,
            "{source:#x} {destination:#x} {length:#x}"
        );
        assert_eq!(guest.read_long(COPIED), 0);
        let note = format!("({error:#x})");
        assert!(guest.logged(&note), "{note}");
        guest.write(STATUS, u32::MAX);
        assert_eq!(guest.read(STATUS), 0);
    }
    for (start, before) in [SHARED, REMOTE].into_iter().zip(before) {
        assert!(guest.peek(start, SIZE) == before);
    }
    // no register, no such access
    for (offset, length) in [
        (0x28, 4),
        (0xffc, 4),
        (2, 4),
        (0, 1),
        (0, 2),
        (0, 8),
        (0, 64),
    ] {
        let mut data = vec![0xff; length];
        guest.client.region_read(BAR, offset, &mut data).unwrap();
        assert_eq!(data, vec![0; length]);
        assert_eq!(guest.await_vector(1), 1);
        guest.client.region_write(BAR, offset, &data).unwrap();
        assert_eq!(guest.await_vector(1), 1);
        assert_eq!(guest.read(STATUS), ERROR_ACCESS);
        guest.write(STATUS, ERROR_ACCESS);
    }
    guest.write(COPIED, 1);
    assert_eq!(guest.read(STATUS), ERROR_ACCESS);
    assert_eq!(rig::drain(&guest.vectors[0]), None);
}

#[test]
fn a_start_while_a_copy_is_under_way() {
    let mut guest = Guest::new("dma-busy");
    guest.use_msix();
    let data = guest.fill(SHARED, 0x3_0000, 7);
    guest.write(CONTROL, PAUSE);
    guest.write_long(SOURCE, SHARED);
    guest.write_long(DESTINATION, REMOTE);
    guest.write_long(LENGTH, 0x3_0000);
    guest.write(CONTROL, START | PAUSE);
    assert_eq!(guest.read(STATUS), BUSY);
    assert_eq!(guest.read(CONTROL), PAUSE);
    guest.write(CONTROL, START | PAUSE);
    assert_eq!(guest.await_vector(1), 1);
    assert_eq!(guest.read(STATUS), BUSY | ERROR_BUSY);
    guest.write(STATUS, ERROR_BUSY);
    for register in [SOURCE, DESTINATION + 4, LENGTH] {
        guest.write(register, 0x1234);
        assert_eq!(guest.await_vector(1), 1);
        assert_eq!(guest.read(STATUS), BUSY | ERROR_BUSY);
        guest.write(STATUS, ERROR_BUSY | BUSY);
    }
    assert_eq!(guest.read_long(COPIED), 0);
    guest.write(CONTROL, 0);
    assert_eq!(guest.await_vector(0), 1);
    assert_eq!(guest.read(STATUS), DONE);
    assert!(guest.peek(REMOTE, 0x3_0000) == data);
}

#[test]
fn the_pin_is_a_level() {
    let mut guest = Guest::new("dma-pin");
    guest.use_pin();
    let data = guest.fill(SHARED, 0x1000, 9);
    guest.start(SHARED, REMOTE, 0x1000);
    assert_eq!(guest.await_vector(0), 1);
    assert!(guest.pin_is_asserted());
    // unmasked before it is acknowledged: it comes again
    guest.set_irqs(INTX, IrqSetAction::Unmask, IrqSetData::None(1));
    assert_eq!(guest.await_vector(0), 1);
    guest.write(STATUS, DONE);
    assert!(!guest.pin_is_asserted());
    guest.set_irqs(INTX, IrqSetAction::Unmask, IrqSetData::None(1));
    assert_eq!(rig::drain(&guest.vectors[0]), None);
    assert!(guest.peek(REMOTE, 0x1000) == data);
    // an error asserts it, too
    guest.start(0, 0, 0);
    assert_eq!(guest.await_vector(0), 1);
    assert!(guest.pin_is_asserted());
}

#[test]
fn memory_that_goes_away_and_resets() {
    let mut guest = Guest::new("dma-gone");
    guest.use_msix();
    // the source goes while a copy waits
    guest.write(CONTROL, PAUSE);
    guest.start_paused(SHARED, REMOTE, 0x1000);
    guest.client.dma_unmap(SHARED, PIECE).unwrap();
    guest.write(CONTROL, 0);
    assert_eq!(guest.await_vector(1), 1);
    assert_eq!(guest.read(STATUS), ERROR_SOURCE);
    guest.write(STATUS, u32::MAX);
    // the client refuses what it announced
    guest.remote.0.lock().unwrap().truncate(0x800);
    guest.start(SHARED + PIECE, REMOTE, 0x1000);
    assert_eq!(guest.await_vector(1), 1);
    assert_eq!(guest.read(STATUS), ERROR_DESTINATION);
    // a reset ends everything
    guest.start_paused(SHARED + PIECE, REMOTE, 0x800);
    assert_eq!(guest.read(STATUS), BUSY | ERROR_DESTINATION);
    guest.client.reset().unwrap();
    for register in [SOURCE, DESTINATION, LENGTH, CONTROL, COPIED] {
        assert_eq!(guest.read_long(register), 0);
    }
    assert!(!guest.pin_is_asserted());
}

impl Guest {
    fn start_paused(&mut self, source: u64, destination: u64, length: u64) {
        self.write_long(SOURCE, source);
        self.write_long(DESTINATION, destination);
        self.write_long(LENGTH, length);
        self.write(CONTROL, START | PAUSE);
    }
}
