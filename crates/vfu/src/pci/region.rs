//! Rules for the sizes and flags of regions, as a pure function, and what configuration space must know of regions.
//!
//! Nothing here stores a region: the context does, and shows it through [`Regions`].

use super::event::Level;
use super::regs::{CFG_SPACE_EXP_SIZE, STD_HEADER_SIZEOF};

/// Number of regions of a PCI device.
pub const COUNT: usize = 9;
/// Index of BAR 0; BARs are 0 to 5.
pub const BAR0: usize = 0;
/// Number of BARs.
pub const BARS: usize = 6;
/// Index of the expansion ROM.
pub const ROM: usize = 6;
/// Index of configuration space.
pub const CONFIG: usize = 7;

/// The client may read the region.
pub const FLAG_READ: u32 = 1;
/// The client may write the region.
pub const FLAG_WRITE: u32 = 2;
/// Both.
pub const FLAG_RW: u32 = FLAG_READ | FLAG_WRITE;
/// Memory space; I/O space otherwise.
pub const FLAG_MEM: u32 = 4;
/// Configuration space only: every access goes to the callback.
pub const FLAG_ALWAYS_CB: u32 = 8;
/// The BAR takes two registers.
pub const FLAG_64_BITS: u32 = 16;
/// The BAR is prefetchable.
pub const FLAG_PREFETCH: u32 = 32;
/// All flags.
pub const FLAG_MASK: u32 = 63;

/// What this module needs to know of one region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Bytes; 0: the region does not exist.
    pub size: u64,
    /// `FLAG_*`.
    pub flags: u32,
    /// An access callback is set.
    pub has_callback: bool,
}

impl Region {
    /// Whether all of `flags` are set.
    #[must_use]
    pub const fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }
}

/// The regions of a device, read while a step runs.
pub trait Regions {
    /// Region `index` (0 to 8); a region that is not set up is [`Region::default`].
    fn region(&self, index: usize) -> Region;
}

impl Regions for [Region; COUNT] {
    fn region(&self, index: usize) -> Region {
        self.get(index).copied().unwrap_or_default()
    }
}

/// A range of a region that the client may map, in bytes from the start of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmapArea {
    /// First byte.
    pub base: u64,
    /// Length.
    pub len: u64,
}

/// The arguments of a region setup.
#[derive(Clone, Copy, Debug)]
pub struct RegionRequest {
    /// Region index as the caller gave it.
    pub index: i32,
    /// Bytes.
    pub size: u64,
    /// A callback was given.
    pub has_callback: bool,
    /// `FLAG_*`
    pub flags: u32,
    /// The pointer to areas is not NULL.
    pub has_areas: bool,
    /// Number of areas announced.
    pub area_count: u32,
    /// Descriptor, -1 for none.
    pub fd: i32,
}

/// Why a region cannot be set up. `errno` is EINVAL for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// Unknown flags, or neither readable nor writable.
    #[error("bad region flags {0:#x}: known are {FLAG_MASK:#x}, with read or write")]
    Flags(u32),
    /// `ALWAYS_CB` without a callback.
    #[error("region flag ALWAYS_CB needs a callback")]
    NoCallback,
    /// Areas and their number disagree, or there is no descriptor to map.
    #[error("bad mappable areas: {} array, {count} entries, descriptor {fd}", if *.given { "an" } else { "no" })]
    Areas {
        /// A pointer was given.
        given: bool,
        /// The number given.
        count: u32,
        /// The descriptor.
        fd: i32,
    },
    /// Not a region.
    #[error("bad region index {0}: 0 to {last} exist", last = COUNT - 1)]
    Index(i32),
    /// A BAR must be a power of two and at least `least` bytes.
    #[error("BAR{index} of {size:#x} bytes: must be a power of two, {least} or more")]
    BarSize {
        /// BAR index.
        index: usize,
        /// Size asked for.
        size: u64,
        /// Smallest size for its kind.
        least: u64,
    },
    /// Only an even BAR can be 64 bits wide.
    #[error("BAR{0} cannot be 64 bits wide, only an even BAR can")]
    Odd64(usize),
    /// The BAR below is 64 bits wide and takes this register too.
    #[error("BAR{0} is the upper half of the 64-bit BAR below it")]
    UpperHalf(usize),
    /// The BAR above is in use, so this one cannot be 64 bits wide.
    #[error("BAR{0} cannot be 64 bits wide: the BAR above it is in use")]
    UpperInUse(usize),
    /// Configuration space must be readable, writable and not memory.
    #[error("bad flags {0:#x} for config space: must be read and write, and not memory")]
    ConfigFlags(u32),
    /// Configuration space has at least a header.
    #[error("config space of {0} bytes: {STD_HEADER_SIZEOF} at least")]
    ConfigSize(u64),
    /// An area ends outside the region.
    #[error("mappable area at {base:#x} of {len:#x} bytes is outside the region of {size:#x} bytes",
        base = .area.base, len = .area.len)]
    AreaOutside {
        /// The area.
        area: MmapArea,
        /// The region's size.
        size: u64,
    },
}

