//! Translation of client memory, and access to it.
//!
//! All of these but the messages of `vfu_sgl_read` and `vfu_sgl_write` may be called from any thread. Entries of
//! scatter-gather lists lie in the caller's memory and may be stale, forged or scribbled: each is copied once, and checked
//! by the core before it is followed.

use std::ffi::{c_int, c_void};

use libc::iovec;
use vfu::dma::{Direct, Segment};
use vfu::{Dma, Errno};

use crate::context::{Shared, VfuCtx};
use crate::edge::{Done, Failure, entry_any_thread, entry_any_thread_io, set_errno};

const DIRECT_ACCESS: c_int = 1;

/// Returns the size of `dma_sg_t` in bytes: the stride of arrays of them.
#[unsafe(no_mangle)]
pub extern "C" fn dma_sg_size() -> usize {
    size_of::<Segment>()
}

/// Translates `[dma_addr, dma_addr + len)` into entries, one for each region of client memory that it touches, in
/// ascending order. `prot` is `PROT_READ`, `PROT_WRITE` or both. Any thread may call this.
///
/// Returns the number of entries, with errno 0; 0 for a `len` of 0. If n entries are needed and n is more than
/// `max_nr_sgs`, that many are filled, and -n - 1 is returned with errno 0. Otherwise -1 and errno: ENOENT if a byte
/// lies in no region, EACCES if a region forbids writing, EINVAL before `vfu_setup_device_dma` and for a NULL
/// argument.
///
/// # Safety
///
/// `ctx` is NULL or a live context; `sgl` has room for `max_nr_sgs` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_addr_to_sgl(
    ctx: *mut VfuCtx,
    dma_addr: *mut c_void,
    len: usize,
    sgl: *mut Segment,
    max_nr_sgs: usize,
    prot: c_int,
) -> c_int {
    // Called for every piece of I/O: the usual case comes first. It needs no guard, since nothing in it can panic.
    // SAFETY: the caller's promise.
    if let Some(dma) = unsafe { VfuCtx::shared_of(ctx) }.and_then(Shared::sound_dma)
        && !sgl.is_null()
        && max_nr_sgs != 0
        && let Some(segment) =
            dma.translate_one(dma_addr.addr() as u64, len as u64, prot.cast_unsigned())
    {
        // SAFETY: room for one entry, by the caller's promise.
        unsafe { sgl.write(segment) };
        set_errno(0);
        return 1;
    }
    // SAFETY: the caller's promise.
    unsafe { translate(ctx, dma_addr, len, sgl, max_nr_sgs, prot) }
}

/// All of [`vfu_addr_to_sgl`].
///
/// # Safety
///
/// As there.
#[inline(never)]
unsafe fn translate(
    ctx: *mut VfuCtx,
    dma_addr: *mut c_void,
    len: usize,
    sgl: *mut Segment,
    max_nr_sgs: usize,
    prot: c_int,
) -> c_int {
    let body = |shared: &Shared| {
        let dma = shared.dma()?;
        if sgl.is_null() && max_nr_sgs != 0 {
            return Err(Failure::Argument {
                what: "sgl (NULL)",
                value: 0,
            });
        }
        let iova = dma_addr.addr() as u64;
        // SAFETY: room for `max_nr_sgs` entries, by the caller's promise.
        let needed =
            unsafe { dma.translate_raw(iova, len as u64, prot.cast_unsigned(), sgl, max_nr_sgs) }?;
        let count = c_int::try_from(needed).unwrap_or(c_int::MAX - 1);
        Ok(Done::with_errno(
            if needed > max_nr_sgs {
                -count - 1
            } else {
                count
            },
            0,
        ))
    };
    // SAFETY: the caller's promise.
    unsafe { entry_any_thread(ctx, "vfu_addr_to_sgl", body) }
}

/// The entries of a list, each copied out of the caller's memory when its turn comes.
///
/// # Errors
///
/// EINVAL for a NULL or empty list.
///
/// # Safety
///
/// `sgl` is NULL or has `count` entries, for as long as the result is used.
unsafe fn entries(
    sgl: *const Segment,
    count: usize,
) -> Result<impl Iterator<Item = Segment> + Clone, Failure> {
    if sgl.is_null() {
        return Err(Failure::Argument {
            what: "sgl (NULL)",
            value: 0,
        });
    }
    if count == 0 {
        return Err(Failure::Argument {
            what: "number of entries",
            value: 0,
        });
    }
    Ok((0..count).map(move |i| {
        // SAFETY: inside the array that the caller of `entries` vouched for. The copy may be nonsense, which is checked
        // where it is used; every bit pattern is a `Segment`.
        unsafe { sgl.add(i).read_unaligned() }
    }))
}

