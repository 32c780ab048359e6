//! Requests: from the bytes of a message to typed values, or an error.
//!
//! What is checked here depends on the bytes alone: lengths, argsz, flags that exclude each other. What depends on the device
//! (sizes, counts, states) is checked by the handlers.

use super::{Command, MAX_DATA, MAX_DATA_U32, REGION_ACCESS, u32_at, u64_at};
use crate::error::{Error, Result};

/// Bytes of the fixed part of each request.
pub(crate) const DMA_MAP: usize = 32;
pub(crate) const DMA_UNMAP: usize = 24;
pub(crate) const BITMAP: usize = 16;
pub(crate) const DEVICE_INFO: usize = 16;
pub(crate) const REGION_INFO: usize = 32;
pub(crate) const IRQ_INFO: usize = 16;
pub(crate) const IRQ_SET: usize = 20;
pub(crate) const IO_FDS: usize = 16;
pub(crate) const FEATURE: usize = 8;
pub(crate) const MIG_DATA: usize = 8;
pub(crate) const WRITE_MULTI: usize = 8;
pub(crate) const WRITE_ONE: usize = 24;

/// Largest argsz of commands whose reply it bounds.
const MAX_ARGSZ: u32 = MAX_DATA_U32;

/// `DMA_MAP`: the device may read.
pub(crate) const DMA_READ: u32 = 1;
/// `DMA_MAP`: the device may write.
pub(crate) const DMA_WRITE: u32 = 2;
/// `DMA_MAP`: map the descriptor.
pub(crate) const DMA_MMAP: u32 = 4;
/// `DMA_MAP`: read and write the descriptor.
pub(crate) const DMA_FILE_IO: u32 = 8;

/// `DMA_MAP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DmaMap {
    pub(crate) flags: u32,
    pub(crate) offset: u64,
    pub(crate) addr: u64,
    pub(crate) size: u64,
}

/// `DMA_UNMAP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DmaUnmap {
    /// One region.
    One { addr: u64, size: u64 },
    /// One region, and which of its pages are dirty.
    Dirty {
        addr: u64,
        size: u64,
        page_size: u64,
        bitmap: u64,
    },
    /// All regions.
    All,
}

/// An access to a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RegionAccess {
    pub(crate) offset: u64,
    pub(crate) region: u32,
    pub(crate) count: u32,
}

/// `SET_IRQS`: what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IrqAction {
    Mask,
    Unmask,
    Trigger,
}

/// `SET_IRQS`: with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IrqData<'a> {
    None,
    /// One byte an interrupt.
    Bool(&'a [u8]),
    Eventfd,
}

/// `SET_IRQS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SetIrqs<'a> {
    pub(crate) index: u32,
    pub(crate) action: IrqAction,
    pub(crate) data: IrqData<'a>,
    pub(crate) start: u32,
    pub(crate) count: u32,
}

/// `DEVICE_FEATURE`: PROBE.
pub(crate) const FEATURE_PROBE: u32 = 1 << 18;
/// `DEVICE_FEATURE`: SET.
pub(crate) const FEATURE_SET: u32 = 1 << 17;
/// `DEVICE_FEATURE`: GET.
pub(crate) const FEATURE_GET: u32 = 1 << 16;
/// `DEVICE_FEATURE`: the number of the feature.
pub(crate) const FEATURE_MASK: u32 = 0xffff;

/// `DEVICE_FEATURE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Feature<'a> {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    /// All of the payload, the two fields above included.
    pub(crate) payload: &'a [u8],
}

