//! The table behind the handles: adding and removing regions, and looking them up.
//!
//! One flag keeps changes apart ([`Table::change`]); it is not a lock to wait for: a second thread is refused. Nothing
//! is held when a function returns, so callbacks may do what they like between two calls.

use core::cell::UnsafeCell;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::os::fd::{AsFd, OwnedFd};

use super::bitmap::Bitmap;
use super::error::Error;
use super::logging::Ranges;
use super::slots::{Body, Pin, Slots};
use super::sys;
use super::tree::{Entry, Tree};
use super::types::{
    Access, Added, DmaInfo, NewRegion, PROT_READ, PROT_WRITE, RegionId, RegionInfo,
};

/// Largest unit of a file that mappings are rounded to: the largest page of any x86-64 processor. Beyond it, or if it is
/// no power of two, the client's file system has made the number up.
const MAX_BLOCK: u64 = 1 << 30;

#[derive(Debug)]
pub(super) struct Table {
    pub(super) tree: Tree,
    pub(super) slots: Slots,
    max_regions: usize,
    page_size: u64,
    count: AtomicUsize,
    /// Binary logarithm of the logged page size; 0 while logging is off.
    pub(super) log_shift: AtomicU32,
    busy: AtomicBool,
    ranges: UnsafeCell<Ranges>,
}

// SAFETY: everything but `ranges` is Sync; `ranges` is reached through a `Change` only, of which there is one at a time.
unsafe impl Sync for Table {}

/// The right to change the table.
#[derive(Debug)]
pub(super) struct Change<'a> {
    table: &'a Table,
}

impl Deref for Change<'_> {
    type Target = Table;

    fn deref(&self) -> &Table {
        self.table
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.table.busy.store(false, Ordering::Release);
    }
}

impl Table {
    pub(super) fn new(max_regions: usize) -> Self {
        Self {
            tree: Tree::new(),
            slots: Slots::new(),
            max_regions,
            page_size: sys::page_size(),
            count: AtomicUsize::new(0),
            log_shift: AtomicU32::new(0),
            busy: AtomicBool::new(false),
            ranges: UnsafeCell::new(Ranges::default()),
        }
    }

    pub(super) fn max_regions(&self) -> usize {
        self.max_regions
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// # Errors
    /// [`Error::Busy`].
    pub(super) fn change(&self) -> Result<Change<'_>, Error> {
        if self.busy.swap(true, Ordering::Acquire) {
            return Err(Error::Busy);
        }
        Ok(Change { table: self })
    }

    pub(super) fn find_exact(&self, iova: u64, size: u64) -> Result<RegionId, Error> {
        self.tree
            .entry_at_or_before(iova)
            .filter(|entry| entry.base == iova && size != 0 && entry.last - iova == size - 1)
            .and_then(id)
            .ok_or(Error::NoRegion { iova, size })
    }

    pub(super) fn first(&self) -> Option<RegionId> {
        self.tree.entry_at_or_after(0).and_then(id)
    }

    pub(super) fn next(&self, after: RegionId) -> Option<RegionId> {
        let pin = self.slots.pin(after.0.get()).ok()?;
        let beyond = pin.body().iova.checked_add(pin.size())?;
        self.tree.entry_at_or_after(beyond).and_then(id)
    }

    pub(super) fn info(&self, id: RegionId) -> Result<RegionInfo, Error> {
        Ok(describe(id, &self.slots.pin(id.0.get())?))
    }

    pub(super) fn c_info(&self, id: RegionId) -> Result<NonNull<DmaInfo>, Error> {
        let handle = id.0.get();
        let pin = self.slots.pin(handle)?;
        NonNull::new(pin.body().info.get()).ok_or(Error::Stale { handle })
    }
}

fn id(entry: Entry) -> Option<RegionId> {
    entry.handle.try_into().ok().map(RegionId)
}

fn describe(id: RegionId, pin: &Pin<'_>) -> RegionInfo {
    let body = pin.body();
    // SAFETY: the pin keeps the body; nothing in this crate writes the struct after publication, and a C callback that
    // scribbles does so on this thread.
    let info = unsafe { body.info.get().read() };
    RegionInfo {
        id,
        iova: body.iova,
        size: pin.size(),
        prot: body.prot,
        access: pin.access(),
        offset: body.offset,
        vaddr: NonNull::new(pin.vaddr()),
        mapping: NonNull::new(info.mapping_base.cast()),
        mapping_len: info.mapping_len,
        page_size: info.page_size,
    }
}

/// A new mapping, undone unless it is put to use.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
    vaddr: *mut u8,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made in `map_region`, and still owned here, so nobody uses it.
        unsafe { sys::unmap(self.base.as_ptr(), self.len) };
    }
}

/// A new bitmap, given back unless it is put to use.
pub(super) struct NewBitmap<'a> {
    change: &'a Change<'a>,
    bitmap: Bitmap,
}

