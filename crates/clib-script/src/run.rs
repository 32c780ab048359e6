//! Running a script on native threads.
//!
//! Instances are dealt out to the threads; each thread runs its instances by
//! turns. All threads warm up, meet, and start together, between two snapshots of
//! the counters. The calling thread supervises: it asks whether to give up, and
//! notices a call that does not return.
//!
//! A thread that is stuck in a call cannot be ended: it is left behind with its own
//! reference to everything that it uses, and the run fails.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::call::Call;
use crate::io::{self, CONTROL, Trouble};
use crate::report::{Failure, Problem, Report};
use crate::step::{Expected, Script, Step};
use crate::value::{Bytes, Value};

/// Reads counters, such as a hook's: always as many, none ever shrinking.
pub type Snapshot = Arc<dyn Fn() -> Vec<u64> + Send + Sync>;

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// After so many iterations of each instance.
    Times(u64),
    /// After the iteration in which so much time has passed.
    Time(Duration),
}

/// How to run a script.
#[derive(Clone)]
pub struct Options {
    /// When to end.
    pub limit: Limit,
    /// How many threads, 1 or more.
    pub threads: usize,
    /// The numbers of each instance, for [`Value::Instance`]. If empty: one instance a thread,
    /// without numbers.
    pub instances: Vec<Vec<u64>>,
    /// Iterations of each instance before anything is counted.
    pub warmup: u64,
    /// Iterations between two looks at the clock; 1 unless an operation takes nanoseconds.
    pub batch: u64,
    /// How long one step may take.
    pub step_limit: Duration,
    /// Exact counters, read before and after.
    pub snapshot: Option<Snapshot>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("limit", &self.limit)
            .field("threads", &self.threads)
            .field("instances", &self.instances.len())
            .field("warmup", &self.warmup)
            .field("batch", &self.batch)
            .field("step_limit", &self.step_limit)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limit: Limit::Times(1),
            threads: 1,
            instances: Vec::new(),
            warmup: 1,
            batch: 1,
            step_limit: Duration::from_secs(5),
            snapshot: None,
        }
    }
}

/// What the supervisor and a worker share.
struct Shared {
    script: Script,
    options: Options,
    stop: AtomicBool,
    gate: Gate,
    places: Vec<Place>,
}

/// Holds the workers back between warm-up and measurement.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn wait(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.opened.wait_while(open, |open| !*open));
    }

    fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }
}

impl Shared {
    /// Ends the run: workers leave at the gate or after their current batch.
    fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.gate.open();
    }
}

/// Where a worker is: changes with each step, so that standing still can be seen.
#[derive(Default)]
struct Place {
    moves: AtomicU64,
    step: AtomicUsize,
    instance: AtomicUsize,
    iteration: AtomicU64,
}

struct Tally {
    operations: u64,
    latency: Histogram<u64>,
    instructions: Option<u64>,
    started: Instant,
    ended: Instant,
}

/// Runs `script`. `interrupted` is asked about every 50 ms on the calling thread; `true` ends
/// the run with the figures so far.
///
/// Blocks until the run has ended.
///
/// # Errors
///
/// The first step that failed. Other threads end after their current iteration.
///
/// # Panics
///
/// Never; threads that cannot be made are reported as a failure of step 0.
pub fn run(
    script: &Script,
    options: &Options,
    mut interrupted: impl FnMut() -> bool,
) -> Result<Report, Failure> {
    let mut options = options.clone();
    options.threads = options.threads.max(1);
    if options.instances.is_empty() {
        options.instances = vec![Vec::new(); options.threads];
    }
    options.threads = options.threads.min(options.instances.len());
    options.batch = options.batch.max(1);
    let threads = options.threads;
    let snapshot = options.snapshot.clone();
    let shared = Arc::new(Shared {
        script: script.clone(),
        stop: AtomicBool::new(false),
        gate: Gate::default(),
        places: (0..threads).map(|_| Place::default()).collect(),
        options,
    });
    let (sender, receiver) = mpsc::channel();
    for index in 0..threads {
        let (theirs, sender) = (Arc::clone(&shared), sender.clone());
        let spawned = thread::Builder::new()
            .name(format!("clib-script-{index}"))
            .spawn(move || work(&theirs, index, &sender));
        if let Err(error) = spawned {
            shared.end();
            return Err(cannot_start(&shared, &error));
        }
    }
    drop(sender);
    supervise(&shared, &receiver, snapshot.as_ref(), &mut interrupted)
}

