//! Where an object keeps the addresses of functions it calls, and how they are changed.
//!
//! Every word that a `JUMP_SLOT`, `GLOB_DAT` or 64-bit absolute relocation (addend 0) filled with a function's address. A
//! name may have several. Words that hold data, that are part of constructor lists, or that a program has changed
//! since, are left alone. Full RELRO is opened for the store and closed exactly as it was.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{
    Error,
    objects::{Area, Mapped, Resolver, area_of, dynamic::Dynamic},
    sys::{self, PAGE},
    table,
};

const R_X86_64_64: u32 = 1;
const R_X86_64_GLOB_DAT: u32 = 6;
const R_X86_64_JUMP_SLOT: u32 = 7;
const STT_OBJECT: u8 = 1;
const STT_TLS: u8 = 6;

/// A word that leads to a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Address of the word.
    pub(crate) place: usize,
    /// What it holds now: the function, or the object's own lazy binding code.
    pub(crate) value: usize,
    /// The function.
    pub(crate) target: usize,
    /// The symbol.
    pub(crate) symbol: String,
    /// Whether the object itself defines the symbol.
    pub(crate) own: bool,
    /// Whether it is a 64-bit word in data (a table of pointers), not a call slot.
    pub(crate) data: bool,
    /// Whether its value may be used as an address, not only be called.
    pub(crate) address: bool,
}

/// All function slots of an object that `wanted` asks for.
pub(crate) fn find(mapped: &Mapped, areas: &[Area], wanted: impl Fn(&str) -> bool) -> Vec<Found> {
    let Some(dynamic) = Dynamic::read(mapped) else {
        return Vec::new();
    };
    let mut resolver = None;
    let mut found = Vec::new();
    for relocation in dynamic.relocations() {
        let data = match relocation.kind {
            R_X86_64_JUMP_SLOT | R_X86_64_GLOB_DAT => false,
            R_X86_64_64 if relocation.addend == 0 => true,
            _ => continue,
        };
        let Some(symbol) = dynamic.symbol(relocation.symbol) else {
            continue;
        };
        if matches!(symbol.kind, STT_OBJECT | STT_TLS)
            || table::never_hooked(symbol.name)
            || !wanted(symbol.name)
        {
            continue;
        }
        if !relocation.place.is_multiple_of(8)
            || !mapped.contains(relocation.place, 8)
            || (data && dynamic.in_init_arrays(relocation.place))
        {
            continue;
        }
        let value = load(relocation.place);
        let mut target = value;
        let lazy = relocation.kind == R_X86_64_JUMP_SLOT
            && symbol.defined != Some(value)
            && mapped.executes(value);
        if lazy || data {
            let resolver = resolver.get_or_insert_with(|| Resolver::for_object(mapped));
            match resolver.resolve(symbol.name, dynamic.version(relocation.symbol)) {
                Some(function) if lazy => target = function,
                // A table entry that holds something else was changed by the program.
                Some(function) if function == value => {}
                _ if symbol.defined == Some(value) => {}
                _ => continue,
            }
        }
        let executable =
            area_of(areas, target).is_some_and(|area| area.protection & libc::PROT_EXEC != 0);
        if target != 0 && executable {
            found.push(Found {
                place: relocation.place,
                value,
                target,
                symbol: symbol.name.to_owned(),
                own: symbol.defined.is_some(),
                data,
                address: relocation.kind != R_X86_64_JUMP_SLOT,
            });
        }
    }
    found
}

/// The word at `place`, which lies in a loaded object's data and is aligned (see [`find`]).
pub(crate) fn load(place: usize) -> usize {
    word(place).load(Ordering::Acquire)
}

fn word(place: usize) -> &'static AtomicUsize {
    // SAFETY: `find` checked that the word is aligned and lies in a loaded segment of an object, which is pinned or was
    // seen in the loader's list just now; the program itself reads it as a whole word.
    unsafe { &*(place as *const AtomicUsize) }
}

/// Stores `value` at each `place`, opening read-only pages for the moment. `places` need not be in order.
///
/// # Errors
///
/// [`Error::System`] when a protection cannot be changed; words stored before that stay stored.
pub(crate) fn store(places: &[(usize, usize)], areas: &[Area]) -> Result<(), Error> {
    let mut places = places.to_vec();
    places.sort_unstable();
    let mut rest = places.as_slice();
    while let Some((first, _)) = rest.first() {
        let area = area_of(areas, *first).ok_or_else(|| {
            Error::BadObject(format!("the slot at {first:#x} is no longer mapped"))
        })?;
        let here = rest.partition_point(|(place, _)| *place < area.end);
        store_in(area, &rest[..here])?;
        rest = &rest[here..];
    }
    Ok(())
}

/// Stores words of one area.
fn store_in(area: &Area, places: &[(usize, usize)]) -> Result<(), Error> {
    let writable = area.protection & libc::PROT_WRITE != 0;
    let (Some((first, _)), Some((last, _))) = (places.first(), places.last()) else {
        return Ok(());
    };
    let start = first / PAGE * PAGE;
    let size = (last / PAGE + 1) * PAGE - start;
    if !writable {
        sys::protect(start, size, area.protection | libc::PROT_WRITE)?;
    }
    for (place, value) in places {
        word(*place).store(*value, Ordering::Release);
    }
    if !writable {
        sys::protect(start, size, area.protection)?;
    }
    Ok(())
}
