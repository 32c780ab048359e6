//! The regions of a device: what the setup calls stored, and what clients are told about it.
//!
//! 1. Descriptors of regions and ioeventfds are shared with clients. They are the caller's ([`SharedFd::Borrowed`]) or the
//!    context's ([`SharedFd::Owned`]); this module never duplicates one.
//! 2. The table is read and written between callbacks only; every borrow ends inside the function that takes it.

use core::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::error::{Error, Result};
use crate::pci::region::{COUNT, FLAG_MEM, FLAG_RW};
use crate::pci::{self, MmapArea, RegionRequest};
use crate::sys::memory::{out_of_memory, try_push};
use crate::sys::socket::MAX_FDS;

pub use crate::pci::region::{BAR0, BARS, CONFIG, COUNT as REGION_COUNT, ROM};

/// Index of the VGA region.
pub const VGA: usize = 8;

/// [`CONFIG`] as requests name it.
pub(crate) const CONFIG_INDEX: u32 = 7;
const _: () = assert!(CONFIG_INDEX as usize == CONFIG);

bitflags::bitflags! {
    /// Properties of a region, with the values of `VFU_REGION_FLAG_*`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct RegionFlags: u32 {
        /// Clients may read it.
        const READ = 1;
        /// Clients may write it.
        const WRITE = 2;
        /// Both.
        const RW = FLAG_RW;
        /// A memory BAR; an I/O BAR otherwise.
        const MEM = FLAG_MEM;
        /// Configuration space only: every access goes to the device.
        const ALWAYS_CB = 8;
        /// A BAR that takes two registers.
        const BITS_64 = 16;
        /// A prefetchable BAR.
        const PREFETCH = 32;
    }
}

/// A descriptor that clients get a copy of.
#[derive(Debug)]
pub enum SharedFd {
    /// The context closes it.
    Owned(OwnedFd),
    /// The caller keeps it open for as long as the context may use it.
    Borrowed(BorrowedFd<'static>),
}

impl AsRawFd for SharedFd {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Owned(fd) => fd.as_raw_fd(),
            Self::Borrowed(fd) => fd.as_raw_fd(),
        }
    }
}

impl AsFd for SharedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Owned(fd) => fd.as_fd(),
            Self::Borrowed(fd) => *fd,
        }
    }
}

impl From<OwnedFd> for SharedFd {
    fn from(fd: OwnedFd) -> Self {
        Self::Owned(fd)
    }
}

/// A region to be set up.
#[derive(Debug, Default)]
pub struct RegionSetup {
    /// 0 to 8, see [`BAR0`], [`ROM`], [`CONFIG`] and [`VGA`].
    pub index: i32,
    /// Bytes; 0 takes the region away.
    pub size: u64,
    /// Bits of [`RegionFlags`]; others are refused.
    pub flags: u32,
    /// Whether accesses go to [`Device::region_access`](crate::Device::region_access). Without it they fail with EINVAL,
    /// or, for the configuration region, are served from its memory.
    pub callback: bool,
    /// Memory that clients may map instead of sending messages.
    pub fd: Option<SharedFd>,
    /// Where the region starts in `fd`, in bytes.
    pub offset: u64,
}

/// A write to a region that the client may turn into an event instead of a message.
#[derive(Debug)]
pub struct IoEventFd {
    /// Index of the region.
    pub region: u32,
    /// The eventfd; `None` describes the place without one.
    pub fd: Option<SharedFd>,
    /// Offset in the region, in bytes.
    pub offset: u64,
    /// Bytes of the write.
    pub size: u32,
    /// `KVM_IOEVENTFD_FLAG_*`.
    pub flags: u32,
    /// Value to match, if the flags say so.
    pub datamatch: u64,
    /// Memory in which the client leaves the value written.
    pub shadow: Option<SharedFd>,
    /// Where in that memory, in bytes.
    pub shadow_offset: u64,
}

/// One region as it is stored.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) size: u64,
    pub(crate) flags: u32,
    pub(crate) callback: bool,
    pub(crate) fd: Option<SharedFd>,
    pub(crate) offset: u64,
    pub(crate) areas: Vec<MmapArea>,
    pub(crate) io_events: Vec<IoEventFd>,
}

impl Slot {
    const EMPTY: Self = Self {
        size: 0,
        flags: 0,
        callback: false,
        fd: None,
        offset: 0,
        areas: Vec::new(),
        io_events: Vec::new(),
    };
}

/// All regions of a context.
#[derive(Debug)]
pub(crate) struct Table {
    slots: RefCell<[Slot; COUNT]>,
}

