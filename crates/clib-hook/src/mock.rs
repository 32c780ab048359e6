//! Replaces functions that the libraries under test call.

use crate::Error;

/// A replacement in force; dropping it puts the original back.
#[derive(Debug)]
pub struct Mock {
    original: usize,
}

impl Mock {
    /// Address of the function that is replaced; calling it directly reaches the original.
    #[must_use]
    pub fn original(&self) -> usize {
        self.original
    }

    /// Calls that reached the replacement so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        0
    }
}

/// Leads calls of `function` by the libraries under test (or only by `library`) to the code at `replacement`, on all threads that are
/// [enabled](crate::set_enabled). Mocks of one function nest: the last one made is in force.
///
/// # Safety
///
/// `replacement` must be code with the signature of the function, and stay callable until the mock has been dropped and no
/// thread is inside it.
///
/// # Errors
///
/// [`Error::NotStarted`], [`Error::UnknownFunction`], [`Error::NotCalled`], [`Error::NeverHooked`].
pub unsafe fn install(
    function: &str,
    library: Option<u16>,
    replacement: usize,
) -> Result<Mock, Error> {
    let _ = (function, library, replacement);
    Err(Error::NotStarted)
}
