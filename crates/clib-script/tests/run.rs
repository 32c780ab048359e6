//! Scripts against real sockets and real C functions.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clib_script::{
    Argument, Bytes, Expected, Function, Limit, Options, Problem, Returned, Script, Step, Value,
    run,
};

fn fd(stream: &UnixStream) -> Value {
    Value::Constant(stream.as_raw_fd().cast_unsigned().into())
}

fn numbered(width: usize) -> Bytes {
    let mut bytes = Bytes::fixed(vec![0; width]);
    bytes
        .patch(
            0,
            width,
            Value::Counter {
                start: 0,
                step: 1,
                wrap: 0,
            },
        )
        .unwrap();
    bytes
}

fn times(times: u64) -> Options {
    Options {
        limit: Limit::Times(times),
        warmup: 0,
        ..Options::default()
    }
}

fn quick() -> Options {
    Options {
        step_limit: Duration::from_millis(60),
        ..times(1)
    }
}

fn go(steps: Vec<Step>, options: &Options) -> Result<clib_script::Report, clib_script::Failure> {
    run(&Script::new(steps).unwrap(), options, || false)
}

static CALLS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_calls() -> u64 {
    CALLS.fetch_add(1, Ordering::Relaxed)
}

extern "C" fn idle() {}

fn function(address: usize, name: &str, returned: Returned) -> Function {
    // SAFETY: the tests name functions of libc and of this file, with fitting arguments.
    unsafe { Function::new(address, name.to_owned(), returned) }
}

