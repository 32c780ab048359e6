//! Which libraries are under test, from when to when.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Once,
        atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::{
    Error, dispatch, fresh, guard,
    ledger::{self, Held, Kind},
    lock::Lock,
    mock,
    objects::{self, Area, Mapped, Pattern},
    plan,
    reach::before,
    reuse,
    slots::{self, Found},
    sys,
    table::{self, Effect, Group},
    thunk::{self, Slot, WATCHER},
    unwind,
};

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
    /// Which pattern of [`Session::start`] it matched first.
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
    running: bool,
}

/// An object whose slots lead to thunks.
#[derive(Debug)]
struct Hooked {
    mapped: Mapped,
    /// Which pattern it matched; `None` if it is not under test: then only releases are watched, and fresh memory is cleared.
    pattern: Option<usize>,
    slots: Vec<&'static Slot>,
}

impl Hooked {
    fn is(&self, other: &Mapped) -> bool {
        self.mapped.object.bias == other.object.bias && self.mapped.object.path == other.object.path
    }

    /// Whether it is still what was hooked, not another object at the same place.
    fn intact(&self) -> bool {
        self.slots
            .first()
            .is_none_or(|slot| slots::load(slot.place) != slot.original)
    }
}

#[derive(Debug)]
pub(crate) struct State {
    patterns: Vec<Pattern>,
    matched: Vec<bool>,
    generation: (u64, u64),
    own: Option<Mapped>,
    /// Index is the library's id.
    libraries: Vec<Hooked>,
    watched: Vec<Hooked>,
    /// Names of functions that are not in the table, by number past its end.
    names: Vec<&'static str>,
    numbers: HashMap<&'static str, u16>,
}

static STATE: Lock<Option<State>> = Lock::new(None);

/// Functions that are watched also when they were looked up by name: address and stub.
static LOOKUPS: [(AtomicUsize, AtomicUsize); 16] =
    [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; 16];
const WATCHED_LOOKUPS: [&str; 9] = [
    "free",
    "realloc",
    "reallocarray",
    "malloc_usable_size",
    "close",
    "fclose",
    "closedir",
    "munmap",
    "mremap",
];