/// Fills `iov[i]` with the address and length of the memory of `sgl[i]`, in this process. It may be used until the
/// unregister callback of its region returns. Any thread may call this.
///
/// Returns 0, or -1 and errno, with the elements before the failing one filled: EINVAL if `flags` is not 0, for a NULL
/// argument or an empty list, without unregister callback, and for an entry whose region is gone; EFAULT for
/// one that is not mapped.
///
/// # Safety
///
/// `ctx` is NULL or a live context; `sgl` and `iov` are NULL or have `cnt` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_sgl_get(
    ctx: *mut VfuCtx,
    sgl: *const Segment,
    iov: *mut iovec,
    cnt: usize,
    flags: c_int,
) -> c_int {
    let body = |shared: &Shared| {
        let dma = shared.dma()?;
        if !shared.has_unregister() {
            return Err(Failure::Use(
                "there is no dma_unregister callback, so nothing can be mapped",
                Errno::EINVAL,
            ));
        }
        if flags != 0 {
            return Err(Failure::Argument {
                what: "flags",
                value: flags.into(),
            });
        }
        if iov.is_null() {
            return Err(Failure::Argument {
                what: "iov (NULL)",
                value: 0,
            });
        }
        // SAFETY: the caller's promise.
        for (i, segment) in unsafe { entries(sgl, cnt) }?.enumerate() {
            let (base, len) = dma.segment_to_iovec(&segment)?;
            let filled = iovec {
                iov_base: base.as_ptr().cast(),
                iov_len: len,
            };
            // SAFETY: `iov` has `cnt` elements, by the caller's promise.
            unsafe { iov.add(i).write(filled) };
        }
        Ok(0)
    };
    // SAFETY: the caller's promise.
    unsafe { entry_any_thread(ctx, "vfu_sgl_get", body) }
}

/// Says that the memory of these entries was written, if they were translated for that. Any thread may call this. `iov`
/// is not used.
///
/// # Safety
///
/// `ctx` is NULL or a live context; `sgl` is NULL or has `cnt` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_sgl_put(
    ctx: *mut VfuCtx,
    sgl: *const Segment,
    iov: *const iovec,
    cnt: usize,
) {
    let _ = iov;
    // SAFETY: the caller's promise.
    unsafe { entry_any_thread(ctx, "vfu_sgl_put", |shared| mark_dirty(shared, sgl, cnt)) }
}

/// As [`vfu_sgl_put`], for memory that stays in use.
///
/// # Safety
///
/// `ctx` is NULL or a live context; `sgl` is NULL or has `cnt` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_sgl_mark_dirty(ctx: *mut VfuCtx, sgl: *const Segment, cnt: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        entry_any_thread(ctx, "vfu_sgl_mark_dirty", |shared| {
            mark_dirty(shared, sgl, cnt)
        });
    }
}

/// # Safety
///
/// `sgl` is NULL or has `count` entries.
unsafe fn mark_dirty(shared: &Shared, sgl: *const Segment, count: usize) -> Result<(), Failure> {
    let dma = shared.dma()?;
    // SAFETY: the caller's promise.
    for segment in unsafe { entries(sgl, count) }? {
        dma.mark_dirty(&segment)?;
    }
    Ok(())
}

/// Whether the memory of this entry is mapped, so that [`vfu_sgl_get`] works on it. Any thread may call this. False and
/// EINVAL for a NULL argument.
///
/// # Safety
///
/// `ctx` is NULL or a live context; `sg` is NULL or an entry.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_sg_is_mappable(ctx: *mut VfuCtx, sg: *const Segment) -> bool {
    let body = |shared: &Shared| {
        let dma = shared.dma()?;
        // SAFETY: the caller's promise.
        let mut entries = unsafe { entries(sg, 1) }?;
        Ok(entries
            .next()
            .is_some_and(|segment| dma.is_mappable(&segment)))
    };
    // SAFETY: the caller's promise.
    unsafe { entry_any_thread(ctx, "vfu_sg_is_mappable", body) }
}

/// Copies the memory of `cnt` entries, one after the other, to `data`. With `VFU_SGL_DIRECT_ACCESS` in `flags`, memory that
/// is mapped or a file is read here, from any thread; other memory, and all of it without that flag, is
/// asked of the client by message, on the context's thread only, and this waits for the answer.
///
/// Returns 0, or -1 and errno: EINVAL for unknown flags, a NULL argument, and an entry whose region is gone; ENOTSUP for an
/// empty list, and for a list with a stale entry among several; EBUSY while a quiesce is pending (messages only); EIO when a
/// file cannot be read; the client's error; ENOTCONN when it has gone. Entries before the failing one were copied.
///
/// # Safety
///
/// `ctx` is NULL or a live context; `sgl` is NULL or has `cnt` entries; `data` is NULL or has room for all of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_sgl_read(
    ctx: *mut VfuCtx,
    sgl: *const Segment,
    cnt: usize,
    data: *mut c_void,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { transfer(ctx, "vfu_sgl_read", sgl, cnt, data, flags, Direction::Read) }
}

