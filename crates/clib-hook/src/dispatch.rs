//! What a thunk asks: pass a call on, return at once, or call and look at the result.
//!
//! Everything here runs in the middle of foreign code: no allocation from the C heap, no lock held across the original
//! call, `errno` kept unless the call itself is to change it.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{
    effects, plan, session, sys,
    table::{self, Effect},
    thunk::{CALL, Frame, PASS, RETURN, Slot, WATCHER},
};

/// The effect wants to see the result.
const WATCHED: usize = 1;
/// The result is overridden with `Note::words[2]`, errno `Note::words[3]`.
const OVERRIDDEN: usize = 2;
/// What is acquired is noted.
const NOTED: usize = 4;
/// `Note::list` says what to give back to a message header.
const LENT: usize = 8;

/// How many threads called `dlopen` and have not looked since.
pub(crate) static LOADING: AtomicUsize = AtomicUsize::new(0);

/// What a plan wants of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Return this.
    Return(usize),
    /// Go on with the arguments as changed.
    Changed,
    /// Jump there instead.
    Jump(usize),
    /// Make the call, then return this value with this errno.
    Override(usize, i32),
    /// Make the call, then give the message header its own list of buffers back.
    Lent {
        message: usize,
        vectors: usize,
        count: usize,
    },
}

/// Before the call; see `thunk`.
#[inline]
pub(crate) fn before(slot: &'static Slot, frame: &mut Frame) -> usize {
    frame.target = slot.target.load(Ordering::Relaxed);
    frame.note.flags = 0;
    if LOADING.load(Ordering::Relaxed) != 0 {
        look_again(slot);
    }
    let noted = slot.library() != WATCHER && sys::enabled();
    if noted {
        slot.calls.fetch_add(1, Ordering::Relaxed);
        let replacement = slot.replacement.load(Ordering::Acquire);
        if replacement != 0 {
            slot.replaced.fetch_add(1, Ordering::Relaxed);
            frame.target = replacement;
            return PASS;
        }
        if plan::active()
            && let Some(decision) = plan::consult(slot, frame)
        {
            return decide(decision, slot, frame);
        }
    }
    if slot.effect == Effect::None {
        return PASS;
    }
    let action = effects::before(slot, frame, noted);
    if action == CALL {
        frame.note.flags |= WATCHED | if noted { NOTED } else { 0 };
    }
    action
}

#[cold]
fn decide(decision: Decision, slot: &'static Slot, frame: &mut Frame) -> usize {
    match decision {
        Decision::Return(value) => {
            frame.result = value;
            frame.result_high = 0;
            RETURN
        }
        Decision::Jump(target) => {
            frame.target = target;
            PASS
        }
        Decision::Changed | Decision::Override(..) | Decision::Lent { .. } => {
            let action = if slot.effect == Effect::None {
                PASS
            } else {
                effects::before(slot, frame, true)
            };
            if action == CALL {
                frame.note.flags |= WATCHED | NOTED;
            }
            if let Decision::Override(value, errno) = decision
                && action != RETURN
            {
                frame.note.flags |= OVERRIDDEN;
                frame.note.words[2] = value;
                frame.note.words[3] = usize::try_from(errno).unwrap_or(0);
                return CALL;
            }
            if let Decision::Lent {
                message,
                vectors,
                count,
            } = decision
            {
                frame.note.flags |= LENT;
                frame.note.list = [message, vectors, count];
                return CALL;
            }
            action
        }
    }
}

/// After the call; see `thunk`.
pub(crate) fn after(slot: &'static Slot, frame: &mut Frame) {
    let errno = sys::errno();
    if frame.note.flags & LENT != 0 {
        let [message, vectors, count] = frame.note.list;
        plan::take_back(message, vectors, count);
    }
    if frame.note.flags & WATCHED != 0 {
        effects::after(slot, frame, frame.note.flags & NOTED != 0);
    }
    if frame.note.flags & OVERRIDDEN != 0 {
        frame.result = frame.note.words[2];
        sys::set_errno(i32::try_from(frame.note.words[3]).unwrap_or(0));
    } else {
        sys::set_errno(errno);
    }
}

/// Objects may have been loaded by a `dlopen` of this thread, which could not be watched to its end because it looks at who
/// called it. The thread's next call comes either after it, or from a constructor, when all objects are mapped.
#[cold]
fn look_again(slot: &'static Slot) {
    if slot.effect != Effect::Load && sys::set_loading(false) {
        LOADING.fetch_sub(1, Ordering::Relaxed);
        let errno = sys::errno();
        session::rescan_from_hook();
        sys::set_errno(errno);
    }
}

/// The calling thread is about to load objects.
pub(crate) fn loading() {
    if !sys::set_loading(true) {
        LOADING.fetch_add(1, Ordering::Relaxed);
    }
}

/// The row of a slot's function.
pub(crate) fn function(slot: &Slot) -> Option<&'static table::Function> {
    table::all().get(usize::from(slot.function))
}
