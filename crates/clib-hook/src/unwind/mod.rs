//! Backtraces from call-frame information.
//!
//! Two walks. [`call_stack`] follows a call from its site outwards as long as frames are of libraries under test, for every
//! allocation: the rule for each return address is worked out once and then comes from a small cache, a few
//! nanoseconds a frame. [`walk`] follows all frames from given registers, for crash records: it believes
//! nothing, reads memory only through the kernel, allocates nothing, and works in signal handlers.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

use crate::{
    ledger::stacks::{self, DEEPEST},
    lock::Lock,
    objects::{self, Mapped, Object, dynamic::Dynamic},
    thunk::{Frame, Slot, WATCHER},
};

mod cfi;
mod full;

pub(crate) use full::{Registers, walk};

/// How many frames are kept for what is acquired.
static DEPTH: AtomicU8 = AtomicU8::new(0);

/// Libraries under test: start and end of each, for the hot question below.
static LIBRARIES: [(AtomicUsize, AtomicUsize); 256] =
    [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; 256];
static LIBRARY_COUNT: AtomicUsize = AtomicUsize::new(0);

/// What is known of the loaded objects' frame information: a leaked slice, replaced as a whole.
static KNOWN: AtomicUsize = AtomicUsize::new(0);

/// One object's frame information.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// `.eh_frame_hdr`: address and size.
    header: (usize, usize),
    /// End of the segment that holds it (and `.eh_frame`).
    limit: usize,
    pub(crate) bias: usize,
    /// Whether frames of it between a fault and a library under test leave the fault with that library: the C and C++
    /// runtimes, and what the libraries depend on.
    pub(crate) neutral: bool,
    /// Whether it is the object that holds this code.
    pub(crate) own: bool,
    /// Leaked along with the list.
    pub(crate) path: &'static str,
}

/// Sets how many frames are kept.
pub(crate) fn set_depth(depth: u8) {
    DEPTH.store(depth.min(16), Ordering::Relaxed);
}

/// Forgets the libraries under test.
pub(crate) fn clear_libraries() {
    LIBRARY_COUNT.store(0, Ordering::Release);
}

/// Adds a library under test; false when there are too many (256).
pub(crate) fn add_library(start: usize, end: usize) -> bool {
    let count = LIBRARY_COUNT.load(Ordering::Relaxed);
    let Some((first, last)) = LIBRARIES.get(count) else {
        return false;
    };
    first.store(start, Ordering::Relaxed);
    last.store(end, Ordering::Relaxed);
    LIBRARY_COUNT.store(count + 1, Ordering::Release);
    true
}

/// Whether `address` is in a library under test.
#[inline]
pub(crate) fn in_library(address: usize) -> bool {
    let count = LIBRARY_COUNT.load(Ordering::Acquire).min(LIBRARIES.len());
    LIBRARIES[..count].iter().any(|(start, end)| {
        (start.load(Ordering::Relaxed)..end.load(Ordering::Relaxed)).contains(&address)
    })
}

/// Learns the frame information of the objects loaded now. Rules already cached may be of objects that are gone, so
/// they are dropped. `own` is the object that holds this code.
pub(crate) fn learn(objects: &[Mapped], own: Option<&Mapped>) {
    let dependencies = dependencies(objects);
    let known: Vec<Known> = objects
        .iter()
        .map(|mapped| {
            let header = mapped.frames.unwrap_or_default();
            let segment = mapped
                .segments
                .iter()
                .find(|segment| (segment.start..segment.end).contains(&header.0));
            Known {
                start: mapped.object.start,
                end: mapped.object.end,
                header: segment.map_or((0, 0), |_| header),
                limit: segment.map_or(0, |segment| segment.end),
                bias: mapped.object.bias,
                neutral: objects::is_runtime(&mapped.object)
                    || is_dependency(&dependencies, &mapped.object),
                own: own.is_some_and(|own| {
                    own.object.bias == mapped.object.bias && own.object.path == mapped.object.path
                }),
                path: intern_path(&mapped.object.path),
            }
        })
        .collect();
    // Leaked: a walk in another thread or a signal handler may be reading the list before.
    let leaked: &'static Vec<Known> = Box::leak(Box::new(known));
    KNOWN.store((&raw const *leaked) as usize, Ordering::Release);
    for place in &CACHE {
        place.store(0, Ordering::Relaxed);
    }
}

