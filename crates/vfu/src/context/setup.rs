//! Describing the device: regions, interrupts, client memory, migration, configuration space, log.
//!
//! All of these may be called at any time, also while a client is attached and from inside callbacks.

use crate::context::Context;
use crate::dma::Dma;
use crate::error::{Error, Result};
use crate::irq::{IrqIndex, MAX_VECTORS};
use crate::log::{Level, Log};
use crate::migration::MigrationState;
use crate::pci::{CapabilityData, Events, MmapArea};
use crate::region::{IoEventFd, RegionSetup};

impl Context {
    /// Sends log lines up to `threshold` to `sink`; `None` switches the log off.
    pub fn set_log(&self, sink: Option<Box<dyn Log>>, threshold: Level) {
        self.log.set(sink, threshold);
    }

    /// Sets up a region, replacing all that was set up for it before, except ioeventfds. `areas` are the parts that clients
    /// may map; without any, a region with a descriptor can be mapped whole.
    ///
    /// # Errors
    /// EINVAL with a line in the log, in this order: unknown flags, or neither READ nor WRITE; `ALWAYS_CB` without callback; areas
    /// without descriptor; no such region; a BAR that is no power of two, too small, or an odd or occupied half of a 64-bit one;
    /// configuration space that is not readable and writable, is memory, or smaller than 64 bytes; an area outside. ENOMEM.
    pub fn setup_region<A>(&self, setup: RegionSetup, areas: A) -> Result<()>
    where
        A: IntoIterator<Item = MmapArea>,
        A::IntoIter: ExactSizeIterator + Clone,
    {
        let allocated = self.function.borrow().allocated();
        self.regions
            .setup(setup, areas, allocated)
            .inspect_err(|error| self.log_setup("region", error))
    }

    /// Lets clients turn writes to a place in a region into an event.
    ///
    /// # Errors
    /// EINVAL for a region that does not exist, or a place outside it. ENOMEM.
    pub fn create_ioeventfd(&self, event: IoEventFd) -> Result<()> {
        self.regions
            .add_io_event(event)
            .inspect_err(|error| self.log_setup("ioeventfd", error))
    }

    /// Says how many interrupts of a kind there are. A new context has one ERR and one REQ.
    ///
    /// # Errors
    /// EINVAL for more than one ERR or REQ, or more than [`MAX_VECTORS`] of the others. ENOMEM.
    pub fn set_irq_count(&self, irq: IrqIndex, count: u32) -> Result<()> {
        let (what, limit) = match irq {
            IrqIndex::Err | IrqIndex::Req => ("number of ERR or REQ interrupts", 1),
            _ => ("number of interrupts", MAX_VECTORS),
        };
        if count > limit {
            let error = Error::Argument {
                what,
                value: count.into(),
            };
            self.log_setup("interrupts", &error);
            return Err(error);
        }
        if self.realized.get() {
            self.irqs.grow(count)?;
        }
        let mut counts = self.irq_counts.get();
        counts[irq as usize] = count;
        self.irq_counts.set(counts);
        Ok(())
    }

    /// Lets the device use client memory, in at most `max_regions` pieces. Without this call `DMA_MAP` and `DMA_UNMAP` do nothing.
    /// A second call changes nothing.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn setup_dma(&self, max_regions: usize) -> Result<()> {
        if self.dma.get().is_none() {
            let dma = Dma::new(max_regions)?;
            let _ = self.dma.set(dma); // nothing ran since `get` that could have set it
        }
        Ok(())
    }

    /// Lets clients migrate the device, which starts in [`MigrationState::Running`]; a second call goes back there.
    pub fn setup_migration(&self) {
        self.migration.set(Some(MigrationState::Running));
    }

    /// Allocates configuration space: 256 bytes for conventional PCI (0) and PCI-X 1 (1), 4096 for PCI-X 2 (2) and PCI
    /// Express (3).
    ///
    /// # Errors
    /// EINVAL for another `kind`, or a `header_type` other than 0; EEXIST if it exists; ENOMEM.
    pub fn pci_init(&self, kind: i32, header_type: i32, revision: i32) -> Result<()> {
        let mut events = Events::new();
        let result = self
            .function
            .borrow_mut()
            .init(kind, header_type, revision, &mut events);
        self.log_events(&events);
        let size = result
            .map_err(Error::from)
            .inspect_err(|error| self.log_setup("PCI", error))?;
        self.regions.set_config(size as u64);
        Ok(())
    }

    /// Stores the identity of the device. Does nothing before configuration space exists.
    pub fn pci_set_id(&self, vendor: u16, device: u16, subsystem_vendor: u16, subsystem: u16) {
        self.function
            .borrow()
            .set_id(vendor, device, subsystem_vendor, subsystem);
    }

    /// Stores the class of the device. Does nothing before configuration space exists.
    pub fn pci_set_class(&self, base: u8, sub: u8, interface: u8) {
        self.function.borrow().set_class(base, sub, interface);
    }

    /// Address of configuration space, NULL before it exists, and its size in bytes. The address stays the same until the
    /// context is dropped. Anyone may read and write there at any time, through this pointer, without telling the library.
    #[must_use]
    pub fn config_space(&self) -> (*mut u8, usize) {
        let function = self.function.borrow();
        (function.base(), function.allocated())
    }

    /// Reads configuration space at `offset`; bytes outside it read 0.
    pub fn config_read(&self, offset: usize, data: &mut [u8]) {
        match self.function.borrow().space() {
            Some(space) => space.read(offset, data),
            None => data.fill(0),
        }
    }

    /// Writes configuration space at `offset`, as the device: nothing is protected. Bytes outside it are dropped.
    pub fn config_write(&self, offset: usize, data: &[u8]) {
        if let Some(space) = self.function.borrow().space() {
            space.write(offset, data);
        }
    }

    /// Adds a capability and returns its offset. `pos` 0 picks a place behind the last one; `flags` are `CAP_FLAG_*`; `data`
    /// begins with the capability's header.
    ///
    /// # Errors
    /// See [`Function::add_capability`](crate::pci::Function::add_capability): EINVAL, ENOTSUP, ENOSPC, ENOMEM.
    pub fn pci_add_capability<D: CapabilityData + ?Sized>(
        &self,
        pos: usize,
        flags: u32,
        data: &D,
    ) -> Result<usize> {
        let mut events = Events::new();
        let result =
            self.function
                .borrow_mut()
                .add_capability(&self.regions, pos, flags, data, &mut events);
        self.log_events(&events);
        result
            .map_err(Error::from)
            .inspect_err(|error| self.log_setup("capability", error))
    }

    /// Offset of the next capability with this id behind the one at `pos`, or of the first if `pos` is 0.
    ///
    /// # Errors
    /// ENOENT if there is none, EINVAL if `pos` is outside configuration space.
    pub fn pci_find_capability(&self, extended: bool, pos: usize, id: i32) -> Result<usize> {
        Ok(self
            .function
            .borrow()
            .find_capability(&self.regions, extended, pos, id)?)
    }

    fn log_setup(&self, what: &str, error: &Error) {
        let level = match error {
            Error::Pci(error) => error.level().into(),
            _ => Level::Error,
        };
        self.log(level, format_args!("{what}: {error}"));
    }
}