impl RegionError {
    /// EINVAL.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        libc::EINVAL
    }

    /// Severity of the log line.
    #[must_use]
    pub const fn level(&self) -> Level {
        Level::Error
    }
}

/// Checks a region setup, in the order the API promises, and returns the size to store.
///
/// The size is the one asked for, except that configuration space never exceeds `config_allocated` (the size of
/// [`super::Function`]'s buffer, 0 when there is none yet) nor 4096 bytes.
/// `areas` is read only when every earlier check has passed; it yields the `area_count` areas.
///
/// # Errors
///
/// The first rule broken, see [`RegionError`].
pub fn check_region(
    request: &RegionRequest,
    regions: &impl Regions,
    config_allocated: usize,
    areas: impl IntoIterator<Item = MmapArea>,
) -> Result<u64, RegionError> {
    let RegionRequest { size, flags, .. } = *request;
    if flags & !FLAG_MASK != 0 || flags & FLAG_RW == 0 {
        return Err(RegionError::Flags(flags));
    }
    if flags & FLAG_ALWAYS_CB != 0 && !request.has_callback {
        return Err(RegionError::NoCallback);
    }
    if request.has_areas != (request.area_count != 0) || (request.has_areas && request.fd == -1) {
        return Err(RegionError::Areas {
            given: request.has_areas,
            count: request.area_count,
            fd: request.fd,
        });
    }
    let index = usize::try_from(request.index)
        .ok()
        .filter(|&index| index < COUNT)
        .ok_or(RegionError::Index(request.index))?;
    if index < BARS {
        check_bar(index, size, flags, regions)?;
    }
    if index == CONFIG {
        if flags & FLAG_RW != FLAG_RW || flags & FLAG_MEM != 0 {
            return Err(RegionError::ConfigFlags(flags));
        }
        if size != 0 && size < STD_HEADER_SIZEOF as u64 {
            return Err(RegionError::ConfigSize(size));
        }
    }
    let size = match (index, config_allocated) {
        (CONFIG, 0) => size.min(CFG_SPACE_EXP_SIZE as u64),
        (CONFIG, allocated) => size.min(allocated as u64),
        _ => size,
    };
    if request.has_areas {
        for area in areas {
            if area.base.checked_add(area.len).is_none_or(|end| end > size) {
                return Err(RegionError::AreaOutside { area, size });
            }
        }
    }
    Ok(size)
}

fn check_bar(
    index: usize,
    size: u64,
    flags: u32,
    regions: &impl Regions,
) -> Result<(), RegionError> {
    let least = if flags & FLAG_MEM != 0 { 16 } else { 4 };
    if size != 0 && (!size.is_power_of_two() || size < least) {
        return Err(RegionError::BarSize { index, size, least });
    }
    if index % 2 == 1 {
        if flags & FLAG_64_BITS != 0 {
            return Err(RegionError::Odd64(index));
        }
        if regions.region(index - 1).has(FLAG_64_BITS) {
            return Err(RegionError::UpperHalf(index));
        }
    } else if flags & FLAG_64_BITS != 0 && regions.region(index + 1).size > 0 {
        return Err(RegionError::UpperInUse(index));
    }
    Ok(())
}
