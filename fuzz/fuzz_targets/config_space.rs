//! Reads and writes of configuration space: any place, any length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vfu_fuzz::Rig;

fuzz_target!(|accesses: Vec<(u16, Result<u16, Vec<u8>>)>| {
    let mut rig = Rig::new();
    rig.connect_well();
    for (offset, access) in accesses.iter().take(128) {
        match access {
            Ok(count) => rig.access(7, *offset, &[], Some(*count)),
            Err(data) => rig.access(7, *offset, data, None),
        }
        rig.run();
        // Whatever was written, the lists can be walked and end.
        for extended in [false, true] {
            let mut pos = 0;
            for _ in 0..2000 {
                match rig.ctx.pci_find_capability(extended, pos, 0x09) {
                    Ok(next) => {
                        assert!(next > pos, "the search for capabilities goes backwards");
                        pos = next;
                    }
                    Err(_) => break,
                }
            }
        }
    }
    rig.finish();
});
