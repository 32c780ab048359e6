//! A device moves from one server process to another while its guest works, and the move is cut at every message: nothing is
//! lost, and both sides recover.
//!
//! The test is the VMM on either side: it has two clients, each with memory of its own, copies the pages that the source
//! reports as dirty, and knows from a model what registers and memory must contain.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    clippy::print_stdout,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod rig;

#[path = "../examples/migration.rs"]
#[allow(dead_code, reason = "its main function reads the command line")]
mod example;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command as Program, Stdio};

use MigrationState::{PreCopy, Resume, Running, StopCopy};
use rig::{fields, memfd, message};
use vfu::MigrationState;
use vfu::client::{Client, DmaMapping, Error};
use vfu::wire::Command;

/// Names the socket that [`server_process`] listens at.
const SOCKET: &str = "VFU_TEST_SOCKET";

const PAGE: u64 = 4096;
const PAGES: u64 = 64;
const MEMORY: u64 = 0x10_0000;
/// The journal: it fills 16 pages and then starts again.
const RING: u64 = PAGE;
const LINES: u64 = 1024;

const RECORD: u64 = 0x0c;
const SEQUENCE: u64 = 0x10;
const SCRATCH: u64 = 0x40;

const GET: u64 = 1 << 16;
const SET: u64 = 1 << 17;

/// A server in a process of its own: this program again, with another test.
struct Server {
    child: Child,
    path: PathBuf,
    /// Kept open: what is printed there goes unread, but must not fail.
    _output: ChildStdout,
}

