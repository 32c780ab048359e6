//! A PCI function: its configuration space and capabilities, from setup to realize.
//!
//! Must not hold anything across a callback, and has none: see the module's rules.

use super::capability::{CapabilityData, Kind, Room, Table, find_next};
use super::error::Error;
use super::event::{Event, Events};
use super::region::{BARS, CONFIG, FLAG_64_BITS, FLAG_MEM, FLAG_PREFETCH, Regions};
use super::regs::{
    BASE_ADDRESS_0, BASE_ADDRESS_MEM_PREFETCH, BASE_ADDRESS_MEM_TYPE_64, BASE_ADDRESS_SPACE_IO,
    CFG_SPACE_EXP_SIZE, CFG_SPACE_SIZE, CLASS_PROG, DEVICE_ID, EXP_DEVCTL, INTERRUPT_PIN,
    REVISION_ID, STATUS, STATUS_CAP_LIST, SUBSYSTEM_ID, SUBSYSTEM_VENDOR_ID, VENDOR_ID,
};
use super::space::ConfigSpace;

/// Kinds of PCI devices, with the numbers of the C API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum PciType {
    /// Conventional PCI: 256 bytes of configuration space.
    #[default]
    Conventional = 0,
    /// PCI-X mode 1: 256 bytes.
    PciX1 = 1,
    /// PCI-X mode 2: 4096 bytes, extended capabilities.
    PciX2 = 2,
    /// PCI Express: 4096 bytes, extended capabilities.
    Express = 3,
}

impl PciType {
    /// Bytes of configuration space.
    #[must_use]
    pub const fn config_size(self) -> usize {
        match self {
            Self::Conventional | Self::PciX1 => CFG_SPACE_SIZE,
            Self::PciX2 | Self::Express => CFG_SPACE_EXP_SIZE,
        }
    }
}

impl TryFrom<i32> for PciType {
    type Error = Error;

    fn try_from(value: i32) -> Result<Self, Error> {
        match value {
            0 => Ok(Self::Conventional),
            1 => Ok(Self::PciX1),
            2 => Ok(Self::PciX2),
            3 => Ok(Self::Express),
            _ => Err(Error::BadType(value)),
        }
    }
}

/// Configuration space and capabilities of one function. `Send`; calls on it are serialised by the owner.
#[derive(Debug, Default)]
pub struct Function {
    kind: PciType,
    space: Option<ConfigSpace>,
    pub(super) table: Table,
    realized: bool,
}

