//! Migration states and data, in any order, and dirty page logging.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vfu_fuzz::{Command, Op, Rig};

#[derive(Debug, Arbitrary)]
enum Step {
    State(u32, u8),
    Read {
        argsz: u32,
        size: u32,
    },
    Write {
        argsz: u32,
        size: u32,
        data: Vec<u8>,
    },
    Other(Op),
}

fuzz_target!(|steps: Vec<Step>| {
    let mut rig = Rig::new();
    rig.connect_well();
    for step in steps.iter().take(64) {
        let pair = |argsz: u32, size: u32| [argsz.to_le_bytes(), size.to_le_bytes()].concat();
        let send = |command: Command, payload: Vec<u8>| Op::Message {
            command: command as u8,
            payload,
            fds: 0,
            silent: false,
        };
        let op = match step {
            Step::State(state, quiesce) => {
                rig.device.quiesce = *quiesce;
                let head = pair(16, 0x2_0002);
                send(Command::DeviceFeature, [head, pair(state % 9, 0)].concat())
            }
            Step::Read { argsz, size } => send(Command::MigDataRead, pair(*argsz, *size)),
            Step::Write { argsz, size, data } => send(
                Command::MigDataWrite,
                [pair(*argsz, *size), data.clone()].concat(),
            ),
            Step::Other(op) => op.clone(),
        };
        rig.step(&op);
        rig.run();
    }
    rig.finish();
});
