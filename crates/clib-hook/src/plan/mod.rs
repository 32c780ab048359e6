//! Which calls fail, and how: the heart of torture.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::{
    Error, dispatch,
    dispatch::Decision,
    lock::Lock,
    record::{self, Injected, Raw},
    session, sys,
    table::{self, Failure, Function, Group, Partial},
    thunk::{Frame, Slot},
    unwind,
};

mod log;
mod partial;

pub use log::{Event, EventLog};
pub(crate) use partial::take_back;

/// Which calls a plan is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Calls of one function, by any of its names.
    Function(String),
    /// Calls of any fallible function of these groups.
    Groups(Vec<Group>),
}

/// How the chosen call fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Returns the function's failure value with this errno (for `operator new`: throws `std::bad_alloc`). `None`: the likeliest
    /// errno in the function's row.
    Fail(Option<i32>),
    /// Returns this value, with this errno if given; for any function. The call is not made.
    Return(i64, Option<i32>),
    /// Transfers at most this many bytes (at least 1), where the function transfers bytes. A call that asks for no more is
    /// left as it is and does not count as failed.
    Short(usize),
    /// Returns 0, as at the end of a file or connection; for functions that read.
    EndOfFile,
}

/// How often it fails after the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// That call only.
    Once,
    /// That call and those after it that match, this many in all.
    Times(u64),
    /// That call and all later ones that match.
    Forever,
}

/// A planned failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which calls are counted and may fail.
    pub target: Target,
    /// Only calls that return to this address.
    pub site: Option<usize>,
    /// Only calls with this stack hash ([`Event::stack`]).
    pub stack: Option<u64>,
    /// Only calls by the thread that arms the plan.
    pub this_thread: bool,
    /// Only calls by this library ([`crate::LibraryInfo::id`]).
    pub library: Option<u16>,
    /// The first call to fail, from 1, among those that match.
    pub nth: u64,
    /// How.
    pub action: Action,
    /// How often.
    pub repeat: Repeat,
}

impl Plan {
    /// A plan for the `nth` call of `function` to fail once, with the likeliest errno.
    #[must_use]
    pub fn fail(function: &str, nth: u64) -> Self {
        Self {
            target: Target::Function(function.to_owned()),
            site: None,
            stack: None,
            this_thread: false,
            library: None,
            nth,
            action: Action::Fail(None),
            repeat: Repeat::Once,
        }
    }
}

/// An armed plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanId(pub u32);

/// What became of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Calls that matched it. If fewer than [`Plan::nth`], nothing failed.
    pub matched: u64,
    /// Calls that failed.
    pub injected: u64,
    /// The first failure.
    pub first: Option<Injected>,
}

/// A plan as hooks read it: no heap.
#[derive(Debug, Clone, Copy)]
struct Armed {
    id: u32,
    function: Option<u16>,
    groups: u32,
    site: Option<usize>,
    stack: Option<u64>,
    thread: Option<i32>,
    library: Option<u16>,
    /// Numbers of the matching calls that fail: first and last.
    first_call: u64,
    last_call: u64,
    action: What,
    matched: u64,
    injected: u64,
    record: Option<Raw>,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Fail(Option<i32>),
    Return(i64, Option<i32>),
    Short(usize),
    EndOfFile,
}

const MOST: usize = 16;

static ARMED: Lock<[Option<Armed>; MOST]> = Lock::new([None; MOST]);
static NEXT: AtomicU32 = AtomicU32::new(1);
/// Bit 0: calls are logged. Bit 1: plans are armed.
static ACTIVE: AtomicU32 = AtomicU32::new(0);
const LOGGING: u32 = 1;
const PLANNING: u32 = 2;

/// `std::__throw_bad_alloc` and `PyErr_NoMemory`, once something needs them.
static THROW: AtomicUsize = AtomicUsize::new(0);
static NO_MEMORY: AtomicUsize = AtomicUsize::new(0);

/// Whether hooks have to ask at all.
#[inline]
pub(crate) fn active() -> bool {
    ACTIVE.load(Ordering::Relaxed) != 0
}

pub(crate) fn group_bit(group: Group) -> u32 {
    1 << group as u32
}

