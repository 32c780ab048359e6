//! Numbers of the PCI specifications that this module needs: register offsets, bits, capability ids and sizes.
//!
//! Names follow Linux `pci_regs.h` without the `PCI_` prefix. Nothing here depends on anything else.

/// Bytes of conventional configuration space.
pub const CFG_SPACE_SIZE: usize = 256;
/// Bytes of extended configuration space (PCI-X mode 2, PCI Express).
pub const CFG_SPACE_EXP_SIZE: usize = 4096;
/// Bytes of the standard header.
pub const STD_HEADER_SIZEOF: usize = 64;

/// Vendor id (2 bytes), device id follows.
pub const VENDOR_ID: usize = 0x00;
/// Device id (2 bytes).
pub const DEVICE_ID: usize = 0x02;
/// Command register (2 bytes).
pub const COMMAND: usize = 0x04;
/// Status register (2 bytes).
pub const STATUS: usize = 0x06;
/// Revision id (1 byte).
pub const REVISION_ID: usize = 0x08;
/// Class code: programming interface, sub-class, base class (1 byte each).
pub const CLASS_PROG: usize = 0x09;
/// Cache line size (1 byte).
pub const CACHE_LINE_SIZE: usize = 0x0c;
/// Latency timer (1 byte).
pub const LATENCY_TIMER: usize = 0x0d;
/// Header type (1 byte).
pub const HEADER_TYPE: usize = 0x0e;
/// Built-in self test (1 byte).
pub const BIST: usize = 0x0f;
/// First of six base address registers (4 bytes each).
pub const BASE_ADDRESS_0: usize = 0x10;
/// `CardBus` CIS pointer (4 bytes).
pub const CARDBUS_CIS: usize = 0x28;
/// Subsystem vendor id (2 bytes), subsystem id follows.
pub const SUBSYSTEM_VENDOR_ID: usize = 0x2c;
/// Subsystem id (2 bytes).
pub const SUBSYSTEM_ID: usize = 0x2e;
/// Expansion ROM base address (4 bytes).
pub const ROM_ADDRESS: usize = 0x30;
/// Pointer to the first standard capability (1 byte).
pub const CAPABILITY_LIST: usize = 0x34;
/// Interrupt line (1 byte).
pub const INTERRUPT_LINE: usize = 0x3c;
/// Interrupt pin (1 byte): 0 none, 1 INTA.
pub const INTERRUPT_PIN: usize = 0x3d;
/// Minimum grant (1 byte).
pub const MIN_GNT: usize = 0x3e;
/// Maximum latency (1 byte).
pub const MAX_LAT: usize = 0x3f;

/// Command: response in I/O space.
pub const COMMAND_IO: u16 = 0x1;
/// Command: response in memory space.
pub const COMMAND_MEMORY: u16 = 0x2;
/// Command: bus mastering.
pub const COMMAND_MASTER: u16 = 0x4;
/// Command: memory write and invalidate.
pub const COMMAND_INVALIDATE: u16 = 0x10;
/// Command: SERR# enable.
pub const COMMAND_SERR: u16 = 0x100;
/// Command: `INTx` disable.
pub const COMMAND_INTX_DISABLE: u16 = 0x400;
/// Command bits that a client can change; the others read as the device left them.
pub const COMMAND_WRITABLE: u16 = COMMAND_IO
    | COMMAND_MEMORY
    | COMMAND_MASTER
    | COMMAND_INVALIDATE
    | COMMAND_SERR
    | COMMAND_INTX_DISABLE;

/// Status: a capability list exists.
pub const STATUS_CAP_LIST: u16 = 0x10;
/// Status bits that a written 1 clears: parity, target abort, master abort, system error, detected parity.
pub const STATUS_RW1C: u16 = 0xf900;

/// BAR bit 0: I/O space.
pub const BASE_ADDRESS_SPACE_IO: u32 = 0x1;
/// BAR bits 2:1 = 2: 64-bit memory address.
pub const BASE_ADDRESS_MEM_TYPE_64: u32 = 0x4;
/// BAR bit 3: prefetchable.
pub const BASE_ADDRESS_MEM_PREFETCH: u32 = 0x8;
/// Bits of a memory BAR that describe it.
pub const BASE_ADDRESS_MEM_FLAGS: u32 = 0xf;
/// Bits of an I/O BAR that describe it.
pub const BASE_ADDRESS_IO_FLAGS: u32 = 0x3;
/// ROM BAR bit 0: decoding enabled.
pub const ROM_ADDRESS_ENABLE: u32 = 0x1;
/// ROM BAR address bits.
pub const ROM_ADDRESS_MASK: u32 = 0xffff_f800;

/// Standard capability: Power Management.
pub const CAP_ID_PM: u16 = 0x01;
/// Standard capability: MSI.
pub const CAP_ID_MSI: u16 = 0x05;
/// Standard capability: vendor specific.
pub const CAP_ID_VNDR: u16 = 0x09;
/// Standard capability: PCI Express.
pub const CAP_ID_EXP: u16 = 0x10;
/// Standard capability: MSI-X.
pub const CAP_ID_MSIX: u16 = 0x11;
/// Extended capability: Device Serial Number.
pub const EXT_CAP_ID_DSN: u16 = 0x03;
/// Extended capability: vendor specific.
pub const EXT_CAP_ID_VNDR: u16 = 0x0b;

/// Bytes of the Power Management capability.
pub const CAP_PM_SIZEOF: usize = 8;
/// Bytes of the MSI capability as the C API defines it, whatever layout its header bits select.
pub const CAP_MSI_SIZEOF: usize = 24;
/// Bytes of the PCI Express capability (version 2, all register groups).
pub const CAP_EXP_SIZEOF: usize = 60;
/// Bytes of the MSI-X capability.
pub const CAP_MSIX_SIZEOF: usize = 12;
/// Bytes of the Device Serial Number capability.
pub const EXT_CAP_DSN_SIZEOF: usize = 12;

/// Offset of device capabilities in the PCI Express capability.
pub const EXP_DEVCAP: usize = 4;
/// Device capabilities: function-level reset.
pub const EXP_DEVCAP_FLR: u32 = 1 << 28;
/// Offset of device control in the PCI Express capability.
pub const EXP_DEVCTL: usize = 8;
/// Device control: initiate function-level reset; always reads 0.
pub const EXP_DEVCTL_BCR_FLR: u16 = 0x8000;