impl Session {
    /// Starts watching for the libraries that `patterns` name, and hooks those that are loaded already.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyStarted`]; [`Error::System`] when memory or page protections cannot be had.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a session takes its options over, whatever it makes of them"
    )]
    pub fn start(patterns: Vec<Pattern>, options: Options) -> Result<Self, Error> {
        watch_forks()?;
        {
            let mut state = STATE.lock();
            if state.is_some() {
                return Err(Error::AlreadyStarted);
            }
            let own = objects::own();
            if let Some(own) = &own {
                objects::pin(own);
            }
            ledger::clear();
            unwind::clear_libraries();
            unwind::set_depth(options.stack_depth);
            *state = Some(State {
                matched: vec![false; patterns.len()],
                patterns,
                generation: (0, 0),
                own,
                libraries: Vec::new(),
                watched: Vec::new(),
                names: Vec::new(),
                numbers: HashMap::new(),
            });
        }
        let session = Self { running: true };
        guard::start(options.guard.as_ref())?;
        fresh::start();
        reuse::start();
        watch_lookups()?;
        session.rescan()?;
        Ok(session)
    }

    /// Hooks what has been loaded since the last look; about 100 ns when nothing was. Returns the libraries under
    /// test that are new. (Releases are watched in all objects that are new.) Call it after each load.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when a page's protection cannot be changed; slots hooked before that stay hooked.
    pub fn rescan(&self) -> Result<Vec<LibraryInfo>, Error> {
        with_state(State::rescan)
    }

    /// The libraries under test found so far.
    #[must_use]
    pub fn libraries(&self) -> Vec<LibraryInfo> {
        with_state(|state| {
            Ok((0..state.libraries.len())
                .map(|id| state.info(id))
                .collect())
        })
        .unwrap_or_default()
    }

    /// For each pattern of [`Session::start`], whether a library matched it yet.
    #[must_use]
    pub fn matched(&self) -> Vec<bool> {
        with_state(|state| Ok(state.matched.clone())).unwrap_or_default()
    }

    /// Names of all functions that the libraries under test call through slots, sorted.
    #[must_use]
    pub fn functions(&self) -> Vec<String> {
        with_state(|state| Ok(state.function_names())).unwrap_or_default()
    }

    /// Calls by library and function, without those that were never called.
    #[must_use]
    pub fn counts(&self) -> Vec<Count> {
        with_state(|state| {
            let mut counts: BTreeMap<(u16, &str), u64> = BTreeMap::new();
            for slot in state.slots() {
                let calls = slot.calls.load(Ordering::Relaxed);
                if calls != 0 {
                    *counts
                        .entry((slot.library(), state.name(slot.function)))
                        .or_default() += calls;
                }
            }
            Ok(counts
                .into_iter()
                .map(|((library, function), calls)| Count {
                    library,
                    function: function.to_owned(),
                    calls,
                })
                .collect())
        })
        .unwrap_or_default()
    }

    /// Calls of `function` (any of its names) by all libraries under test.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFunction`] when no library calls it and the table does not know it.
    pub fn calls(&self, function: &str) -> Result<u64, Error> {
        with_state(|state| match state.number(function) {
            Some(number) => {
                let of_function = state.slots().filter(|slot| slot.function == number);
                Ok(of_function
                    .map(|slot| slot.calls.load(Ordering::Relaxed))
                    .sum())
            }
            None => Err(state.unknown(function)),
        })
    }

    /// Now, for [`Session::held_since`].
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(ledger::now())
    }

    /// What the libraries under test acquired after `mark` and still hold, oldest first. Descriptors that are no
    /// longer open (closed behind our back) are dropped from the ledger on the way.
    #[must_use]
    pub fn held_since(&self, mark: Mark) -> Vec<Held> {
        let mut held = ledger::since(mark.0);
        held.retain(|held| {
            let open = held.kind != Kind::Descriptor || is_open(held.key);
            if !open {
                ledger::remove(held.kind, held.key);
            }
            open
        });
        held
    }

    /// Sees to it that things are not reported again. What is lost stays lost: [`crate::reach`] goes on leaving it out.
    pub fn disown(&self, held: &[Held]) {
        for held in held {
            ledger::disown(held.kind, held.key);
        }
    }

    /// The number that is stored with everything acquired from now on ([`Held::test`]).
    pub fn set_test(&self, test: u32) {
        ledger::set_test(test);
        reuse::next_test();
    }

    /// Puts every slot back. Thunks stay mapped, since libraries may have copied pointers to them; they pass calls on.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when a page's protection cannot be changed.
    pub fn stop(mut self) -> Result<(), Error> {
        self.running = false;
        stop()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.running {
            // Nobody is there to hear of it; `stop` is for those who want to know.
            drop(stop());
        }
    }
}

fn stop() -> Result<(), Error> {
    plan::disarm_all();
    mock::clear();
    guard::stop();
    fresh::stop();
    reuse::stop();
    before::forget();
    for (address, _) in &LOOKUPS {
        address.store(0, Ordering::Release);
    }
    let Some(state) = STATE.lock().take() else {
        return Ok(());
    };
    let areas = objects::areas()?;
    let loaded = objects::mapped();
    let mut result = Ok(());
    for hooked in state.libraries.iter().chain(&state.watched) {
        let places: Vec<_> = hooked
            .slots
            .iter()
            .inspect(|slot| slot.caller.store(WATCHER, Ordering::Relaxed))
            // Guarded blocks that are still out must be recognised when they come back.
            .filter(|slot| !(guard::used() && slot.effect.takes_blocks()))
            .map(|slot| (slot.place, slot.original))
            .collect();
        // An object that is gone took its slots along.
        if loaded.iter().any(|mapped| hooked.is(mapped)) && hooked.intact() {
            result = slots::store(&places, &areas).and(result);
        }
    }
    unwind::clear_libraries();
    ledger::clear();
    result
}

/// Runs `work` on the running session.
pub(crate) fn with_state<T>(work: impl FnOnce(&mut State) -> Result<T, Error>) -> Result<T, Error> {
    STATE.lock().as_mut().map_or(Err(Error::NotStarted), work)
}

