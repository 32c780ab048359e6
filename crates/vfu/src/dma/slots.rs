//! One slot per region: everything about it but its place in the address space, which the tree has.
//!
//! # The state word
//!
//! `generation << 32 | LIVE | FROZEN | pins`. A handle is `generation << 32 | (index + 1) << 2 | prot`; it is good as long
//! as its slot is live in that generation.
//!
//! * [`Slots::publish`] fills a free slot and then stores its state with LIVE (release).
//! * [`Slots::pin`] adds one to the pins if the handle is good (acquire), and waits while FROZEN. [`Pin`] takes it back on
//!   drop (acquire-release). While a pin is held, the slot is not refilled and its resources not released; so a pinned thread may
//!   read [`Body`] without synchronisation.
//! * [`Slots::retire`] takes LIVE away, after which no new pin succeeds. Whoever takes the state to "not LIVE, no pins" (the
//!   remover if there are no pins then, else the last `Pin` to drop: exactly one of them sees it) releases the
//!   resources, raises the generation and returns the slot.
//! * [`Slots::freeze`] sets FROZEN only if there are no pins, for plain access to the bitmap.
//! * [`Slots::peek`] reads the address without a pin: state, fields, state again, as under a sequence lock. The fields
//!   are atomics, and a release fence stands before each change of them.
//!
//! Slots live in chunks of doubling size that are never given back while the table lives; an index finds its chunk by
//! its highest bit. Returned slots go through a lock-free stack (many push, the writer alone takes all, so there is no
//! ABA) to the writer's list. A slot whose generation would wrap is not used again, so no handle ever means two regions.
//!
//! The writer's functions are `unsafe`: their callers see to it that one runs at a time.

use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::num::NonZeroU64;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
use std::alloc::Layout;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::bitmap::Bitmap;
use super::error::Error;
use super::sys;
use super::tree::Patience;
use super::types::{Access, DmaInfo, Segment};

const LIVE: u64 = 1 << 31;
const FROZEN: u64 = 1 << 30;
const PINS: u64 = FROZEN - 1;

/// Slots in the first chunk; each chunk has twice as many as the one before.
const FIRST: u32 = 8;
/// Chunks: enough for [`MAX_SLOTS`].
const CHUNKS: usize = 27;
/// Slots that a handle can name: 30 bits of it are an index plus one.
pub(super) const MAX_SLOTS: u32 = FIRST * ((1 << CHUNKS) - 1);
const NONE: u32 = u32::MAX;

/// What is fixed while a region lives. Written by the writer before the slot is published, then read under a pin.
#[derive(Debug)]
pub(super) struct Body {
    /// Handed to C by address. The callbacks' thread may scribble into it; only `mapping_*` are read back.
    pub(super) info: UnsafeCell<DmaInfo>,
    pub(super) iova: u64,
    /// Where the region begins in the file.
    pub(super) offset: u64,
    /// Device and inode of the file; 0 without one.
    pub(super) file: (u64, u64),
    pub(super) prot: u32,
    /// Kept open for a file region only.
    pub(super) fd: Option<OwnedFd>,
}

#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Slot {
    state: AtomicU64,
    /// First byte of the region in this process; null unless mapped.
    vaddr: AtomicPtr<u8>,
    /// Bytes of the region; the next free slot while free.
    size: AtomicU64,
    /// A [`Bitmap`], or null.
    bitmap: AtomicPtr<u8>,
    /// Initialised from publication to release.
    body: UnsafeCell<MaybeUninit<Body>>,
}

// SAFETY: all fields are atomics but `body`, which follows the rules of the state word in the file header.
unsafe impl Sync for Slot {}

// Two cache lines: a million regions are held by real clients.
const _: () = assert!(size_of::<Slot>() == 128);

/// A region that cannot go away.
#[derive(Debug)]
pub(super) struct Pin<'a> {
    slots: &'a Slots,
    slot: &'a Slot,
    index: u32,
}