impl Table {
    pub(crate) const fn new() -> Self {
        Self {
            slots: RefCell::new([const { Slot::EMPTY }; COUNT]),
        }
    }

    /// Looks at one region, without calling back; `None` from 9 on.
    #[inline]
    pub(crate) fn with<T>(&self, index: u32, look: impl FnOnce(&Slot) -> T) -> Option<T> {
        let slots = self.slots.borrow();
        slots.get(usize::try_from(index).ok()?).map(look)
    }

    /// Stores a region after all checks, in the order that the C API promises.
    pub(crate) fn setup<A>(
        &self,
        setup: RegionSetup,
        areas: A,
        config_allocated: usize,
    ) -> Result<()>
    where
        A: IntoIterator<Item = MmapArea>,
        A::IntoIter: ExactSizeIterator + Clone,
    {
        let areas = areas.into_iter();
        let request = RegionRequest {
            index: setup.index,
            size: setup.size,
            has_callback: setup.callback,
            flags: setup.flags,
            has_areas: areas.len() != 0,
            area_count: u32::try_from(areas.len()).unwrap_or(u32::MAX),
            fd: setup.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        };
        let size = pci::check_region(&request, self, config_allocated, areas.clone())?;

        let mut stored = Vec::new();
        let count = areas.len().max(usize::from(setup.fd.is_some()));
        stored.try_reserve_exact(count).map_err(out_of_memory(
            "mappable areas",
            count * size_of::<MmapArea>(),
        ))?;
        if areas.len() == 0 && setup.fd.is_some() {
            stored.push(MmapArea { base: 0, len: size });
        }
        stored.extend(areas.take(count)); // within the capacity reserved above

        let index = usize::try_from(setup.index).unwrap_or(COUNT);
        let mut slots = self.slots.borrow_mut();
        if let Some(slot) = slots.get_mut(index) {
            slot.size = size;
            slot.flags = setup.flags;
            slot.callback = setup.callback;
            slot.fd = setup.fd;
            slot.offset = setup.offset;
            slot.areas = stored;
        }
        Ok(())
    }

    /// Stores the size of configuration space, and that it can be read and written.
    pub(crate) fn set_config(&self, size: u64) {
        let slot = &mut self.slots.borrow_mut()[CONFIG];
        slot.size = size;
        slot.flags |= FLAG_RW;
    }

    /// Adds a sub-region. Newer ones come first, as clients see them.
    pub(crate) fn add_io_event(&self, event: IoEventFd) -> Result<()> {
        let mut slots = self.slots.borrow_mut();
        let slot = usize::try_from(event.region)
            .ok()
            .and_then(|index| slots.get_mut(index))
            .ok_or(Error::Argument {
                what: "index of a region",
                value: event.region.into(),
            })?;
        if event
            .offset
            .checked_add(event.size.into())
            .is_none_or(|end| end > slot.size)
        {
            return Err(Error::RegionBounds {
                region: event.region,
                offset: event.offset,
                count: event.size,
                size: slot.size,
            });
        }
        try_push(&mut slot.io_events, event, "ioeventfds")
    }
}

impl pci::Regions for Table {
    fn region(&self, index: usize) -> pci::Region {
        let slots = self.slots.borrow();
        slots
            .get(index)
            .map_or_else(pci::Region::default, |slot| pci::Region {
                size: slot.size,
                flags: slot.flags,
                has_callback: slot.callback,
            })
    }
}

/// The distinct descriptors of a reply, in the order of their first use.
#[derive(Debug)]
pub(crate) struct FdList {
    fds: [RawFd; MAX_FDS],
    count: usize,
    limit: usize,
}

impl FdList {
    /// An empty list for at most `limit` descriptors, and as many as the system can pass.
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            fds: [-1; MAX_FDS],
            count: 0,
            limit,
        }
    }

    /// Position of `fd` in the message; `None` when there is no room.
    pub(crate) fn position(&mut self, fd: RawFd) -> Option<u32> {
        let known = self.as_slice().iter().position(|known| *known == fd);
        let position = match known {
            Some(position) => position,
            None => {
                *self
                    .fds
                    .get_mut(self.count)
                    .filter(|_| self.count < self.limit)? = fd;
                self.count += 1;
                self.count - 1
            }
        };
        u32::try_from(position).ok()
    }

    pub(crate) fn as_slice(&self) -> &[RawFd] {
        self.fds.get(..self.count).unwrap_or_default()
    }
}