fn cannot_start(shared: &Shared, error: &std::io::Error) -> Failure {
    Failure {
        step: 0,
        description: format!("start {} threads", shared.options.threads),
        iteration: 0,
        instance: 0,
        problem: Problem::Errno(error.raw_os_error().unwrap_or(libc::EAGAIN)),
    }
}

enum Message {
    Ready,
    Done(Box<Tally>),
    Failed(Box<Failure>),
}

fn supervise(
    shared: &Arc<Shared>,
    receiver: &Receiver<Message>,
    snapshot: Option<&Snapshot>,
    interrupted: &mut impl FnMut() -> bool,
) -> Result<Report, Failure> {
    let threads = shared.options.threads;
    let mut watch = Watch::new(shared);
    let mut ready = 0;
    let mut before = Vec::new();
    let mut tallies: Vec<Tally> = Vec::new();
    let mut failure: Option<Failure> = None;
    while tallies.len() < threads {
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok(Message::Ready) => {
                ready += 1;
                if ready == threads {
                    before = snapshot.map(|read| read()).unwrap_or_default();
                    watch = Watch::new(shared);
                    shared.gate.open();
                }
            }
            Ok(Message::Done(tally)) => tallies.push(*tally),
            Ok(Message::Failed(found)) => {
                shared.end();
                failure = Some(*found);
                break;
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if interrupted() {
                    shared.end();
                }
                if let Some(stuck) = watch.stuck(shared) {
                    shared.end();
                    return Err(stuck);
                }
            }
        }
    }
    if let Some(failure) = failure {
        // Let the other threads leave the caller's memory before the caller may free it.
        while tallies.len() + 1 < threads {
            match receiver.recv_timeout(shared.options.step_limit) {
                Ok(Message::Done(tally)) => tallies.push(*tally),
                Ok(Message::Failed(_) | Message::Ready) => {}
                Err(_) => break,
            }
        }
        return Err(failure);
    }
    let after = snapshot.map(|read| read()).unwrap_or_default();
    let counters = after
        .iter()
        .zip(&before)
        .map(|(now, then)| now.saturating_sub(*then))
        .collect();
    Ok(merge(tallies, counters))
}

fn merge(tallies: Vec<Tally>, counters: Vec<u64>) -> Report {
    let started = tallies.iter().map(|tally| tally.started).min();
    let ended = tallies.iter().map(|tally| tally.ended).max();
    let mut report = Report {
        operations: 0,
        elapsed: started
            .zip(ended)
            .map_or(Duration::ZERO, |(start, end)| end - start),
        latency: new_histogram(),
        counters,
        instructions: Some(0),
    };
    for tally in tallies {
        report.operations += tally.operations;
        // Both have the same bounds, so adding cannot fail.
        let _ = report.latency.add(&tally.latency);
        report.instructions = report
            .instructions
            .zip(tally.instructions)
            .map(|(a, b)| a + b);
    }
    report
}

/// Nanoseconds up to an hour, three significant digits.
fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_max(3_600_000_000_000, 3)
        .unwrap_or_else(|_| unreachable!("fixed bounds that the crate documents as valid"))
}

/// Notices workers that stand still.
struct Watch {
    seen: Vec<(u64, Instant)>,
}

impl Watch {
    fn new(shared: &Shared) -> Self {
        let now = Instant::now();
        let seen = shared
            .places
            .iter()
            .map(|place| (place.moves.load(Ordering::Relaxed), now));
        Self {
            seen: seen.collect(),
        }
    }

    /// The worker that has not moved for longer than the limit and is in a call.
    fn stuck(&mut self, shared: &Shared) -> Option<Failure> {
        let limit = shared.options.step_limit;
        for (place, (moves, since)) in shared.places.iter().zip(&mut self.seen) {
            let now = place.moves.load(Ordering::Relaxed);
            if now != *moves || now == 0 {
                (*moves, *since) = (now, Instant::now());
                continue;
            }
            let step = place.step.load(Ordering::Relaxed);
            let Some(in_call @ Step::Call { .. }) = shared.script.steps.get(step) else {
                continue;
            };
            if since.elapsed() > limit {
                return Some(Failure {
                    step,
                    description: in_call.describe(),
                    iteration: place.iteration.load(Ordering::Relaxed).cast_signed(),
                    instance: place.instance.load(Ordering::Relaxed),
                    problem: Problem::Stuck { limit },
                });
            }
        }
        None
    }
}