/// Arms a plan; up to 16 at once. The first armed plan that wants a call to fail decides; all that match count it.
///
/// # Errors
///
/// [`Error::NotStarted`]; [`Error::UnknownFunction`] with what is near; [`Error::BadArgument`] when `nth` is 0, or the action does
/// not suit the function (a short `malloc`, an errno out of 1..=4095); [`Error::Full`].
pub fn arm(plan: &Plan) -> Result<PlanId, Error> {
    let mut armed = check(plan)?;
    armed.id = NEXT.fetch_add(1, Ordering::Relaxed);
    if may_throw(&armed) {
        find_throwers();
    }
    let mut all = ARMED.lock();
    let place = all
        .iter_mut()
        .find(|place| place.is_none())
        .ok_or_else(|| Error::Full(format!("{MOST} plans are armed already; disarm one first")))?;
    *place = Some(armed);
    ACTIVE.fetch_or(PLANNING, Ordering::Release);
    Ok(PlanId(armed.id))
}

/// Disarms a plan and says what became of it; `None` if it was not armed.
pub fn disarm(id: PlanId) -> Option<Outcome> {
    let mut all = ARMED.lock();
    let armed = all
        .iter_mut()
        .find(|place| place.is_some_and(|armed| armed.id == id.0))?
        .take();
    if all.iter().all(Option::is_none) {
        ACTIVE.fetch_and(!PLANNING, Ordering::Release);
    }
    drop(all);
    armed.as_ref().map(Armed::outcome)
}

/// What became of an armed plan so far.
#[must_use]
pub fn outcome(id: PlanId) -> Option<Outcome> {
    let armed = *ARMED
        .lock()
        .iter()
        .flatten()
        .find(|armed| armed.id == id.0)?;
    Some(armed.outcome())
}

pub(crate) fn disarm_all() {
    *ARMED.lock() = [None; MOST];
    log::stop();
    ACTIVE.store(0, Ordering::Release);
}

impl Armed {
    fn outcome(&self) -> Outcome {
        Outcome {
            matched: self.matched,
            injected: self.injected,
            first: self.record.as_ref().map(Raw::injected),
        }
    }
}

/// Turns a plan into what hooks read.
fn check(plan: &Plan) -> Result<Armed, Error> {
    let bad = |why: String| Err(Error::BadArgument(why));
    if plan.nth == 0 {
        return bad("calls are counted from 1: nth must not be 0".to_owned());
    }
    let (function, groups) = match &plan.target {
        Target::Function(name) => {
            let number =
                session::with_state(|state| state.number(name).ok_or_else(|| state.unknown(name)))?;
            session::with_state(|state| state.hook_on_demand(name, plan.library))?;
            check_action(name, table::find(name), &plan.action)?;
            (Some(number), 0)
        }
        Target::Groups(groups) => {
            session::with_state(|_| Ok(()))?;
            if groups.is_empty() {
                return bad("a plan for no group at all".to_owned());
            }
            (
                None,
                groups
                    .iter()
                    .fold(0, |bits, group| bits | group_bit(*group)),
            )
        }
    };
    let more = match plan.repeat {
        Repeat::Once => 0,
        Repeat::Times(0) => {
            return bad("a failure must happen at least once: count must not be 0".to_owned());
        }
        Repeat::Times(times) => times - 1,
        Repeat::Forever => u64::MAX,
    };
    let action = match plan.action {
        Action::Fail(Some(errno)) | Action::Return(_, Some(errno))
            if !(1..=4095).contains(&errno) =>
        {
            return bad(format!("errno {errno} is not between 1 and 4095"));
        }
        Action::Short(0) => {
            return bad("a short count of 0 is an end of file: ask for that".to_owned());
        }
        Action::Fail(errno) => What::Fail(errno),
        Action::Return(value, errno) => What::Return(value, errno),
        Action::Short(most) => What::Short(most),
        Action::EndOfFile => What::EndOfFile,
    };
    Ok(Armed {
        id: 0,
        function,
        groups,
        site: plan.site,
        stack: plan.stack,
        thread: plan.this_thread.then(sys::thread_id),
        library: plan.library,
        first_call: plan.nth,
        last_call: plan.nth.saturating_add(more),
        action,
        matched: 0,
        injected: 0,
        record: None,
    })
}

fn check_action(name: &str, row: Option<&Function>, action: &Action) -> Result<(), Error> {
    let partial = row.map_or(Partial::No, |row| row.partial);
    let suits = match action {
        Action::Return(..) => true,
        Action::Fail(_) => row.is_some_and(Function::fallible),
        Action::Short(_) => partial != Partial::No,
        Action::EndOfFile => matches!(
            partial,
            Partial::Bytes { reads: true, .. }
                | Partial::Vector { reads: true, .. }
                | Partial::Message { reads: true, .. }
        ),
    };
    if suits {
        return Ok(());
    }
    Err(Error::BadArgument(match action {
        Action::Fail(_) if row.is_none() => {
            format!("how {name} fails is not known: say which value it is to return")
        }
        Action::Fail(_) => format!("{name} cannot fail"),
        Action::Short(_) => format!("{name} transfers no bytes, so it cannot be short"),
        _ => format!("{name} does not read, so it cannot meet an end of file"),
    }))
}

