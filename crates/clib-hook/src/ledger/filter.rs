//! Which addresses may be those of blocks that are held: a counter for each of 65,536 groups of addresses.
//!
//! Nearly every `free` of the process is of a block that no library under test has. A zero here says so in a few instructions, before
//! anything is saved or locked ([`crate::thunk`] reads the counters itself); another value says nothing. A counter that
//! reaches its end stays there.

use std::sync::atomic::{AtomicU8, Ordering};

const GROUPS: usize = 1 << 16;

/// By bits 4 to 19 of the address.
pub(crate) static COUNTERS: [AtomicU8; GROUPS] = [const { AtomicU8::new(0) }; GROUPS];

fn counter(address: usize) -> &'static AtomicU8 {
    &COUNTERS[(address >> 4) % GROUPS]
}

/// A block is held from now on. Call it before the block can be released.
pub(super) fn add(address: usize) {
    change(address, 1);
}

/// It is held no longer.
pub(super) fn remove(address: usize) {
    change(address, u8::MAX);
}

fn change(address: usize, by: u8) {
    let step = |count: u8| (count != u8::MAX).then(|| count.wrapping_add(by));
    // Without a change it has reached its end.
    let _changed = counter(address).fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
}

/// Nothing is held.
pub(super) fn clear() {
    for counter in &COUNTERS {
        counter.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_up_and_down_and_stay_at_their_end() {
        const PLACE: usize = 0x7fff_0012_3450;
        let now = || counter(PLACE).load(Ordering::Relaxed);
        for times in [1, 3, 254] {
            (0..times).for_each(|_| add(PLACE));
            assert_eq!(now(), times);
            (0..times).for_each(|_| remove(PLACE));
            assert_eq!(now(), 0);
        }
        (0..300).for_each(|_| add(PLACE));
        (0..300).for_each(|_| remove(PLACE));
        assert_eq!(now(), u8::MAX, "it no longer knows how many there are");
        assert_eq!(counter(PLACE + 16).load(Ordering::Relaxed), 0);
        counter(PLACE).store(0, Ordering::Relaxed);
    }
}