fn work(shared: &Shared, index: usize, sender: &Sender<Message>) {
    let mut worker = match Worker::new(shared, index) {
        Ok(worker) => worker,
        Err(failure) => {
            let _ = sender.send(Message::Failed(Box::new(failure)));
            return;
        }
    };
    let warmup = shared.options.warmup;
    for turn in 0..warmup {
        let iteration = turn.wrapping_sub(warmup).cast_signed();
        if let Err(failure) = worker.turn(turn, iteration) {
            let _ = sender.send(Message::Failed(Box::new(failure)));
            return;
        }
    }
    worker.rest();
    if sender.send(Message::Ready).is_err() {
        return;
    }
    shared.gate.wait();
    let message = match worker.measure(warmup) {
        Ok(tally) => Message::Done(Box::new(tally)),
        Err(failure) => Message::Failed(Box::new(failure)),
    };
    worker.rest();
    let _ = sender.send(message);
}

/// A step with its buffers, ready to run.
enum Ready<'a> {
    Send {
        fd: &'a Value,
        bytes: &'a Bytes,
        buffer: Vec<u8>,
        fds: &'a [Value],
        numbers: Vec<i32>,
    },
    Call {
        call: Call,
        expect: &'a Expected,
    },
    Recv {
        fd: &'a Value,
        buffer: Vec<u8>,
        expect: &'a Bytes,
        wanted: Vec<u8>,
    },
    Wait {
        fd: &'a Value,
    },
}

struct Worker<'a> {
    shared: &'a Shared,
    place: &'a Place,
    mine: Vec<usize>,
    steps: Vec<Ready<'a>>,
    control: Vec<u64>,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared, index: usize) -> Result<Self, Failure> {
        let steps: Result<Vec<_>, _> = shared
            .script
            .steps
            .iter()
            .enumerate()
            .map(|(step, it)| prepare(step, it))
            .collect();
        let all = shared.options.instances.len();
        Ok(Self {
            shared,
            place: &shared.places[index],
            mine: (index..all).step_by(shared.options.threads).collect(),
            steps: steps?,
            control: vec![0; CONTROL.div_ceil(8)],
        })
    }

    /// The supervisor looks for workers that stand still; this one has ended.
    fn rest(&self) {
        self.place.step.store(usize::MAX, Ordering::Relaxed);
    }

    /// One iteration of each of this thread's instances.
    fn turn(&mut self, turn: u64, shown: i64) -> Result<(), Failure> {
        let stride = self.shared.options.instances.len() as u64;
        for position in 0..self.mine.len() {
            let instance = self.mine[position];
            let iteration = turn.wrapping_mul(stride).wrapping_add(instance as u64);
            self.place.instance.store(instance, Ordering::Relaxed);
            self.place
                .iteration
                .store(shown.cast_unsigned(), Ordering::Relaxed);
            self.once(instance, iteration, shown)?;
        }
        Ok(())
    }

    fn once(&mut self, instance: usize, iteration: u64, shown: i64) -> Result<(), Failure> {
        let numbers = &self.shared.options.instances[instance];
        let limit = self.shared.options.step_limit;
        for (index, step) in self.steps.iter_mut().enumerate() {
            self.place.step.store(index, Ordering::Relaxed);
            let moves = self.place.moves.load(Ordering::Relaxed);
            self.place.moves.store(moves + 1, Ordering::Relaxed);
            if let Err(problem) = step.run(iteration, numbers, &mut self.control, limit) {
                return Err(Failure {
                    step: index,
                    description: self.shared.script.steps[index].describe(),
                    iteration: shown,
                    instance,
                    problem,
                });
            }
        }
        Ok(())
    }

    fn measure(&mut self, warmup: u64) -> Result<Tally, Failure> {
        let Options { limit, batch, .. } = self.shared.options;
        let each = self.mine.len() as u64;
        let mut latency = new_histogram();
        let mut counter = perf_event::Builder::new().build().ok();
        if let Some(counter) = &mut counter {
            // A counter that cannot be started reads 0 and is dropped below.
            let _ = counter.enable();
        }
        let started = Instant::now();
        let mut last = started;
        let mut turns: u64 = 0;
        loop {
            let wanted = match limit {
                Limit::Times(times) => times.saturating_sub(turns).min(batch),
                Limit::Time(time) if last - started >= time => 0,
                Limit::Time(_) => batch,
            };
            if wanted == 0 || self.shared.stop.load(Ordering::Relaxed) {
                break;
            }
            for turn in turns..turns + wanted {
                self.turn(warmup.wrapping_add(turn), turn.cast_signed())?;
            }
            turns += wanted;
            let now = Instant::now();
            let operations = wanted * each;
            let nanoseconds = (now - last).as_nanos() / u128::from(operations.max(1));
            latency.saturating_record_n(u64::try_from(nanoseconds).unwrap_or(u64::MAX), operations);
            last = now;
        }
        let instructions = counter
            .and_then(|mut counter| counter.read().ok())
            .filter(|count| *count > 0);
        Ok(Tally {
            operations: turns * each,
            latency,
            instructions,
            started,
            ended: last,
        })
    }
}