/// Names of what the libraries under test depend on, directly or not. An interpreter is no dependency in this sense,
/// even if an extension module names it.
fn dependencies(objects: &[Mapped]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&Mapped> = objects
        .iter()
        .filter(|mapped| in_library(mapped.object.start))
        .collect();
    while let Some(mapped) = open.pop() {
        let needed = Dynamic::read(mapped)
            .map(|dynamic| dynamic.needed())
            .unwrap_or_default();
        for name in needed {
            if !name.starts_with("libpython") && found.insert(name.clone()) {
                open.extend(
                    objects
                        .iter()
                        .find(|other| objects::is_named(&other.object, &name)),
                );
            }
        }
    }
    found
}

fn is_dependency(dependencies: &BTreeSet<String>, object: &Object) -> bool {
    dependencies
        .iter()
        .any(|name| objects::is_named(object, name))
}

/// Paths are kept for ever, each once.
fn intern_path(path: &str) -> &'static str {
    static PATHS: Lock<Vec<&'static str>> = Lock::new(Vec::new());
    let mut paths = PATHS.lock();
    if let Some(known) = paths.iter().find(|known| **known == path) {
        return known;
    }
    let leaked: &'static str = Box::leak(path.to_owned().into_boxed_str());
    paths.push(leaked);
    leaked
}

/// The number and start of the library under test that `address` is in.
pub(crate) fn library_at(address: usize) -> Option<(usize, usize)> {
    let count = LIBRARY_COUNT.load(Ordering::Acquire).min(LIBRARIES.len());
    LIBRARIES[..count]
        .iter()
        .enumerate()
        .find_map(|(number, (start, end))| {
            let (start, end) = (start.load(Ordering::Relaxed), end.load(Ordering::Relaxed));
            (start..end).contains(&address).then_some((number, start))
        })
}

/// What is known of the object at `address`. Safe in signal handlers.
pub(crate) fn known(address: usize) -> Option<Known> {
    let list = KNOWN.load(Ordering::Acquire) as *const Vec<Known>;
    // SAFETY: the pointer is null or came from `learn`, which leaked what it points to.
    let list = unsafe { list.as_ref() }?;
    list.iter()
        .find(|known| (known.start..known.end).contains(&address))
        .copied()
}

/// A frame's rule in one word: the upper bits of the return address it is for, then the rule. 0 is an empty place.
///
/// Rule: bit 0 valid; bit 1 the CFA is from rbp (else rsp); 14 bits CFA offset in words; 12 bits how many words below
/// the CFA rbp is saved (0: it is not). All ones: no simple rule, the walk ends here.
static CACHE: [AtomicU64; 1 << CACHE_BITS] = [const { AtomicU64::new(0) }; 1 << CACHE_BITS];
const CACHE_BITS: u32 = 16;
const RULE_BITS: u32 = 31;
const NO_RULE: u64 = (1 << RULE_BITS) - 1;

/// What the cache keeps, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    from_rbp: bool,
    offset: usize,
    rbp_below: usize,
}

fn pack(rule: Option<Rule>) -> u64 {
    let Some(rule) = rule.filter(|rule| rule.offset < 1 << 14 && rule.rbp_below < (1 << 12) - 1)
    else {
        return NO_RULE;
    };
    1 | u64::from(rule.from_rbp) << 1 | (rule.offset as u64) << 2 | (rule.rbp_below as u64) << 16
}

