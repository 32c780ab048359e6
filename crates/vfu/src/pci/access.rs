//! One step of an access to configuration space.
//!
//! An access is cut where the handling changes: at registers of the header when writing, at its end when reading, and at
//! both ends of capabilities. Each step handles the first piece. The rules are in the module's documentation.

use super::capability::{CAP_FLAG_CALLBACK, CAP_FLAG_READONLY, Capability};
use super::error::Error;
use super::event::Events;
use super::function::Function;
use super::handlers;
use super::header;
use super::region::{CONFIG, FLAG_ALWAYS_CB, Regions};
use super::regs::STD_HEADER_SIZEOF;
use super::space::ConfigSpace;

/// What the caller does next. `len` is at least 1 and at most what was passed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// `len` bytes are done.
    Done {
        /// Bytes.
        len: usize,
    },
    /// Call the config region's callback for `len` bytes from the offset passed in; see [`callback_result`].
    Callback {
        /// Bytes.
        len: usize,
    },
    /// Everything of this piece is stored; ask the device for a function-level reset (see [`reset_result`]), and only if
    /// that succeeds `len` bytes are done.
    FunctionReset {
        /// Bytes.
        len: usize,
    },
}

/// Judges what a region callback returned when asked for `asked` bytes. `errno` is what it left behind.
///
/// # Errors
///
/// [`Error::Callback`] with its errno if negative (EINVAL if it set none); [`Error::CallbackCount`] if not `asked`.
pub fn callback_result(asked: usize, returned: isize, errno: i32) -> Result<usize, Error> {
    if returned < 0 {
        return Err(Error::Callback(errno));
    }
    if usize::try_from(returned) == Ok(asked) {
        Ok(asked)
    } else {
        Err(Error::CallbackCount { asked, returned })
    }
}

/// Judges what the reset callback returned; a device without one resets successfully.
///
/// # Errors
///
/// [`Error::Callback`] with its errno if negative (EINVAL if it set none).
pub const fn reset_result(returned: i32, errno: i32) -> Result<(), Error> {
    if returned < 0 {
        Err(Error::Callback(errno))
    } else {
        Ok(())
    }
}

impl Function {
    /// First step of reading `buf.len()` bytes at `offset`; bytes that are done are in `buf`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`]: the access does not lie inside configuration space, or is empty.
    pub fn read_step(
        &self,
        regions: &impl Regions,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<Step, Error> {
        let (space, offset) = self.bounds(regions, offset, buf.len())?;
        let config = regions.region(CONFIG);
        if config.has(FLAG_ALWAYS_CB) && config.has_callback {
            return Ok(Step::Callback { len: buf.len() });
        }
        let len = match self.piece(offset, buf.len()) {
            Piece::Header => buf.len().min(STD_HEADER_SIZEOF - offset),
            Piece::Plain(len) if config.has_callback => return Ok(Step::Callback { len }),
            Piece::Plain(len) => len,
            Piece::Capability(cap, len) if cap.flags & CAP_FLAG_CALLBACK != 0 => {
                return delegate(config.has_callback, len);
            }
            Piece::Capability(_, len) => len,
        };
        if let Some(part) = buf.get_mut(..len) {
            space.read(offset, part);
        }
        Ok(Step::Done { len })
    }

    /// First step of writing `data` at `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] as for reads; EPERM for read-only capabilities and capability headers; EINVAL, ENOTSUP or
    /// EPERM as the register demands. Earlier steps stay applied.
    pub fn write_step(
        &self,
        regions: &impl Regions,
        offset: u64,
        data: &[u8],
        events: &mut Events,
    ) -> Result<Step, Error> {
        let (space, offset) = self.bounds(regions, offset, data.len())?;
        let config = regions.region(CONFIG);
        if config.has(FLAG_ALWAYS_CB) && config.has_callback {
            return Ok(Step::Callback { len: data.len() });
        }
        match self.piece(offset, data.len()) {
            Piece::Header => {
                let len = header::write(space, regions, offset, data, events)?;
                Ok(Step::Done { len })
            }
            Piece::Plain(len) if config.has_callback => Ok(Step::Callback { len }),
            Piece::Plain(len) => Err(Error::BadWrite {
                offset: offset as u64,
                len,
            }),
            Piece::Capability(cap, len) => {
                let read_only = Error::ReadOnly {
                    offset,
                    start: cap.start,
                    name: cap.kind.name(),
                };
                if cap.flags & CAP_FLAG_READONLY != 0 {
                    return Err(read_only);
                }
                if cap.flags & CAP_FLAG_CALLBACK != 0 {
                    return delegate(config.has_callback, len);
                }
                if offset - cap.start < cap.header_size() {
                    return Err(read_only);
                }
                handlers::write(
                    space,
                    cap,
                    offset - cap.start,
                    data.get(..len).unwrap_or(data),
                    events,
                )
            }
        }
    }

    fn bounds(
        &self,
        regions: &impl Regions,
        offset: u64,
        len: usize,
    ) -> Result<(&ConfigSpace, usize), Error> {
        let limit = self.limit(regions);
        let error = Error::OutOfRange { offset, len, limit };
        let space = self.space().ok_or(error)?;
        let start = usize::try_from(offset).map_err(|_| error)?;
        match start.checked_add(len) {
            Some(end) if end <= limit && len > 0 => Ok((space, start)),
            _ => Err(error),
        }
    }

    fn piece(&self, offset: usize, len: usize) -> Piece<'_> {
        if offset < STD_HEADER_SIZEOF {
            return Piece::Header;
        }
        match self.table.touching(offset, len) {
            None => Piece::Plain(len),
            Some(cap) if offset < cap.start => Piece::Plain(cap.start - offset),
            Some(cap) => Piece::Capability(cap, len.min(cap.end() - offset)),
        }
    }
}

enum Piece<'a> {
    /// Starts in the standard header.
    Header,
    /// So many bytes outside the header and all capabilities.
    Plain(usize),
    /// So many bytes inside a capability.
    Capability(&'a Capability, usize),
}

/// The callback may have been taken away since the capability was added.
fn delegate(has_callback: bool, len: usize) -> Result<Step, Error> {
    if has_callback {
        Ok(Step::Callback { len })
    } else {
        Err(Error::NoCallback)
    }
}
