//! Every command of the protocol as a method.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::{Client, Error, Memory, Result};
use crate::migration::MigrationState;
use crate::pci::MmapArea;
use crate::wire::{Command, u32_at, u64_at};

/// Protection of a mapping: the device may read.
const READ: u32 = 1;
/// Protection of a mapping: the device may write.
const WRITE: u32 = 2;

/// Memory to announce with `DMA_MAP`.
#[derive(Debug, Clone, Copy)]
pub struct DmaMapping<'a> {
    /// Address that the device uses.
    pub iova: u64,
    /// Bytes.
    pub size: u64,
    /// The device may read it.
    pub read: bool,
    /// The device may write it.
    pub write: bool,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// The file; without one, the device asks by message.
    pub fd: Option<BorrowedFd<'a>>,
    /// Read and write the file instead of mapping it.
    pub file_io: bool,
}

impl<'a> DmaMapping<'a> {
    /// Memory that the device may read and write, and maps if there is a descriptor.
    #[must_use]
    pub const fn new(iova: u64, size: u64, fd: Option<BorrowedFd<'a>>) -> Self {
        Self {
            iova,
            size,
            read: true,
            write: true,
            offset: 0,
            fd,
            file_io: false,
        }
    }
}

/// Answer to `DEVICE_GET_INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceInfo {
    /// `VFIO_DEVICE_FLAGS_*`.
    pub flags: u32,
    /// Number of regions.
    pub regions: u32,
    /// Number of kinds of interrupt.
    pub irqs: u32,
}

/// Answer to `DEVICE_GET_REGION_INFO`.
#[derive(Debug)]
pub struct RegionInfo {
    /// `VFIO_REGION_INFO_FLAG_*`.
    pub flags: u32,
    /// Bytes.
    pub size: u64,
    /// Where it begins in the descriptor.
    pub offset: u64,
    /// What can be mapped.
    pub areas: Vec<MmapArea>,
    /// The memory behind it.
    pub fd: Option<OwnedFd>,
}

/// One sub-region of `DEVICE_GET_REGION_IO_FDS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubRegion {
    /// Offset in the region.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Position of the eventfd among the descriptors; `u32::MAX` for none.
    pub fd_index: u32,
    /// 0 ioeventfd, 2 with shadow memory.
    pub kind: u32,
    /// `KVM_IOEVENTFD_FLAG_*`.
    pub flags: u32,
    /// Position of the shadow memory among the descriptors.
    pub shadow_index: u32,
    /// Where in that memory.
    pub shadow_offset: u64,
    /// Value to match.
    pub datamatch: u64,
}

/// Answer to `DEVICE_GET_IRQ_INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IrqInfo {
    /// `VFIO_IRQ_INFO_*`.
    pub flags: u32,
    /// Number of interrupts.
    pub count: u32,
}

/// What `SET_IRQS` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum IrqSetAction {
    /// Mask.
    Mask = 8,
    /// Unmask.
    Unmask = 16,
    /// Trigger, or say where triggers go.
    Trigger = 32,
}

/// With what `SET_IRQS` does it.
#[derive(Debug, Clone, Copy)]
pub enum IrqSetData<'a> {
    /// Nothing, for so many interrupts.
    None(u32),
    /// A boolean an interrupt.
    Bool(&'a [u8]),
    /// A descriptor an interrupt.
    Eventfd(&'a [RawFd]),
    /// No descriptors for so many interrupts, to take theirs away.
    NoEventfd(u32),
}

/// `DEVICE_SET_IRQS`.
#[derive(Debug, Clone, Copy)]
pub struct IrqSet<'a> {
    /// Kind of interrupt.
    pub index: u32,
    /// First interrupt.
    pub start: u32,
    /// What to do.
    pub action: IrqSetAction,
    /// With what.
    pub data: IrqSetData<'a>,
}

/// One write of [`Client::region_write_multi`].
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// Index of the region.
    pub region: u32,
    /// Offset in the region.
    pub offset: u64,
    /// At most 8 bytes.
    pub data: &'a [u8],
}

/// Builds a payload from its fields.
#[derive(Default)]
struct Payload(Vec<u8>);

