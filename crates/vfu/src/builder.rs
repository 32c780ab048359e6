//! Describing a device so that what cannot work does not compile, or is refused before a socket is made.
//!
//! A register is a [`BarIndex`], not a number; a BAR is I/O, 32-bit or 64-bit memory, with the flags that go with it; a capability
//! is encoded from what it says, and the number of interrupt vectors follows from it, so that both agree. What types cannot
//! rule out (sizes, two BARs in one place) is an error of [`Builder::build`], which leaves nothing behind.
//!
//! The builder covers what PCI devices usually have. Everything else is a call on the [`Context`] that it returns.

use core::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::context::{Context, Mode};
use crate::error::Result;
use crate::irq::IrqIndex;
use crate::log::{Level, Log};
use crate::pci::{CAP_FLAG_EXTENDED, MmapArea};
use crate::region::{CONFIG_INDEX, RegionFlags, RegionSetup};

/// One of the six base address registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[expect(missing_docs, reason = "the names say it")]
pub enum BarIndex {
    Bar0 = 0,
    Bar1 = 1,
    Bar2 = 2,
    Bar3 = 3,
    Bar4 = 4,
    Bar5 = 5,
}

/// What a base address register describes. Sizes are in bytes and powers of two.
#[derive(Debug)]
pub struct Bar<'a> {
    size: u64,
    flags: RegionFlags,
    fd: Option<OwnedFd>,
    areas: &'a [MmapArea],
    callback: bool,
}

impl<'a> Bar<'a> {
    /// I/O ports, 4 bytes at least.
    #[must_use]
    pub const fn io(size: u32) -> Self {
        Self::new(size as u64, RegionFlags::RW)
    }

    /// Memory below 4 GiB, 16 bytes at least.
    #[must_use]
    pub const fn memory32(size: u32) -> Self {
        Self::new(size as u64, RegionFlags::RW.union(RegionFlags::MEM))
    }

    /// Memory anywhere, 16 bytes at least. Takes an even register and the odd one behind it.
    #[must_use]
    pub const fn memory64(size: u64) -> Self {
        Self::new(
            size,
            RegionFlags::RW
                .union(RegionFlags::MEM)
                .union(RegionFlags::BITS_64),
        )
    }

    const fn new(size: u64, flags: RegionFlags) -> Self {
        Self {
            size,
            flags,
            fd: None,
            areas: &[],
            callback: true,
        }
    }

    /// Memory without side effects of reading.
    #[must_use]
    pub fn prefetchable(mut self) -> Self {
        self.flags |= RegionFlags::PREFETCH;
        self
    }

    /// Memory that clients may map: `fd` is the region, byte for byte, and `areas` are the parts that may be mapped, all of it
    /// if there are none. Accesses by message still reach the device.
    #[must_use]
    pub fn mappable(mut self, fd: OwnedFd, areas: &'a [MmapArea]) -> Self {
        self.fd = Some(fd);
        self.areas = areas;
        self
    }

    /// Accesses by message fail instead of reaching the device.
    #[must_use]
    pub const fn without_callback(mut self) -> Self {
        self.callback = false;
        self
    }
}

/// A PCI capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability<'a> {
    /// Power management, version 3, without soft reset.
    PowerManagement,
    /// Message signalled interrupts with 64-bit addresses and masks; `vectors` is rounded up to 1, 2, 4, 8, 16 or 32.
    Msi {
        /// Number of vectors.
        vectors: u8,
    },
    /// Message signalled interrupts, extended.
    MsiX {
        /// Number of vectors, 1 to 2048.
        vectors: u16,
        /// BAR and offset of the table, a multiple of 8.
        table: (BarIndex, u32),
        /// BAR and offset of the pending bits, a multiple of 8.
        pending: (BarIndex, u32),
    },
    /// PCI Express endpoint, version 2.
    Express {
        /// The device can be reset by a register write.
        function_level_reset: bool,
    },
    /// Bytes with a meaning of the vendor's, at most 252.
    Vendor(&'a [u8]),
    /// A serial number, for PCI Express.
    SerialNumber(u64),
}

