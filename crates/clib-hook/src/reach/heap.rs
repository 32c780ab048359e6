//! Free chunks of the C library's heaps, where old bytes linger that look like live pointers.
//!
//! A chunk is preceded by a word with its size and three flags; the lowest says whether the chunk *before* it is in use. Small
//! freed chunks stay "in use" in a cache per thread; there the second word of the user's part is a key that only
//! cached chunks have. What does not add up ends the walk: the rest of the heap is then scanned whole.
//!
//! Nothing here allocates: what a search needs afterwards may then lie in the chunks found free, and is not scanned.

use std::sync::OnceLock;

use crate::{region::Array, sys};

const PREVIOUS_IN_USE: usize = 1;
const FLAGS: usize = 7;
const SMALLEST: usize = 32;
/// Heaps of threads begin at multiples of this.
const ARENA: usize = 64 << 20;
/// Their first chunk comes after descriptions of up to this size.
const ARENA_HEAD: usize = 0x1400;

/// The key by which the C library knows cached chunks (glibc 2.34 and later; before that it is an address, which serves as well).
fn cache_key() -> usize {
    static KEY: OnceLock<usize> = OnceLock::new();
    *KEY.get_or_init(|| {
        // SAFETY: the block is freed before it is read, on purpose, through the kernel: what is there now is what the cache wrote.
        unsafe {
            let block = libc::malloc(72);
            if block.is_null() {
                return 0;
            }
            libc::free(block);
            sys::read_word(block as usize + 8).unwrap_or(0)
        }
    })
}

/// Calls `found` with the start and end of the part of each free chunk that holds old bytes, in all heaps, and of each chunk
/// that an address in `owned` (inverted, in descending order) lies in.
pub(super) fn free_chunks(owned: &[usize], mut found: impl FnMut(usize, usize)) {
    let key = cache_key();
    // Chunks in fast bins look used; this puts them where free chunks are.
    // SAFETY: no preconditions; it frees nothing that is in use.
    unsafe { libc::malloc_trim(usize::MAX / 2) };
    let (Some(maps), Some(mut memory)) = (maps(), Window::new()) else {
        return;
    };
    for line in maps.split(|byte| *byte == b'\n') {
        let Some((start, end, name)) = writable(line) else {
            continue;
        };
        if name == b"[heap]" {
            walk(start, end, key, owned, &mut memory, &mut |_, part| {
                part.report(&mut found);
            });
        } else if name.is_empty() {
            // Other memory may go before, in the same area.
            let mut arena = start.next_multiple_of(ARENA);
            while arena + ARENA_HEAD < end {
                let end = end.min(arena + ARENA);
                arena_chunks(arena, end, key, owned, &mut memory, &mut found);
                arena += ARENA;
            }
        }
    }
}

/// Calls `found` with the address and value of each word of the main heap, which lies from `start` to `end`, that is in memory in
/// use, and could be an address; as far as its chunks add up. Call it in the main thread.
pub(super) fn addresses(start: usize, end: usize, mut found: impl FnMut(usize, usize)) {
    const LARGE: usize = 1 << 16;
    let key = cache_key();
    // A large request takes chunks out of fast bins; see above.
    // SAFETY: nobody uses the block.
    unsafe { libc::free(std::hint::black_box(libc::malloc(LARGE))) };
    let Some(mut memory) = Window::new() else {
        return;
    };
    walk(start, end, key, &[], &mut memory, &mut |memory, part| {
        if let Part::Used(start, end) = part {
            memory.addresses(start, end, &mut found);
        }
    });
}

/// Free chunks of a thread's heap. Where its chunks begin depends on the version: it is where a walk leads exactly to the end.
fn arena_chunks(
    arena: usize,
    end: usize,
    key: usize,
    owned: &[usize],
    memory: &mut Window,
    found: &mut impl FnMut(usize, usize),
) {
    let mut firsts = (arena + 0x20..arena + ARENA_HEAD).step_by(16);
    if let Some(first) = firsts.find(|first| walk(*first, end, key, &[], memory, &mut |_, _| {})) {
        // What goes before describes the heap: it points to chunks, not for their owners.
        found(arena, first);
        walk(first, end, key, owned, memory, &mut |_, part| {
            part.report(found);
        });
    }
}

/// Bytes that a chunk for a request of `size` bytes really has.
pub(super) fn chunk_room(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(SMALLEST) - 8
}

/// Bytes that the block of `size` bytes at `start` really has: a chunk may be a little larger than asked for.
pub(super) fn room(start: usize, size: usize) -> usize {
    let least = chunk_room(size);
    match sys::read_word(start.wrapping_sub(8)) {
        Some(header) => (header & !FLAGS)
            .wrapping_sub(8)
            .clamp(least, least + SMALLEST - 16),
        None => size,
    }
}

/// Where the chunk after a block begins: inside the block's own last word, if that is used. The C library's lists of free chunks point there.
pub(super) fn next_chunk(start: usize, size: usize) -> usize {
    start + chunk_room(size) - 8
}

/// Whether `word`, found at `at`, leads to what goes before the chunks of the thread's heap that `at` lies in.
pub(super) fn is_head_of_arena(word: usize, at: usize) -> bool {
    let arena = at & !(ARENA - 1);
    (arena..arena + ARENA_HEAD).contains(&word)
        // It begins with the address of its own description.
        && sys::read_word(arena).is_some_and(|own| (arena + 1..arena + 0x100).contains(&own))
}

/// Memory that is read in order, and in large pieces: a look through the kernel for each word would take most of the time.
struct Window {
    bytes: Array<u8>,
    start: usize,
    read: usize,
}