impl Payload {
    fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn expect(payload: &[u8], least: usize) -> Result<()> {
    if payload.len() < least {
        Err(Error::Protocol("the reply is too short"))
    } else {
        Ok(())
    }
}

fn access(region: u32, offset: u64, count: usize) -> Payload {
    Payload::default()
        .u64(offset)
        .u32(region)
        .u32(length(count))
}

impl<M: Memory> Client<M> {
    /// `DMA_MAP`.
    ///
    /// # Errors
    /// The server's, see [`receive`](Self::receive).
    pub fn dma_map(&mut self, mapping: &DmaMapping<'_>) -> Result<()> {
        const MMAP: u32 = 4;
        const FILE_IO: u32 = 8;
        let mut flags = 0;
        flags |= if mapping.read { READ } else { 0 };
        flags |= if mapping.write { WRITE } else { 0 };
        flags |= match mapping.fd {
            None => 0,
            Some(_) if mapping.file_io => FILE_IO,
            Some(_) => MMAP,
        };
        let payload = Payload::default()
            .u32(32)
            .u32(flags)
            .u64(mapping.offset)
            .u64(mapping.iova)
            .u64(mapping.size);
        let fds: Vec<RawFd> = mapping.fd.iter().map(AsRawFd::as_raw_fd).collect();
        self.request(Command::DmaMap, &payload.0, &fds)?;
        Ok(())
    }

    /// `DMA_UNMAP` of one region.
    ///
    /// # Errors
    /// The server's.
    pub fn dma_unmap(&mut self, iova: u64, size: u64) -> Result<()> {
        let payload = Payload::default().u32(24).u32(0).u64(iova).u64(size);
        self.request(Command::DmaUnmap, &payload.0, &[])?;
        Ok(())
    }

    /// `DMA_UNMAP` of all regions.
    ///
    /// # Errors
    /// The server's.
    pub fn dma_unmap_all(&mut self) -> Result<()> {
        let payload = Payload::default().u32(24).u32(2).u64(0).u64(0);
        self.request(Command::DmaUnmap, &payload.0, &[])?;
        Ok(())
    }

    /// `DMA_UNMAP` of one region; returns which of its pages of `page_size` bytes are dirty, a bit a page.
    ///
    /// # Errors
    /// The server's.
    pub fn dma_unmap_dirty(&mut self, iova: u64, size: u64, page_size: u64) -> Result<Vec<u8>> {
        let bitmap = bitmap_bytes(size, page_size);
        let argsz = u32::try_from(40 + bitmap).unwrap_or(u32::MAX);
        let payload = Payload::default()
            .u32(argsz)
            .u32(1)
            .u64(iova)
            .u64(size)
            .u64(page_size)
            .u64(bitmap);
        let reply = self.request(Command::DmaUnmap, &payload.0, &[])?;
        expect(&reply.payload, 40)?;
        Ok(reply.payload.get(40..).unwrap_or_default().to_vec())
    }

    /// `DEVICE_GET_INFO`.
    ///
    /// # Errors
    /// The server's.
    pub fn device_info(&mut self) -> Result<DeviceInfo> {
        let payload = Payload::default().u32(16).u32(0).u32(0).u32(0);
        let reply = self
            .request(Command::DeviceGetInfo, &payload.0, &[])?
            .payload;
        expect(&reply, 16)?;
        Ok(DeviceInfo {
            flags: u32_at(&reply, 4),
            regions: u32_at(&reply, 8),
            irqs: u32_at(&reply, 12),
        })
    }

    /// `DEVICE_GET_REGION_INFO`, asked twice if the region has mappable areas.
    ///
    /// # Errors
    /// The server's.
    pub fn region_info(&mut self, index: u32) -> Result<RegionInfo> {
        let mut argsz = 32;
        for _ in 0..2 {
            let payload = Payload::default()
                .u32(argsz)
                .u32(0)
                .u32(index)
                .u32(0)
                .u64(0)
                .u64(0);
            let mut reply = self.request(Command::DeviceGetRegionInfo, &payload.0, &[])?;
            expect(&reply.payload, 32)?;
            let wanted = u32_at(&reply.payload, 0);
            if wanted > argsz {
                argsz = wanted;
                continue;
            }
            return Ok(RegionInfo {
                flags: u32_at(&reply.payload, 4),
                size: u64_at(&reply.payload, 16),
                offset: u64_at(&reply.payload, 24),
                areas: sparse_areas(&reply.payload)?,
                fd: reply.fds.pop(),
            });
        }
        Err(Error::Protocol(
            "the server wants ever more room for a region's information",
        ))
    }

    /// `DEVICE_GET_REGION_IO_FDS`, with room for `most` sub-regions.
    ///
    /// # Errors
    /// The server's.
    pub fn region_io_fds(
        &mut self,
        index: u32,
        most: u32,
    ) -> Result<(Vec<SubRegion>, Vec<OwnedFd>)> {
        let payload = Payload::default()
            .u32(16 + 48 * most)
            .u32(0)
            .u32(index)
            .u32(0);
        let reply = self.request(Command::DeviceGetRegionIoFds, &payload.0, &[])?;
        expect(&reply.payload, 16)?;
        let entries = reply
            .payload
            .get(16..)
            .unwrap_or_default()
            .chunks_exact(48)
            .map(|entry| SubRegion {
                offset: u64_at(entry, 0),
                size: u64_at(entry, 8),
                fd_index: u32_at(entry, 16),
                kind: u32_at(entry, 20),
                flags: u32_at(entry, 24),
                shadow_index: u32_at(entry, 28),
                shadow_offset: u64_at(entry, 32),
                datamatch: u64_at(entry, 40),
            });
        Ok((entries.collect(), reply.fds))
    }

