//! Which libraries are under test, from when to when.

use crate::{Error, guard, ledger::Held, objects::Pattern};

/// What a session does.
#[derive(Debug, Clone)]
pub struct Options {
    /// Keep up to this many frames inside the libraries under test for each thing they hold (0: the call site
    /// alone; at most 16). Default 8.
    pub stack_depth: u8,
    /// Serve the libraries' memory from [`guard`], if given.
    pub guard: Option<guard::GuardOptions>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            stack_depth: 8,
            guard: None,
        }
    }
}

/// A library under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryInfo {
    /// Its number in this session, from 0, in the order in which libraries were found.
    pub id: u16,
    /// Path as the loader knows it.
    pub path: String,
    /// Which pattern of [`Session::start`] it matched.
    pub pattern: usize,
    /// GNU build id, in hexadecimal.
    pub build_id: Option<String>,
    /// Load bias: address in memory minus address in the file.
    pub bias: usize,
    /// First address of its mappings.
    pub start: usize,
    /// Address after its last mapping.
    pub end: usize,
    /// Slots that lead to a thunk now.
    pub slots: usize,
    /// Distinct functions among them.
    pub functions: usize,
}

/// How often one library called one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// [`LibraryInfo::id`] of the caller.
    pub library: u16,
    /// The name in the table (`read` for `__read_chk`), or the symbol's own for functions not in it.
    pub function: String,
    /// Calls so far, by threads that are [enabled](set_enabled).
    pub calls: u64,
}

/// A moment; what was acquired after it is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub u64);

/// The running session: one per process. Dropping it puts every slot back.
#[derive(Debug)]
pub struct Session {
    _private: (),
}

impl Session {
    /// Starts watching for the libraries that `patterns` name, and hooks those that are loaded already.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyStarted`]; [`Error::System`] when memory or page protections cannot be had.
    pub fn start(patterns: Vec<Pattern>, options: Options) -> Result<Self, Error> {
        let _ = (patterns, options);
        Err(Error::NotStarted)
    }

    /// Hooks what has been loaded since the last look; about 100 ns when nothing was. Returns the libraries under
    /// test that are new. (Releases are watched in all objects that are new.) Call it after each load.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when a page's protection cannot be changed; slots hooked before that stay hooked.
    pub fn rescan(&self) -> Result<Vec<LibraryInfo>, Error> {
        Ok(Vec::new())
    }

    /// The libraries under test found so far.
    #[must_use]
    pub fn libraries(&self) -> Vec<LibraryInfo> {
        Vec::new()
    }

    /// For each pattern of [`Session::start`], whether a library matched it yet.
    #[must_use]
    pub fn matched(&self) -> Vec<bool> {
        Vec::new()
    }

    /// Names of all functions that the libraries under test call through slots, sorted.
    #[must_use]
    pub fn functions(&self) -> Vec<String> {
        Vec::new()
    }

    /// Calls by library and function, without those that were never called.
    #[must_use]
    pub fn counts(&self) -> Vec<Count> {
        Vec::new()
    }

    /// Calls of `function` (any of its names) by all libraries under test.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFunction`] when no library calls it and the table does not know it.
    pub fn calls(&self, function: &str) -> Result<u64, Error> {
        Err(Error::UnknownFunction {
            name: function.to_owned(),
            near: Vec::new(),
        })
    }

    /// Now, for [`Session::held_since`].
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(0)
    }

    /// What the libraries under test acquired after `mark` and still hold, oldest first. Descriptors that are no
    /// longer open (closed behind our back) are dropped from the ledger on the way.
    #[must_use]
    pub fn held_since(&self, mark: Mark) -> Vec<Held> {
        let _ = mark;
        Vec::new()
    }

    /// Takes things out of the ledger, so that they are not reported again.
    pub fn disown(&self, held: &[Held]) {
        let _ = held;
    }

    /// The number that is stored with everything acquired from now on ([`Held::test`]).
    pub fn set_test(&self, test: u32) {
        let _ = test;
    }

    /// Puts every slot back. Thunks stay mapped, since libraries may have copied pointers to them; they pass calls on.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when a page's protection cannot be changed.
    pub fn stop(self) -> Result<(), Error> {
        Ok(())
    }
}

/// Switches counting, ledger entries, failures and replacements on or off for the calling thread; on at first.
/// Returns how it was. Releases are noted all the same.
pub fn set_enabled(enabled: bool) -> bool {
    let _ = enabled;
    true
}

/// Runs `work` with the calling thread switched off (see [`set_enabled`]), also when it panics.
pub fn quiet<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            set_enabled(self.0);
        }
    }
    let _restore = Restore(set_enabled(false));
    work()
}
