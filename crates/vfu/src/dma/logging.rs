//! The dirty page log: what is logged, starting and stopping, and reports.
//!
//! A region's bitmap counts pages of the log from the region's base. A report counts pages of its own size from its first
//! address. Between the two lie only ranges of addresses, in 64-bit arithmetic, and every write to the report is
//! bounded by its buffer: no combination of page sizes, bases and lengths needs a case of its own.
//!
//! A report that starts at a region's base and stays in that region covers whole 64-bit words of the region's bitmap
//! (as far as they have a place in the report): clients of the C library see the pages after the range that share
//! the last word. Everywhere else, a logged page that lies only partly in the range is reported and stays dirty, so
//! that no report loses what another range has a right to.

use super::bitmap::{self, Bitmap, Mask, WORD};
use super::error::Error;
use super::slots::Owned;
use super::table::{Change, Table};
use super::tree::Entry;
use super::types::LogRange;
use core::sync::atomic::Ordering;

/// Words fetched under one freeze: 256 MiB of guest memory in pages of 4 KiB, about a microsecond.
const BATCH: u64 = 1024;

/// The addresses that are logged.
#[derive(Debug, Default)]
pub(super) enum Ranges {
    #[default]
    Everything,
    /// Inclusive first and last addresses; sorted, disjoint, not adjacent.
    Some(Vec<(u64, u64)>),
}

impl Ranges {
    /// The union of these ranges and those asked for; none means everything.
    fn with(&self, more: &[LogRange], keep: bool) -> Result<Self, Error> {
        let mut all = Vec::new();
        let kept: &[(u64, u64)] = match self {
            _ if !keep => &[],
            Self::Everything => return Ok(Self::Everything),
            Self::Some(ranges) => ranges,
        };
        if more.is_empty() {
            return Ok(Self::Everything);
        }
        let count = kept.len().saturating_add(more.len());
        all.try_reserve_exact(count).map_err(|_| Error::NoMemory)?;
        all.extend_from_slice(kept); // within the capacity reserved above, as all that follows
        for &LogRange { iova, length } in more {
            let last = length.checked_sub(1).and_then(|n| iova.checked_add(n));
            all.push((iova, last.ok_or(Error::BadRange { iova, length })?));
        }
        all.sort_unstable();
        all.dedup_by(|next, previous| {
            let joined = next.0 <= previous.1.saturating_add(1);
            if joined {
                previous.1 = previous.1.max(next.1);
            }
            joined
        });
        Ok(Self::Some(all))
    }

    /// The ranges that meet `[first, last]`, cut to it.
    fn within(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let (whole, some) = match self {
            Self::Everything => (Some((first, last)), &[][..]),
            Self::Some(ranges) => (
                None,
                &ranges[ranges.partition_point(|range| range.1 < first)..],
            ),
        };
        let cut = some.iter().take_while(move |range| range.0 <= last);
        whole
            .into_iter()
            .chain(cut.map(move |range| (range.0.max(first), range.1.min(last))))
    }

    /// Whether any byte of a region (of at least one byte, not past the end) is logged.
    pub(super) fn touch(&self, iova: u64, size: u64) -> bool {
        self.within(iova, iova + (size - 1)).next().is_some()
    }
}

/// A page size of the log as a shift.
fn log_shift(page_size: u64) -> Result<u32, Error> {
    if !page_size.is_power_of_two() || page_size < super::MIN_LOG_PAGE_SIZE {
        return Err(Error::PageSize { page_size });
    }
    Ok(page_size.trailing_zeros())
}

impl Table {
    /// 0 while logging is off.
    pub(super) fn logging_shift(&self) -> u32 {
        self.log_shift.load(Ordering::Acquire)
    }

    fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let mut from = Some(0);
        std::iter::from_fn(move || {
            let entry = self.tree.entry_at_or_after(from?)?;
            from = entry.last.checked_add(1);
            Some(entry)
        })
    }
}