pub(super) struct Slots {
    chunks: [AtomicPtr<Slot>; CHUNKS],
    /// Slots returned by whoever released them: a stack, by index.
    returned: AtomicU32,
    /// The writer's: a stack of free slots, and the first index never used.
    free: Cell<u32>,
    fresh: Cell<u32>,
    /// The writer's: bitmaps out of service that a pin may still use.
    waiting: Cell<Option<Bitmap>>,
    /// Bytes of all bitmaps, also those that wait.
    pub(super) bitmap_bytes: AtomicU64,
}

// SAFETY: slots own what they point to (mapping, descriptor, bitmap), none of it tied to a thread.
unsafe impl Send for Slots {}
// SAFETY: shared fields are atomics, and slots are Sync; the cells belong to the writer, who is alone.
unsafe impl Sync for Slots {}

/// The parts of a handle.
#[derive(Clone, Copy)]
struct Handle(u64);

impl Handle {
    fn new(generation: u64, index: u32, prot: u32) -> Self {
        Self(generation << 32 | u64::from((index + 1) << 2 | prot & 3))
    }

    fn generation(self) -> u64 {
        self.0 >> 32
    }

    /// `None` if the handle cannot have come from here.
    fn index(self) -> Option<u32> {
        let low = u32::try_from(self.0 & u64::from(u32::MAX)).ok()?;
        (low >> 2).checked_sub(1)
    }
}

/// The protection of the region that a handle *of the tree* stands for. (One from a caller's memory may be forged.)
#[inline]
pub(super) fn handle_prot(handle: u64) -> u32 {
    u32::from((handle & 3) as u8)
}

/// Checks that a segment lies within its region of `size` bytes.
#[inline]
pub(super) fn check_bounds(segment: &Segment, size: u64) -> Result<(), Error> {
    let Segment { offset, length, .. } = *segment;
    match offset.checked_add(length) {
        Some(end) if end <= size => Ok(()),
        _ => Err(Error::OutOfBounds {
            offset,
            length,
            size,
        }),
    }
}

impl Slots {
    pub(super) const fn new() -> Self {
        Self {
            chunks: [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS],
            returned: AtomicU32::new(NONE),
            free: Cell::new(NONE),
            fresh: Cell::new(0),
            waiting: Cell::new(None),
            bitmap_bytes: AtomicU64::new(0),
        }
    }

    /// Chunk and position in it.
    fn place(index: u32) -> (usize, usize) {
        let chunk = (index / FIRST + 1).ilog2();
        let before = FIRST * ((1 << chunk) - 1);
        (chunk as usize, (index - before) as usize)
    }

    #[inline]
    fn slot(&self, index: u32) -> Option<&Slot> {
        let (chunk, at) = Self::place(index);
        let base = self.chunks.get(chunk)?.load(Ordering::Acquire);
        if base.is_null() {
            return None;
        }
        // SAFETY: chunk `n` has FIRST << n slots and `place` stays below that; chunks are zeroed when made, which is a
        // valid slot, and live as long as `self`.
        Some(unsafe { &*base.add(at) })
    }

    fn find(&self, handle: u64) -> Result<(&Slot, u32, Handle), Error> {
        let parts = Handle(handle);
        let index = parts.index().ok_or(Error::Stale { handle })?;
        let slot = self.slot(index).ok_or(Error::Stale { handle })?;
        Ok((slot, index, parts))
    }

    // ---- any thread ----