/// Whether a failure of the plan may be an exception, of C++ or of Python.
fn may_throw(armed: &Armed) -> bool {
    let row = armed
        .function
        .and_then(|number| table::all().get(usize::from(number)));
    // Of a function without a row it is known which value it returns.
    armed.function.is_none()
        || row.is_some_and(|row| row.failure == Failure::Throw || row.group == Group::Python)
}

/// Finds the functions that such failures are made of, in what is loaded: a look through all of it.
fn find_throwers() {
    for (place, names) in [
        (&THROW, [c"_ZSt17__throw_bad_allocv"].as_slice()),
        (&NO_MEMORY, [c"PyErr_NoMemory"].as_slice()),
    ] {
        for name in names {
            // SAFETY: a lookup by a C string in the global scope.
            let mut found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) } as usize;
            if found == 0 && *name == c"_ZSt17__throw_bad_allocv" {
                // Python loads libraries with local scope, and libstdc++ along with them.
                found = in_loaded(c"libstdc++.so.6", name)
                    .or_else(|| in_loaded(c"libc++.so.1", name))
                    .unwrap_or(0);
            }
            if found != 0 {
                place.store(found, Ordering::Relaxed);
            }
        }
    }
}

fn in_loaded(object: &std::ffi::CStr, symbol: &std::ffi::CStr) -> Option<usize> {
    // SAFETY: RTLD_NOLOAD runs no code; the handle is used for one lookup and given back. The object stays loaded since
    // the libraries that use it are.
    unsafe {
        let handle = libc::dlopen(object.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        if handle.is_null() {
            return None;
        }
        let found = libc::dlsym(handle, symbol.as_ptr()) as usize;
        libc::dlclose(handle);
        Some(found).filter(|found| *found != 0)
    }
}

/// The backtrace of a call, worked out once and only if someone asks.
pub(crate) struct Stack {
    frames: [usize; 16],
    count: usize,
}

impl Stack {
    const fn unknown() -> Self {
        Self {
            frames: [0; 16],
            count: 0,
        }
    }

    fn of(&mut self, frame: &Frame) -> &[usize] {
        if self.count == 0 {
            self.count = unwind::library_frames(frame, 16, &mut self.frames);
        }
        &self.frames[..self.count]
    }

    /// Hash of a call's backtrace that does not depend on where libraries are loaded; never 0.
    pub(crate) fn hash(&mut self, frame: &Frame) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for address in self.of(frame) {
            let (number, start) = unwind::library_at(*address).unwrap_or((usize::MAX, *address));
            for word in [number as u64, address.wrapping_sub(start) as u64] {
                hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                hash ^= hash >> 29;
            }
        }
        hash | 1
    }
}

/// Notes that descriptors came with what the running call received.
pub(crate) fn note_passed() {
    if ACTIVE.load(Ordering::Relaxed) & LOGGING != 0 {
        log::note_passed();
    }
}

/// Asks all plans about a call by a library under test.
#[cold]
pub(crate) fn consult(slot: &'static Slot, frame: &mut Frame) -> Option<Decision> {
    let row = dispatch::function(slot);
    let mut stack = Stack::unknown();
    let fallible = row.is_some_and(Function::fallible);
    let active = ACTIVE.load(Ordering::Acquire);
    if active & LOGGING != 0
        && fallible
        && let Some(row) = row
    {
        log::note(slot, row, frame, &mut stack);
    }
    if active & PLANNING == 0 {
        return None;
    }
    let mut chosen = None;
    let mut all = ARMED.lock();
    for armed in all.iter_mut().flatten() {
        if !armed.matches(slot, row, frame, fallible, &mut stack) {
            continue;
        }
        armed.matched += 1;
        if chosen.is_none() && (armed.first_call..=armed.last_call).contains(&armed.matched) {
            chosen = carry_out(armed, slot, row, frame, &mut stack);
        }
    }
    chosen
}

impl Armed {
    fn matches(
        &self,
        slot: &Slot,
        row: Option<&Function>,
        frame: &Frame,
        fallible: bool,
        stack: &mut Stack,
    ) -> bool {
        let function = match self.function {
            Some(function) => function == slot.function,
            None => fallible && row.is_some_and(|row| self.groups & group_bit(row.group) != 0),
        };
        function
            && self.library.is_none_or(|library| library == slot.library())
            && self.site.is_none_or(|site| site == frame.site)
            && self.thread.is_none_or(|thread| thread == sys::thread_id())
            && self.stack.is_none_or(|wanted| wanted == stack.hash(frame))
    }
}