/// Bytes of a report's bitmap, in whole words.
pub(super) fn report_size(length: u64, page_size: u64) -> Result<usize, Error> {
    if page_size == 0 {
        return Err(Error::PageSize { page_size });
    }
    let words = length.div_ceil(page_size).div_ceil(WORD);
    let bytes = words
        .checked_mul(8)
        .and_then(|bytes| usize::try_from(bytes).ok());
    bytes
        .filter(|&bytes| bytes <= super::MAX_REPORT_BYTES)
        .ok_or(Error::ReportTooLong { length, page_size })
}

impl Change<'_> {
    pub(super) fn start_logging(&self, page_size: u64, ranges: &[LogRange]) -> Result<(), Error> {
        let shift = log_shift(page_size)?;
        let current = self.logging_shift();
        if current != 0 && current != shift {
            return Err(Error::PageSizeDiffers {
                page_size,
                current: 1 << current,
            });
        }
        let ranges = self.ranges().with(ranges, current != 0)?;
        // SAFETY: the one Change that exists is the only writer, here and below.
        unsafe { self.slots.sweep() };
        for entry in self.entries() {
            if let Err(error) = self.equip(entry, &ranges, shift) {
                self.strip(|entry| current == 0 || !self.ranges().touch(entry.base, size(entry)));
                return Err(error);
            }
        }
        *self.ranges() = ranges;
        self.log_shift.store(shift, Ordering::Release);
        Ok(())
    }

    /// Gives a region its bitmap, if it is to have one and has none.
    fn equip(&self, entry: Entry, ranges: &Ranges, shift: u32) -> Result<(), Error> {
        // SAFETY: the one Change that exists is the only writer.
        let has_one = unsafe { self.slots.owned(entry.handle)? }
            .bitmap()
            .is_some();
        let by_message = self.slots.pin(entry.handle)?.access() == super::Access::Message;
        if has_one || by_message || !ranges.touch(entry.base, size(entry)) {
            return Ok(());
        }
        let bitmap = self.new_bitmap(entry.base, size(entry), shift)?;
        // SAFETY: as above; the region has no bitmap.
        unsafe { self.slots.set_bitmap(entry.handle, bitmap.into_inner()) }
    }

    /// Takes the bitmaps of some regions away.
    fn strip(&self, which: impl Fn(Entry) -> bool) {
        for entry in self.entries().filter(|&entry| which(entry)) {
            // SAFETY: the one Change that exists is the only writer.
            unsafe { self.slots.clear_bitmap(entry.handle) };
        }
    }

    pub(super) fn stop_logging(&self) {
        self.log_shift.store(0, Ordering::Release);
        self.strip(|_| true);
        *self.ranges() = Ranges::Everything;
    }

    /// All checks of a report, in the order of the specification. `buffer` is checked as soon as its size is known.
    pub(super) fn check_report(
        &self,
        iova: u64,
        length: u64,
        page_size: u64,
        buffer: Option<usize>,
    ) -> Result<Plan, Error> {
        let first = self.covered(iova, length)?;
        let at_base = first.base == iova;
        if !at_base && page_size != 0 && !iova.is_multiple_of(page_size) {
            return Err(Error::ReportStart { iova, page_size });
        }
        let log_shift = self.logging_shift();
        if log_shift == 0 {
            return Err(Error::NotLogging);
        }
        if !page_size.is_power_of_two() {
            return Err(Error::PageSize { page_size });
        }
        let larger = page_size.max(1 << log_shift);
        if length < larger {
            return Err(Error::ReportTooShort {
                length,
                page_size: larger,
            });
        }
        let bytes = report_size(length, page_size)?;
        if let Some(found) = buffer.filter(|&found| found != bytes) {
            return Err(Error::BufferSize {
                expected: bytes as u64,
                found: found as u64,
            });
        }
        let mut last = iova + (length - 1);
        if at_base && last <= first.last {
            let in_log = length.div_ceil(1 << log_shift).next_multiple_of(WORD) << log_shift;
            let in_report = bytes as u64 * 8 * page_size;
            last = iova
                .saturating_add(in_log.min(in_report) - 1)
                .min(first.last);
        }
        let plan = Plan {
            iova,
            last,
            log_shift,
            shift: page_size.trailing_zeros(),
            bytes,
        };
        if !self
            .pieces(&plan)
            .any(|(_, region)| region.bitmap().is_some())
        {
            return Err(Error::NotLogged { iova });
        }
        Ok(plan)
    }

    /// Checks that every byte of a range is in a region; returns the region of the first.
    fn covered(&self, iova: u64, length: u64) -> Result<Entry, Error> {
        let containing = |at| {
            let entry = self.tree.entry_at_or_before(at);
            entry
                .filter(|entry| entry.last >= at)
                .ok_or(Error::NotCovered { iova: at })
        };
        let last = length.max(1) - 1;
        let last = iova
            .checked_add(last)
            .ok_or(Error::NotCovered { iova: u64::MAX })?;
        let first = containing(iova)?;
        let mut entry = first;
        while entry.last < last {
            entry = containing(entry.last + 1)?;
        }
        Ok(first)
    }

    /// The regions of a plan.
    fn pieces(&self, plan: &Plan) -> impl Iterator<Item = (Entry, Owned<'_>)> + '_ {
        let last = plan.last;
        let first = self
            .tree
            .entry_at_or_before(plan.iova)
            .map_or(plan.iova, |entry| entry.base);
        let mut from = Some(first);
        std::iter::from_fn(move || {
            let entry = self.tree.entry_at_or_after(from?)?;
            from = entry.last.checked_add(1).filter(|&next| next <= last);
            // SAFETY: the one Change that exists is the only writer, and it outlives the iterator.
            Some((entry, unsafe { self.slots.owned(entry.handle) }.ok()?))
        })
    }

    pub(super) fn report(
        &self,
        iova: u64,
        length: u64,
        page_size: u64,
        out: &mut [u8],
    ) -> Result<(), Error> {
        let plan = self.check_report(iova, length, page_size, Some(out.len()))?;
        debug_assert_eq!(plan.bytes, out.len());
        out.fill(0);
        for (entry, region) in self.pieces(&plan) {
            if let Some(bitmap) = region.bitmap() {
                let piece = Piece {
                    plan: &plan,
                    entry,
                    region,
                    bitmap,
                };
                piece.report(self.ranges(), out);
            }
        }
        bitmap::after_fetch();
        Ok(())
    }
}