    /// Keeps a region from going away.
    ///
    /// # Errors
    /// [`Error::Stale`].
    #[inline]
    pub(super) fn pin(&self, handle: u64) -> Result<Pin<'_>, Error> {
        let (slot, index, parts) = self.find(handle)?;
        let mut patience = Patience::default();
        let mut state = slot.state.load(Ordering::Relaxed);
        loop {
            if state >> 32 != parts.generation() || state & LIVE == 0 {
                return Err(Error::Stale { handle });
            }
            if state & FROZEN != 0 {
                patience.wait();
                state = slot.state.load(Ordering::Relaxed);
                continue;
            }
            match slot.state.compare_exchange_weak(
                state,
                state + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    return Ok(Pin {
                        slots: self,
                        slot,
                        index,
                    });
                }
                Err(now) => state = now,
            }
        }
    }

    /// Address (null unless mapped) and size of a region, without a pin: true at some moment during the call.
    ///
    /// # Errors
    /// [`Error::Stale`].
    #[inline]
    pub(super) fn peek(&self, handle: u64) -> Result<(*mut u8, u64), Error> {
        let (slot, _, parts) = self.find(handle)?;
        let good = |state: u64| state >> 32 == parts.generation() && state & LIVE != 0;
        if !good(slot.state.load(Ordering::Acquire)) {
            return Err(Error::Stale { handle });
        }
        let vaddr = slot.vaddr.load(Ordering::Relaxed);
        let size = slot.size.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if !good(slot.state.load(Ordering::Relaxed)) {
            return Err(Error::Stale { handle });
        }
        Ok((vaddr, size))
    }

    // ---- the writer ----

    /// Makes sure that [`publish`](Self::publish) finds a free slot.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    ///
    /// # Safety
    /// No other function of the writer runs at the same time.
    pub(super) unsafe fn reserve(&self) -> Result<(), Error> {
        if self.free.get() == NONE {
            self.free.set(self.returned.swap(NONE, Ordering::Acquire));
        }
        if self.free.get() != NONE {
            return Ok(());
        }
        let fresh = self.fresh.get();
        if fresh >= MAX_SLOTS {
            return Err(Error::NoMemory);
        }
        let (chunk, at) = Self::place(fresh);
        if at == 0 && self.chunks[chunk].load(Ordering::Relaxed).is_null() {
            let memory = chunk_layout(chunk)
                .and_then(sys::alloc_zeroed)
                .ok_or(Error::NoMemory)?;
            self.chunks[chunk].store(memory.cast::<Slot>().as_ptr(), Ordering::Release);
        }
        Ok(())
    }

    /// Fills a reserved slot; returns its handle.
    ///
    /// # Safety
    /// No other function of the writer runs at the same time. [`reserve`](Self::reserve) succeeded and was not used up.
    pub(super) unsafe fn publish(
        &self,
        body: Body,
        vaddr: *mut u8,
        size: u64,
        bitmap: Option<Bitmap>,
    ) -> NonZeroU64 {
        let recycled = self.free.get() != NONE;
        let index = if recycled {
            self.free.get()
        } else {
            self.fresh.get()
        };
        let Some(slot) = self.slot(index) else {
            unreachable!("slot {index} was reserved");
        };
        if recycled {
            self.free.set(link_from(slot.size.load(Ordering::Relaxed)));
        } else {
            self.fresh.set(index + 1);
        }
        let state = slot.state.load(Ordering::Acquire);
        let handle = Handle::new(state >> 32, index, body.prot);
        // SAFETY: the slot is free: not live and without pins, so nobody reads its body, and the last who did passed it
        // on through `returned` or `state` (both acquire).
        unsafe { (*slot.body.get()).write(body) };
        fence(Ordering::Release); // against `peek`, as in `release`
        slot.vaddr.store(vaddr, Ordering::Relaxed);
        slot.size.store(size, Ordering::Relaxed);
        let bitmap = bitmap.map_or(ptr::null_mut(), Bitmap::into_raw);
        slot.bitmap.store(bitmap, Ordering::Relaxed);
        slot.state.store(state | LIVE, Ordering::Release);
        NonZeroU64::MIN | handle.0 // the low 32 bits hold an index plus one
    }

    /// Ends a region's life; its resources go now or with the last pin.
    ///
    /// # Errors
    /// [`Error::Stale`].
    ///
    /// # Safety
    /// No other function of the writer runs at the same time.
    pub(super) unsafe fn retire(&self, handle: u64) -> Result<(), Error> {
        let (slot, index, parts) = self.find(handle)?;
        let state = slot.state.load(Ordering::Relaxed);
        if state >> 32 != parts.generation() || state & LIVE == 0 {
            return Err(Error::Stale { handle });
        }
        let before = slot.state.fetch_and(!LIVE, Ordering::AcqRel);
        if before & PINS == 0 {
            self.release(slot, index);
        }
        Ok(())
    }

    /// Releases what a region held and returns its slot. Called by the one thread that saw "not LIVE, no pins" come about.
    fn release(&self, slot: &Slot, index: u32) {
        // SAFETY: the slot was live, so its body is initialised; it is neither live nor pinned now, so nobody else
        // reads it, and the acquire of the caller's operation on the state ordered their reads before this. The slot is
        // refilled before its body is read again.
        let body = unsafe { (*slot.body.get()).assume_init_read() };
        let info = body.info.into_inner();
        if info.mapping_len != 0 {
            // SAFETY: the mapping that `add` made; with no pins left, nothing here uses it. Users of raw addresses had
            // to stop at the unregister callback.
            unsafe { sys::unmap(info.mapping_base.cast(), info.mapping_len) };
        }
        drop(body.fd);
        if let Some(bitmap) = Bitmap::from_raw(slot.bitmap.swap(ptr::null_mut(), Ordering::Acquire))
        {
            // SAFETY: out of its slot, and pins are what may use it.
            unsafe { self.free_bitmap(bitmap) };
        }
        // Whoever peeks and sees what is stored from here on, then sees that the slot is not live any more.
        fence(Ordering::Release);
        slot.vaddr.store(ptr::null_mut(), Ordering::Relaxed);
        let generation = slot.state.load(Ordering::Relaxed) >> 32;
        if generation == u64::from(u32::MAX) {
            return; // used up: never live again
        }
        slot.state.store((generation + 1) << 32, Ordering::Release);
        let mut top = self.returned.load(Ordering::Relaxed);
        loop {
            slot.size.store(u64::from(top), Ordering::Relaxed);
            match self.returned.compare_exchange_weak(
                top,
                index,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Puts a bitmap into service. The region had none.
    ///
    /// # Errors
    /// [`Error::Stale`].
    ///
    /// # Safety
    /// No other function of the writer runs at the same time.
    pub(super) unsafe fn set_bitmap(&self, handle: u64, bitmap: Bitmap) -> Result<(), Error> {
        let pin = self.pin(handle)?;
        pin.slot.bitmap.store(bitmap.into_raw(), Ordering::Release);
        Ok(())
    }

    /// Takes a region's bitmap out of service and frees it, now or in a later [`sweep`](Self::sweep).
    ///
    /// Why no pinned thread can use it after it was freed: the bitmap is taken away, then the pins are read by an operation
    /// that also writes the state word (`sweep`), and a pin is made by one before the bitmap is looked at. One of the two is
    /// first in the order of that word. If the pin is, it is seen here. If not, it acquires what this released, and
    /// finds the bitmap gone.
    ///
    /// # Safety
    /// No other function of the writer runs at the same time.
    pub(super) unsafe fn clear_bitmap(&self, handle: u64) {
        let Ok((slot, index, parts)) = self.find(handle) else {
            return;
        };
        let Some(bitmap) = Bitmap::from_raw(slot.bitmap.swap(ptr::null_mut(), Ordering::AcqRel))
        else {
            return;
        };
        // SAFETY: the list is the writer's, and nobody else reads the link.
        unsafe { bitmap.wait_for(index, parts.generation(), self.waiting.get()) };
        self.waiting.set(Some(bitmap));
        // SAFETY: the caller's promise.
        unsafe { self.sweep() };
    }

    /// Frees those bitmaps that waited for pins that are gone.
    ///
    /// # Safety
    /// No other function of the writer runs at the same time.
    pub(super) unsafe fn sweep(&self) {
        let mut rest = self.waiting.take();
        while let Some(bitmap) = rest {
            let (index, generation, next) = bitmap.waits_for();
            rest = next;
            let used = self.slot(index).is_some_and(|slot| {
                let state = slot.state.fetch_or(0, Ordering::AcqRel);
                state >> 32 == generation && state & PINS != 0
            });
            if used {
                // SAFETY: as in `clear_bitmap`.
                unsafe { bitmap.wait_for(index, generation, self.waiting.get()) };
                self.waiting.set(Some(bitmap));
            } else {
                // SAFETY: the pins that were there when it left its slot are gone, and later ones did not see it.
                unsafe { self.free_bitmap(bitmap) };
            }
        }
    }

    /// # Safety
    /// Nobody uses the bitmap.
    pub(super) unsafe fn free_bitmap(&self, bitmap: Bitmap) {
        self.bitmap_bytes
            .fetch_sub(bitmap.words() as u64 * 8, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { bitmap.free() };
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        for index in 0..self.fresh.get() {
            if let Some(slot) = self.slot(index)
                && slot.state.load(Ordering::Relaxed) & LIVE != 0
            {
                self.release(slot, index); // `&mut self`: no pins
            }
        }
        // SAFETY: `&mut self`: no other function runs.
        unsafe { self.sweep() };
        for (chunk, memory) in self.chunks.iter_mut().enumerate() {
            if let (Some(memory), Some(layout)) =
                (NonNull::new(*memory.get_mut()), chunk_layout(chunk))
            {
                // SAFETY: made in `reserve` with this layout; no slot is used any more.
                unsafe { sys::dealloc(memory.cast(), layout) };
            }
        }
    }
}

impl core::fmt::Debug for Slots {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Slots")
            .field("bitmap_bytes", &self.bitmap_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Slots {
    /// Brings a free slot to its last generation.
    pub(super) fn age_for_test(&self, index: u32) {
        if let Some(slot) = self.slot(index) {
            slot.state
                .store(u64::from(u32::MAX) << 32, Ordering::Relaxed);
        }
    }
}

fn chunk_layout(chunk: usize) -> Option<Layout> {
    Layout::array::<Slot>((FIRST as usize) << chunk).ok()
}

/// The index that a free slot keeps in `size`.
fn link_from(size: u64) -> u32 {
    u32::try_from(size).unwrap_or(NONE)
}

impl<'a> Pin<'a> {
    pub(super) fn body(&self) -> &'a Body {
        // SAFETY: a pin was only given for a live slot, whose body is initialised; it is not written before the last
        // pin is gone. (The `'a` is the table's; callers keep the pin as long as they use the body.)
        unsafe { (*self.slot.body.get()).assume_init_ref() }
    }

    pub(super) fn vaddr(&self) -> *mut u8 {
        self.slot.vaddr.load(Ordering::Relaxed)
    }

    pub(super) fn size(&self) -> u64 {
        self.slot.size.load(Ordering::Relaxed)
    }

    pub(super) fn access(&self) -> Access {
        match (self.vaddr().is_null(), &self.body().fd) {
            (false, _) => Access::Mapped,
            (true, Some(_)) => Access::File,
            (true, None) => Access::Message,
        }
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.body().fd.as_ref().map(AsFd::as_fd)
    }

    /// The bitmap, if this region is logged.
    pub(super) fn bitmap(&self) -> Option<Bitmap> {
        Bitmap::from_raw(self.slot.bitmap.load(Ordering::Acquire))
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let before = self.slot.state.fetch_sub(1, Ordering::AcqRel);
        if before & LIVE == 0 && before & PINS == 1 {
            self.slots.release(self.slot, self.index);
        }
    }
}

/// A live region of the writer, which alone could remove it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owned<'a> {
    slot: &'a Slot,
}

impl Slots {
    /// The writer's look at a live region, which needs no pin.
    ///
    /// # Errors
    /// [`Error::Stale`].
    ///
    /// # Safety
    /// No other function of the writer runs while the result is in use.
    pub(super) unsafe fn owned(&self, handle: u64) -> Result<Owned<'_>, Error> {
        self.peek(handle)?;
        let (slot, ..) = self.find(handle)?;
        Ok(Owned { slot })
    }
}

impl Owned<'_> {
    pub(super) fn bitmap(&self) -> Option<Bitmap> {
        Bitmap::from_raw(self.slot.bitmap.load(Ordering::Acquire))
    }

    /// Runs `work` while no pin exists, if there is none now; new ones wait meanwhile. Tells `work` whether it is alone.
    pub(super) fn freeze<R>(&self, work: impl FnOnce(bool) -> R) -> R {
        struct Thaw<'a>(&'a Slot);
        impl Drop for Thaw<'_> {
            fn drop(&mut self) {
                self.0.state.fetch_and(!FROZEN, Ordering::Release);
            }
        }
        let state = self.slot.state.load(Ordering::Relaxed);
        let alone = state & PINS == 0
            && self
                .slot
                .state
                .compare_exchange(state, state | FROZEN, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        let _thaw = alone.then(|| Thaw(self.slot));
        work(alone)
    }
}