fn unpack(word: u64) -> Option<Rule> {
    let word = word & NO_RULE;
    let bits = |shift: u32, width: u32| (word >> shift & ((1 << width) - 1)) as usize;
    (word != NO_RULE).then(|| Rule {
        from_rbp: bits(1, 1) == 1,
        offset: bits(2, 14),
        rbp_below: bits(16, 12),
    })
}

#[inline]
fn rule(address: usize) -> Option<Rule> {
    let place = &CACHE[address & ((1 << CACHE_BITS) - 1)];
    let tag = (address as u64) >> CACHE_BITS;
    let word = place.load(Ordering::Relaxed);
    if word != 0 && word >> RULE_BITS == tag {
        return unpack(word);
    }
    work_out(address, place, tag)
}

#[cold]
fn work_out(address: usize, place: &AtomicU64, tag: u64) -> Option<Rule> {
    // The call instruction, not what follows it, which may be another function.
    let rule = known(address).and_then(|known| cfi::simple_rule(known, address - 1));
    place.store(tag << RULE_BITS | pack(rule), Ordering::Relaxed);
    rule
}

/// Return addresses of the call of `frame`, its site first, as far as frames are of libraries under test.
#[inline]
pub(crate) fn library_frames(frame: &Frame, most: usize, into: &mut [usize; DEEPEST]) -> usize {
    let most = most.min(DEEPEST);
    if most == 0 {
        return 0;
    }
    into[0] = frame.site;
    let (mut pc, mut rsp, mut rbp) = (frame.site, frame.caller_stack(), frame.rbp);
    let mut count = 1;
    while count < most && in_library(pc) {
        let Some(rule) = rule(pc) else { break };
        let cfa = if rule.from_rbp { rbp } else { rsp }.wrapping_add(rule.offset * 8);
        // A frame is above the one it called, and not megabytes large.
        if cfa <= rsp || cfa - rsp > 1 << 22 || !cfa.is_multiple_of(8) {
            break;
        }
        // SAFETY: the compiler's own description of this frame says where it keeps its return address and rbp; both lie
        // between the stack pointer and the CFA, in the live stack of this thread.
        unsafe {
            pc = *((cfa - 8) as *const usize);
            if rule.rbp_below != 0 {
                rbp = *((cfa - rule.rbp_below * 8) as *const usize);
            }
        }
        rsp = cfa;
        if !in_library(pc) {
            break;
        }
        into[count] = pc;
        count += 1;
    }
    count
}

/// The number of the backtrace of a call, as deep as the session wants it; 0 for the site alone.
#[inline]
pub(crate) fn call_stack(frame: &Frame) -> u32 {
    let depth = usize::from(DEPTH.load(Ordering::Relaxed));
    if depth < 2 {
        return 0;
    }
    let mut frames = [0; DEEPEST];
    let count = library_frames(frame, depth, &mut frames);
    if count < 2 {
        return 0;
    }
    stacks::intern(&frames[..count])
}

/// The number of the backtrace of a call by anyone, at least its site.
pub(crate) fn call_stack_of(slot: &Slot, frame: &Frame) -> u32 {
    let mut frames = [0; DEEPEST];
    let most = if slot.library() == WATCHER {
        1
    } else {
        DEEPEST
    };
    let count = library_frames(frame, most, &mut frames);
    stacks::intern(&frames[..count])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_survive_packing() {
        for rule in [
            Rule {
                from_rbp: true,
                offset: 2,
                rbp_below: 2,
            },
            Rule {
                from_rbp: false,
                offset: 16383,
                rbp_below: 0,
            },
            Rule {
                from_rbp: false,
                offset: 1,
                rbp_below: 4000,
            },
        ] {
            assert_eq!(unpack(pack(Some(rule))), Some(rule));
        }
        assert_eq!(unpack(pack(None)), None);
        assert_eq!(
            unpack(pack(Some(Rule {
                from_rbp: false,
                offset: 16384,
                rbp_below: 0
            }))),
            None
        );
    }
}