/// Largest capability.
const MAX_CAPABILITY: usize = 256;

impl Capability<'_> {
    /// The capability's bytes, their number, and whether it is an extended one.
    fn encode(&self, bytes: &mut [u8; MAX_CAPABILITY]) -> (usize, bool) {
        let mut put = |offset: usize, data: &[u8]| {
            if let Some(place) = bytes.get_mut(offset..offset + data.len()) {
                place.copy_from_slice(data);
            }
        };
        let location = |(bar, offset): (BarIndex, u32)| (offset & !7 | bar as u32).to_le_bytes();
        match *self {
            Self::PowerManagement => {
                put(0, &[0x01, 0, 3, 0, 8, 0]); // no soft reset
                (8, false)
            }
            Self::Msi { vectors } => {
                let log = vectors.clamp(1, 32).next_power_of_two().ilog2();
                let control = log << 1 | 1 << 7 | 1 << 8; // 64-bit addresses, masks
                put(0, &[0x05, 0]);
                put(2, &control.to_le_bytes()); // the address behind it is 0
                (24, false)
            }
            Self::MsiX {
                vectors,
                table,
                pending,
            } => {
                put(0, &[0x11, 0]);
                put(2, &(vectors.clamp(1, 2048) - 1).to_le_bytes());
                put(4, &location(table));
                put(8, &location(pending));
                (12, false)
            }
            Self::Express {
                function_level_reset,
            } => {
                let capabilities = u32::from(function_level_reset) << 28 | 1 << 15; // role-based errors
                put(0, &[0x10, 0, 2, 0]);
                put(4, &capabilities.to_le_bytes());
                (60, false)
            }
            Self::Vendor(data) => {
                let length = data.len().min(MAX_CAPABILITY - 4) + 3;
                put(0, &[0x09, 0, u8::try_from(length).unwrap_or(u8::MAX)]);
                put(3, data.get(..length - 3).unwrap_or_default());
                (length, false)
            }
            Self::SerialNumber(number) => {
                put(0, &[0x03, 0, 1, 0]);
                put(4, &number.to_le_bytes());
                (12, true)
            }
        }
    }
}

/// Kind of bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Bus {
    /// PCI: 256 bytes of configuration space.
    #[default]
    Pci,
    /// PCI Express: 4096 bytes, extended capabilities.
    Express,
}

/// Describes a device. [`build`](Self::build) makes its [`Context`].
///
/// ```no_run
/// use vfu::builder::{Bar, BarIndex, Builder, Capability};
/// use vfu::Mode;
///
/// let ctx = Builder::new(0x494f, 0x0dc8)
///     .class(0x05, 0, 0)
///     .bar(BarIndex::Bar2, Bar::io(256))
///     .intx()
///     .capabilities(&[Capability::PowerManagement])
///     .build("/run/gpio.sock", Mode::Blocking)?;
/// # Ok::<(), vfu::Error>(())
/// ```
#[derive(Default)]
pub struct Builder<'a> {
    bus: Bus,
    id: [u16; 4],
    class: [u8; 3],
    revision: u8,
    bars: [Option<Bar<'a>>; 6],
    config_callback: bool,
    intx: bool,
    msi: u32,
    msix: u32,
    capabilities: &'a [Capability<'a>],
    dma: Option<usize>,
    migration: bool,
    log: Option<(Box<dyn Log>, Level)>,
}

impl fmt::Debug for Builder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("id", &self.id)
            .field("bars", &self.bars)
            .finish_non_exhaustive()
    }
}

impl<'a> Builder<'a> {
    /// A device of this vendor.
    #[must_use]
    pub fn new(vendor: u16, device: u16) -> Self {
        Self {
            id: [vendor, device, 0, 0],
            ..Self::default()
        }
    }

    /// PCI or PCI Express.
    #[must_use]
    pub const fn bus(mut self, bus: Bus) -> Self {
        self.bus = bus;
        self
    }

    /// Vendor and number of the card that the device is on.
    #[must_use]
    pub const fn subsystem(mut self, vendor: u16, id: u16) -> Self {
        self.id[2] = vendor;
        self.id[3] = id;
        self
    }