    /// `DEVICE_GET_IRQ_INFO`.
    ///
    /// # Errors
    /// The server's.
    pub fn irq_info(&mut self, index: u32) -> Result<IrqInfo> {
        let payload = Payload::default().u32(16).u32(0).u32(index).u32(0);
        let reply = self
            .request(Command::DeviceGetIrqInfo, &payload.0, &[])?
            .payload;
        expect(&reply, 16)?;
        Ok(IrqInfo {
            flags: u32_at(&reply, 4),
            count: u32_at(&reply, 12),
        })
    }

    /// `DEVICE_SET_IRQS`.
    ///
    /// # Errors
    /// The server's.
    pub fn set_irqs(&mut self, set: &IrqSet<'_>) -> Result<()> {
        const NONE: u32 = 1;
        const BOOL: u32 = 2;
        const EVENTFD: u32 = 4;
        let (kind, count, bools, fds): (u32, u32, &[u8], &[RawFd]) = match set.data {
            IrqSetData::None(count) => (NONE, count, &[], &[]),
            IrqSetData::Bool(bools) => (BOOL, length(bools.len()), bools, &[]),
            IrqSetData::Eventfd(fds) => (EVENTFD, length(fds.len()), &[], fds),
            IrqSetData::NoEventfd(count) => (EVENTFD, count, &[], &[]),
        };
        let payload = Payload::default()
            .u32(length(20 + bools.len()))
            .u32(kind | set.action as u32)
            .u32(set.index)
            .u32(set.start)
            .u32(count)
            .bytes(bools);
        self.request(Command::DeviceSetIrqs, &payload.0, fds)?;
        Ok(())
    }

    /// `REGION_READ`.
    ///
    /// # Errors
    /// The server's.
    pub fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<()> {
        let reply = self
            .request(
                Command::RegionRead,
                &access(region, offset, data.len()).0,
                &[],
            )?
            .payload;
        let Some(read) = reply.get(16..).filter(|read| read.len() == data.len()) else {
            return Err(Error::Protocol(
                "the reply has another length than asked for",
            ));
        };
        data.copy_from_slice(read);
        Ok(())
    }

    /// `REGION_WRITE`.
    ///
    /// # Errors
    /// The server's.
    pub fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        self.request(
            Command::RegionWrite,
            &access(region, offset, data.len()).bytes(data).0,
            &[],
        )?;
        Ok(())
    }

    /// `REGION_WRITE` that wants no reply.
    ///
    /// # Errors
    /// The socket's.
    pub fn region_write_posted(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        self.post(
            Command::RegionWrite,
            &access(region, offset, data.len()).bytes(data).0,
            &[],
        )
    }

