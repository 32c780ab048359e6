//! Redirects the function calls that a loaded shared object makes to other objects, and builds on that what a
//! test of a C library needs: a ledger of what it holds, calls that fail on request, replaced functions, crash
//! records, reachability, and a guarding allocator. It knows nothing of Python.
//!
//! # How it hangs together
//!
//! ```text
//! session      which objects are under test, when new ones are looked for, start and stop
//!   objects    what the dynamic loader has mapped          pattern   which of them are meant
//!   slots      where an object keeps the addresses of functions it calls; patching them
//!   thunk      the one assembly routine every patched slot leads to
//!   dispatch   what a thunk asks: pass on, return at once, or call and look at the result
//!     table    one row per known function: what it opens, closes, returns when it fails
//!     ledger   what each library holds      plan    which calls fail      mock    which are replaced
//!       filter which addresses may be held: most releases are of none
//!     guard    an allocator whose blocks end at inaccessible pages
//! reuse        addresses that an earlier test released are not given again
//! fresh        memory given to other objects, without old bytes that look like pointers
//! valgrind     requests to the tool that the process may run under
//! crash        fatal signals and time limits become records       record   the memory shared with the parent
//! flush        what is still written when a process ends badly
//! unwind       backtraces from .eh_frame, cheap enough for every allocation
//! totals       exact sums of calls and bytes
//! symbolize    addresses to functions, files and lines            reach    what is lost, as valgrind means it
//! ```
//!
//! # Rules
//!
//! - The calls of this crate itself, and of whatever object it is linked into, are never redirected.
//! - A hook never allocates from the C heap, takes no lock that is held across foreign code, and works in a
//!   forked child. What it remembers lives in private mappings, and addresses of what is held are disguised there.
//! - Unsafe code lives in the modules that touch foreign memory or registers (`sys`, `objects`, `slots`, `thunk`, `dispatch`,
//!   `effects`, `fresh`, `reuse`, `unwind`, `crash`, `flush`, `reach`, `guard`, `valgrind`); the rest is safe.
//! - x86-64 Linux with glibc only.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")))]
compile_error!(
    "clib-hook knows the calling convention and relocations of x86-64 Linux with glibc only"
);

mod dispatch;
mod effects;
mod error;
mod fresh;
mod lock;
mod region;
mod reuse;
mod slots;
mod sys;
mod thunk;
mod totals;
mod unwind;

pub mod crash;
pub mod flush;
pub mod guard;
pub mod ledger;
pub mod mock;
pub mod objects;
pub mod plan;
pub mod reach;
pub mod record;
pub mod session;
pub mod symbolize;
pub mod table;
pub mod valgrind;

pub use error::Error;
pub use ledger::{Held, Kind};
pub use session::{LibraryInfo, Options, Session, quiet, set_enabled};
pub use totals::{Totals, is_system_call, totals};