/// Looks for new objects from inside a hook, unless someone is at it.
pub(crate) fn rescan_from_hook() {
    match STATE.try_lock() {
        Some(mut state) => {
            if let Some(state) = state.as_mut() {
                // What cannot be hooked now will be tried at the next explicit look, which reports the error.
                drop(state.rescan());
            }
        }
        None => dispatch::loading(),
    }
}

/// The stub to hand out instead of a function that is watched, when it was looked up by name.
pub(crate) fn watched_lookup(address: usize) -> Option<usize> {
    if address == 0 {
        return None;
    }
    LOOKUPS
        .iter()
        .find(|(known, _)| known.load(Ordering::Acquire) == address)
        .map(|(_, stub)| stub.load(Ordering::Acquire))
        .filter(|stub| *stub != 0)
}

fn watch_lookups() -> Result<(), Error> {
    let mut handed = Vec::new();
    for name in WATCHED_LOOKUPS {
        let Some(row) = table::row(name) else {
            continue;
        };
        let Ok(symbol) = std::ffi::CString::new(name) else {
            continue;
        };
        // SAFETY: a lookup by a C string in the global scope.
        let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, symbol.as_ptr()) } as usize;
        if address != 0 {
            handed.push((address, slot(address, 0, address, row, WATCHER, name)));
        }
    }
    let slots: Vec<_> = handed.iter().map(|(_, slot)| *slot).collect();
    let stubs = thunk::stubs(&slots)?;
    for (((address, _), stub), place) in handed.iter().zip(stubs).zip(&LOOKUPS) {
        place.1.store(stub, Ordering::Release);
        place.0.store(*address, Ordering::Release);
    }
    Ok(())
}

/// A slot for good: thunks and copied pointers may reach it at any time.
fn slot(
    target: usize,
    place: usize,
    original: usize,
    function: u16,
    library: u16,
    symbol: &'static str,
) -> &'static Slot {
    let effect = table::all()
        .get(usize::from(function))
        .map_or(Effect::None, |function| function.effect);
    Box::leak(Box::new(Slot {
        target: AtomicUsize::new(target),
        calls: AtomicU64::new(0),
        replacement: AtomicUsize::new(0),
        replaced: AtomicU64::new(0),
        caller: AtomicU16::new(library),
        function,
        effect,
        filtered: library == WATCHER && passes_by(effect),
        place,
        original,
        symbol,
    }))
}

/// Whether a call that watches releases need only be looked at when its block may be of a library under test.
fn passes_by(effect: Effect) -> bool {
    match effect {
        _ if guard::used() => false,
        Effect::Free => true,
        Effect::Reallocate(_) => !fresh::is_active(),
        _ => false,
    }
}

fn is_open(descriptor: usize) -> bool {
    // SAFETY: F_GETFD only asks.
    i32::try_from(descriptor).is_ok_and(|fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0)
}

impl State {
    fn rescan(&mut self) -> Result<Vec<LibraryInfo>, Error> {
        let generation = objects::generation();
        if generation == self.generation {
            return Ok(Vec::new());
        }
        let unloaded = generation.1 != self.generation.1;
        let mapped = objects::mapped();
        if unloaded {
            let still =
                |hooked: &Hooked| mapped.iter().any(|mapped| hooked.is(mapped)) && hooked.intact();
            self.watched.retain(still);
        }
        let new = self.hook_new(&mapped)?;
        unwind::learn(&mapped, self.own.as_ref());
        self.generation = generation;
        Ok(new.into_iter().map(|id| self.info(id)).collect())
    }

    /// Hooks libraries under test that are not known yet, and watches the other objects. As long as there is no library,
    /// nobody can have anything of one, and the others wait.
    fn hook_new(&mut self, mapped: &[Mapped]) -> Result<Vec<usize>, Error> {
        let (libraries, others): (Vec<_>, Vec<_>) = mapped
            .iter()
            .filter(|mapped| !self.is_known(mapped) && !objects::is_system(&mapped.object))
            .map(|mapped| {
                let matches = |pattern: &Pattern| pattern.matches(&mapped.object);
                (mapped, self.patterns.iter().position(matches))
            })
            .partition(|(_, pattern)| pattern.is_some());
        if libraries.is_empty() && (others.is_empty() || self.libraries.is_empty()) {
            return Ok(Vec::new());
        }
        let areas = objects::areas()?;
        let mut new = Vec::new();
        for (mapped, pattern) in libraries {
            for (matched, pattern) in self.matched.iter_mut().zip(&self.patterns) {
                *matched |= pattern.matches(&mapped.object);
            }
            new.push(self.libraries.len());
            self.hook_library(mapped.clone(), pattern.unwrap_or_default(), &areas)?;
        }
        for (mapped, _) in others {
            self.watch(mapped.clone(), &areas)?;
        }
        Ok(new)
    }

