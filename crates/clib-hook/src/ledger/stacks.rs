//! Backtraces, each kept once and named by a number. Reading takes no lock.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::{lock::Lock, sys};

/// Deepest backtrace that is kept.
pub(crate) const DEEPEST: usize = 16;

/// Distinct backtraces that fit; more are dropped (their things keep the call site).
const MOST: usize = 1 << 17;
const PLACES: usize = MOST * 2;
const RECORD: usize = 2 + DEEPEST;

/// Address of `MOST` records of `RECORD` words: hash, length, frames. Then `PLACES` numbers. 0 until the first use.
static BASE: AtomicUsize = AtomicUsize::new(0);
static USED: AtomicU32 = AtomicU32::new(0);
pub(crate) static WRITER: Lock<()> = Lock::new(());

/// Hash of a backtrace; never 0.
#[inline]
pub(crate) fn hash(frames: &[usize]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ frames.len() as u64;
    for frame in frames {
        hash = (hash ^ *frame as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    hash | 1
}

fn base() -> Option<usize> {
    let base = BASE.load(Ordering::Acquire);
    if base != 0 {
        return Some(base);
    }
    let _writer = WRITER.lock();
    if BASE.load(Ordering::Acquire) == 0 {
        BASE.store(sys::map(MOST * RECORD * 8 + PLACES * 4)?, Ordering::Release);
    }
    Some(BASE.load(Ordering::Acquire))
}

fn word(base: usize, stack: u32, at: usize) -> &'static AtomicU64 {
    debug_assert!((stack as usize) < MOST && at < RECORD);
    let address = base + (stack as usize * RECORD + at) * 8;
    // SAFETY: `base` is a mapping that is never given back, and the word lies in its first part (asserted above).
    unsafe { &*(address as *const AtomicU64) }
}

fn place(base: usize, at: usize) -> &'static AtomicU32 {
    let address = base + MOST * RECORD * 8 + (at % PLACES) * 4;
    // SAFETY: as above, in its second part.
    unsafe { &*(address as *const AtomicU32) }
}

/// The number of a backtrace (from 1), or 0 when there is no room.
pub(crate) fn intern(frames: &[usize]) -> u32 {
    let frames = &frames[..frames.len().min(DEEPEST)];
    let hash = hash(frames);
    let Some(base) = base() else { return 0 };
    let start = (hash >> 17) as usize;
    if let Err(stack) = probe(base, start, hash) {
        return stack + 1;
    }
    let _writer = WRITER.lock();
    let at = match probe(base, start, hash) {
        Ok(at) => at,
        Err(stack) => return stack + 1,
    };
    let stack = USED.load(Ordering::Relaxed);
    if stack as usize >= MOST {
        return 0;
    }
    word(base, stack, 0).store(hash, Ordering::Relaxed);
    word(base, stack, 1).store(frames.len() as u64, Ordering::Relaxed);
    for (at, frame) in frames.iter().enumerate() {
        word(base, stack, 2 + at).store(*frame as u64, Ordering::Relaxed);
    }
    USED.store(stack + 1, Ordering::Relaxed);
    place(base, at).store(stack + 1, Ordering::Release);
    stack + 1
}

/// The empty place where a hash would go, or else the stack that has it. The table is never more than half full.
fn probe(base: usize, start: usize, hash: u64) -> Result<usize, u32> {
    let mut at = start;
    loop {
        match place(base, at).load(Ordering::Acquire) {
            0 => return Ok(at),
            stack if word(base, stack - 1, 0).load(Ordering::Relaxed) == hash => {
                return Err(stack - 1);
            }
            _ => at += 1,
        }
    }
}

/// The frames of a backtrace by its number, written to the start of `into`; returns how many.
pub(crate) fn read(stack: u32, into: &mut [usize; DEEPEST]) -> usize {
    let base = BASE.load(Ordering::Acquire);
    if stack == 0 || base == 0 || stack > USED.load(Ordering::Acquire) {
        return 0;
    }
    let length = usize::try_from(word(base, stack - 1, 1).load(Ordering::Relaxed))
        .unwrap_or(0)
        .min(DEEPEST);
    for (at, frame) in into.iter_mut().enumerate().take(length) {
        *frame =
            usize::try_from(word(base, stack - 1, 2 + at).load(Ordering::Relaxed)).unwrap_or(0);
    }
    length
}

/// The frames of a backtrace by its number.
pub(crate) fn frames(stack: u32) -> Vec<usize> {
    let mut frames = [0; DEEPEST];
    let length = read(stack, &mut frames);
    frames[..length].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_backtraces_have_one_number() {
        let first = intern(&[1, 2, 3]);
        let second = intern(&[1, 2]);
        assert_ne!(first, 0);
        assert_ne!(first, second);
        assert_eq!(intern(&[1, 2, 3]), first);
        assert_eq!(frames(first), [1, 2, 3]);
        assert_eq!(frames(second), [1, 2]);
        assert!(frames(0).is_empty());
    }
}
