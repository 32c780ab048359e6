//! What each library under test holds: blocks, descriptors, mappings.
//!
//! Hooks write, reports read. The tables live in private mappings, are split over locks that are held for a few
//! instructions, and are free in a forked child. Nothing in them looks like a pointer to what it describes.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use crate::{lock::Lock, sys, table};

mod entries;
pub(crate) mod filter;
mod ranges;
pub(crate) mod stacks;

use entries::{Table, disguise};
use ranges::Ranges;

pub(crate) use entries::Entry;

/// What kind of thing is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A block of memory; the key is its address.
    Memory = 1,
    /// A file descriptor; the key is its number.
    Descriptor = 2,
    /// A mapping; the key is its first address.
    Mapping = 3,
}

/// Something that a library under test acquired and has not given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What kind of thing.
    pub kind: Kind,
    /// Address of the block or mapping, or number of the descriptor.
    pub key: usize,
    /// Bytes as asked for; 0 for descriptors.
    pub size: usize,
    /// The function that returned it, by its name in the table.
    pub function: &'static str,
    /// [`crate::LibraryInfo::id`] of the library that called it.
    pub library: u16,
    /// Return address of that call.
    pub site: usize,
    /// Return addresses from `site` outwards, as far as frames are of libraries under test.
    pub backtrace: Vec<usize>,
    /// Larger is later; see [`crate::session::Mark`].
    pub sequence: u64,
    /// What [`crate::Session::set_test`] said at the time.
    pub test: u32,
    /// Thread that made the call (kernel's id).
    pub thread: i32,
}

const SHARDS: usize = 64;

/// Memory and descriptors.
static TABLES: [Lock<Table>; SHARDS] = [const { Lock::new(Table::new()) }; SHARDS];
static RANGES: Lock<Ranges> = Lock::new(Ranges::new());
static SEQUENCE: AtomicU64 = AtomicU64::new(0);
static TEST: AtomicU32 = AtomicU32::new(0);
/// Bytes of all blocks, and their most since [`take_peak`].
static BYTES: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);
/// Bytes of all blocks that the libraries were ever given.
static ACQUIRED: AtomicU64 = AtomicU64::new(0);

#[inline]
fn shard(disguised: u64) -> &'static Lock<Table> {
    // The table hashes with other bits.
    &TABLES[(disguised.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 58) as usize]
}

/// A new entry for something acquired now.
pub(crate) fn entry(row: u16, library: u16, site: usize, stack: u32, size: usize) -> Entry {
    Entry {
        size: size as u64,
        site,
        sequence: SEQUENCE.fetch_add(1, Ordering::Relaxed) + 1,
        test: TEST.load(Ordering::Relaxed),
        thread: sys::thread_id(),
        stack,
        row,
        library,
        ..Entry::EMPTY
    }
}

/// Notes a block or descriptor.
#[inline]
pub(crate) fn insert(kind: Kind, key: usize, entry: Entry) {
    let entry = entry.keyed(kind as u8, key);
    let before = shard(disguise(kind as u8, key)).lock().insert(entry);
    if kind == Kind::Memory {
        if before.is_none() {
            filter::add(key);
        }
        let more = entry.counted() - before.map_or(0, |before| before.counted());
        let now = BYTES.fetch_add(more, Ordering::Relaxed) + more;
        PEAK.fetch_max(now, Ordering::Relaxed);
    }
}

/// Takes a block or descriptor out.
#[inline]
pub(crate) fn remove(kind: Kind, key: usize) -> Option<Entry> {
    let disguised = disguise(kind as u8, key);
    let removed = shard(disguised).lock().remove(disguised)?;
    if kind == Kind::Memory {
        filter::remove(key);
        BYTES.fetch_sub(removed.counted(), Ordering::Relaxed);
    }
    Some(removed)
}

/// Bytes of all blocks that the libraries hold now, and the most they held since the last call of this function.
pub fn take_peak() -> (u64, u64) {
    let now = BYTES.load(Ordering::Relaxed);
    let peak = PEAK.swap(now, Ordering::Relaxed).max(now);
    (now.max(0).cast_unsigned(), peak.max(0).cast_unsigned())
}

/// Counts a block that a library was given.
#[inline]
pub(crate) fn count_bytes(size: u64) {
    ACQUIRED.fetch_add(size, Ordering::Relaxed);
}

/// Bytes of all blocks that the libraries were ever given.
pub(crate) fn acquired() -> u64 {
    ACQUIRED.load(Ordering::Relaxed)
}

/// Notes a mapping.
pub(crate) fn insert_range(start: usize, size: usize, entry: Entry) {
    RANGES.lock().insert(start, size, entry);
}

/// Takes part of the address space out of all mappings.
pub(crate) fn cut_range(start: usize, size: usize) -> bool {
    let mut ranges = RANGES.lock();
    !ranges.is_empty() && ranges.cut(start, size)
}

/// Takes out the mapping that begins at an address, and returns its size.
pub(crate) fn take_range(start: usize) -> Option<(usize, Entry)> {
    RANGES.lock().take(start)
}