    fn is_known(&self, mapped: &Mapped) -> bool {
        self.own.as_ref().is_some_and(|own| {
            own.object.bias == mapped.object.bias && own.object.path == mapped.object.path
        }) || self
            .libraries
            .iter()
            .chain(&self.watched)
            .any(|hooked| hooked.is(mapped))
    }

    fn hook_library(
        &mut self,
        mapped: Mapped,
        pattern: usize,
        areas: &[Area],
    ) -> Result<(), Error> {
        let id = u16::try_from(self.libraries.len()).unwrap_or(WATCHER);
        if id == WATCHER || !unwind::add_library(mapped.object.start, mapped.object.end) {
            return Err(Error::Full(
                "more than 256 libraries match; use a narrower pattern".to_owned(),
            ));
        }
        objects::pin(&mapped);
        let found = slots::find(&mapped, areas, |_| true)
            .into_iter()
            .filter(by_default)
            .collect();
        let slots = self.patch(id, found, areas)?;
        self.libraries.push(Hooked {
            mapped,
            pattern: Some(pattern),
            slots,
        });
        Ok(())
    }

    fn watch(&mut self, mapped: Mapped, areas: &[Area]) -> Result<(), Error> {
        let guarded = guard::active();
        let found = slots::find(&mapped, areas, |symbol| {
            table::find(symbol).is_some_and(|row| {
                let releases =
                    row.effect.releases() && (guarded || row.effect != Effect::UsableSize);
                releases || fresh::is_given_by(row)
            })
        });
        let slots = self.patch(WATCHER, found, areas)?;
        self.watched.push(Hooked {
            mapped,
            pattern: None,
            slots,
        });
        Ok(())
    }

