//! The capabilities of a function: which are known, where they are, adding and finding them.
//!
//! 1. The table is sorted by offset and its entries never overlap; it alone decides how accesses are handled.
//! 2. The linked lists in configuration space are what clients walk. The device may rewrite them, so they are followed
//!    with bounds and step limits, and never trusted to agree with the table.
//! 3. Standard capabilities lie in [0x40, 0x100), extended ones in [0x100, 0x1000).

use core::marker::PhantomData;

use super::error::Error;
use super::event::{Event, Events};
use super::regs::{
    CAP_EXP_SIZEOF, CAP_ID_EXP, CAP_ID_MSI, CAP_ID_MSIX, CAP_ID_PM, CAP_ID_VNDR, CAP_MSI_SIZEOF,
    CAP_MSIX_SIZEOF, CAP_PM_SIZEOF, CAPABILITY_LIST, CFG_SPACE_EXP_SIZE, CFG_SPACE_SIZE,
    EXT_CAP_DSN_SIZEOF, EXT_CAP_ID_DSN, EXT_CAP_ID_VNDR, STD_HEADER_SIZEOF,
};
use super::space::ConfigSpace;

/// Capability flag: extended capability.
pub const CAP_FLAG_EXTENDED: u32 = 1;
/// Capability flag: all accesses go to the config region's callback.
pub const CAP_FLAG_CALLBACK: u32 = 2;
/// Capability flag: clients cannot write.
pub const CAP_FLAG_READONLY: u32 = 4;
const CAP_FLAG_MASK: u32 = CAP_FLAG_EXTENDED | CAP_FLAG_CALLBACK | CAP_FLAG_READONLY;

/// Capabilities per list.
pub const MAX_CAPS: usize = 128;

/// Steps after which a list must have ended: more than distinct places for headers exist.
const STD_STEPS: usize = CFG_SPACE_SIZE;
const EXT_STEPS: usize = CFG_SPACE_EXP_SIZE / 4;

/// Where the bytes of a new capability come from.
pub trait CapabilityData {
    /// Copies `out.len()` bytes from `offset`; false if they do not exist.
    fn copy(&self, offset: usize, out: &mut [u8]) -> bool;
}

impl CapabilityData for [u8] {
    fn copy(&self, offset: usize, out: &mut [u8]) -> bool {
        let source = offset
            .checked_add(out.len())
            .and_then(|end| self.get(offset..end));
        source.is_some_and(|source| {
            out.copy_from_slice(source);
            true
        })
    }
}

/// Capability bytes behind a pointer of unknown length, as the C API passes them.
#[derive(Clone, Copy, Debug)]
pub struct RawData<'a> {
    base: *const u8,
    lives: PhantomData<&'a [u8]>,
}

impl RawData<'_> {
    /// Wraps a pointer; NULL is allowed and gives [`Error::MissingData`].
    ///
    /// # Safety
    ///
    /// If not NULL, `base` must stay readable for `'a` for as many bytes as the capability that starts there has: its
    /// header, for vendor capabilities the embedded size, else the fixed size of its id.
    #[must_use]
    pub const unsafe fn new(base: *const u8) -> Self {
        Self {
            base,
            lives: PhantomData,
        }
    }
}

impl CapabilityData for RawData<'_> {
    fn copy(&self, offset: usize, out: &mut [u8]) -> bool {
        if self.base.is_null() {
            return false;
        }
        for (i, byte) in out.iter_mut().enumerate() {
            // SAFETY: the table asks only for the header and then for the size that the header announces; the caller of
            // `new` vouched for those bytes.
            *byte = unsafe { self.base.wrapping_add(offset).wrapping_add(i).read() };
        }
        true
    }
}

/// How writes inside a capability are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    PowerManagement,
    Msi,
    Vendor,
    Express,
    MsiX,
    SerialNumber,
}

impl Kind {
    const fn of(extended: bool, id: u16) -> Option<Self> {
        match (extended, id) {
            (false, CAP_ID_PM) => Some(Self::PowerManagement),
            (false, CAP_ID_MSI) => Some(Self::Msi),
            (false, CAP_ID_VNDR) | (true, EXT_CAP_ID_VNDR) => Some(Self::Vendor),
            (false, CAP_ID_EXP) => Some(Self::Express),
            (false, CAP_ID_MSIX) => Some(Self::MsiX),
            (true, EXT_CAP_ID_DSN) => Some(Self::SerialNumber),
            _ => None,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::PowerManagement => "Power Management",
            Self::Msi => "MSI",
            Self::Vendor => "Vendor-Specific",
            Self::Express => "PCI Express",
            Self::MsiX => "MSI-X",
            Self::SerialNumber => "Device Serial Number",
        }
    }

