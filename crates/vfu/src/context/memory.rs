//! The client's memory, read and written by the device on the context's thread: directly where that is possible, by
//! message otherwise.
//!
//! Other threads use [`Dma`], which does the direct part alone.

use crate::context::Context;
use crate::dma::{Direct, Dma, PROT_READ, PROT_WRITE, Segment};
use crate::error::{Error, Result};
use crate::log::Level;
use crate::sys::scatter::translate;
use crate::transport::exchange::{Data, exchange};

/// Scatter entries translated at a time.
const BATCH: usize = 8;

/// How a scatter entry's bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transfer {
    /// Directly, if the region is mapped or a file; by message if not.
    Direct,
    /// By message, whatever the region is.
    Message,
}

impl Context {
    /// Reads `data.len()` bytes of client memory at address `iova`, across regions if need be.
    ///
    /// # Errors
    /// ENOENT if part of the range is not client memory; otherwise as [`read_segment`](Self::read_segment).
    pub fn read_client(&self, iova: u64, data: &mut [u8]) -> Result<()> {
        self.for_each_segment(iova, data.len(), PROT_READ, |segment, range| {
            self.read_segment(
                segment,
                data.get_mut(range).unwrap_or_default(),
                Transfer::Direct,
            )
        })
    }

    /// Writes `data` to client memory at address `iova`, across regions if need be, and marks it dirty.
    ///
    /// # Errors
    /// ENOENT if part of the range is not client memory, EACCES if it cannot be written; otherwise as
    /// [`write_segment`](Self::write_segment).
    pub fn write_client(&self, iova: u64, data: &[u8]) -> Result<()> {
        self.for_each_segment(iova, data.len(), PROT_WRITE, |segment, range| {
            self.write_segment(
                segment,
                data.get(range).unwrap_or_default(),
                Transfer::Direct,
            )
        })
    }

    /// Reads the bytes of a scatter entry. `data` has exactly its length.
    ///
    /// By message this waits for the client; a non-blocking context does so for at most ten seconds. Requests that the client sends meanwhile are
    /// served later: from inside a callback, by the call that runs it; otherwise by the next [`run`](Self::run), which
    /// should follow at once: [`readiness`](Self::readiness) tells of them, [`poll_fd`](Self::poll_fd) does not.
    ///
    /// # Errors
    /// EINVAL for an entry that is stale or forged, or a `data` of another length. EACCES if it cannot be read. EIO if its file
    /// cannot. By message: the client's error number; EINVAL or EPROTO if its answer makes no sense; ENOTCONN if it has gone;
    /// ETIMEDOUT; EBUSY while a quiesce is pending. Some bytes may have been transferred then.
    pub fn read_segment(
        &self,
        segment: &Segment,
        data: &mut [u8],
        transfer: Transfer,
    ) -> Result<()> {
        let dma = self.client_memory()?;
        if transfer == Transfer::Direct && dma.read(segment, data)? == Direct::Done {
            return Ok(());
        }
        let located = dma.locate(segment)?;
        check_length(located.length, data.len())?;
        self.read_by_message(located.iova, data)
    }

    /// Writes the bytes of a scatter entry, which was translated for writing. `data` has exactly its length. Directly written
    /// pages are marked dirty.
    ///
    /// # Errors
    /// EPERM for an entry that was translated for reading; otherwise as [`read_segment`](Self::read_segment).
    pub fn write_segment(&self, segment: &Segment, data: &[u8], transfer: Transfer) -> Result<()> {
        let dma = self.client_memory()?;
        if transfer == Transfer::Direct && dma.write(segment, data)? == Direct::Done {
            return Ok(());
        }
        let located = dma.locate(segment)?;
        check_length(located.length, data.len())?;
        if segment.writeable == 0 {
            return Err(crate::dma::Error::ReadOnlySegment { iova: located.iova }.into());
        }
        self.write_by_message(located.iova, data)
    }

    /// Reads client memory at `iova` with `DMA_READ` messages, in pieces that the client takes. The range is not checked here.
    ///
    /// # Errors
    /// As [`read_segment`](Self::read_segment) by message.
    pub fn read_by_message(&self, iova: u64, data: &mut [u8]) -> Result<()> {
        let most = self.prepare_exchange()?;
        let mut addr = iova;
        let result = data.chunks_mut(most).try_for_each(|piece| {
            let length = piece.len() as u64;
            exchange(&self.link, addr, Data::Read(piece))?;
            addr = addr.wrapping_add(length);
            Ok(())
        });
        self.with_readiness(result)
    }

    /// Writes client memory at `iova` with `DMA_WRITE` messages, in pieces that the client takes. The range is not checked here.
    ///
    /// # Errors
    /// As [`read_segment`](Self::read_segment) by message.
    pub fn write_by_message(&self, iova: u64, data: &[u8]) -> Result<()> {
        let most = self.prepare_exchange()?;
        let mut addr = iova;
        let result = data.chunks(most).try_for_each(|piece| {
            exchange(&self.link, addr, Data::Write(piece))?;
            addr = addr.wrapping_add(piece.len() as u64);
            Ok(())
        });
        self.with_readiness(result)
    }

    /// Gets ready for messages of our own; returns the most bytes for each.
    fn prepare_exchange(&self) -> Result<usize> {
        if !self.link.is_attached() || self.link.dead().is_some() {
            return Err(Error::NotConnected);
        }
        if let Ok(mut session) = self.session.try_borrow_mut() {
            session.prepare_exchange(self)?;
        }
        if self.link.twin().is_none() && !self.link.warned.replace(true) {
            let notice = "DMA messages share the connection with the client's requests: it should offer a twin socket";
            self.log(Level::Warning, format_args!("{notice}"));
        }
        Ok(self.link.limits.get().max_data as usize)
    }

    /// The client's memory, for what makes no sense without.
    pub(crate) fn client_memory(&self) -> Result<&Dma> {
        self.dma.get().ok_or(Error::NotSetUp { what: "DMA" })
    }

    fn for_each_segment(
        &self,
        iova: u64,
        length: usize,
        prot: u32,
        mut each: impl FnMut(&Segment, core::ops::Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        while done < length {
            let mut segments = [Segment::default(); BATCH];
            let start = iova.checked_add(done as u64).ok_or(Error::Argument {
                what: "end of a DMA range",
                value: iova,
            })?;
            let dma = self.client_memory()?;
            let count = translate(dma, start, (length - done) as u64, prot, &mut segments)?;
            for segment in segments.iter().take(count) {
                let end = done
                    + usize::try_from(segment.length)
                        .unwrap_or(usize::MAX)
                        .min(length - done);
                each(segment, done..end)?;
                done = end;
            }
        }
        Ok(())
    }
}

fn check_length(expected: u64, found: usize) -> Result<()> {
    if expected == found as u64 {
        return Ok(());
    }
    Err(crate::dma::Error::BufferSize {
        expected,
        found: found as u64,
    }
    .into())
}