impl NewBitmap<'_> {
    pub(super) fn into_inner(self) -> Bitmap {
        ManuallyDrop::new(self).bitmap
    }
}

impl Drop for NewBitmap<'_> {
    fn drop(&mut self) {
        // SAFETY: it was made in `new_bitmap` and not put into service.
        unsafe { self.change.slots.free_bitmap(self.bitmap) };
    }
}

impl Change<'_> {
    /// The logged ranges. The result must not outlive the next call of this function.
    #[expect(
        clippy::mut_from_ref,
        reason = "the flag behind a Change is the exclusive borrow"
    )]
    pub(super) fn ranges(&self) -> &mut Ranges {
        // SAFETY: only the one Change that exists gets here, and its callers use one result at a time.
        unsafe { &mut *self.table.ranges.get() }
    }

    pub(super) fn add(&self, new: NewRegion) -> Result<Added, Error> {
        let NewRegion {
            iova,
            size,
            prot,
            offset,
            access,
            fd,
        } = new;
        let last = check(
            &Limits {
                iova,
                size,
                prot,
                offset,
            },
            access,
            fd.is_some(),
        )?;
        if let Some(entry) = self.tree.entry_at_or_before(last)
            && entry.last >= iova
        {
            return self.again(entry, iova, last, prot, offset, fd.as_ref());
        }
        if self.len() >= self.max_regions {
            return Err(Error::TooMany {
                max: self.max_regions,
            });
        }
        let file = match &fd {
            Some(fd) => Some(sys::stat(fd.as_fd()).map_err(|errno| Error::Stat { errno })?),
            None => None,
        };
        let page_size = file.map_or(self.page_size, |file| unit(self.page_size, file.block));
        // SAFETY: the one Change that exists is the only writer, here and below.
        unsafe { self.slots.sweep() };
        let bitmap = if fd.is_some() {
            self.bitmap_for(iova, size)?
        } else {
            None
        };
        let mapping = match (access, &fd) {
            (Access::Mapped, Some(fd)) => Some(map_region(fd, size, offset, prot, page_size)?),
            _ => None,
        };
        // SAFETY: as above.
        unsafe { self.slots.reserve() }?;
        let usize_of = |n: u64| usize::try_from(n).map_err(|_| Error::TooLarge { size });
        let (vaddr, mapping_base, mapping_len) = mapping
            .as_ref()
            .map_or((ptr::null_mut(), ptr::null_mut(), 0), |m| {
                (m.vaddr, m.base.as_ptr(), m.len)
            });
        let body = Body {
            info: UnsafeCell::new(DmaInfo {
                iova_base: ptr::without_provenance_mut(usize_of(iova)?),
                iova_len: usize_of(size)?,
                vaddr: vaddr.cast(),
                mapping_base: mapping_base.cast(),
                mapping_len,
                page_size: usize_of(page_size)?,
                prot,
            }),
            iova,
            offset,
            file: file.map_or((0, 0), |file| (file.dev, file.ino)),
            prot,
            // A mapping holds the file itself; without its descriptor, many regions do not use up the descriptors.
            fd: fd.filter(|_| access == Access::File),
        };
        // The slot first, then the tree: what translates is always there.
        let bitmap = bitmap.map(NewBitmap::into_inner);
        // SAFETY: as above; the slot was reserved and nothing has used it.
        let handle = unsafe { self.slots.publish(body, vaddr, size, bitmap) };
        let _in_use = ManuallyDrop::new(mapping); // the slot's from now on
        let entry = Entry {
            base: iova,
            last,
            handle: handle.get(),
        };
        // SAFETY: as above.
        if let Err(error) = unsafe { self.tree.insert(entry) } {
            // SAFETY: as above. The slot takes mapping, descriptor and bitmap with it.
            unsafe { self.slots.retire(handle.get()) }?;
            return Err(error);
        }
        self.count.store(self.len() + 1, Ordering::Relaxed);
        Ok(Added::New(self.info(RegionId(handle))?))
    }

    /// A region that meets one that is there: fine if it is the same, whose descriptor is then not needed.
    fn again(
        &self,
        entry: Entry,
        iova: u64,
        last: u64,
        prot: u32,
        offset: u64,
        fd: Option<&OwnedFd>,
    ) -> Result<Added, Error> {
        let size = last - iova + 1;
        // The lowest region that the new one meets, for the message: `entry` is the highest.
        let containing = self
            .tree
            .entry_at_or_before(iova)
            .filter(|first| first.last >= iova);
        let first = containing
            .or_else(|| self.tree.entry_at_or_after(iova))
            .unwrap_or(entry);
        if first.base != iova || first.last != last {
            return Err(Error::Overlap {
                iova,
                size,
                other_iova: first.base,
                other_size: (first.last - first.base).saturating_add(1),
            });
        }
        let differs = Error::Differs { iova, size };
        let pin = self.slots.pin(first.handle)?;
        let body = pin.body();
        if body.offset != offset || body.prot != prot {
            return Err(differs);
        }
        let same_file = match (fd.map(AsFd::as_fd), pin.fd()) {
            (None, _) => pin.access() == Access::Message,
            (Some(_), None) if pin.access() == Access::Message => false,
            (Some(new), kept) => {
                let stat = sys::stat(new).map_err(|errno| Error::Stat { errno })?;
                (stat.dev, stat.ino) == body.file
                    && kept.is_none_or(|kept| sys::same_description(new, kept) != Some(false))
            }
        };
        if !same_file {
            return Err(differs);
        }
        let id = id(first).ok_or(Error::Stale {
            handle: first.handle,
        })?;
        Ok(Added::Same(describe(id, &pin)))
    }

    pub(super) fn remove(&self, id: RegionId) -> Result<(), Error> {
        let handle = id.0.get();
        let iova = self.slots.pin(handle)?.body().iova;
        // SAFETY: the one Change that exists is the only writer.
        unsafe { self.tree.remove(iova) };
        self.count
            .store(self.len().saturating_sub(1), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { self.slots.retire(handle) }
    }
}