    /// Points slots at thunks.
    fn patch(
        &mut self,
        library: u16,
        found: Vec<Found>,
        areas: &[Area],
    ) -> Result<Vec<&'static Slot>, Error> {
        let made: Vec<&'static Slot> = found
            .into_iter()
            .map(|found| {
                let (function, symbol) = self.number_for(&found.symbol);
                slot(
                    found.target,
                    found.place,
                    found.value,
                    function,
                    library,
                    symbol,
                )
            })
            .collect();
        let stubs = thunk::stubs(&made)?;
        let places: Vec<_> = made
            .iter()
            .zip(stubs)
            .map(|(slot, stub)| (slot.place, stub))
            .collect();
        slots::store(&places, areas)?;
        Ok(made)
    }

    /// Hooks the slots of `function` that are left alone otherwise (tables of the library's own functions, addresses of
    /// functions of the Python C API), in one library or all.
    pub(crate) fn hook_on_demand(
        &mut self,
        function: &str,
        library: Option<u16>,
    ) -> Result<(), Error> {
        if table::find(function).is_some_and(|row| row.group != Group::Python) {
            return Ok(()); // `by_default` leaves none of them alone
        }
        let areas = objects::areas()?;
        for id in 0..self.libraries.len() {
            let number = u16::try_from(id).unwrap_or(WATCHER);
            if library.is_some_and(|library| library != number) {
                continue;
            }
            let known: BTreeSet<usize> = self.libraries[id]
                .slots
                .iter()
                .map(|slot| slot.place)
                .collect();
            let same = |symbol: &str| {
                symbol == function || table::find(symbol).is_some_and(|row| row.name == function)
            };
            let mut found = slots::find(&self.libraries[id].mapped, &areas, same);
            found.retain(|found| !known.contains(&found.place));
            let slots = self.patch(number, found, &areas)?;
            self.libraries[id].slots.extend(slots);
        }
        Ok(())
    }

    fn info(&self, id: usize) -> LibraryInfo {
        let hooked = &self.libraries[id];
        let object = &hooked.mapped.object;
        LibraryInfo {
            id: u16::try_from(id).unwrap_or(WATCHER),
            path: object.path.clone(),
            pattern: hooked.pattern.unwrap_or_default(),
            build_id: object.build_id.clone(),
            bias: object.bias,
            start: object.start,
            end: object.end,
            slots: hooked.slots.len(),
            functions: hooked
                .slots
                .iter()
                .map(|slot| slot.function)
                .collect::<BTreeSet<_>>()
                .len(),
        }
    }

    /// Slots of the libraries under test.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &'static Slot> + '_ {
        self.libraries
            .iter()
            .flat_map(|hooked| hooked.slots.iter().copied())
    }

    /// The number of a function by any of its names, if it is in the table or some library under test calls it.
    pub(crate) fn number(&self, function: &str) -> Option<u16> {
        table::row(function).or_else(|| self.numbers.get(function).copied())
    }

    fn number_for(&mut self, symbol: &str) -> (u16, &'static str) {
        if let Some(row) = table::row(symbol) {
            return (row, table::symbol_name(symbol));
        }
        if let Some((name, number)) = self.numbers.get_key_value(symbol) {
            return (*number, name);
        }
        let name: &'static str = Box::leak(symbol.to_owned().into_boxed_str());
        let number = u16::try_from(table::all().len() + self.names.len()).unwrap_or(u16::MAX);
        self.names.push(name);
        self.numbers.insert(name, number);
        (number, name)
    }

    /// A function's name by its number.
    pub(crate) fn name(&self, function: u16) -> &'static str {
        let number = usize::from(function);
        match table::all().get(number) {
            Some(row) => row.name,
            None => self
                .names
                .get(number - table::all().len())
                .copied()
                .unwrap_or("?"),
        }
    }

    fn function_names(&self) -> Vec<String> {
        let names: BTreeSet<&str> = self.slots().map(|slot| self.name(slot.function)).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// The error for a function that nobody knows, with what is near.
    pub(crate) fn unknown(&self, function: &str) -> Error {
        let called: BTreeSet<&str> = self.slots().map(|slot| self.name(slot.function)).collect();
        let known = table::all()
            .iter()
            .map(|row| row.name)
            .filter(|name| !called.contains(name));
        let mut near = table::near(function, called.iter().copied());
        near.extend(table::near(function, known));
        near.truncate(5);
        Error::UnknownFunction {
            name: function.to_owned(),
            near,
        }
    }
}

/// Which slots of a library under test are hooked at once; the others on demand. Left alone are tables that hold the
/// library's own functions (C++ virtual tables are full of them), and addresses in the Python C API, which the interpreter compares.
fn by_default(found: &Found) -> bool {
    let row = table::find(&found.symbol);
    let python = found.symbol.starts_with("Py") || found.symbol.starts_with("_Py");
    if python {
        return !found.address && row.is_none_or(|row| row.group == Group::Python);
    }
    !(found.data && found.own) || row.is_some()
}

/// Makes locks free in forked children.
fn watch_forks() -> Result<(), Error> {
    extern "C" fn prepare() {
        STATE.hold();
        thunk::hold();
        plan::hold();
        mock::hold();
        guard::hold();
        ledger::hold();
        before::hold();
        reuse::hold();
    }
    extern "C" fn done() {
        reuse::release();
        before::release();
        ledger::release();
        guard::release();
        mock::release();
        plan::release();
        thunk::release();
        STATE.release();
    }
    extern "C" fn child() {
        sys::forked();
        done();
    }
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        // SAFETY: the handlers only touch atomics, and this object is pinned.
        let code = unsafe { libc::pthread_atfork(Some(prepare), Some(done), Some(child)) };
        if code != 0 {
            result = Err(Error::System("registering fork handlers".to_owned(), code));
        }
    });
    result
}

/// Switches counting, ledger entries, failures and replacements on or off for the calling thread; on at first.
/// Returns how it was. Releases are noted all the same.
pub fn set_enabled(enabled: bool) -> bool {
    sys::set_enabled(enabled)
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