    /// Class code.
    #[must_use]
    pub const fn class(mut self, base: u8, sub: u8, interface: u8) -> Self {
        self.class = [base, sub, interface];
        self
    }

    /// Revision number.
    #[must_use]
    pub const fn revision(mut self, revision: u8) -> Self {
        self.revision = revision;
        self
    }

    /// Sets up a BAR.
    #[must_use]
    pub fn bar(mut self, index: BarIndex, bar: Bar<'a>) -> Self {
        self.bars[index as usize] = Some(bar);
        self
    }

    /// Accesses to parts of configuration space that nothing else claims go to the device.
    #[must_use]
    pub const fn config_callback(mut self) -> Self {
        self.config_callback = true;
        self
    }

    /// One interrupt by pin.
    #[must_use]
    pub const fn intx(mut self) -> Self {
        self.intx = true;
        self
    }

    /// The device's capabilities, in this order. Those of MSI and MSI-X also say how many vectors there are.
    #[must_use]
    pub fn capabilities(mut self, capabilities: &'a [Capability<'a>]) -> Self {
        self.capabilities = capabilities;
        (self.msi, self.msix) = (0, 0);
        for capability in capabilities {
            match *capability {
                Capability::Msi { vectors } => {
                    self.msi = u32::from(vectors.clamp(1, 32)).next_power_of_two();
                }
                Capability::MsiX { vectors, .. } => self.msix = vectors.clamp(1, 2048).into(),
                _ => {}
            }
        }
        self
    }

    /// The device uses client memory, in at most `max_regions` pieces.
    #[must_use]
    pub const fn dma(mut self, max_regions: usize) -> Self {
        self.dma = Some(max_regions);
        self
    }

    /// The device can be migrated: it has the three migration callbacks.
    #[must_use]
    pub const fn migration(mut self) -> Self {
        self.migration = true;
        self
    }

    /// Sends log lines up to `threshold` to `sink`.
    #[must_use]
    pub fn log(mut self, sink: Box<dyn Log>, threshold: Level) -> Self {
        self.log = Some((sink, threshold));
        self
    }

    /// Makes the device and listens at `path`.
    ///
    /// # Errors
    /// Those of [`Context::listen`], [`Context::setup_region`] (EINVAL for a size that is no power of two, or a 64-bit BAR without
    /// a free pair of registers) and [`Context::pci_add_capability`] (ENOSPC, EINVAL for an extended capability on PCI).
    pub fn build(self, path: impl AsRef<Path>, mode: Mode) -> Result<Context> {
        let ctx = Context::listen(path, mode)?;
        self.describe(&ctx)?;
        Ok(ctx)
    }

    fn describe(self, ctx: &Context) -> Result<()> {
        if let Some((sink, threshold)) = self.log {
            ctx.set_log(Some(sink), threshold);
        }
        let kind = match self.bus {
            Bus::Pci => 0,
            Bus::Express => 3,
        };
        ctx.pci_init(kind, 0, self.revision.into())?;
        let [vendor, device, subsystem_vendor, subsystem] = self.id;
        ctx.pci_set_id(vendor, device, subsystem_vendor, subsystem);
        let [base, sub, interface] = self.class;
        ctx.pci_set_class(base, sub, interface);
        for (index, bar) in (0..).zip(self.bars) {
            let Some(bar) = bar else { continue };
            let setup = RegionSetup {
                index,
                size: bar.size,
                flags: bar.flags.bits(),
                callback: bar.callback,
                fd: bar.fd.map(Into::into),
                offset: 0,
            };
            ctx.setup_region(setup, bar.areas.iter().copied())?;
        }
        if self.config_callback {
            let (_, size) = ctx.config_space();
            let setup = RegionSetup {
                index: CONFIG_INDEX.cast_signed(),
                size: size as u64,
                flags: RegionFlags::RW.bits(),
                callback: true,
                ..RegionSetup::default()
            };
            ctx.setup_region(setup, [])?;
        }
        for capability in self.capabilities {
            let mut bytes = [0; MAX_CAPABILITY];
            let (length, extended) = capability.encode(&mut bytes);
            let flags = if extended { CAP_FLAG_EXTENDED } else { 0 };
            ctx.pci_add_capability(0, flags, bytes.get(..length).unwrap_or_default())?;
        }
        ctx.set_irq_count(IrqIndex::Intx, self.intx.into())?;
        ctx.set_irq_count(IrqIndex::Msi, self.msi)?;
        ctx.set_irq_count(IrqIndex::Msix, self.msix)?;
        if let Some(max_regions) = self.dma {
            ctx.setup_dma(max_regions)?;
        }
        if self.migration {
            ctx.setup_migration();
        }
        ctx.realize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(builder: Builder<'_>) -> Result<Context> {
        builder.build("", Mode::NonBlocking)
    }

    fn config(ctx: &Context, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        ctx.config_read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn registers_say_what_was_described() {
        let ctx = built(
            Builder::new(0x1234, 0x5678)
                .bus(Bus::Express)
                .subsystem(1, 2)
                .class(3, 4, 5)
                .revision(6)
                .bar(BarIndex::Bar0, Bar::memory64(1 << 33).prefetchable())
                .bar(BarIndex::Bar2, Bar::io(8))
                .bar(BarIndex::Bar3, Bar::memory32(4096))
                .intx()
                .dma(8)
                .migration()
                .capabilities(&[
                    Capability::PowerManagement,
                    Capability::Msi { vectors: 5 },
                    Capability::MsiX {
                        vectors: 33,
                        table: (BarIndex::Bar3, 0),
                        pending: (BarIndex::Bar3, 0x800),
                    },
                    Capability::Express {
                        function_level_reset: true,
                    },
                    Capability::Vendor(&[7, 8]),
                    Capability::SerialNumber(0x0102_0304_0506_0708),
                ]),
        )
        .unwrap();
        assert_eq!(config(&ctx, 0), 0x5678_1234);
        assert_eq!(config(&ctx, 8), 0x0304_0506);
        assert_eq!(config(&ctx, 0x2c), 0x0002_0001);
        assert_eq!(
            [0x10, 0x18, 0x1c].map(|offset| config(&ctx, offset)),
            [0xc, 1, 0]
        );
        assert_eq!(config(&ctx, 0x3c) >> 8 & 0xff, 1);
        let find = |extended, id| ctx.pci_find_capability(extended, 0, id).unwrap();
        assert_eq!(config(&ctx, find(false, 1)) >> 16, 3);
        assert_eq!(config(&ctx, find(false, 5)) >> 16, 3 << 1 | 1 << 7 | 1 << 8);
        let msix = find(false, 0x11);
        assert_eq!(config(&ctx, msix) >> 16, 32);
        assert_eq!([config(&ctx, msix + 4), config(&ctx, msix + 8)], [3, 0x803]);
        assert_eq!(config(&ctx, find(false, 0x10) + 4) >> 28, 1);
        assert_eq!(config(&ctx, find(false, 9)) >> 16, 7 << 8 | 5);
        assert_eq!(config(&ctx, find(true, 3) + 4), 0x0506_0708);
        assert_eq!(ctx.irq_counts.get(), [1, 8, 33, 1, 1]);
        assert!(ctx.is_realized() && ctx.dma().is_some() && ctx.migration_state().is_some());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let errno = |builder| built(builder).unwrap_err().errno().get();
        let new = || Builder::new(1, 2);
        assert_eq!(
            errno(new().bar(BarIndex::Bar0, Bar::memory32(3000))),
            libc::EINVAL
        );
        assert_eq!(
            errno(new().bar(BarIndex::Bar1, Bar::memory64(4096))),
            libc::EINVAL
        );
        let upper = new()
            .bar(BarIndex::Bar0, Bar::memory64(4096))
            .bar(BarIndex::Bar1, Bar::io(8));
        assert_eq!(errno(upper), libc::EINVAL);
        assert_eq!(
            errno(new().capabilities(&[Capability::SerialNumber(1)])),
            libc::EINVAL
        );
    }
}
