//! Any sequence of messages, quiesces, and lost connections.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vfu_fuzz::{Op, Rig};

fuzz_target!(|ops: Vec<Op>| {
    let mut rig = Rig::new();
    rig.connect_well();
    for op in ops.iter().take(64) {
        rig.step(op);
        if matches!(
            op,
            Op::Message { .. }
                | Op::Map { .. }
                | Op::Unmap { .. }
                | Op::Access { .. }
                | Op::Feature { .. }
                | Op::Irqs { .. }
        ) {
            rig.run();
        }
    }
    rig.finish();
});
