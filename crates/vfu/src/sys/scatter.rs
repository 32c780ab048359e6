//! Translation into entries that are initialised already.

use crate::dma::{Dma, Error, Segment};

/// Overwrites the first entries of `out`, and says how many: at most `out.len()`, also if the range needs more.
pub(crate) fn translate(
    dma: &Dma,
    iova: u64,
    len: u64,
    prot: u32,
    out: &mut [Segment],
) -> Result<usize, Error> {
    // SAFETY: `out` is an exclusive slice of the length passed, hence writable and aligned.
    let needed = unsafe { dma.translate_raw(iova, len, prot, out.as_mut_ptr(), out.len()) }?;
    Ok(needed.min(out.len()))
}