fn size(entry: Entry) -> u64 {
    entry.last - entry.base + 1 // regions have at most 8 TiB
}

/// A checked report.
#[derive(Debug)]
pub(super) struct Plan {
    iova: u64,
    /// Last address to look at, maybe beyond what was asked for.
    last: u64,
    log_shift: u32,
    shift: u32,
    pub(super) bytes: usize,
}

/// The part of a report that lies in one region.
struct Piece<'a> {
    plan: &'a Plan,
    entry: Entry,
    region: Owned<'a>,
    bitmap: Bitmap,
}

impl Piece<'_> {
    fn report(&self, ranges: &Ranges, out: &mut [u8]) {
        let Entry { base, last, .. } = self.entry;
        let from = self.plan.iova.max(base);
        let to = self.plan.last.min(last);
        let page = |address: u64| (address - base) >> self.plan.log_shift;
        let page_size = 1_u64 << self.plan.log_shift;
        // The pages at the two ends of the range, if they lie partly outside of it.
        let cut_first = (!(from - base).is_multiple_of(page_size)).then_some(page(from));
        let cut_last =
            (to != last && !(to - base + 1).is_multiple_of(page_size)).then_some(page(to));
        for (first, last) in ranges.within(from, to) {
            self.report_pages(page(first), page(last), [cut_first, cut_last], out);
        }
    }

    /// Fetches the pages `first..=last`, and clears them but for `keep`.
    fn report_pages(&self, first: u64, last: u64, keep: [Option<u64>; 2], out: &mut [u8]) {
        let mut word = first / WORD;
        let end = last / WORD;
        while word <= end {
            let batch = (word + BATCH - 1).min(end);
            self.region.freeze(|alone| {
                let mut at = word;
                while at <= batch {
                    at += self.report_words(at, batch, first, last, keep, alone, out);
                }
            });
            word = batch + 1;
        }
    }

    /// One word, or at once as many whole words as can be copied. Returns how many it did, at least one.
    #[expect(
        clippy::too_many_arguments,
        reason = "the ends of one loop, split for readability"
    )]
    fn report_words(
        &self,
        at: u64,
        batch: u64,
        first: u64,
        last: u64,
        keep: [Option<u64>; 2],
        alone: bool,
        out: &mut [u8],
    ) -> u64 {
        let Ok(index) = usize::try_from(at) else {
            return 1;
        };
        if alone && keep == [None, None] && first <= at * WORD {
            let whole = (last + 1) / WORD; // words below this one are wanted whole
            let count = whole.min(batch + 1).saturating_sub(at);
            if let Some(target) = self.copy_target(at, count, out) {
                // SAFETY: frozen; words up to `last` exist, since pages up to `last` do.
                unsafe { self.bitmap.fetch_words(index, target) };
                return count;
            }
        }
        let from = first.max(at * WORD) % WORD;
        let to = last.min(at * WORD + WORD - 1) % WORD;
        let fetch = bitmap::mask(from, to);
        let mut clear = fetch;
        for page in keep.into_iter().flatten().filter(|page| page / WORD == at) {
            clear &= !(1 << (page % WORD));
        }
        let mask = Mask { fetch, clear };
        let bits = if alone {
            // SAFETY: frozen.
            unsafe { self.bitmap.fetch_exclusive(index, mask) }
        } else {
            self.bitmap.fetch_shared(index, mask)
        };
        self.emit(at, bits, out);
        1
    }

    /// Where `count` words from `at` on go in the report, if they have the same form there.
    fn copy_target<'o>(&self, at: u64, count: u64, out: &'o mut [u8]) -> Option<&'o mut [u8]> {
        if count == 0 || self.plan.shift != self.plan.log_shift {
            return None;
        }
        let address = self.entry.base + ((at * WORD) << self.plan.log_shift);
        let distance = address.checked_sub(self.plan.iova)?;
        let word_bytes = WORD << self.plan.shift;
        if !distance.is_multiple_of(word_bytes) {
            return None;
        }
        let start = usize::try_from(distance / word_bytes * 8).ok()?;
        let len = usize::try_from(count * 8).ok()?;
        out.get_mut(start..start.checked_add(len)?)
    }

    /// Sets the bits of the report for the dirty pages of one word, run by run.
    fn emit(&self, at: u64, mut bits: u64, out: &mut [u8]) {
        let Plan {
            iova,
            last,
            log_shift,
            shift,
            ..
        } = *self.plan;
        while bits != 0 {
            let first = u64::from(bits.trailing_zeros());
            let run = u64::from((!(bits >> first)).trailing_zeros());
            bits &= !bitmap::mask(first, first + run - 1);
            // Addresses of the run, cut to the region and the range. Pages of a region that ends at the top of the
            // address space may end beyond it.
            let start = (at * WORD + first) << log_shift;
            let length = run << log_shift;
            let from = (self.entry.base + start).max(iova);
            let end = (self.entry.base + start).saturating_add(length - 1);
            let to = end.min(self.entry.last).min(last);
            if from <= to {
                set_bits(out, (from - iova) >> shift, (to - iova) >> shift);
            }
        }
    }
}

/// Sets the bits `first..=last` of a report, as far as it has them.
fn set_bits(out: &mut [u8], first: u64, last: u64) {
    let (words, _) = out.as_chunks_mut::<8>();
    let Some(end) = (words.len() as u64 * WORD).checked_sub(1) else {
        return;
    };
    let last = last.min(end);
    let mut bit = first;
    while bit <= last {
        let to = last.min(bit | (WORD - 1));
        if let Some(word) = usize::try_from(bit / WORD)
            .ok()
            .and_then(|at| words.get_mut(at))
        {
            let value = u64::from_le_bytes(*word) | bitmap::mask(bit % WORD, to % WORD);
            *word = value.to_le_bytes();
        }
        bit = to + 1;
    }
}