/// A request, checked as far as its bytes go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    DmaMap(DmaMap),
    DmaUnmap(DmaUnmap),
    DeviceGetInfo,
    RegionInfo {
        argsz: u32,
        index: u32,
    },
    RegionIoFds {
        argsz: u32,
        index: u32,
    },
    IrqInfo {
        index: u32,
    },
    SetIrqs(SetIrqs<'a>),
    RegionWriteMulti(&'a mut [u8]),
    DeviceReset,
    Feature(Feature<'a>),
    MigDataRead {
        argsz: u32,
        size: u32,
    },
    MigDataWrite {
        argsz: u32,
        size: u32,
        data: &'a mut [u8],
    },
}

impl<'a> Request<'a> {
    /// Reads the payload of a request, other than [`region_access`] and [`region_write`].
    pub(crate) fn parse(command: Command, payload: &'a mut [u8]) -> Result<Self> {
        match command {
            Command::DmaMap => dma_map(payload),
            Command::DmaUnmap => dma_unmap(payload),
            Command::DeviceGetInfo => {
                sized(command, payload, DEVICE_INFO)?;
                Ok(Self::DeviceGetInfo)
            }
            Command::DeviceGetRegionInfo => {
                let argsz = sized(command, payload, REGION_INFO)?;
                Ok(Self::RegionInfo {
                    argsz,
                    index: u32_at(payload, 8),
                })
            }
            Command::DeviceGetRegionIoFds => region_io_fds(payload),
            Command::DeviceGetIrqInfo => {
                sized(command, payload, IRQ_INFO)?;
                Ok(Self::IrqInfo {
                    index: u32_at(payload, 8),
                })
            }
            Command::DeviceSetIrqs => set_irqs(payload),
            Command::DeviceReset => Ok(Self::DeviceReset),
            Command::RegionWriteMulti => region_write_multi(payload),
            Command::DeviceFeature => {
                at_least(command, "payload", payload.len() as u64, FEATURE as u64)?;
                Ok(Self::Feature(Feature {
                    argsz: u32_at(payload, 0),
                    flags: u32_at(payload, 4),
                    payload,
                }))
            }
            Command::MigDataRead => {
                at_least(command, "payload", payload.len() as u64, MIG_DATA as u64)?;
                Ok(Self::MigDataRead {
                    argsz: u32_at(payload, 0),
                    size: u32_at(payload, 4),
                })
            }
            Command::MigDataWrite => {
                at_least(command, "payload", payload.len() as u64, MIG_DATA as u64)?;
                let (argsz, size) = (u32_at(payload, 0), u32_at(payload, 4));
                Ok(Self::MigDataWrite {
                    argsz,
                    size,
                    data: payload.get_mut(MIG_DATA..).unwrap_or_default(),
                })
            }
            Command::Version
            | Command::RegionRead
            | Command::RegionWrite
            | Command::DmaRead
            | Command::DmaWrite => Err(Error::UnknownCommand {
                number: command as u16,
            }),
        }
    }
}

#[cold]
pub(crate) const fn field(command: Command, field: &'static str, value: u64) -> Error {
    Error::Field {
        command,
        field,
        value,
    }
}

/// Fails unless `value >= limit`.
#[inline]
pub(crate) fn at_least(
    command: Command,
    field: &'static str,
    value: u64,
    limit: u64,
) -> Result<()> {
    if value >= limit {
        Ok(())
    } else {
        Err(Error::Length {
            command,
            field,
            value,
            rule: "less than",
            limit,
        })
    }
}

/// Fails unless `value <= limit`.
#[inline]
pub(crate) fn at_most(command: Command, field: &'static str, value: u64, limit: u64) -> Result<()> {
    if value <= limit {
        Ok(())
    } else {
        Err(Error::Length {
            command,
            field,
            value,
            rule: "more than",
            limit,
        })
    }
}

/// The argsz of a payload that begins with one; neither may be below `size`.
fn sized(command: Command, payload: &[u8], size: usize) -> Result<u32> {
    at_least(command, "payload", payload.len() as u64, size as u64)?;
    let argsz = u32_at(payload, 0);
    at_least(command, "argsz", argsz.into(), size as u64)?;
    Ok(argsz)
}

fn dma_map<'a>(payload: &[u8]) -> Result<Request<'a>> {
    let command = Command::DmaMap;
    sized(command, payload, DMA_MAP)?;
    let flags = u32_at(payload, 4);
    let known = DMA_READ | DMA_WRITE | DMA_MMAP | DMA_FILE_IO;
    if flags & !known != 0 || flags & (DMA_MMAP | DMA_FILE_IO) == DMA_MMAP | DMA_FILE_IO {
        return Err(field(command, "flags", flags.into()));
    }
    Ok(Request::DmaMap(DmaMap {
        flags,
        offset: u64_at(payload, 8),
        addr: u64_at(payload, 16),
        size: u64_at(payload, 24),
    }))
}

fn dma_unmap<'a>(payload: &[u8]) -> Result<Request<'a>> {
    const GET_DIRTY_BITMAP: u32 = 1;
    const ALL: u32 = 2;
    let command = Command::DmaUnmap;
    at_least(command, "payload", payload.len() as u64, DMA_UNMAP as u64)?;
    let (argsz, flags) = (u32_at(payload, 0), u32_at(payload, 4));
    let (addr, size) = (u64_at(payload, 8), u64_at(payload, 16));
    let mut needed = DMA_UNMAP as u64;
    let unmap = match flags {
        0 => DmaUnmap::One { addr, size },
        GET_DIRTY_BITMAP => {
            at_least(
                command,
                "payload",
                payload.len() as u64,
                (DMA_UNMAP + BITMAP) as u64,
            )?;
            let (page_size, bitmap) = (u64_at(payload, 24), u64_at(payload, 32));
            needed = bitmap.saturating_add((DMA_UNMAP + BITMAP) as u64);
            DmaUnmap::Dirty {
                addr,
                size,
                page_size,
                bitmap,
            }
        }
        ALL if addr == 0 && size == 0 => DmaUnmap::All,
        ALL => {
            return Err(field(
                command,
                "address or size, with flag ALL,",
                addr | size,
            ));
        }
        _ => return Err(field(command, "flags", flags.into())),
    };
    at_least(command, "argsz", argsz.into(), needed)?;
    at_most(command, "argsz", argsz.into(), MAX_ARGSZ.into())?;
    Ok(Request::DmaUnmap(unmap))
}

fn region_io_fds<'a>(payload: &[u8]) -> Result<Request<'a>> {
    let command = Command::DeviceGetRegionIoFds;
    at_least(command, "payload", payload.len() as u64, IO_FDS as u64)?;
    let (argsz, flags, index, count) = (
        u32_at(payload, 0),
        u32_at(payload, 4),
        u32_at(payload, 8),
        u32_at(payload, 12),
    );
    if flags != 0 {
        return Err(field(command, "flags", flags.into()));
    }
    if count != 0 {
        return Err(field(command, "count", count.into()));
    }
    at_least(command, "argsz", argsz.into(), IO_FDS as u64)?;
    at_most(command, "argsz", argsz.into(), MAX_ARGSZ.into())?;
    Ok(Request::RegionIoFds { argsz, index })
}

fn set_irqs(payload: &[u8]) -> Result<Request<'_>> {
    const DATA_NONE: u32 = 1;
    const DATA_BOOL: u32 = 2;
    const DATA_EVENTFD: u32 = 4;
    const MASK: u32 = 8;
    const UNMASK: u32 = 16;
    const TRIGGER: u32 = 32;
    let command = Command::DeviceSetIrqs;
    sized(command, payload, IRQ_SET)?;
    let (flags, index) = (u32_at(payload, 4), u32_at(payload, 8));
    let (start, count) = (u32_at(payload, 12), u32_at(payload, 16));
    let bools = payload.get(IRQ_SET..).unwrap_or_default();
    if flags & DATA_BOOL != 0 && bools.len() as u64 != u64::from(count) {
        return Err(field(command, "count", count.into()));
    }
    let action = match flags & (MASK | UNMASK | TRIGGER) {
        MASK => IrqAction::Mask,
        UNMASK => IrqAction::Unmask,
        TRIGGER => IrqAction::Trigger,
        _ => return Err(field(command, "action in flags", flags.into())),
    };
    let data = match flags & (DATA_NONE | DATA_BOOL | DATA_EVENTFD) {
        DATA_NONE => IrqData::None,
        DATA_BOOL => IrqData::Bool(bools),
        DATA_EVENTFD => IrqData::Eventfd,
        _ => return Err(field(command, "data in flags", flags.into())),
    };
    if count == 0 && (start != 0 || action != IrqAction::Trigger || data != IrqData::None) {
        return Err(field(
            command,
            "flags or start, with count 0,",
            flags.into(),
        ));
    }
    Ok(Request::SetIrqs(SetIrqs {
        index,
        action,
        data,
        start,
        count,
    }))
}

/// Reads `REGION_READ`, and the first part of `REGION_WRITE`.
#[inline]
pub(crate) fn region_access(command: Command, payload: &[u8]) -> Result<RegionAccess> {
    at_least(
        command,
        "payload",
        payload.len() as u64,
        REGION_ACCESS as u64,
    )?;
    let access = RegionAccess {
        offset: u64_at(payload, 0),
        region: u32_at(payload, 8),
        count: u32_at(payload, 12),
    };
    at_most(command, "count", access.count.into(), MAX_DATA as u64)?;
    Ok(access)
}

/// Reads `REGION_WRITE`: where, and what.
#[inline]
pub(crate) fn region_write(payload: &mut [u8]) -> Result<(RegionAccess, &mut [u8])> {
    let access = region_access(Command::RegionWrite, payload)?;
    let data = payload.get_mut(REGION_ACCESS..).unwrap_or_default();
    if data.len() != access.count as usize {
        return Err(field(Command::RegionWrite, "count", access.count.into()));
    }
    Ok((access, data))
}

fn region_write_multi(payload: &mut [u8]) -> Result<Request<'_>> {
    let command = Command::RegionWriteMulti;
    at_least(command, "payload", payload.len() as u64, WRITE_MULTI as u64)?;
    let count = u64_at(payload, 0);
    let writes = payload.get_mut(WRITE_MULTI..).unwrap_or_default();
    let fits = usize::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(WRITE_ONE));
    let Some(writes) = fits.and_then(|bytes| writes.get_mut(..bytes)) else {
        return Err(field(command, "number of writes", count));
    };
    Ok(Request::RegionWriteMulti(writes))
}