/// Copies `data` to the memory of `cnt` entries, one after the other, otherwise as [`vfu_sgl_read`]. Memory that is
/// written here is marked dirty; the client knows what it wrote itself.
///
/// Returns as [`vfu_sgl_read`], and EPERM for an entry that was translated for reading only.
///
/// # Safety
///
/// `ctx` is NULL or a live context; `sgl` is NULL or has `cnt` entries; `data` is NULL or has bytes for all of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfu_sgl_write(
    ctx: *mut VfuCtx,
    sgl: *const Segment,
    cnt: usize,
    data: *mut c_void,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        transfer(
            ctx,
            "vfu_sgl_write",
            sgl,
            cnt,
            data,
            flags,
            Direction::Write,
        )
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Read,
    Write,
}

/// # Safety
///
/// As [`vfu_sgl_read`] and [`vfu_sgl_write`].
unsafe fn transfer(
    ctx: *mut VfuCtx,
    name: &'static str,
    sgl: *const Segment,
    count: usize,
    data: *mut c_void,
    flags: c_int,
    direction: Direction,
) -> c_int {
    let body = |shared: &Shared| {
        if flags & !DIRECT_ACCESS != 0 {
            return Err(Failure::Argument {
                what: "flags",
                value: flags.into(),
            });
        }
        let dma = shared.dma()?;
        if data.is_null() {
            return Err(Failure::Argument {
                what: "data (NULL)",
                value: 0,
            });
        }
        if count == 0 {
            return Err(Failure::Use("the list is empty", Errno::ENOTSUP));
        }
        // SAFETY: the caller's promise.
        let entries = unsafe { entries(sgl, count) }?;
        check(dma, entries.clone(), count, direction)?;
        let mut place = data.cast::<u8>();
        for segment in entries {
            let direct = if flags & DIRECT_ACCESS == 0 {
                false
            } else {
                // SAFETY: `data` has room for all entries, by the caller's promise; this is the place of this one.
                let done = unsafe {
                    match direction {
                        Direction::Read => dma.read_raw(&segment, place),
                        Direction::Write => dma.write_raw(&segment, place),
                    }
                }?;
                matches!(done, Direct::Done)
            };
            if !direct {
                // SAFETY: as above; without direct access this is the context's thread.
                unsafe { by_message(ctx, dma, &segment, place, direction) }?;
            }
            let length = usize::try_from(segment.length).unwrap_or(usize::MAX);
            place = place.wrapping_add(length);
        }
        Ok(0)
    };
    // SAFETY: the caller's promise.
    unsafe { entry_any_thread_io(ctx, name, body) }
}

/// Checks a list before any byte moves. Clients of the old library find out by ENOTSUP that lists of several entries do
/// not work, with entries that they never filled: those still get it.
fn check(
    dma: &Dma,
    entries: impl Iterator<Item = Segment>,
    count: usize,
    direction: Direction,
) -> Result<(), Failure> {
    for segment in entries {
        if let Err(error) = dma.locate(&segment) {
            return Err(if count == 1 {
                error.into()
            } else {
                Failure::Use(
                    "a list of several entries with one that is not valid",
                    Errno::ENOTSUP,
                )
            });
        }
        if direction == Direction::Write && segment.writeable == 0 {
            return Err(vfu::dma::Error::ReadOnlySegment {
                iova: segment.dma_addr.wrapping_add(segment.offset),
            }
            .into());
        }
    }
    Ok(())
}

/// # Safety
///
/// `ctx` is a live context, used by this thread only; `place` has `segment.length` bytes.
unsafe fn by_message(
    ctx: *mut VfuCtx,
    dma: &Dma,
    segment: &Segment,
    place: *mut u8,
    direction: Direction,
) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    let core = unsafe { &*ctx }.core();
    let located = dma.locate(segment)?;
    let length = usize::try_from(located.length).unwrap_or(usize::MAX); // at most 8 TiB
    match direction {
        Direction::Read => {
            // SAFETY: the caller's promise; nothing but this call uses the memory now.
            let data = unsafe { std::slice::from_raw_parts_mut(place, length) };
            core.read_by_message(located.iova, data)?;
        }
        Direction::Write => {
            // SAFETY: the caller's promise; nothing changes the memory now.
            let data = unsafe { std::slice::from_raw_parts(place, length) };
            core.write_by_message(located.iova, data)?;
        }
    }
    Ok(())
}
