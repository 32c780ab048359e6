//! The first message of a client: any bytes, and any text in a right VERSION.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vfu_fuzz::{Rig, version};

fuzz_target!(|data: &[u8]| {
    let mut rig = Rig::new();
    if let Some((0, raw)) = data.split_first().map(|(kind, rest)| (kind % 4, rest)) {
        rig.connect(raw);
    } else {
        rig.connect(&version(data));
    }
    rig.connect_well();
    rig.run();
    rig.finish();
});