    /// `REGION_WRITE_MULTI`; returns how many writes were done.
    ///
    /// # Errors
    /// The server's. [`Error::Protocol`] for more than 8 bytes in one write.
    pub fn region_write_multi(&mut self, writes: &[Write<'_>]) -> Result<u64> {
        let mut payload = Payload::default().u64(writes.len() as u64);
        for write in writes {
            let mut data = [0; 8];
            data.get_mut(..write.data.len())
                .ok_or(Error::Protocol("a write of several has more than 8 bytes"))?
                .copy_from_slice(write.data);
            payload = payload
                .u64(write.offset)
                .u32(write.region)
                .u32(length(write.data.len()))
                .bytes(&data);
        }
        let reply = self
            .request(Command::RegionWriteMulti, &payload.0, &[])?
            .payload;
        expect(&reply, 8)?;
        Ok(u64_at(&reply, 0))
    }

    /// `DEVICE_RESET`.
    ///
    /// # Errors
    /// The server's.
    pub fn reset(&mut self) -> Result<()> {
        self.request(Command::DeviceReset, &[], &[])?;
        Ok(())
    }

    /// `DEVICE_FEATURE`, with `data` behind the two fields of the header; returns what is behind them in the reply.
    ///
    /// # Errors
    /// The server's.
    pub fn feature(&mut self, flags: u32, data: &[u8], room: usize) -> Result<Vec<u8>> {
        let argsz = length(8 + data.len().max(room));
        let payload = Payload::default().u32(argsz).u32(flags).bytes(data);
        let reply = self
            .request(Command::DeviceFeature, &payload.0, &[])?
            .payload;
        expect(&reply, 8)?;
        Ok(reply.get(8..).unwrap_or_default().to_vec())
    }

    /// The device's migration state, as a number of the wire.
    ///
    /// # Errors
    /// The server's.
    pub fn migration_state(&mut self) -> Result<u32> {
        let reply = self.feature(GET | 2, &[], 8)?;
        expect(&reply, 8)?;
        Ok(u32_at(&reply, 0))
    }

    /// Sends the device to a migration state.
    ///
    /// # Errors
    /// The server's.
    pub fn set_migration_state(&mut self, state: MigrationState) -> Result<()> {
        self.feature(
            SET | 2,
            &Payload::default().u32(state.to_wire()).u32(0).0,
            0,
        )?;
        Ok(())
    }

    /// Starts logging of dirty pages in `ranges` (address and length), or everywhere.
    ///
    /// # Errors
    /// The server's.
    pub fn start_logging(&mut self, page_size: u64, ranges: &[(u64, u64)]) -> Result<()> {
        let mut payload = Payload::default()
            .u64(page_size)
            .u32(length(ranges.len()))
            .u32(0);
        for (iova, length) in ranges {
            payload = payload.u64(*iova).u64(*length);
        }
        self.feature(SET | 6, &payload.0, 0)?;
        Ok(())
    }

    /// Stops logging of dirty pages.
    ///
    /// # Errors
    /// The server's.
    pub fn stop_logging(&mut self) -> Result<()> {
        self.feature(SET | 7, &[], 0)?;
        Ok(())
    }

    /// Which pages of a range are dirty, a bit a page. They are clean afterwards.
    ///
    /// # Errors
    /// The server's.
    pub fn dirty_report(&mut self, iova: u64, size: u64, page_size: u64) -> Result<Vec<u8>> {
        let room = usize::try_from(bitmap_bytes(size, page_size)).unwrap_or(usize::MAX / 2);
        let request = Payload::default().u64(iova).u64(size).u64(page_size);
        let reply = self.feature(GET | 8, &request.0, 24 + room)?;
        expect(&reply, 24)?;
        Ok(reply.get(24..).unwrap_or_default().to_vec())
    }

    /// `MIG_DATA_READ` of at most `size` bytes; none means that there are no more.
    ///
    /// # Errors
    /// The server's.
    pub fn migration_read(&mut self, size: u32) -> Result<Vec<u8>> {
        let payload = Payload::default().u32(size.saturating_add(8)).u32(size);
        let reply = self.request(Command::MigDataRead, &payload.0, &[])?.payload;
        expect(&reply, 8)?;
        let count = u32_at(&reply, 4) as usize;
        let data = reply
            .get(8..8 + count)
            .ok_or(Error::Protocol("less data than the reply announces"))?;
        Ok(data.to_vec())
    }

    /// `MIG_DATA_WRITE`.
    ///
    /// # Errors
    /// The server's.
    pub fn migration_write(&mut self, data: &[u8]) -> Result<()> {
        let size = length(data.len());
        let payload = Payload::default()
            .u32(size.saturating_add(8))
            .u32(size)
            .bytes(data);
        self.request(Command::MigDataWrite, &payload.0, &[])?;
        Ok(())
    }
}

const GET: u32 = 1 << 16;
const SET: u32 = 1 << 17;

/// Bytes of a bitmap, in whole words of 64 bits.
fn bitmap_bytes(size: u64, page_size: u64) -> u64 {
    size.div_ceil(page_size.max(1))
        .div_ceil(64)
        .saturating_mul(8)
}

/// The mappable areas in a reply to `DEVICE_GET_REGION_INFO`.
fn sparse_areas(reply: &[u8]) -> Result<Vec<MmapArea>> {
    const CAPS: u32 = 8;
    if u32_at(reply, 4) & CAPS == 0 {
        return Ok(Vec::new());
    }
    let capability = reply.get(u32_at(reply, 12) as usize..).unwrap_or_default();
    expect(capability, 16)?;
    if capability.get(..2) != Some(&[1, 0]) {
        return Err(Error::Protocol("an unknown capability of a region"));
    }
    let count = u32_at(capability, 8) as usize;
    let areas: Vec<MmapArea> = capability
        .get(16..)
        .unwrap_or_default()
        .chunks_exact(16)
        .take(count)
        .map(|area| MmapArea {
            base: u64_at(area, 0),
            len: u64_at(area, 8),
        })
        .collect();
    if areas.len() == count {
        Ok(areas)
    } else {
        Err(Error::Protocol("less mappable areas than announced"))
    }
}
