//! Translation and access to the client's memory, for any thread.
//!
//! Segments come from memory that this crate does not own: each is checked against its slot before use, and the copy
//! under way is what was checked. The client's memory is touched in [`copy_in`] and [`copy_out`] only.

use core::ptr::NonNull;

use super::error::Error;
use super::slots::{Pin, check_bounds, handle_prot};
use super::sys;
use super::table::Table;
use super::tree::{Changed, Entry, Patience};
use super::types::{Access, Direct, Located, PROT_READ, PROT_WRITE, Segment};

/// How far a translation has come.
#[derive(Clone, Copy)]
struct Progress {
    /// The next address to translate.
    cursor: u64,
    /// Entries so far.
    count: usize,
}

enum Step {
    /// Up to the end of a leaf.
    More(Progress),
    Finished(usize),
    Failed(Error),
}

/// What a translation was asked for.
struct Query {
    last: u64,
    prot: u32,
    out: *mut Segment,
    max: usize,
}

impl Table {
    /// The one entry for a range within a region, found in one attempt. Nothing in here can panic.
    #[inline]
    pub(super) fn translate_one(&self, iova: u64, len: u64, prot: u32) -> Option<Segment> {
        let last = iova.checked_add(len.checked_sub(1)?)?;
        let entry = self.tree.try_entry_at_or_before(iova)?;
        if last > entry.last || prot & PROT_WRITE & !handle_prot(entry.handle) != 0 {
            return None;
        }
        Some(Segment {
            dma_addr: entry.base,
            handle: entry.handle,
            length: len,
            offset: iova.wrapping_sub(entry.base), // the entry is at or before `iova`
            writeable: u8::from(prot & PROT_WRITE != 0),
            reserved: [0; 7],
        })
    }

    /// # Safety
    /// `out` is valid for writing `max` entries, aligned, and used by nobody else.
    #[inline]
    pub(super) unsafe fn translate(
        &self,
        iova: u64,
        len: u64,
        prot: u32,
        out: *mut Segment,
        max: usize,
    ) -> Result<usize, Error> {
        // Nearly all ranges lie in one region, whose entry fits.
        if max != 0
            && let Some(segment) = self.translate_one(iova, len, prot)
        {
            // SAFETY: `max` is not 0.
            unsafe { out.write(segment) };
            return Ok(1);
        }
        // SAFETY: the caller's promise.
        unsafe { self.translate_slowly(iova, len, prot, out, max) }
    }

    /// # Safety
    /// As [`translate`](Self::translate).
    #[cold]
    unsafe fn translate_slowly(
        &self,
        iova: u64,
        len: u64,
        prot: u32,
        out: *mut Segment,
        max: usize,
    ) -> Result<usize, Error> {
        if len == 0 {
            return Ok(0);
        }
        // A range that passes the end of the address space is translated up to there, for the sake of what fails first.
        let (last, wraps) = match iova.checked_add(len - 1) {
            Some(last) => (last, false),
            None => (u64::MAX, true),
        };
        let query = Query {
            last,
            prot,
            out,
            max,
        };
        let mut progress = Progress {
            cursor: iova,
            count: 0,
        };
        let mut patience = Patience::default();
        loop {
            // Leaf by leaf: a change elsewhere does not make a long list start again. Each entry was right when it
            // was made; whether it still is, its generation tells.
            // SAFETY: the caller's promise.
            match unsafe { self.translate_leaf(&query, progress) } {
                Ok(Step::Finished(_)) if wraps => return Err(Error::NotCovered { iova: 0 }),
                Ok(Step::Finished(count)) => return Ok(count),
                Ok(Step::Failed(error)) => return Err(error),
                Ok(Step::More(next)) => progress = next,
                Err(Changed) => patience.wait(),
            }
        }
    }