impl Server {
    fn start() -> Self {
        let path = rig::unique("migration");
        let mut child = Program::new(std::env::current_exe().unwrap())
            .args(["--exact", "server_process", "--ignored", "--nocapture"])
            .env(SOCKET, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut lines = BufReader::new(&mut output).lines();
        let ready = lines.any(|line| line.unwrap().contains("listening"));
        assert!(ready, "the server ended: {:?}", child.wait());
        Self {
            child,
            path,
            _output: output,
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let _ = std::fs::remove_file(&self.path); // a second time, by drop, it is gone
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
#[ignore = "a server process, which the other tests start"]
fn server_process() {
    let Some(path) = std::env::var_os(SOCKET) else {
        return;
    };
    let ctx = example::build(path).unwrap();
    println!("listening");
    example::serve(&ctx).unwrap();
}

/// A VMM's side: a connection and the guest's memory.
struct Vm {
    client: Client,
    memory: File,
}

impl Vm {
    fn connect(server: &Server, memory: File) -> Self {
        let mut client = Client::connect(&server.path).unwrap();
        let mapping = DmaMapping::new(MEMORY, PAGES * PAGE, Some(memory.as_fd()));
        client.dma_map(&mapping).unwrap();
        Self { client, memory }
    }

    fn new(server: &Server) -> Self {
        Self::connect(server, File::from(memfd(PAGES * PAGE)))
    }

    fn reconnect(&mut self, server: &Server) {
        let old = UnixStream::from(self.client.as_fd().try_clone_to_owned().unwrap());
        old.shutdown(Shutdown::Both).unwrap(); // the server takes one client at a time
        *self = Self::connect(server, self.memory.try_clone().unwrap());
    }

    fn all_memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; (PAGES * PAGE) as usize];
        self.memory.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn registers(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        self.client.region_read(0, 0, &mut bytes).unwrap();
        bytes
    }
}

/// What the guest has done to the device, and what must have come of it.
struct Model {
    registers: Vec<u8>,
    memory: Vec<u8>,
    /// What the guest does next.
    next: u32,
}

impl Model {
    fn new() -> Self {
        let mut registers = vec![0; 4096];
        registers[..8].copy_from_slice(&(MEMORY + RING).to_le_bytes());
        registers[8..12].copy_from_slice(&(LINES as u32).to_le_bytes());
        Self {
            registers,
            memory: vec![0; (PAGES * PAGE) as usize],
            next: 0,
        }
    }

    fn sequence(&self) -> u64 {
        let at = SEQUENCE as usize;
        u64::from_le_bytes(self.registers[at..at + 8].try_into().unwrap())
    }

    /// The guest's next register write: a line of the journal, or bytes of its own.
    fn act(&mut self) -> Op {
        self.next += 1;
        self.last()
    }

    fn last(&self) -> Op {
        let value = self.next.wrapping_mul(0x9e37_79b9).to_le_bytes();
        if !self.next.is_multiple_of(3) {
            return Op::Guest(RECORD, value);
        }
        let place = SCRATCH + u64::from(self.next) * 52 % (PAGE - SCRATCH - 4);
        Op::Guest(place, value)
    }

    fn apply_last(&mut self) {
        let op = self.last();
        self.apply(&op);
    }

    fn apply(&mut self, op: &Op) {
        let Op::Guest(offset, value) = op else { return };
        let at = *offset as usize;
        self.registers[at..at + 4].copy_from_slice(value);
        if *offset == RECORD {
            let sequence = self.sequence();
            let line = (RING + sequence % LINES * 64) as usize;
            self.memory[line..line + 8].copy_from_slice(&sequence.to_le_bytes());
            self.memory[line + 8..line + 12].copy_from_slice(value);
            let at = SEQUENCE as usize;
            self.registers[at..at + 8].copy_from_slice(&(sequence + 1).to_le_bytes());
        }
    }

    fn check(&self, vm: &mut Vm, what: &str) {
        assert!(vm.registers() == self.registers, "registers {what}");
        assert!(vm.all_memory() == self.memory, "memory {what}");
    }
}

/// One message of a migration.
#[derive(Debug, Clone)]
enum Op {
    State(MigrationState),
    Read,
    Write(Vec<u8>),
    StartLogging,
    Report,
    StopLogging,
    Guest(u64, [u8; 4]),
}

impl Op {
    fn encode(&self) -> (Command, Vec<u8>) {
        let feature = |argsz: u64, flags: u64, data: &[u64]| {
            let head = [argsz | flags << 32];
            (Command::DeviceFeature, fields(&[&head, data].concat()))
        };
        match self {
            Self::State(state) => feature(16, SET | 2, &[state.to_wire().into()]),
            Self::StartLogging => feature(24, SET | 6, &[PAGE, 0]),
            Self::StopLogging => feature(8, SET | 7, &[]),
            Self::Report => feature(40, GET | 8, &[MEMORY, PAGES * PAGE, PAGE]),
            Self::Read => (Command::MigDataRead, fields(&[1008 | 1000 << 32])),
            Self::Write(data) => {
                let length = data.len() as u64;
                let mut payload = fields(&[(length + 8) | length << 32]);
                payload.extend_from_slice(data);
                (Command::MigDataWrite, payload)
            }
            Self::Guest(offset, value) => (Command::RegionWrite, rig::write(0, *offset, value)),
        }
    }
}

/// How a migration is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The connection ends before the message is sent,
    Before,
    /// in the middle of it,
    Half,
    /// when it was sent and the answer not read.
    Unanswered,
    /// The target's process is killed before the message is sent.
    Killed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Target,
}

/// A migration, cut at one message or not.
struct Migration<'a> {
    source: &'a mut Vm,
    target: &'a mut Vm,
    target_server: &'a mut Server,
    model: &'a mut Model,
    cut: Option<(usize, Cut)>,
    /// Messages so far.
    count: usize,
}

/// The migration was cut on this side.
type Step<T> = Result<T, Side>;

impl Migration<'_> {
    fn send(&mut self, side: Side, op: &Op) -> Step<Vec<u8>> {
        let (command, payload) = op.encode();
        let client = match side {
            Side::Source => &mut self.source.client,
            Side::Target => &mut self.target.client,
        };
        self.count += 1;
        if let Some((at, cut)) = self.cut
            && at == self.count - 1
        {
            match cut {
                Cut::Before => {}
                Cut::Half => {
                    let bytes = message(0x7777, command, 0, &payload);
                    client.send_raw(&bytes[..bytes.len() / 2], &[]).unwrap();
                }
                Cut::Unanswered => {
                    let _ = client.send(command, &payload, &[]).unwrap();
                }
                Cut::Killed => {
                    self.target_server.kill();
                    *self.target_server = Server::start();
                    return Err(Side::Target);
                }
            }
            return Err(side);
        }
        match client.request(command, &payload, &[]) {
            Ok(reply) => {
                self.model.apply(op);
                Ok(reply.payload)
            }
            Err(error) => panic!(
                "message {} on the side of the {side:?}: {error}",
                self.count
            ),
        }
    }