/// Numbers of a new region, for the checks.
struct Limits {
    iova: u64,
    size: u64,
    prot: u32,
    offset: u64,
}

/// The checks that need no table. Returns the region's last address.
fn check(new: &Limits, access: Access, has_fd: bool) -> Result<u64, Error> {
    let Limits {
        iova,
        size,
        prot,
        offset,
    } = *new;
    if size > super::MAX_REGION_SIZE {
        return Err(Error::TooLarge { size });
    }
    if size == 0 {
        return Err(Error::Empty { iova });
    }
    let last = iova
        .checked_add(size - 1)
        .ok_or(Error::Wraps { start: iova, size })?;
    if prot & !(PROT_READ | PROT_WRITE) != 0 {
        return Err(Error::BadProt { prot });
    }
    if has_fd != (access != Access::Message) {
        return Err(Error::BadFd { access });
    }
    if has_fd
        && offset
            .checked_add(size)
            .is_none_or(|end| i64::try_from(end).is_err())
    {
        return Err(Error::Wraps {
            start: offset,
            size,
        });
    }
    Ok(last)
}

/// What mappings of a file are rounded to.
pub(super) fn unit(page_size: u64, block: i64) -> u64 {
    match u64::try_from(block) {
        Ok(block) if block.is_power_of_two() && block <= MAX_BLOCK => page_size.max(block),
        _ => page_size,
    }
}

fn map_region(
    fd: &OwnedFd,
    size: u64,
    offset: u64,
    prot: u32,
    page_size: u64,
) -> Result<Mapping, Error> {
    let wraps = Error::Wraps {
        start: offset,
        size,
    };
    let delta = offset % page_size;
    let len = size
        .checked_add(delta)
        .and_then(|n| n.checked_next_multiple_of(page_size));
    let len = len.and_then(|n| usize::try_from(n).ok()).ok_or(wraps)?;
    let start = i64::try_from(offset - delta).map_err(|_| wraps)?;
    let delta = usize::try_from(delta).map_err(|_| wraps)?;
    let mut flags = 0;
    if prot & PROT_READ != 0 {
        flags |= libc::PROT_READ;
    }
    if prot & PROT_WRITE != 0 {
        flags |= libc::PROT_WRITE;
    }
    let base =
        sys::map(fd.as_fd(), start, len, flags).map_err(|errno| Error::Map { len, errno })?;
    // SAFETY: `delta` is less than a page, and the mapping has at least one.
    let vaddr = unsafe { base.as_ptr().add(delta) };
    Ok(Mapping { base, len, vaddr })
}

impl<'a> Change<'a> {
    /// A bitmap for a region of `size` bytes, counted against the limit.
    pub(super) fn new_bitmap(
        &'a self,
        iova: u64,
        size: u64,
        shift: u32,
    ) -> Result<NewBitmap<'a>, Error> {
        let page_size = 1 << shift;
        if size < page_size {
            return Err(Error::SmallerThanPage {
                iova,
                size,
                page_size,
            });
        }
        let bytes = super::bitmap::bytes_for(size, shift);
        let total = self
            .slots
            .bitmap_bytes
            .load(Ordering::Relaxed)
            .saturating_add(bytes);
        if total > super::MAX_BITMAP_BYTES {
            return Err(Error::BitmapLimit { bytes: total });
        }
        let bitmap = Bitmap::new(size, shift)?;
        self.slots.bitmap_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(NewBitmap {
            change: self,
            bitmap,
        })
    }

    /// The bitmap of a region that is being added, if it is to be logged.
    fn bitmap_for(&'a self, iova: u64, size: u64) -> Result<Option<NewBitmap<'a>>, Error> {
        let shift = self.log_shift.load(Ordering::Relaxed);
        if shift == 0 || !self.ranges().touch(iova, size) {
            return Ok(None);
        }
        self.new_bitmap(iova, size, shift).map(Some)
    }
}