fn prepare(index: usize, step: &Step) -> Result<Ready<'_>, Failure> {
    Ok(match step {
        Step::Send { fd, bytes, fds, .. } => Ready::Send {
            fd,
            bytes,
            buffer: bytes.buffer(),
            fds: &fds[..fds.len().min(253)],
            numbers: vec![0; fds.len().min(253)],
        },
        Step::Call {
            function,
            arguments,
            expect,
        } => Ready::Call {
            call: Call::new(function, arguments).map_err(|sentence| Failure {
                step: index,
                description: sentence,
                iteration: 0,
                instance: 0,
                problem: Problem::Errno(libc::EINVAL),
            })?,
            expect,
        },
        Step::Recv { fd, length, expect } => Ready::Recv {
            fd,
            buffer: vec![0; *length],
            expect,
            wanted: expect.buffer(),
        },
        Step::Wait { fd } => Ready::Wait { fd },
    })
}

/// The low 32 bits of a value, which is how descriptors are given.
fn descriptor(value: &Value, iteration: u64, instance: &[u64]) -> i32 {
    let [a, b, c, d, ..] = value.at(iteration, instance).to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

impl Ready<'_> {
    fn run(
        &mut self,
        iteration: u64,
        instance: &[u64],
        control: &mut [u64],
        limit: Duration,
    ) -> Result<(), Problem> {
        let trouble = |trouble| match trouble {
            Trouble::Errno(errno) => Problem::Errno(errno),
            Trouble::Closed(received) => Problem::Closed { received },
            Trouble::Late(transferred) => Problem::Late { transferred, limit },
        };
        match self {
            Self::Send {
                fd,
                bytes,
                buffer,
                fds,
                numbers,
            } => {
                bytes.write(buffer, iteration, instance);
                for (number, value) in numbers.iter_mut().zip(*fds) {
                    *number = descriptor(value, iteration, instance);
                }
                let fd = descriptor(fd, iteration, instance);
                io::send(fd, buffer, numbers, control, limit).map_err(trouble)
            }
            Self::Call { call, expect } => {
                let (result, errno) = call.call(iteration, instance);
                check(expect, result, errno)
            }
            Self::Recv {
                fd,
                buffer,
                expect,
                wanted,
            } => {
                io::recv(descriptor(fd, iteration, instance), buffer, limit).map_err(trouble)?;
                expect.write(wanted, iteration, instance);
                if buffer.starts_with(wanted) {
                    return Ok(());
                }
                Err(Problem::Bytes {
                    received: buffer.clone(),
                    expected: wanted.clone(),
                })
            }
            Self::Wait { fd } => {
                io::wait(descriptor(fd, iteration, instance), limit).map_err(trouble)
            }
        }
    }
}

fn check(expect: &Expected, result: i128, errno: i32) -> Result<(), Problem> {
    let expected = match expect {
        Expected::Anything => return Ok(()),
        Expected::Result(wanted) if result == *wanted => return Ok(()),
        Expected::Failure {
            result: wanted,
            errno: number,
        } if result == *wanted && errno == *number => {
            return Ok(());
        }
        Expected::Result(wanted) => wanted.to_string(),
        Expected::Failure {
            result: wanted,
            errno: number,
        } => {
            format!(
                "{wanted} with errno {}",
                std::io::Error::from_raw_os_error(*number)
            )
        }
    };
    Err(Problem::Result {
        result,
        errno,
        expected,
    })
}
