//! The pools of `CPython`'s allocator of small objects, found by what stands at their start.
//!
//! A walk of live objects sees pools in which such objects live. Others of the same allocator hold none at the moment, or only
//! objects that it does not meet, and have old bytes all the same. A pool's header says which size its blocks have, where
//! the last one begins, and how far the pool was used; all three agreeing is no chance.
//!
//! Memory is read through the kernel: a mapping may be inaccessible, or gone.

use crate::walk::POOL;

/// Bytes before a pool's first block.
const HEADER: usize = 48;
/// Where the index of the block's size, the offset of the block to be used next, and the highest such offset stand.
const FIELDS: usize = 36;
/// The sizes of blocks are multiples of this.
const UNIT: usize = 16;
/// Number of sizes.
const SIZES: u32 = 32;
/// Headers read at once.
const BATCH: usize = 512;

type Fields = [u32; 3];

/// The pools in `mappings`, as (start, end), and side by side as one; in order if the mappings are.
pub(crate) fn pools(mappings: impl Iterator<Item = (usize, usize)>) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    let mut fields = vec![Fields::default(); BATCH];
    for (start, end) in mappings {
        let mut at = start.next_multiple_of(POOL);
        while at + POOL <= end {
            let count = ((end - at) / POOL).min(BATCH);
            let read = read_fields(at, &mut fields[..count]);
            for (number, fields) in fields[..read].iter().enumerate() {
                let pool = at + number * POOL;
                if !is_pool(*fields) {
                    continue;
                }
                match found.last_mut() {
                    Some((_, end)) if *end == pool => *end += POOL,
                    _ => found.push((pool, pool + POOL)),
                }
            }
            // Past one that cannot be read.
            at += (read + usize::from(read < count)) * POOL;
        }
    }
    found
}

fn is_pool([size, next, last]: Fields) -> bool {
    if size >= SIZES {
        return false;
    }
    let size = (size as usize + 1) * UNIT;
    let (next, last) = (next as usize, last as usize);
    // What is used next may lie one block past the last one.
    last == POOL - size && (HEADER..=POOL).contains(&next) && (next - HEADER).is_multiple_of(size)
}

/// Reads the fields of pools that follow one another; returns of how many, up to the first that cannot be read.
fn read_fields(first: usize, into: &mut [Fields]) -> usize {
    let length = size_of::<Fields>();
    let remote: Vec<libc::iovec> = (0..into.len())
        .map(|number| libc::iovec {
            iov_base: std::ptr::without_provenance_mut(first + number * POOL + FIELDS),
            iov_len: length,
        })
        .collect();
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: size_of_val(into),
    };
    // SAFETY: `local` describes `into`, any bytes are valid in it, and the kernel checks `remote`.
    let read = unsafe {
        libc::process_vm_readv(
            libc::getpid(),
            &raw const local,
            1,
            remote.as_ptr(),
            remote.len() as libc::c_ulong,
            0,
        )
    };
    usize::try_from(read).unwrap_or(0) / length
}
