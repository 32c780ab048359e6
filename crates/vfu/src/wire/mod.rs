//! The vfio-user protocol as bytes: constants, header, requests and replies.
//!
//! 1. No system calls, no allocation, no state. Input is checked once, here, with checked arithmetic; what comes out is
//!    typed values.
//! 2. Integers are little-endian on the wire (the host's order; this crate is for little-endian hosts).
//! 3. Layouts are those of the specification, section 2.6 and 2.7.

#![forbid(unsafe_code)]

pub(crate) mod json;
pub(crate) mod request;

use core::fmt;

/// Bytes of a header.
pub const HEADER: usize = 16;
/// Most bytes of data in one message.
pub const MAX_DATA: usize = 1 << 20;
/// [`MAX_DATA`] in the width that messages have.
pub(crate) const MAX_DATA_U32: u32 = 1 << 20;
const _: () = assert!(MAX_DATA_U32 as usize == MAX_DATA);
/// Largest message: data, header and the description of an access.
pub const MAX_MESSAGE: usize = MAX_DATA + HEADER + REGION_ACCESS;
/// Bytes that describe an access to a region or to client memory.
pub const REGION_ACCESS: usize = 16;
/// Descriptors that the server says it takes in one message. More are taken.
pub const SERVER_MAX_FDS: u32 = 8;
/// Largest `max_msg_fds` of a client.
pub const CLIENT_MAX_FDS: u16 = 1024;
/// Largest error number that is taken from a client.
pub const MAX_CLIENT_ERRNO: u32 = 4096;

/// Bits of a header's flags that tell the type of the message.
pub const TYPE_MASK: u32 = 0xf;
/// A request.
pub const TYPE_COMMAND: u32 = 0;
/// The answer to one.
pub const TYPE_REPLY: u32 = 1;
/// The sender wants no reply.
pub const NO_REPLY: u32 = 0x10;
/// A reply that says that the request failed.
pub const ERROR: u32 = 0x20;

/// Commands, with their numbers on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
#[expect(missing_docs, reason = "the names are those of the protocol")]
pub enum Command {
    Version = 1,
    DmaMap = 2,
    DmaUnmap = 3,
    DeviceGetInfo = 4,
    DeviceGetRegionInfo = 5,
    DeviceGetRegionIoFds = 6,
    DeviceGetIrqInfo = 7,
    DeviceSetIrqs = 8,
    RegionRead = 9,
    RegionWrite = 10,
    DmaRead = 11,
    DmaWrite = 12,
    DeviceReset = 13,
    RegionWriteMulti = 15,
    DeviceFeature = 16,
    MigDataRead = 17,
    MigDataWrite = 18,
}

impl Command {
    /// From its number.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Version,
            2 => Self::DmaMap,
            3 => Self::DmaUnmap,
            4 => Self::DeviceGetInfo,
            5 => Self::DeviceGetRegionInfo,
            6 => Self::DeviceGetRegionIoFds,
            7 => Self::DeviceGetIrqInfo,
            8 => Self::DeviceSetIrqs,
            9 => Self::RegionRead,
            10 => Self::RegionWrite,
            11 => Self::DmaRead,
            12 => Self::DmaWrite,
            13 => Self::DeviceReset,
            15 => Self::RegionWriteMulti,
            16 => Self::DeviceFeature,
            17 => Self::MigDataRead,
            18 => Self::MigDataWrite,
            _ => return None,
        })
    }

    /// Its name in the protocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Version => "VERSION",
            Self::DmaMap => "DMA_MAP",
            Self::DmaUnmap => "DMA_UNMAP",
            Self::DeviceGetInfo => "DEVICE_GET_INFO",
            Self::DeviceGetRegionInfo => "DEVICE_GET_REGION_INFO",
            Self::DeviceGetRegionIoFds => "DEVICE_GET_REGION_IO_FDS",
            Self::DeviceGetIrqInfo => "DEVICE_GET_IRQ_INFO",
            Self::DeviceSetIrqs => "DEVICE_SET_IRQS",
            Self::RegionRead => "REGION_READ",
            Self::RegionWrite => "REGION_WRITE",
            Self::DmaRead => "DMA_READ",
            Self::DmaWrite => "DMA_WRITE",
            Self::DeviceReset => "DEVICE_RESET",
            Self::RegionWriteMulti => "REGION_WRITE_MULTI",
            Self::DeviceFeature => "DEVICE_FEATURE",
            Self::MigDataRead => "MIG_DATA_READ",
            Self::MigDataWrite => "MIG_DATA_WRITE",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The header of every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Chosen by the sender of a request, repeated in the reply.
    pub id: u16,
    /// Number of a [`Command`].
    pub command: u16,
    /// Bytes of the message, header included.
    pub size: u32,
    /// [`TYPE_MASK`], [`NO_REPLY`], [`ERROR`].
    pub flags: u32,
    /// Error number of a reply with [`ERROR`].
    pub error: u32,
}

impl Header {
    /// Decodes the first 16 bytes of `bytes`; `None` if there are fewer.
    #[inline]
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.first_chunk()?;
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
        Some(Self {
            id: u16::from_le_bytes([a, b]),
            command: u16::from_le_bytes([c, d]),
            size: u32::from_le_bytes([e, f, g, h]),
            flags: u32::from_le_bytes([i, j, k, l]),
            error: u32::from_le_bytes([m, n, o, p]),
        })
    }

    /// The 16 bytes.
    #[inline]
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..2].copy_from_slice(&self.id.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.command.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.flags.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.error.to_le_bytes());
        bytes
    }

    /// Bytes of the message.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.size as usize // usize has at least 32 bits wherever sockets exist
    }

    /// True when the size is too small even for the header.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() < HEADER
    }
}

/// A length as the wire has it. Lengths of messages are checked to stay far below what this cuts.
#[inline]
pub(crate) fn wire_len(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The u32 at `offset`, or 0 past the end: callers have checked the length.
#[inline]
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

/// The u64 at `offset`, or 0 past the end: callers have checked the length.
#[inline]
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip() {
        let header = Header {
            id: 0x1234,
            command: 9,
            size: 0x0102_0304,
            flags: 0x21,
            error: 22,
        };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        assert_eq!(header.encode()[..8], [0x34, 0x12, 9, 0, 4, 3, 2, 1]);
        assert_eq!(Header::decode(&[0; 15]), None);
    }
}