    fn guest_works(&mut self, times: usize) -> Step<()> {
        for _ in 0..times {
            let op = self.model.act();
            self.send(Side::Source, &op)?;
        }
        Ok(())
    }

    fn move_state(&mut self) -> Step<()> {
        loop {
            let reply = self.send(Side::Source, &Op::Read)?;
            let count = u32::from_le_bytes(reply[4..8].try_into().unwrap());
            let data = reply[8..8 + count as usize].to_vec(); // there is always room for all that was asked for
            if data.is_empty() {
                return Ok(());
            }
            self.send(Side::Target, &Op::Write(data))?;
        }
    }

    fn move_dirty_pages(&mut self) -> Step<u32> {
        let bitmap = self.send(Side::Source, &Op::Report)?.split_off(32);
        let bitmap = u64::from_le_bytes(bitmap.try_into().unwrap());
        for page in (0..PAGES).filter(|page| bitmap & 1 << page != 0) {
            let mut bytes = [0; PAGE as usize];
            self.source
                .memory
                .read_exact_at(&mut bytes, page * PAGE)
                .unwrap();
            self.target
                .memory
                .write_all_at(&bytes, page * PAGE)
                .unwrap();
        }
        Ok(bitmap.count_ones())
    }

    fn run(&mut self) -> Step<()> {
        self.send(Side::Source, &Op::StartLogging)?;
        let all = self.source.all_memory();
        self.target.memory.write_all_at(&all, 0).unwrap();
        self.send(Side::Source, &Op::State(PreCopy))?;
        self.send(Side::Target, &Op::State(Resume))?;
        self.guest_works(4)?;
        self.move_state()?;
        assert_ne!(self.move_dirty_pages()?, 0);
        self.guest_works(4)?;
        self.send(Side::Source, &Op::State(StopCopy))?;
        self.move_state()?;
        assert_ne!(self.move_dirty_pages()?, 0);
        self.send(Side::Source, &Op::StopLogging)?;
        self.send(Side::Target, &Op::State(Running))?;
        Ok(())
    }
}

/// Two server processes, of which the first has the device.
struct Pair {
    servers: [Server; 2],
    source: Vm,
    model: Model,
}

impl Pair {
    fn new() -> Self {
        let servers = [Server::start(), Server::start()];
        let mut source = Vm::new(&servers[0]);
        let model = Model::new();
        source
            .client
            .region_write(0, 0, &model.registers[..8])
            .unwrap();
        source
            .client
            .region_write(0, 8, &model.registers[8..12])
            .unwrap();
        Self {
            servers,
            source,
            model,
        }
    }

    /// Moves the device to the other server; says how many messages that took, and on which side it was cut.
    fn migrate(&mut self, cut: Option<(usize, Cut)>) -> (usize, Step<()>) {
        let [_, target_server] = &mut self.servers;
        let mut target = Vm::new(target_server);
        let mut migration = Migration {
            source: &mut self.source,
            target: &mut target,
            target_server,
            model: &mut self.model,
            cut,
            count: 0,
        };
        let result = migration.run();
        let count = migration.count;
        if result.is_ok() {
            self.model.check(&mut target, "of the target");
            self.source = target;
            self.servers.swap(0, 1);
        }
        (count, result)
    }