/// Makes a call fail as planned, or leaves it if it cannot fail that way.
fn carry_out(
    armed: &mut Armed,
    slot: &Slot,
    row: Option<&Function>,
    frame: &mut Frame,
    stack: &mut Stack,
) -> Option<Decision> {
    let (decision, action, errno) = match armed.action {
        What::Return(value, errno) => {
            #[expect(
                clippy::cast_sign_loss,
                clippy::cast_possible_truncation,
                reason = "a register, bit for bit"
            )]
            let value = value as usize;
            (Decision::Return(value), 1, errno.unwrap_or(0))
        }
        What::Fail(errno) => fail(row?, frame, errno)?,
        What::Short(most) => (partial::shorten(row?.partial, frame, most)?, 2, 0),
        What::EndOfFile => (partial::end_of_file(row?.partial, frame)?, 3, 0),
    };
    armed.injected += 1;
    let mut raw = Raw {
        function: row.map_or(slot.symbol, |row| row.name),
        errno,
        action,
        call: armed.matched,
        frames: [0; 16],
        count: 0,
        thread: sys::thread_id(),
    };
    let frames = stack.of(frame);
    raw.frames[..frames.len()].copy_from_slice(frames);
    raw.count = frames.len();
    if armed.record.is_none() {
        armed.record = Some(raw);
    }
    record::note_injection(&raw);
    // Last, since writing records is to leave no trace.
    if errno != 0 && sets_errno(row, armed.action) {
        sys::set_errno(errno);
    }
    Some(decision)
}

fn sets_errno(row: Option<&Function>, action: What) -> bool {
    matches!(action, What::Return(..))
        || row.is_some_and(|row| !matches!(row.failure, Failure::Code | Failure::Throw))
}

/// The failure of a function: what to do, which action it is, and the errno.
fn fail(row: &Function, frame: &Frame, errno: Option<i32>) -> Option<(Decision, u8, i32)> {
    let errno = errno.or_else(|| likeliest(row, frame)).unwrap_or(0);
    let value = match row.failure {
        Failure::Never => return None,
        Failure::Null => 0,
        Failure::MinusOne => usize::MAX,
        Failure::Code => errno.cast_unsigned() as usize,
        Failure::Status(status) => status.cast_unsigned() as usize,
        Failure::Stream(value, argument) => {
            mark_stream(frame.arguments[usize::from(argument)]);
            value.cast_unsigned() as usize
        }
        Failure::Throw => {
            let throw = THROW.load(Ordering::Relaxed);
            return (throw != 0).then_some((Decision::Jump(throw), 4, errno));
        }
        Failure::PythonNull => {
            set_python_error()?;
            0
        }
    };
    let decision = if row.performs {
        Decision::Override(value, errno)
    } else {
        Decision::Return(value)
    };
    Some((decision, 0, errno))
}

/// The errno that suits this call best.
fn likeliest(row: &Function, frame: &Frame) -> Option<i32> {
    if row.effect == table::Effect::Control {
        let command = frame.arguments[1] & 0xffff_ffff;
        let duplicates = [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC]
            .iter()
            .any(|known| known.cast_unsigned() as usize == command);
        return Some(if duplicates {
            libc::EMFILE
        } else {
            libc::EINVAL
        });
    }
    row.errnos.first().copied()
}

/// Sets a stream's error flag, as the failing call would: callers that look at `ferror` must see it.
fn mark_stream(stream: usize) {
    const ERROR_SEEN: i32 = 0x20;
    if stream != 0 {
        // SAFETY: the library passed this stream to a stdio function, which would write to it; glibc's FILE begins with its
        // flags (its public header says so).
        unsafe { *(stream as *mut i32) |= ERROR_SEEN };
    }
}

/// Sets `MemoryError` for the calling thread, which holds the interpreter's lock: it was calling a constructor.
fn set_python_error() -> Option<()> {
    let function = NO_MEMORY.load(Ordering::Relaxed);
    if function == 0 {
        return None;
    }
    // SAFETY: the address is that of `PyObject *PyErr_NoMemory(void)`, looked up by name.
    unsafe { std::mem::transmute::<usize, extern "C" fn() -> usize>(function)() };
    Some(())
}

/// Takes the lock before a fork.
pub(crate) fn hold() {
    ARMED.hold();
}

/// Gives it back in both processes.
pub(crate) fn release() {
    ARMED.release();
}