/// One of the writes of `REGION_WRITE_MULTI`: at most 8 bytes of data.
pub(crate) fn write_one(write: &mut [u8]) -> Result<(RegionAccess, &mut [u8])> {
    let access = RegionAccess {
        offset: u64_at(write, 0),
        region: u32_at(write, 8),
        count: u32_at(write, 12),
    };
    let data = usize::try_from(access.count)
        .ok()
        .and_then(|count| write.get_mut(REGION_ACCESS..)?.get_mut(..count));
    match data {
        Some(data) => Ok((access, data)),
        None => Err(field(
            Command::RegionWriteMulti,
            "count",
            access.count.into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn refused(command: Command, payload: &[u8]) -> bool {
        Request::parse(command, &mut payload.to_vec())
            .is_err_and(|error| error.errno().get() == libc::EINVAL)
    }

    #[test]
    fn every_cut_of_every_request_is_refused_or_read_without_panic() {
        for number in 0..=u16::from(u8::MAX) {
            let Some(command) = Command::new(number) else {
                continue;
            };
            for length in 0..64 {
                for fill in [0, 1, 2, 4, 16, 40, 0xff] {
                    let _ = region_write(&mut vec![fill; length]);
                    let _ = Request::parse(command, &mut vec![fill; length]);
                }
            }
        }
    }

    #[test]
    fn unmap_checks_before_it_reads() {
        for length in 0..DMA_UNMAP {
            assert!(refused(Command::DmaUnmap, &vec![0xff; length])); // D68
        }
        let mut dirty = words(&[0xffff, 1, 0, 0, 0x1000, 0]);
        assert!(refused(Command::DmaUnmap, &dirty));
        dirty.extend_from_slice(&4096_u64.to_le_bytes());
        dirty.extend_from_slice(&(u64::MAX - 10).to_le_bytes()); // 40 + size wraps
        assert!(refused(Command::DmaUnmap, &dirty));
        assert!(refused(Command::DmaUnmap, &words(&[24, 3, 0, 0, 0, 0])));
        assert!(refused(Command::DmaUnmap, &words(&[24, 2, 1, 0, 0, 0])));
        let all = words(&[24, 2, 0, 0, 0, 0]);
        assert_eq!(
            Request::parse(Command::DmaUnmap, &mut all.clone()).unwrap(),
            Request::DmaUnmap(DmaUnmap::All)
        );
    }

    #[test]
    fn map_flags() {
        let map = |flags| words(&[32, flags, 0, 0, 0, 0, 0, 0]);
        for flags in [16, 12, 13, 1 << 31] {
            assert!(refused(Command::DmaMap, &map(flags)), "{flags:#x}");
        }
        for flags in [0, 1, 2, 3, 4, 8, 11] {
            assert!(!refused(Command::DmaMap, &map(flags)), "{flags:#x}");
        }
    }

    #[test]
    fn writes_of_a_multiple_write() {
        let mut payload = 2_u64.to_le_bytes().to_vec();
        payload.extend_from_slice(&[0; WRITE_ONE]);
        assert!(refused(Command::RegionWriteMulti, &payload));
        payload[0] = 1;
        assert!(!refused(Command::RegionWriteMulti, &payload));
        payload[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(refused(Command::RegionWriteMulti, &payload));
        let mut one = words(&[0x10, 0, 1, 9, 0, 0]);
        assert!(write_one(&mut one).is_err());
        one[12] = 8;
        assert_eq!(
            write_one(&mut one).unwrap().0,
            RegionAccess {
                offset: 0x10,
                region: 1,
                count: 8
            }
        );
    }
}