/// Bytes of it that are kept when it moves on: a walk also looks back.
const OVERLAP: usize = 4096;

impl Window {
    fn new() -> Option<Self> {
        Some(Self {
            bytes: Array::new(super::PIECE)?,
            start: 0,
            read: 0,
        })
    }

    /// Calls `found` with each word of a range that could be an address, as (address, word).
    fn addresses(&mut self, start: usize, end: usize, found: &mut impl FnMut(usize, usize)) {
        const LOWEST: usize = 1 << 16;
        const HIGHEST: usize = 1 << 47;
        let mut at = start.next_multiple_of(8);
        while at + 8 <= end {
            if self.word(at).is_none() {
                return;
            }
            let from = at - self.start;
            let to = self.read.min(end - self.start);
            for (number, word) in self.bytes[from..to].chunks_exact(8).enumerate() {
                let word = word.try_into().map_or(0, usize::from_ne_bytes);
                if (LOWEST..HIGHEST).contains(&word) {
                    found(at + number * 8, word);
                }
            }
            at += (to - from) & !7;
        }
    }

    /// The word at `address`, as it was when this part was read; `None` if it cannot be read.
    fn word(&mut self, address: usize) -> Option<usize> {
        if address < self.start || address + 8 > self.start + self.read {
            // What goes before may not be there.
            for start in [address.saturating_sub(OVERLAP), address] {
                self.start = start & !(sys::PAGE - 1);
                self.read = sys::read_memory(self.start, &mut self.bytes);
                if address + 8 <= self.start + self.read {
                    break;
                }
            }
        }
        let at = address - self.start;
        let bytes = self.bytes[..self.read].get(at..at + 8)?;
        Some(usize::from_ne_bytes(bytes.try_into().ok()?))
    }
}

/// The part of a chunk that is its user's, from where to where.
enum Part {
    /// It is in use.
    Used(usize, usize),
    /// It is free, or of no interest.
    Free(usize, usize),
}

impl Part {
    /// Calls `found` if nobody uses it.
    fn report(self, found: &mut impl FnMut(usize, usize)) {
        if let Self::Free(start, end) = self {
            found(start, end);
        }
    }
}

/// Walks over chunks, and calls `found` for each; says whether they lead exactly to `end`.
fn walk(
    start: usize,
    end: usize,
    key: usize,
    owned: &[usize],
    memory: &mut Window,
    found: &mut impl FnMut(&mut Window, Part),
) -> bool {
    let mut owned = &owned[owned.partition_point(|inverted| !inverted < start)..];
    // The first chunk's user part is aligned to 16.
    let mut chunk = start.next_multiple_of(16);
    while chunk + SMALLEST <= end {
        let Some(size) = memory.word(chunk + 8).map(|word| word & !FLAGS) else {
            return false;
        };
        if size < SMALLEST || !size.is_multiple_of(16) || size > end - chunk {
            return false;
        }
        let next = chunk + size;
        let user = chunk + 16;
        if next == end {
            // The top of the heap, which nobody has.
            found(memory, Part::Free(user, end));
            return true;
        }
        let free = memory
            .word(next + 8)
            .is_some_and(|word| word & PREVIOUS_IN_USE == 0);
        let passed = owned
            .iter()
            .take_while(|inverted| !**inverted < next)
            .count();
        owned = &owned[passed..];
        // The user part goes on to the size word of the next chunk.
        let part = if free || passed > 0 || (key != 0 && memory.word(user + 8) == Some(key)) {
            Part::Free(user, next + 8)
        } else {
            Part::Used(user, next + 8)
        };
        found(memory, part);
        chunk = next;
    }
    false
}

/// `/proc/self/maps`, read without the C heap.
fn maps() -> Option<Array<u8>> {
    let mut text: Array<u8> = Array::new(8 << 20)?;
    // SAFETY: a C string, and reads into our own array.
    unsafe {
        let fd = libc::open(
            c"/proc/self/maps".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        );
        if fd < 0 {
            return None;
        }
        let mut used = 0;
        while used < text.len() {
            let rest = &mut text[used..];
            match usize::try_from(libc::read(fd, rest.as_mut_ptr().cast(), rest.len())) {
                Ok(read) if read > 0 => used += read,
                _ => break,
            }
        }
        libc::close(fd);
    }
    Some(text)
}

/// Start, end and name of a line of maps, if it is private writable memory.
fn writable(line: &[u8]) -> Option<(usize, usize, &[u8])> {
    let line = std::str::from_utf8(line).ok()?;
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let name = rest.splitn(5, ' ').nth(4).unwrap_or_default().trim_start();
    rest.starts_with("rw-p").then_some((
        usize::from_str_radix(start, 16).ok()?,
        usize::from_str_radix(end, 16).ok()?,
        name.as_bytes(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_in_use_are_not_free_and_freed_ones_are() {
        let used: Vec<Box<[u8; 100]>> = (0..100).map(|_| Box::new([1; 100])).collect();
        let freed: Vec<usize> = {
            let blocks: Vec<Box<[u8; 3000]>> = (0..9).map(|_| Box::new([1; 3000])).collect();
            blocks
                .iter()
                .map(|block| block.as_ptr() as usize + 100)
                .collect()
        };
        let mut free: Array<(usize, usize)> = Array::new(1 << 16).expect("memory");
        let mut count = 0;
        free_chunks(&[], |start, end| {
            free[count] = (start, end);
            count += 1;
        });
        let is_free = |address: usize| {
            free[..count]
                .iter()
                .any(|(start, end)| (*start..*end).contains(&address))
        };
        assert!(used.iter().all(|block| !is_free(block.as_ptr() as usize)));
        assert!(freed.into_iter().all(is_free));
    }
}
