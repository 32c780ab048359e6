//! Session.
use crate::context::{Context, Served};
use crate::device::Device;
use crate::error::{Errno, Error, Result};
#[derive(Debug)]
pub(crate) struct Session;
impl Session {
    pub(crate) const fn new() -> Self { Self }
    pub(crate) fn attach(&mut self, _: &Context) -> Result<()> { Err(Error::WouldBlock) }
    pub(crate) fn run(&mut self, _: &Context, _: &mut dyn Device) -> Result<Served> { Err(Error::NotConnected) }
    pub(crate) fn quiesced(&mut self, _: &Context, _: &mut dyn Device, _: Result<(), Errno>) -> Result<Served> { Err(Error::NothingPending) }
    pub(crate) fn shutdown(&mut self, _: &Context, _: &mut dyn Device) {}
    pub(crate) fn is_pending(&self) -> bool { false }
    pub(crate) fn has_unsent(&self) -> bool { false }
}