#[test]
fn bytes_go_round_with_a_number_for_each_iteration() {
    let (a, mut b) = UnixStream::pair().unwrap();
    let echo = std::thread::spawn(move || {
        let mut seen = Vec::new();
        let mut buffer = [0; 4];
        while b.read_exact(&mut buffer).is_ok() {
            seen.push(u32::from_le_bytes(buffer));
            b.write_all(&buffer).unwrap();
        }
        seen
    });
    let steps = vec![
        Step::Send {
            fd: fd(&a),
            bytes: numbered(4),
            fds: vec![],
        },
        Step::Wait { fd: fd(&a) },
        Step::Recv {
            fd: fd(&a),
            length: 4,
            expect: numbered(4),
        },
    ];
    let report = go(steps, &times(5)).unwrap();
    drop(a);
    assert_eq!(echo.join().unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(report.operations, 5);
    assert_eq!(report.latency.len(), 5);
}

#[test]
fn counters_leave_the_warm_up_out() {
    let call = function(
        count_calls as *const () as usize,
        "count_calls",
        Returned::Unsigned(8),
    );
    let steps = vec![Step::Call {
        function: call,
        arguments: vec![],
        expect: Expected::Anything,
    }];
    let options = Options {
        warmup: 7,
        threads: 3,
        snapshot: Some(Arc::new(|| vec![CALLS.load(Ordering::Relaxed)])),
        ..times(100)
    };
    let report = go(steps, &options).unwrap();
    assert_eq!((report.operations, report.counters), (300, vec![300]));
}

#[test]
fn instances_use_their_own_descriptors() {
    let pairs: Vec<_> = (0..4).map(|_| UnixStream::pair().unwrap()).collect();
    let instances = pairs.iter().map(|(a, b)| {
        [a, b]
            .map(|end| u64::from(end.as_raw_fd().cast_unsigned()))
            .to_vec()
    });
    let options = Options {
        threads: 2,
        instances: instances.collect(),
        ..times(3)
    };
    let steps = vec![
        Step::Send {
            fd: Value::Instance(0),
            bytes: numbered(8),
            fds: vec![],
        },
        Step::Recv {
            fd: Value::Instance(1),
            length: 8,
            expect: numbered(8),
        },
    ];
    assert_eq!(go(steps, &options).unwrap().operations, 12);
}

#[test]
fn descriptors_travel() {
    let (a, b) = UnixStream::pair().unwrap();
    let steps = vec![Step::Send {
        fd: fd(&a),
        bytes: Bytes::fixed(vec![1]),
        fds: vec![fd(&b), fd(&a)],
    }];
    go(steps, &times(1)).unwrap();
    let mut control = [0u64; 8];
    let mut byte = 0u8;
    let mut part = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: `message` points to live buffers.
    let received = unsafe { libc::recvmsg(b.as_raw_fd(), &raw mut message, 0) };
    assert_eq!(received, 1);
    assert_eq!(
        control[0],
        16 + 2 * 4,
        "two descriptors in one control message"
    );
}

#[test]
fn a_receive_that_never_comes_names_its_step() {
    let (a, _b) = UnixStream::pair().unwrap();
    let steps = vec![
        Step::Send {
            fd: fd(&a),
            bytes: Bytes::fixed(vec![1]),
            fds: vec![],
        },
        Step::Recv {
            fd: fd(&a),
            length: 3,
            expect: Bytes::default(),
        },
    ];
    let failure = go(steps, &quick()).unwrap_err();
    assert_eq!((failure.step, failure.iteration), (1, 0));
    assert_eq!(
        failure.problem,
        Problem::Late {
            transferred: 0,
            limit: Duration::from_millis(60)
        }
    );
    assert_eq!(
        failure.to_string(),
        "step 1 (recv 3 bytes), iteration 0, instance 0: nothing within 0.1 s"
    );
}

#[test]
fn other_bytes_a_closed_peer_and_a_bad_descriptor_are_told_apart() {
    let (a, mut b) = UnixStream::pair().unwrap();
    b.write_all(&[1, 2, 9]).unwrap();
    let expect = Bytes::fixed(vec![1, 2, 3]);
    let failure = go(
        vec![Step::Recv {
            fd: fd(&a),
            length: 3,
            expect,
        }],
        &quick(),
    )
    .unwrap_err();
    assert!(
        failure
            .to_string()
            .ends_with("byte 2 differs: received 010209, expected 010203"),
        "{failure}"
    );

    b.write_all(&[1]).unwrap();
    drop(b);
    let steps = vec![Step::Recv {
        fd: fd(&a),
        length: 3,
        expect: Bytes::default(),
    }];
    assert_eq!(
        go(steps, &quick()).unwrap_err().problem,
        Problem::Closed { received: 1 }
    );

    let steps = vec![Step::Send {
        fd: fd(&a),
        bytes: numbered(4),
        fds: vec![],
    }];
    assert_eq!(
        go(steps, &quick()).unwrap_err().problem,
        Problem::Errno(libc::EPIPE)
    );
    let steps = vec![Step::Wait {
        fd: Value::Constant(u64::MAX),
    }];
    assert!(matches!(
        go(steps, &quick()).unwrap_err().problem,
        Problem::Late { .. }
    ));
}

#[test]
fn results_and_errno_are_compared() {
    let close = function(
        libc::close as *const () as usize,
        "close",
        Returned::Signed(4),
    );
    let arguments = vec![Argument::Integer(Value::Constant(u64::MAX))];
    let step = |expect| {
        vec![Step::Call {
            function: close.clone(),
            arguments: arguments.clone(),
            expect,
        }]
    };
    let bad = Expected::Failure {
        result: -1,
        errno: libc::EBADF,
    };
    assert_eq!(go(step(bad), &times(2)).unwrap().operations, 2);
    let failure = go(step(Expected::Result(0)), &times(2)).unwrap_err();
    assert!(
        failure.to_string().contains(
            "returned -1 with errno Bad file descriptor (os error 9) where 0 was expected"
        ),
        "{failure}"
    );
}

#[test]
fn a_call_that_does_not_return_ends_the_run() {
    let (a, _b) = UnixStream::pair().unwrap();
    let mut byte = Box::new(0u8);
    let read = function(
        libc::read as *const () as usize,
        "read",
        Returned::Signed(8),
    );
    let arguments = vec![
        Argument::Integer(fd(&a)),
        Argument::Integer(Value::Constant((&raw mut *byte) as u64)),
        Argument::Integer(Value::Constant(1)),
    ];
    let steps = vec![Step::Call {
        function: read,
        arguments,
        expect: Expected::Anything,
    }];
    let failure = go(steps, &quick()).unwrap_err();
    assert!(
        matches!(failure.problem, Problem::Stuck { .. }),
        "{failure}"
    );
    a.shutdown(std::net::Shutdown::Both).unwrap();
}

#[test]
fn an_interrupted_run_reports_what_it_has() {
    let call = function(idle as *const () as usize, "idle", Returned::Void);
    let steps = vec![Step::Call {
        function: call,
        arguments: vec![],
        expect: Expected::Anything,
    }];
    let options = Options {
        limit: Limit::Time(Duration::from_secs(3600)),
        ..times(0)
    };
    let mut asked = 0;
    let report = run(&Script::new(steps).unwrap(), &options, || {
        asked += 1;
        asked > 1
    });
    assert!(report.unwrap().operations > 0);
}

#[test]
fn scripts_that_cannot_run_are_refused() {
    assert!(Script::new(vec![]).is_err());
    let recv = |length, expect| {
        Script::new(vec![Step::Recv {
            fd: Value::Constant(0),
            length,
            expect,
        }])
    };
    assert!(recv(0, Bytes::default()).is_err());
    assert!(recv(1, Bytes::fixed(vec![0; 2])).is_err());
    assert!(recv(2, Bytes::fixed(vec![0; 2])).is_ok());
}