    /// Leading bytes that clients cannot write.
    pub(super) const fn header_size(self, extended: bool) -> usize {
        match (self, extended) {
            (Self::Vendor, true) => 8,
            (Self::Vendor, false) => 3,
            (_, true) => 4,
            (_, false) => 2,
        }
    }

    /// Size in bytes; `field` gives the size field of vendor capabilities.
    fn size(self, field: impl FnOnce() -> usize) -> usize {
        match self {
            Self::PowerManagement => CAP_PM_SIZEOF,
            Self::Msi => CAP_MSI_SIZEOF,
            Self::Vendor => field(),
            Self::Express => CAP_EXP_SIZEOF,
            Self::MsiX => CAP_MSIX_SIZEOF,
            Self::SerialNumber => EXT_CAP_DSN_SIZEOF,
        }
    }
}

/// One capability that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capability {
    pub(super) kind: Kind,
    pub(super) flags: u32,
    pub(super) start: usize,
    pub(super) size: usize,
}

impl Capability {
    pub(super) const fn end(&self) -> usize {
        self.start + self.size
    }

    pub(super) const fn extended(&self) -> bool {
        self.flags & CAP_FLAG_EXTENDED != 0
    }

    pub(super) const fn header_size(&self) -> usize {
        self.kind.header_size(self.extended())
    }
}

/// What a new capability is checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Bytes of configuration space that may be used.
    pub(super) limit: usize,
    /// The config region has a callback.
    pub(super) has_callback: bool,
    /// PCI type, if it has extended space; else its number.
    pub(super) extended: Result<(), i32>,
}

/// All capabilities, sorted by offset.
#[derive(Debug, Default)]
pub(super) struct Table {
    list: Vec<Capability>,
}