    /// The source goes on after a cut, with all that it had.
    fn recover(&mut self, side: Side) {
        if side == Side::Source {
            self.source.reconnect(&self.servers[0]);
        } else {
            self.source.client.set_migration_state(Running).unwrap();
        }
        assert_eq!(
            self.source.client.migration_state().unwrap(),
            Running.to_wire()
        );
        // The guest's last write may have been done, if nobody waited for the answer.
        if self.source.registers() != self.model.registers {
            self.model.apply_last();
        }
        self.model
            .check(&mut self.source, "of the source after a cut");
        self.work();
        self.model
            .check(&mut self.source, "of the source at work again");
    }

    fn work(&mut self) {
        for _ in 0..3 {
            let op = self.model.act();
            let (command, payload) = op.encode();
            self.source.client.request(command, &payload, &[]).unwrap();
            self.model.apply(&op);
        }
    }
}

#[test]
fn a_working_device_moves_there_and_back() {
    let mut pair = Pair::new();
    pair.work();
    for _ in 0..4 {
        let (_, result) = pair.migrate(None);
        result.unwrap();
        pair.work();
        pair.model.check(&mut pair.source, "after the move");
    }
}

#[test]
fn cut_at_every_message() {
    let mut pair = Pair::new();
    pair.work();
    let (messages, result) = pair.migrate(None);
    result.unwrap();
    assert!(messages > 20, "{messages}");
    for cut in [Cut::Before, Cut::Half, Cut::Unanswered, Cut::Killed] {
        for at in 0..messages {
            let (_, result) = pair.migrate(Some((at, cut)));
            pair.recover(result.unwrap_err());
            let (_, result) = pair.migrate(None);
            result.unwrap_or_else(|side| panic!("cut on side {side:?}"));
            pair.work();
            pair.model.check(&mut pair.source, "after the move");
        }
    }
}

/// From the moment that the target has it all, the source is not needed any more.
#[test]
fn the_source_dies_when_all_is_sent() {
    let mut pair = Pair::new();
    pair.work();
    let [source_server, target_server] = &mut pair.servers;
    let mut target = Vm::new(target_server);
    let mut migration = Migration {
        source: &mut pair.source,
        target: &mut target,
        target_server,
        model: &mut pair.model,
        cut: None,
        count: 0,
    };
    migration.send(Side::Source, &Op::StartLogging).unwrap();
    migration.send(Side::Source, &Op::State(StopCopy)).unwrap();
    migration.send(Side::Target, &Op::State(Resume)).unwrap();
    migration.move_state().unwrap();
    let all = migration.source.all_memory();
    migration.target.memory.write_all_at(&all, 0).unwrap();
    source_server.kill();
    migration.send(Side::Target, &Op::State(Running)).unwrap();
    pair.model.check(&mut target, "of the target");
}

/// A target that got less than all, or something else, does not take it for its state, and can be had again.
#[test]
fn half_a_state_is_refused() {
    let mut pair = Pair::new();
    pair.work();
    let client = &mut pair.source.client;
    client.set_migration_state(StopCopy).unwrap();
    let mut state = Vec::new();
    loop {
        match client.migration_read(1000).unwrap() {
            data if data.is_empty() => break,
            data => state.extend_from_slice(&data),
        }
    }
    let mut flipped = state.clone();
    flipped[100] ^= 1;
    let longer = [state.as_slice(), &[0; 8]].concat();
    for wrong in [
        &state[..state.len() - 1],
        &state[..4],
        &flipped,
        &longer,
        b"nonsense",
    ] {
        let mut target = Vm::new(&pair.servers[1]);
        let before = target.registers();
        target.client.set_migration_state(Resume).unwrap();
        let taken = target.client.migration_write(wrong);
        let started = target.client.set_migration_state(Running);
        assert!(
            matches!(started, Err(Error::Refused { .. })) || taken.is_err(),
            "{taken:?} {started:?}"
        );
        drop(target);
        assert!(Vm::new(&pair.servers[1]).registers() == before);
    }
    let mut target = Vm::new(&pair.servers[1]);
    target.client.set_migration_state(Resume).unwrap();
    for byte in state.chunks(1) {
        target.client.migration_write(byte).unwrap();
    }
    target.client.set_migration_state(Running).unwrap();
    assert!(target.registers() == pair.model.registers);
}
