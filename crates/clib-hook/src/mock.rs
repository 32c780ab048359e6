//! Replaces functions that the libraries under test call.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Error, lock::Lock, session, table, thunk::Slot};

/// A replacement in force; dropping it puts back what was there before.
#[derive(Debug)]
pub struct Mock {
    id: u32,
    original: usize,
    slots: Vec<&'static Slot>,
    replaced: u64,
}

/// One layer over a slot.
#[derive(Debug)]
struct Layer {
    id: u32,
    replacement: usize,
    slots: Vec<&'static Slot>,
}

/// Mocks in force, oldest first.
static LAYERS: Lock<Vec<Layer>> = Lock::new(Vec::new());
static NEXT: AtomicU32 = AtomicU32::new(1);

impl Mock {
    /// Address of the function that is replaced; calling it directly reaches the original.
    #[must_use]
    pub fn original(&self) -> usize {
        self.original
    }

    /// Calls that reached this or another replacement of the function since this one was made.
    #[must_use]
    pub fn calls(&self) -> u64 {
        total(&self.slots).saturating_sub(self.replaced)
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        let mut layers = LAYERS.lock();
        layers.retain(|layer| layer.id != self.id);
        apply(&layers, &self.slots);
    }
}

fn total(slots: &[&'static Slot]) -> u64 {
    slots
        .iter()
        .map(|slot| slot.replaced.load(Ordering::Relaxed))
        .sum()
}

/// Leads calls of `function` by the libraries under test (or only by `library`) to the code at `replacement`, on all threads that are
/// [enabled](crate::set_enabled). Mocks of one function nest: the last one made is in force. The ledger and plans do not see
/// mocked calls. Works for functions of other objects and for the library's own exported ones, where it calls them
/// through a slot.
///
/// # Safety
///
/// `replacement` must be code with the signature of the function, and stay callable until the mock has been dropped and no
/// thread is inside it.
///
/// # Errors
///
/// [`Error::NotStarted`], [`Error::UnknownFunction`], [`Error::NotCalled`], [`Error::NeverHooked`],
/// [`Error::BadArgument`] for a null replacement.
pub unsafe fn install(
    function: &str,
    library: Option<u16>,
    replacement: usize,
) -> Result<Mock, Error> {
    if table::never_hooked(function) {
        return Err(Error::NeverHooked(function.to_owned()));
    }
    if replacement == 0 {
        return Err(Error::BadArgument(format!(
            "the replacement of {function} is a null pointer"
        )));
    }
    let slots: Vec<&'static Slot> = session::with_state(|state| {
        state.hook_on_demand(function, library)?;
        let number = state
            .number(function)
            .ok_or_else(|| state.unknown(function))?;
        let wanted = |slot: &&'static Slot| {
            slot.function == number && library.is_none_or(|library| library == slot.library())
        };
        Ok(state.slots().filter(wanted).collect())
    })?;
    let Some(first) = slots.first() else {
        return Err(Error::NotCalled(function.to_owned()));
    };
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let mock = Mock {
        id,
        original: first.target.load(Ordering::Relaxed),
        replaced: total(&slots),
        slots: slots.clone(),
    };
    let mut layers = LAYERS.lock();
    layers.push(Layer {
        id,
        replacement,
        slots,
    });
    apply(&layers, &mock.slots);
    Ok(mock)
}

/// Sets each slot to its newest layer.
fn apply(layers: &[Layer], slots: &[&'static Slot]) {
    for slot in slots {
        let covers = |layer: &&Layer| {
            layer
                .slots
                .iter()
                .any(|covered| std::ptr::eq(*covered, *slot))
        };
        let replacement = layers
            .iter()
            .rev()
            .find(covers)
            .map_or(0, |layer| layer.replacement);
        slot.replacement.store(replacement, Ordering::Release);
    }
}

/// Ends all mocks; their handles become empty.
pub(crate) fn clear() {
    let layers = std::mem::take(&mut *LAYERS.lock());
    for layer in layers {
        apply(&[], &layer.slots);
    }
}

/// Takes the lock before a fork.
pub(crate) fn hold() {
    LAYERS.hold();
}

/// Gives it back in both processes.
pub(crate) fn release() {
    LAYERS.release();
}