impl Table {
    pub(super) const fn new() -> Self {
        Self { list: Vec::new() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Capability> {
        self.list.iter()
    }

    pub(super) fn has_standard(&self) -> bool {
        self.list.iter().any(|cap| !cap.extended())
    }

    /// The lowest capability that shares a byte with `[offset, offset + len)`.
    pub(super) fn touching(&self, offset: usize, len: usize) -> Option<&Capability> {
        let first = self.list.partition_point(|cap| cap.end() <= offset);
        self.list
            .get(first)
            .filter(|cap| cap.start < offset.saturating_add(len))
    }

    /// Adds a capability: all checks in the order of the API, then its bytes and its link.
    pub(super) fn add<D: CapabilityData + ?Sized>(
        &mut self,
        space: Option<&ConfigSpace>,
        room: Room,
        pos: usize,
        flags: u32,
        data: &D,
        events: &mut Events,
    ) -> Result<usize, Error> {
        if flags & !CAP_FLAG_MASK != 0 {
            return Err(Error::CapabilityFlags(flags));
        }
        if flags & CAP_FLAG_CALLBACK != 0 && !room.has_callback {
            return Err(Error::NoCallback);
        }
        let extended = flags & CAP_FLAG_EXTENDED != 0;
        if extended {
            room.extended.map_err(Error::NoExtended)?;
        }
        if self
            .list
            .iter()
            .filter(|cap| cap.extended() == extended)
            .count()
            >= MAX_CAPS
        {
            return Err(Error::CapabilityListFull(MAX_CAPS));
        }
        let (kind, size) = identify(extended, data)?;
        let name = kind.name();
        let end_error = Error::CapabilityEnd {
            pos,
            size,
            limit: room.limit,
            name,
        };
        let space = space.ok_or(end_error)?;
        if pos.checked_add(size).is_none_or(|end| end > room.limit) {
            return Err(end_error);
        }
        let place = if pos == 0 {
            self.free_place(space, room.limit, kind, extended, size)?
        } else {
            self.explicit_place(space, kind, extended, pos, size)?
        };
        self.list.try_reserve(1).map_err(|_| Error::OutOfMemory {
            bytes: size_of::<Capability>(),
        })?;
        if !store(space, place.start, size, data) {
            return Err(Error::MissingData);
        }
        place.link(space, extended);
        let index = self.list.partition_point(|cap| cap.start < place.start);
        self.list.insert(
            index,
            Capability {
                kind,
                flags,
                start: place.start,
                size,
            },
        );
        events.push(Event::CapabilityAdded {
            name,
            offset: place.start,
            size,
        });
        Ok(place.start)
    }

    fn explicit_place(
        &self,
        space: &ConfigSpace,
        kind: Kind,
        extended: bool,
        pos: usize,
        size: usize,
    ) -> Result<Place, Error> {
        let name = kind.name();
        let allowed = if extended {
            pos >= CFG_SPACE_SIZE
        } else {
            // Links of the standard list have 8 bits.
            pos >= STD_HEADER_SIZEOF && pos + size <= CFG_SPACE_SIZE
        };
        if !allowed {
            return Err(Error::CapabilityPosition { pos, name });
        }
        if let Some(other) = self.touching(pos, size) {
            return Err(Error::CapabilityOverlap {
                pos,
                other: other.start,
                name,
            });
        }
        if !extended {
            return Ok(Place {
                start: pos,
                after: last_standard(space)?,
            });
        }
        let after = last_extended(space)?;
        if after.is_none() && pos != CFG_SPACE_SIZE {
            return Err(Error::CapabilityNotFirst(pos));
        }
        if !pos.is_multiple_of(4) {
            return Err(Error::CapabilityPosition { pos, name });
        }
        Ok(Place { start: pos, after })
    }

    /// The first free place behind the last element of the list.
    fn free_place(
        &self,
        space: &ConfigSpace,
        limit: usize,
        kind: Kind,
        extended: bool,
        size: usize,
    ) -> Result<Place, Error> {
        let (after, first, limit) = if extended {
            (last_extended(space)?, CFG_SPACE_SIZE, limit)
        } else {
            (
                last_standard(space)?,
                STD_HEADER_SIZEOF,
                limit.min(CFG_SPACE_SIZE),
            )
        };
        let from = match after {
            None => first,
            Some(last) => last + self.member_size(space, last, extended)?,
        };
        let mut start = from.next_multiple_of(4);
        while let Some(other) = self.touching(start, size) {
            start = other.end().next_multiple_of(4);
        }
        if start + size > limit {
            return Err(Error::NoSpace {
                pos: from,
                size,
                name: kind.name(),
            });
        }
        Ok(Place { start, after })
    }

    /// Size of the list member at `offset`, re-read from configuration space; a member the library does not know must at
    /// least be in the table.
    fn member_size(
        &self,
        space: &ConfigSpace,
        offset: usize,
        extended: bool,
    ) -> Result<usize, Error> {
        let (id, field) = if extended {
            (space.u16(offset), usize::from(space.u16(offset + 6) >> 4))
        } else {
            (
                u16::from(space.u8(offset)),
                usize::from(space.u8(offset + 2)),
            )
        };
        if let Some(kind) = Kind::of(extended, id) {
            return Ok(kind.size(|| field).max(kind.header_size(extended)));
        }
        let known = self.list.iter().find(|cap| cap.start == offset);
        known.map(|cap| cap.size).ok_or(Error::ListDamaged(offset))
    }
}

/// Where a new capability goes, and after which list member.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    after: Option<usize>,
}

impl Place {
    /// Ends the list at the new member, then hangs it on, so that a reader never follows a stale link.
    fn link(self, space: &ConfigSpace, extended: bool) {
        if extended {
            set_next_extended(space, self.start, 0);
            if let Some(after) = self.after {
                set_next_extended(space, after, self.start);
            }
            return;
        }
        let Ok(link) = u8::try_from(self.start) else {
            return;
        };
        space.set_u8(self.start + 1, 0);
        space.set_u8(self.after.map_or(CAPABILITY_LIST, |after| after + 1), link);
    }
}

/// Kind and size of the capability that `data` starts with.
fn identify<D: CapabilityData + ?Sized>(extended: bool, data: &D) -> Result<(Kind, usize), Error> {
    let fetch = |offset: usize, out: &mut [u8]| {
        if data.copy(offset, out) {
            Ok(())
        } else {
            Err(Error::MissingData)
        }
    };
    let mut id = [0; 2];
    fetch(0, &mut id[..if extended { 2 } else { 1 }])?;
    let id = u16::from_le_bytes(id);
    let kind = Kind::of(extended, id).ok_or(Error::CapabilityUnknown { extended, id })?;
    let mut field = [0; 2];
    if kind == Kind::Vendor {
        if extended {
            fetch(6, &mut field)?;
        } else {
            fetch(2, &mut field[..1])?;
        }
    }
    let field = u16::from_le_bytes(field);
    let size = kind.size(|| usize::from(if extended { field >> 4 } else { field }));
    let least = kind.header_size(extended);
    if size < least {
        return Err(Error::CapabilitySize {
            size,
            least,
            name: kind.name(),
        });
    }
    Ok((kind, size))
}

/// Copies a capability's bytes in; all of them, or none.
fn store<D: CapabilityData + ?Sized>(
    space: &ConfigSpace,
    start: usize,
    size: usize,
    data: &D,
) -> bool {
    let mut buffer = [0; CFG_SPACE_EXP_SIZE];
    let Some(bytes) = buffer.get_mut(..size) else {
        return false;
    };
    if !data.copy(0, bytes) {
        return false;
    }
    space.write(start, bytes);
    true
}

const fn next_extended(header: u32) -> usize {
    (header >> 20) as usize
}

fn set_next_extended(space: &ConfigSpace, offset: usize, next: usize) {
    let header = space.u32(offset) & 0x000f_ffff;
    space.set_u32(offset, header | (u32::try_from(next).unwrap_or(0) << 20));
}

/// Offset of the last member of the standard list; `None`: the list is empty.
fn last_standard(space: &ConfigSpace) -> Result<Option<usize>, Error> {
    let mut last = None;
    let mut next = usize::from(space.u8(CAPABILITY_LIST));
    for _ in 0..STD_STEPS {
        if next == 0 {
            return Ok(last);
        }
        if next < STD_HEADER_SIZEOF || next + 1 >= CFG_SPACE_SIZE {
            return Err(Error::ListDamaged(next));
        }
        last = Some(next);
        next = usize::from(space.u8(next + 1));
    }
    Err(Error::ListDamaged(next))
}

/// Offset of the last member of the extended list; `None`: the list is empty (its first id is 0).
fn last_extended(space: &ConfigSpace) -> Result<Option<usize>, Error> {
    if space.size() <= CFG_SPACE_SIZE || space.u16(CFG_SPACE_SIZE) == 0 {
        return Ok(None);
    }
    let mut last = CFG_SPACE_SIZE;
    for _ in 0..EXT_STEPS {
        let next = next_extended(space.u32(last));
        if next == 0 {
            return Ok(Some(last));
        }
        if next < CFG_SPACE_SIZE || next + 4 > space.size() {
            return Err(Error::ListDamaged(next));
        }
        last = next;
    }
    Err(Error::ListDamaged(last))
}

/// The next capability `id` after `pos` (0: from the start) in the standard or extended list.
pub(super) fn find_next(
    space: Option<&ConfigSpace>,
    limit: usize,
    extended: bool,
    pos: usize,
    id: i32,
) -> Result<usize, Error> {
    let header = if extended { 4 } else { 1 };
    let outside = |offset: usize| Error::OutOfRange {
        offset: offset as u64,
        len: header,
        limit,
    };
    let space = space.ok_or(outside(pos))?;
    let no_list = extended && limit <= CFG_SPACE_SIZE;
    if no_list || pos.checked_add(header).is_none_or(|end| end >= limit) {
        return Err(outside(pos));
    }
    let link = |offset: usize| {
        if extended {
            next_extended(space.u32(offset))
        } else {
            usize::from(space.u8(offset + 1))
        }
    };
    let mut offset = match (pos, extended) {
        (0, true) => CFG_SPACE_SIZE,
        (0, false) => usize::from(space.u8(CAPABILITY_LIST)),
        _ => link(pos),
    };
    for _ in 0..if extended { EXT_STEPS } else { STD_STEPS } {
        if offset == 0 {
            return Err(Error::NotFound);
        }
        if offset + header >= limit {
            return Err(outside(offset));
        }
        if extended && offset < CFG_SPACE_SIZE {
            return Err(Error::ListDamaged(offset));
        }
        let found = if extended {
            space.u16(offset)
        } else {
            u16::from(space.u8(offset))
        };
        if i32::from(found) == id {
            return Ok(offset);
        }
        offset = link(offset);
    }
    Err(Error::ListDamaged(offset))
}
