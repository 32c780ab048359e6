//! Interrupts: how many there are, and the eventfds that the client gave for them.
//!
//! 1. INTX, MSI and MSI-X share one table of eventfds; ERR and REQ have a slot each.
//! 2. [`Irqs`] may be used from any thread. A trigger holds a read lock over one write to an eventfd, so a descriptor
//!    is never closed, and its number never reused, under a trigger. No lock is held over a callback.
//! 3. Only eventfds get into the table, which are told from other descriptors when they arrive.

use core::fmt;
use std::os::fd::OwnedFd;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{Error, Result};
use crate::sys::event::EventFd;
use crate::sys::memory::out_of_memory;
use crate::sys::shared::Shared;

/// Kinds of interrupt, with the numbers of `VFIO_PCI_*_IRQ_INDEX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum IrqIndex {
    /// Legacy, by pin.
    Intx = 0,
    /// Message signalled.
    Msi = 1,
    /// Message signalled, extended.
    Msix = 2,
    /// The device met an error.
    Err = 3,
    /// The device asks to be unplugged.
    Req = 4,
}

impl IrqIndex {
    /// How many kinds there are.
    pub const COUNT: u32 = 5;

    /// From its number; `None` from 5 on.
    #[must_use]
    pub const fn new(index: u32) -> Option<Self> {
        Some(match index {
            0 => Self::Intx,
            1 => Self::Msi,
            2 => Self::Msix,
            3 => Self::Err,
            4 => Self::Req,
            _ => return None,
        })
    }

    /// True for the two kinds with a slot of their own.
    pub(crate) const fn is_single(self) -> bool {
        matches!(self, Self::Err | Self::Req)
    }
}

/// Most vectors of one kind. PCI allows 2,048 (MSI-X); the rest is for devices that number theirs otherwise. Each has a
/// place in a table.
pub const MAX_VECTORS: u32 = 65_536;

#[derive(Debug, Default)]
struct Table {
    vectors: Vec<Option<EventFd>>,
    err: Option<EventFd>,
    req: Option<EventFd>,
}

impl Table {
    fn slot(&self, irq: IrqIndex, subindex: u32) -> Option<&Option<EventFd>> {
        match irq {
            IrqIndex::Err => Some(&self.err).filter(|_| subindex == 0),
            IrqIndex::Req => Some(&self.req).filter(|_| subindex == 0),
            _ => self.vectors.get(usize::try_from(subindex).ok()?),
        }
    }

    fn slot_mut(&mut self, irq: IrqIndex, subindex: u32) -> Option<&mut Option<EventFd>> {
        match irq {
            IrqIndex::Err => Some(&mut self.err).filter(|_| subindex == 0),
            IrqIndex::Req => Some(&mut self.req).filter(|_| subindex == 0),
            _ => self.vectors.get_mut(usize::try_from(subindex).ok()?),
        }
    }

    fn capacity(&self) -> u32 {
        u32::try_from(self.vectors.len()).unwrap_or(u32::MAX)
    }
}

/// Handle to a context's interrupts: cheap to clone, usable from any thread, also after the context is gone (every trigger
/// fails then).
#[derive(Clone)]
pub struct Irqs(Shared<RwLock<Table>>);

impl fmt::Debug for Irqs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Irqs")
            .field("capacity", &self.capacity())
            .finish()
    }
}

impl Irqs {
    pub(crate) fn new() -> Result<Self> {
        Shared::try_new(RwLock::new(Table::default())).map(Self)
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Triggers vector `subindex` (of INTX, MSI or MSI-X, whichever the client has set up): adds 1 to its eventfd.
    ///
    /// # Errors
    /// EINVAL when there is no such vector (also before the context is realized), ENOENT when the client gave no eventfd
    /// for it, EAGAIN when the eventfd's counter is full.
    pub fn trigger(&self, subindex: u32) -> Result<()> {
        self.raise(IrqIndex::Msix, subindex)
    }

    /// Triggers the interrupt that says that the device met an error (ERR) or wants to be unplugged (REQ).
    ///
    /// # Errors
    /// As [`trigger`](Self::trigger).
    pub fn notify(&self, irq: IrqIndex) -> Result<()> {
        self.raise(irq, 0)
    }

    /// Number of vectors in the table.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.read().capacity()
    }

    fn raise(&self, irq: IrqIndex, subindex: u32) -> Result<()> {
        let table = self.read();
        match table.slot(irq, subindex) {
            None => Err(Error::NoSuchIrq {
                subindex,
                capacity: table.capacity(),
            }),
            Some(None) => Err(Error::NoEventfd { subindex }),
            Some(Some(event)) => event.trigger(),
        }
    }

    /// Adds 1 where the client gave an eventfd; nothing happens elsewhere.
    pub(crate) fn loop_back(&self, irq: IrqIndex, subindex: u32) -> Result<()> {
        match self.raise(irq, subindex) {
            Err(Error::NoEventfd { .. } | Error::NoSuchIrq { .. }) => Ok(()),
            result => result,
        }
    }

    /// Makes room for `vectors` vectors; never shrinks.
    pub(crate) fn grow(&self, vectors: u32) -> Result<()> {
        let wanted = usize::try_from(vectors).unwrap_or(usize::MAX);
        let mut table = self.write();
        let more = wanted.saturating_sub(table.vectors.len());
        table
            .vectors
            .try_reserve_exact(more)
            .map_err(out_of_memory(
                "interrupts",
                more.saturating_mul(size_of::<Option<EventFd>>()),
            ))?;
        while table.vectors.len() < wanted {
            table.vectors.push(None); // within the capacity reserved above
        }
        Ok(())
    }

    /// Stores an eventfd; the old one is closed. What is not an eventfd comes back.
    pub(crate) fn install(&self, irq: IrqIndex, subindex: u32, fd: OwnedFd) -> Result<(), OwnedFd> {
        let event = EventFd::verify(fd)?;
        let old = self
            .write()
            .slot_mut(irq, subindex)
            .and_then(|slot| slot.replace(event));
        drop(old); // closed after the lock is released
        Ok(())
    }

    /// Closes the eventfds `start..start + count`.
    pub(crate) fn disable(&self, irq: IrqIndex, start: u32, count: u32) {
        for subindex in start..start.saturating_add(count).min(self.limit(irq)) {
            let old = self.write().slot_mut(irq, subindex).and_then(Option::take);
            drop(old);
        }
    }

    /// Closes all eventfds.
    pub(crate) fn clear(&self) {
        self.disable(IrqIndex::Req, 0, 1);
        self.disable(IrqIndex::Err, 0, 1);
        self.disable(IrqIndex::Msix, 0, u32::MAX);
    }

    fn limit(&self, irq: IrqIndex) -> u32 {
        if irq.is_single() { 1 } else { self.capacity() }
    }
}