/// Sees to it that something is not told again. Memory stays known: what is lost is no live memory, and what it points to is not
/// reached through it.
pub(crate) fn disown(kind: Kind, key: usize) {
    match kind {
        Kind::Memory => {
            let disguised = disguise(kind as u8, key);
            let fewer = shard(disguised).lock().disown(disguised);
            BYTES.fetch_sub(fewer, Ordering::Relaxed);
        }
        Kind::Mapping => RANGES.lock().disown(key),
        Kind::Descriptor => drop(remove(kind, key)),
    }
}

/// Takes descriptors `first..=last` out.
pub(crate) fn remove_descriptors(first: usize, last: usize) {
    for table in &TABLES {
        let mut table = table.lock();
        // A removal may move others to places already seen, so begin anew after each.
        loop {
            let wanted = |entry: &&Entry| {
                entry.kind() == Kind::Descriptor as u8 && (first..=last).contains(&entry.key())
            };
            let Some(key) = table.iter().find(wanted).map(Entry::key) else {
                break;
            };
            table.remove(disguise(Kind::Descriptor as u8, key));
        }
    }
}

/// The newest sequence number.
pub(crate) fn now() -> u64 {
    SEQUENCE.load(Ordering::Relaxed)
}

/// The number stored with what is acquired from now on.
pub(crate) fn set_test(test: u32) {
    TEST.store(test, Ordering::Relaxed);
}

/// Everything acquired after `mark`, oldest first.
pub(crate) fn since(mark: u64) -> Vec<Held> {
    // Keys are inverted in here: this memory will be freed, and old pointers in it would mislead.
    let mut found = Vec::new();
    for table in &TABLES {
        let table = table.lock();
        if table.len() != 0 && table.newest() > mark {
            found.extend(
                table
                    .iter()
                    .filter(|entry| entry.sequence > mark && !entry.is_disowned())
                    .map(|entry| (entry.kind(), !entry.key(), entry.size, *entry)),
            );
        }
    }
    for (start, size, entry) in RANGES.lock().iter() {
        if entry.sequence > mark && !entry.is_disowned() {
            found.push((Kind::Mapping as u8, !start, size as u64, *entry));
        }
    }
    found.sort_unstable_by_key(|(_, _, _, entry)| entry.sequence);
    found
        .into_iter()
        .map(|(kind, key, size, entry)| held(kind, !key, size, &entry))
        .collect()
}

fn held(kind: u8, key: usize, size: u64, entry: &Entry) -> Held {
    let mut backtrace = stacks::frames(entry.stack);
    if backtrace.is_empty() {
        backtrace.push(entry.site);
    }
    Held {
        kind: match kind {
            1 => Kind::Memory,
            2 => Kind::Descriptor,
            _ => Kind::Mapping,
        },
        key,
        size: usize::try_from(size).unwrap_or(usize::MAX),
        function: table::all()
            .get(usize::from(entry.row))
            .map_or("?", |function| function.name),
        library: entry.library,
        site: entry.site,
        backtrace,
        sequence: entry.sequence,
        test: entry.test,
        thread: entry.thread,
    }
}

/// About how many things are held.
pub(crate) fn count() -> usize {
    TABLES.iter().map(|table| table.lock().len()).sum::<usize>() + RANGES.lock().iter().count()
}

/// Where a block or mapping lies, for a reachability scan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// Its address, inverted.
    pub(crate) inverted: usize,
    pub(crate) size: usize,
    /// It is a block of the C heap, and not a mapping.
    pub(crate) block: bool,
    /// As [`Held::sequence`].
    pub(crate) sequence: u64,
    /// Nobody asks for it.
    pub(crate) disowned: bool,
}

/// Every block and mapping, those that were disowned as well.
pub(crate) fn extents() -> Vec<Extent> {
    let mut extents = Vec::new();
    for table in &TABLES {
        let table = table.lock();
        if table.len() == 0 {
            continue;
        }
        extents.extend(
            table
                .iter()
                .filter(|entry| entry.kind() == Kind::Memory as u8)
                .map(|entry| Extent {
                    inverted: !entry.key(),
                    size: usize::try_from(entry.size).unwrap_or(0),
                    block: true,
                    sequence: entry.sequence,
                    disowned: entry.is_disowned(),
                }),
        );
    }
    extents.extend(RANGES.lock().iter().map(|(start, size, entry)| Extent {
        inverted: !start,
        size,
        block: false,
        sequence: entry.sequence,
        disowned: entry.is_disowned(),
    }));
    extents
}

/// Forgets everything.
pub(crate) fn clear() {
    for table in &TABLES {
        table.lock().clear();
    }
    RANGES.lock().clear();
    filter::clear();
    BYTES.store(0, Ordering::Relaxed);
    PEAK.store(0, Ordering::Relaxed);
}

/// Takes all locks before a fork.
pub(crate) fn hold() {
    TABLES.iter().for_each(Lock::hold);
    RANGES.hold();
    stacks::WRITER.hold();
}

/// Gives them back after it, in both processes.
pub(crate) fn release() {
    stacks::WRITER.release();
    RANGES.release();
    TABLES.iter().for_each(Lock::release);
}