    /// Translates what one leaf knows.
    ///
    /// # Safety
    /// As [`translate`](Self::translate).
    unsafe fn translate_leaf(&self, query: &Query, from: Progress) -> Result<Step, Changed> {
        let seq = self.tree.begin();
        let validated = |step| {
            if self.tree.unchanged(seq) {
                Ok(step)
            } else {
                Err(Changed)
            }
        };
        let Progress {
            mut cursor,
            mut count,
        } = from;
        let Some((leaf, mut at)) = self.tree.floor(seq, cursor)? else {
            return validated(Step::Failed(Error::NotCovered { iova: cursor }));
        };
        loop {
            let entry = leaf.entry(at);
            if cursor < entry.base || cursor > entry.last {
                return validated(Step::Failed(Error::NotCovered { iova: cursor }));
            }
            if count < query.max {
                let allowed = handle_prot(entry.handle);
                if query.prot & PROT_WRITE & !allowed != 0 {
                    let error = Error::Forbidden {
                        region: entry.base,
                        prot: allowed,
                    };
                    return validated(Step::Failed(error));
                }
                let segment = segment(&entry, cursor, query.last, query.prot);
                // SAFETY: `count` is below the number of entries that the caller gave.
                unsafe { query.out.add(count).write(segment) };
            }
            count += 1;
            if query.last <= entry.last {
                return validated(Step::Finished(count));
            }
            cursor = entry.last + 1; // `entry.last < query.last`, so this does not wrap
            at += 1;
            if at >= leaf.len() {
                return validated(Step::More(Progress { cursor, count }));
            }
        }
    }

    #[inline]
    pub(super) fn segment_to_iovec(
        &self,
        segment: &Segment,
    ) -> Result<(NonNull<u8>, usize), Error> {
        let (vaddr, size) = self.slots.peek(segment.handle)?;
        check_bounds(segment, size)?;
        let not_mapped = Error::NotMapped {
            iova: segment.dma_addr.wrapping_add(segment.offset),
        };
        let base = NonNull::new(vaddr).ok_or(not_mapped)?;
        let offset = usize::try_from(segment.offset).map_err(|_| not_mapped)?;
        let length = usize::try_from(segment.length).map_err(|_| not_mapped)?;
        // SAFETY: within the region, as checked, hence within its mapping.
        Ok((unsafe { base.add(offset) }, length))
    }

    pub(super) fn is_mappable(&self, segment: &Segment) -> bool {
        self.slots
            .peek(segment.handle)
            .is_ok_and(|(vaddr, _)| !vaddr.is_null())
    }

    pub(super) fn locate(&self, segment: &Segment) -> Result<Located, Error> {
        located(&self.pin_segment(segment)?, segment)
    }

    fn pin_segment(&self, segment: &Segment) -> Result<Pin<'_>, Error> {
        let pin = self.slots.pin(segment.handle)?;
        check_bounds(segment, pin.size())?;
        Ok(pin)
    }

    /// # Safety
    /// `to` is valid for writing `segment.length` bytes.
    pub(super) unsafe fn read(&self, segment: &Segment, to: *mut u8) -> Result<Direct, Error> {
        let pin = self.pin_segment(segment)?;
        match pin.access() {
            Access::Mapped => {
                allow(&pin, PROT_READ)?;
                let (at, length) = place(&pin, segment)?;
                // SAFETY: `place` lies within the mapping, which the pin keeps; the caller vouches for `to`.
                unsafe { copy_in(at, to, length) };
                Ok(Direct::Done)
            }
            Access::File => {
                transfer(&pin, segment, |fd, done, left, offset| {
                    // SAFETY: `done + left` is the segment's length, for which the caller vouches.
                    unsafe { sys::pread(fd, to.add(done), left, offset) }
                })?;
                Ok(Direct::Done)
            }
            Access::Message => Ok(Direct::ByMessage(located(&pin, segment)?)),
        }
    }

    /// # Safety
    /// `from` is valid for reading `segment.length` bytes.
    pub(super) unsafe fn write(&self, segment: &Segment, from: *const u8) -> Result<Direct, Error> {
        if segment.writeable == 0 {
            let iova = segment.dma_addr.wrapping_add(segment.offset);
            return Err(Error::ReadOnlySegment { iova });
        }
        let pin = self.pin_segment(segment)?;
        let result = match pin.access() {
            Access::Mapped => {
                allow(&pin, PROT_WRITE)?;
                let (at, length) = place(&pin, segment)?;
                // SAFETY: `place` lies within the mapping, which the pin keeps; the caller vouches for `from`.
                unsafe { copy_out(from, at, length) };
                Ok(Direct::Done)
            }
            Access::File => transfer(&pin, segment, |fd, done, left, offset| {
                // SAFETY: `done + left` is the segment's length, for which the caller vouches.
                unsafe { sys::pwrite(fd, from.add(done), left, offset) }
            })
            .map(|()| Direct::Done),
            Access::Message => return Ok(Direct::ByMessage(located(&pin, segment)?)),
        };
        // Afterwards, or a report in between would take the mark and miss the data; and also when the file failed
        // half-way, since bytes may have been written.
        mark(&pin, segment);
        result
    }

    pub(super) fn mark_dirty(&self, segment: &Segment) -> Result<(), Error> {
        if segment.writeable == 0 || self.logging_shift() == 0 {
            return Ok(());
        }
        mark(&self.pin_segment(segment)?, segment);
        Ok(())
    }
}