impl Function {
    /// A conventional function without configuration space.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            kind: PciType::Conventional,
            space: None,
            table: Table::new(),
            realized: false,
        }
    }

    /// Allocates configuration space for `kind` (0 to 3) and stores `revision` in the revision id register.
    /// Returns the size that the caller stores as the config region's, together with the flags READ and WRITE.
    ///
    /// # Errors
    ///
    /// In this order: [`Error::BadType`], [`Error::BadHeaderType`] unless `header_type` is 0,
    /// [`Error::AlreadyInitialised`], [`Error::OutOfMemory`].
    pub fn init(
        &mut self,
        kind: i32,
        header_type: i32,
        revision: i32,
        events: &mut Events,
    ) -> Result<usize, Error> {
        let kind = PciType::try_from(kind)?;
        if header_type != 0 {
            return Err(Error::BadHeaderType(header_type));
        }
        if self.space.is_some() {
            return Err(Error::AlreadyInitialised);
        }
        let space = ConfigSpace::new(kind.config_size())?;
        space.set_u8(REVISION_ID, revision.to_le_bytes()[0]);
        if u8::try_from(revision).is_err() {
            events.push(Event::RevisionTruncated { revision });
        }
        self.kind = kind;
        self.space = Some(space);
        Ok(kind.config_size())
    }

    /// Finishes the device: allocates configuration space if [`Function::init`] did not, and sets the describing bits of
    /// the BARs, the interrupt pin (if `intx`) and the capability bit of the status register.
    /// Returns the size to store for the config region (a region of size 0 becomes 256 bytes, READ and WRITE).
    /// Call it once.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`], with nothing changed.
    pub fn realize(
        &mut self,
        regions: &impl Regions,
        intx: bool,
        events: &mut Events,
    ) -> Result<u64, Error> {
        let size = match regions.region(CONFIG).size {
            0 => CFG_SPACE_SIZE as u64,
            size => size,
        };
        if self.space.is_none() {
            let wanted = usize::try_from(size).unwrap_or(CFG_SPACE_EXP_SIZE);
            self.space = Some(ConfigSpace::new(wanted)?);
        }
        let Some(space) = &self.space else {
            return Ok(size);
        };
        for index in 0..BARS {
            describe_bar(space, regions, index, events);
        }
        if intx {
            space.set_u8(INTERRUPT_PIN, 1);
        }
        if self.table.has_standard() {
            space.set_u16(STATUS, space.u16(STATUS) | STATUS_CAP_LIST);
        }
        self.realized = true;
        Ok(size.min(space.size() as u64))
    }

    /// Address of configuration space, NULL before it exists. Valid and unchanged until this value is dropped; readable
    /// and writable by anyone at any time.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.space
            .as_ref()
            .map_or(core::ptr::null_mut(), ConfigSpace::base)
    }

    /// Bytes behind [`Function::base`]: 0, 256 or 4096.
    #[must_use]
    pub fn allocated(&self) -> usize {
        self.space.as_ref().map_or(0, ConfigSpace::size)
    }

    /// The buffer, if it exists.
    #[must_use]
    pub const fn space(&self) -> Option<&ConfigSpace> {
        self.space.as_ref()
    }

    /// Stores vendor, device, subsystem vendor and subsystem id. Without configuration space, does nothing.
    pub fn set_id(&self, vendor: u16, device: u16, subsystem_vendor: u16, subsystem: u16) {
        if let Some(space) = &self.space {
            space.set_u16(VENDOR_ID, vendor);
            space.set_u16(DEVICE_ID, device);
            space.set_u16(SUBSYSTEM_VENDOR_ID, subsystem_vendor);
            space.set_u16(SUBSYSTEM_ID, subsystem);
        }
    }

    /// Stores base class, sub-class and programming interface. Without configuration space, does nothing.
    pub fn set_class(&self, base: u8, sub: u8, interface: u8) {
        if let Some(space) = &self.space {
            space.write(CLASS_PROG, &[interface, sub, base]);
        }
    }

    /// Bytes of configuration space that may be used: the config region's size, never more than is allocated.
    pub(super) fn limit(&self, regions: &impl Regions) -> usize {
        let size = regions.region(CONFIG).size;
        usize::try_from(size)
            .unwrap_or(usize::MAX)
            .min(self.allocated())
    }

    /// Adds a capability and returns its offset. `pos` 0 places it behind the last one of its list, in the first gap that
    /// is big enough. `flags` are `CAP_FLAG_*`; `data` starts with the capability's header, whose next pointer is ignored.
    ///
    /// # Errors
    ///
    /// In this order: unknown flags, CALLBACK without callback, EXTENDED without extended space (all EINVAL); list full
    /// (ENOSPC); unknown id (ENOTSUP); vendor size below its header, end beyond configuration space, `pos` in the header or
    /// in the other list's space, overlap, first extended one not at 0x100, not a multiple of 4 (all EINVAL); no place left
    /// (ENOSPC); ENOMEM; EINVAL if the list in configuration space is damaged or `data` too short.
    /// Nothing is changed then.
    pub fn add_capability<D: CapabilityData + ?Sized>(
        &mut self,
        regions: &impl Regions,
        pos: usize,
        flags: u32,
        data: &D,
        events: &mut Events,
    ) -> Result<usize, Error> {
        let room = Room {
            limit: self.limit(regions),
            has_callback: regions.region(CONFIG).has_callback,
            extended: match self.kind {
                PciType::PciX2 | PciType::Express => Ok(()),
                kind => Err(kind as i32),
            },
        };
        let offset = self
            .table
            .add(self.space.as_ref(), room, pos, flags, data, events)?;
        if let Some(space) = self
            .space
            .as_ref()
            .filter(|_| self.realized && self.table.has_standard())
        {
            space.set_u16(STATUS, space.u16(STATUS) | STATUS_CAP_LIST);
        }
        Ok(offset)
    }

    /// Offset of the next capability `id` behind `pos`, or of the first if `pos` is 0. `pos` is the offset of a capability;
    /// this is not verified, the bytes found there are followed.
    ///
    /// # Errors
    ///
    /// EINVAL if `pos` or the list leads outside configuration space or in a circle; ENOENT at the end of the list.
    pub fn find_capability(
        &self,
        regions: &impl Regions,
        extended: bool,
        pos: usize,
        id: i32,
    ) -> Result<usize, Error> {
        find_next(self.space.as_ref(), self.limit(regions), extended, pos, id)
    }

    /// Whether a write of `len` bytes at `offset` can ask for a function-level reset, so that the device must be quiesced
    /// before: it touches the device control register of a PCI Express capability.
    #[must_use]
    pub fn needs_quiesce(&self, offset: u64, len: usize) -> bool {
        let end = offset.saturating_add(len as u64);
        self.table
            .iter()
            .filter(|cap| cap.kind == Kind::Express)
            .any(|cap| {
                let control = (cap.start + EXP_DEVCTL) as u64;
                offset < control + 2 && end > control
            })
    }
}

/// Sets the bits of a BAR that describe it. The upper half of a 64-bit pair has none.
fn describe_bar(space: &ConfigSpace, regions: &impl Regions, index: usize, events: &mut Events) {
    if index % 2 == 1 && regions.region(index - 1).has(FLAG_64_BITS) {
        return;
    }
    let region = regions.region(index);
    let mut bits = 0;
    if !region.has(FLAG_MEM) {
        bits |= BASE_ADDRESS_SPACE_IO;
    }
    if region.has(FLAG_64_BITS) {
        bits |= BASE_ADDRESS_MEM_TYPE_64;
    }
    if region.has(FLAG_PREFETCH) {
        bits |= BASE_ADDRESS_MEM_PREFETCH;
        if !region.has(FLAG_64_BITS) {
            events.push(Event::PrefetchWithout64Bits { index });
        }
    }
    let register = BASE_ADDRESS_0 + 4 * index;
    space.set_u32(register, space.u32(register) | bits);
}