/// The entry of a list for what lies in a region of `[cursor, last]`, of which the region holds the first byte.
#[inline]
fn segment(entry: &Entry, cursor: u64, last: u64, prot: u32) -> Segment {
    Segment {
        dma_addr: entry.base,
        handle: entry.handle,
        length: last.min(entry.last) - cursor + 1,
        offset: cursor - entry.base,
        writeable: u8::from(prot & PROT_WRITE != 0),
        reserved: [0; 7],
    }
}

fn mark(pin: &Pin<'_>, segment: &Segment) {
    if segment.length != 0
        && let Some(bitmap) = pin.bitmap()
    {
        bitmap.mark(segment.offset, segment.length);
    }
}

fn located(pin: &Pin<'_>, segment: &Segment) -> Result<Located, Error> {
    let body = pin.body();
    Ok(Located {
        // Within the region, as checked, so that this does not wrap.
        iova: body.iova.wrapping_add(segment.offset),
        length: segment.length,
        access: pin.access(),
        prot: body.prot,
    })
}

/// The memory of a mapped region may fault unless its protection allows the access.
fn allow(pin: &Pin<'_>, wanted: u32) -> Result<(), Error> {
    let body = pin.body();
    if body.prot & wanted == 0 {
        return Err(Error::Forbidden {
            region: body.iova,
            prot: body.prot,
        });
    }
    Ok(())
}

/// Address and length of a checked segment in the mapping.
fn place(pin: &Pin<'_>, segment: &Segment) -> Result<(*mut u8, usize), Error> {
    let not_mapped = Error::NotMapped {
        iova: segment.dma_addr.wrapping_add(segment.offset),
    };
    let offset = usize::try_from(segment.offset).map_err(|_| not_mapped)?;
    let length = usize::try_from(segment.length).map_err(|_| not_mapped)?;
    // SAFETY: `pin_segment` checked that the segment lies within the region, which lies within the mapping.
    Ok((unsafe { pin.vaddr().add(offset) }, length))
}

/// Moves a whole segment between memory and the region's file. `step` gets the bytes done and left, and the offset.
fn transfer(
    pin: &Pin<'_>,
    segment: &Segment,
    step: impl Fn(std::os::fd::BorrowedFd<'_>, usize, usize, i64) -> Result<usize, i32>,
) -> Result<(), Error> {
    let start = pin.body().offset.wrapping_add(segment.offset); // `add` checked that the region ends below 2^63
    let failed = |done: usize, errno| Error::Io {
        offset: start.wrapping_add(done as u64),
        errno,
    };
    let fd = pin.fd().ok_or(failed(0, libc::EBADF))?;
    let total = usize::try_from(segment.length).map_err(|_| failed(0, libc::EOVERFLOW))?;
    let mut done = 0;
    while done < total {
        let at = i64::try_from(start.wrapping_add(done as u64))
            .map_err(|_| failed(done, libc::EOVERFLOW))?;
        match step(fd, done, total - done, at) {
            Ok(0) => return Err(failed(done, 0)),
            Ok(n) => done += n.min(total - done),
            Err(errno) => return Err(failed(done, errno)),
        }
    }
    Ok(())
}

/// Copies from the client's memory.
///
/// # Safety
/// `from` is mapped for `len` bytes, `to` is valid for writing them. They may overlap: a caller's buffer may be client
/// memory, too.
unsafe fn copy_in(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: as promised by the caller. The client may write at the same time, from another process: the bytes are then
    // some mixture, which is the client's problem; nothing is ever derived from reading them twice.
    unsafe { core::ptr::copy(from, to, len) };
}

/// Copies to the client's memory.
///
/// # Safety
/// `to` is mapped for `len` bytes, `from` is valid for reading them. They may overlap.
unsafe fn copy_out(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: as in `copy_in`.
    unsafe { core::ptr::copy(from, to, len) };
}
