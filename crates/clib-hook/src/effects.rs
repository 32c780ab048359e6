//! What calls open and close, noted in the ledger: the part of a hook that depends on the function's [`Effect`].
//!
//! A release is noted before it happens: afterwards the same address or number may already belong to someone else.

use crate::{
    dispatch, fresh, guard, ledger,
    ledger::{Entry, Kind},
    plan, record, reuse, session, sys,
    table::{Effect, Size},
    thunk::{CALL, Frame, PASS, RETURN, Slot},
    unwind,
};

unsafe extern "C" {
    fn vasprintf(
        text: *mut *mut libc::c_char,
        format: *const libc::c_char,
        list: *mut libc::c_void,
    ) -> i32;
    fn __vasprintf_chk(
        text: *mut *mut libc::c_char,
        flag: i32,
        format: *const libc::c_char,
        list: *mut libc::c_void,
    ) -> i32;
}

/// `Note::words[0]` when `Note::entry` holds what was taken out of the ledger.
const TAKEN: usize = 1;

/// Before a call with an effect. `noted`: whether what it acquires is to be noted. Returns what the thunk does next.
pub(crate) fn before(slot: &'static Slot, frame: &mut Frame, noted: bool) -> usize {
    let first = frame.arguments[0];
    frame.note.words[0] = 0;
    match slot.effect {
        Effect::None => PASS,
        Effect::Free => free(slot, frame, first),
        Effect::Allocate(size) => allocate(slot, frame, size, noted),
        Effect::AllocateAt(_, size) => allocate_at(slot, frame, size, noted),
        Effect::Reallocate(size) => reallocate(slot, frame, size, noted),
        Effect::Line => line(slot, frame, noted),
        Effect::Format(fixed) => format(frame, fixed, noted),
        Effect::UsableSize => match guard::usable_size(first) {
            Some(size) => returns(frame, size),
            None => PASS,
        },
        Effect::Open
        | Effect::OpenPair(_)
        | Effect::OpenStream
        | Effect::OpenDirectory
        | Effect::Receive
        | Effect::ReceiveMany
        | Effect::Attach => call_if(noted),
        Effect::Control => {
            let duplicates = [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC]
                .into_iter()
                .any(|known| sys::int(frame.arguments[1]) == known);
            call_if(noted && duplicates)
        }
        Effect::DuplicateOnto => CALL,
        Effect::Close => {
            ledger::remove(Kind::Descriptor, descriptor(first));
            PASS
        }
        Effect::CloseStream | Effect::CloseDirectory => {
            close_stream(slot.effect, first);
            PASS
        }
        Effect::ReopenStream => {
            close_stream(Effect::CloseStream, frame.arguments[2]);
            call_if(noted)
        }
        Effect::CloseRange => {
            close_range(slot, frame);
            PASS
        }
        Effect::Map => {
            if sys::int(frame.arguments[3]) & libc::MAP_FIXED != 0 {
                ledger::cut_range(first, pages(frame.arguments[1]));
            }
            call_if(noted)
        }
        Effect::Unmap => {
            ledger::cut_range(first, pages(frame.arguments[1]));
            PASS
        }
        Effect::Remap => take_range(frame, first, noted),
        Effect::Detach => {
            ledger::take_range(first);
            PASS
        }
        Effect::Exit => {
            if noted {
                record::note_exit(slot, frame);
            }
            PASS
        }
        Effect::Load => {
            dispatch::loading();
            PASS
        }
        // With RTLD_DEFAULT or RTLD_NEXT the answer depends on who asks, so that must stay the caller.
        Effect::Lookup => {
            call_if(first != libc::RTLD_DEFAULT as usize && first != libc::RTLD_NEXT as usize)
        }
    }
}

/// After a call whose result is looked at.
pub(crate) fn after(slot: &'static Slot, frame: &mut Frame, noted: bool) {
    let result = frame.result;
    match slot.effect {
        Effect::Allocate(_) | Effect::AllocateAt(..) if !noted => clear(slot, frame),
        Effect::Allocate(size) if result != 0 && !frame.arguments[..2].contains(&result) => {
            frame.result = note_block(slot, frame, size, result);
        }
        Effect::AllocateAt(argument, size)
            if sys::int(result) >= 0 && !(sys::int(result) > 0 && succeeds_with_zero(slot)) =>
        {
            let block = deref(frame.arguments[usize::from(argument)]);
            if block != 0 {
                note_block(slot, frame, size, block);
            }
        }
        Effect::Format(_) if sys::int(result) >= 0 => {
            // The call went to the `va_list` form with other arguments; the first is the same.
            let block = deref(frame.arguments[0]);
            note(slot, frame, Kind::Memory, block, descriptor(result) + 1);
        }
        Effect::Reallocate(size) => reallocated(slot, frame, size, noted),
        Effect::Line => line_done(slot, frame, noted),
        Effect::Open => note_descriptor(slot, frame, result),
        Effect::OpenPair(argument) if sys::int(result) == 0 => {
            let pair = deref(frame.arguments[usize::from(argument)]);
            note_descriptor(slot, frame, pair & 0xffff_ffff);
            note_descriptor(slot, frame, pair >> 32);
        }
        Effect::OpenStream | Effect::ReopenStream if result != 0 => {
            note_descriptor(slot, frame, stream_descriptor(result));
        }
        Effect::OpenDirectory if result != 0 => {
            note_descriptor(slot, frame, directory_descriptor(result));
        }
        Effect::Control => note_descriptor(slot, frame, result),
        Effect::DuplicateOnto
            if sys::int(result) >= 0 && descriptor(frame.arguments[0]) != descriptor(result) =>
        {
            ledger::remove(Kind::Descriptor, descriptor(result));
            if noted {
                note_descriptor(slot, frame, result);
            }
        }
        Effect::Receive if result.cast_signed() >= 0 => {
            received(slot, frame, frame.arguments[1]);
        }
        Effect::ReceiveMany => {
            received_many(slot, frame, sys::int(result));
        }
        Effect::Map if result != usize::MAX => {
            note_range(slot, frame, result, frame.arguments[1]);
        }
        Effect::Attach if result != usize::MAX => {
            note_range(slot, frame, result, segment_size(frame.arguments[0]));
        }
        Effect::Remap => remapped(slot, frame, noted),
        Effect::Lookup => {
            if let Some(stub) = session::watched_lookup(result) {
                frame.result = stub;
            }
        }
        _ => {}
    }
}

/// What another object was given.
fn clear(slot: &Slot, frame: &Frame) {
    if !fresh::is_wanted(slot) {
        return;
    }
    match slot.effect {
        Effect::AllocateAt(argument, _) if sys::int(frame.result) == 0 => {
            fresh::clear(deref(frame.arguments[usize::from(argument)]), 0);
        }
        Effect::Allocate(_) => fresh::clear(frame.result, 0),
        _ => {}
    }
}

fn call_if(wanted: bool) -> usize {
    if wanted { CALL } else { PASS }
}

fn returns(frame: &mut Frame, value: usize) -> usize {
    frame.result = value;
    frame.result_high = 0;
    RETURN
}

/// A descriptor argument or result: the low half of a register.
fn descriptor(register: usize) -> usize {
    register & 0xffff_ffff
}

fn pages(size: usize) -> usize {
    size.checked_next_multiple_of(sys::PAGE)
        .unwrap_or(usize::MAX)
}

/// The word that an out-argument points to.
fn deref(argument: usize) -> usize {
    if argument == 0 {
        return 0;
    }
    // SAFETY: the call that was given this pointer has just used it: it succeeded, or is about to.
    unsafe { (argument as *const usize).read_unaligned() }
}

fn text_length(text: usize) -> usize {
    // SAFETY: the call returned (or was given) this C string a moment ago.
    unsafe { libc::strlen(text as *const libc::c_char) }
}

/// `posix_memalign` and `getaddrinfo` return 0 for success, `asprintf` and `scandir` a count.
fn succeeds_with_zero(slot: &Slot) -> bool {
    dispatch::function(slot)
        .is_some_and(|function| !matches!(function.failure, crate::table::Failure::MinusOne))
}

/// Size of a block from the call's arguments, `block` itself where only it tells.
fn block_size(frame: &Frame, size: Size, block: usize) -> usize {
    match size {
        Size::Arg(argument) => frame.arguments[usize::from(argument)],
        Size::Product(a, b) => {
            frame.arguments[usize::from(a)].saturating_mul(frame.arguments[usize::from(b)])
        }
        Size::String => text_length(block) + 1,
        Size::Unknown => 0,
    }
}

/// An entry for something that the call of `frame` acquired.
fn entry(slot: &Slot, frame: &Frame, size: usize) -> Entry {
    let stack = unwind::call_stack(frame);
    ledger::entry(slot.function, slot.library(), frame.site, stack, size)
}

fn note(slot: &Slot, frame: &Frame, kind: Kind, key: usize, size: usize) {
    if kind == Kind::Memory {
        ledger::count_bytes(size as u64);
    }
    ledger::insert(kind, key, entry(slot, frame, size));
}

/// Notes a block that the call of `frame` was given, or another one in its place, which it returns.
fn note_block(slot: &Slot, frame: &mut Frame, size: Size, mut block: usize) -> usize {
    let bytes = |frame: &Frame, block| block_size(frame, size, block);
    if reuse::is_old(block, bytes(frame, block)) {
        block = reuse::renew(slot, frame, block, bytes);
    }
    note(slot, frame, Kind::Memory, block, bytes(frame, block));
    block
}

fn note_descriptor(slot: &Slot, frame: &Frame, result: usize) {
    if sys::int(result) >= 0 {
        note(slot, frame, Kind::Descriptor, descriptor(result), 0);
    }
}

fn note_range(slot: &Slot, frame: &Frame, start: usize, size: usize) {
    ledger::insert_range(start, pages(size), entry(slot, frame, size));
}

fn allocate(slot: &Slot, frame: &mut Frame, size: Size, noted: bool) -> usize {
    if !noted || !guard::active() {
        return call_if(noted || fresh::is_wanted(slot));
    }
    match guard::allocate_for(slot, frame, size) {
        Some(block) => {
            note(
                slot,
                frame,
                Kind::Memory,
                block,
                guard::usable_size(block).unwrap_or(0),
            );
            returns(frame, block)
        }
        None => CALL,
    }
}

fn allocate_at(slot: &Slot, frame: &mut Frame, size: Size, noted: bool) -> usize {
    if noted
        && guard::active()
        && let Some(block) = guard::allocate_at_for(slot, frame, size)
    {
        note(
            slot,
            frame,
            Kind::Memory,
            block,
            guard::usable_size(block).unwrap_or(0),
        );
        return returns(frame, 0);
    }
    call_if(noted || fresh::is_wanted(slot))
}

fn free(slot: &Slot, frame: &mut Frame, block: usize) -> usize {
    if block == 0 {
        return PASS;
    }
    if ledger::remove(Kind::Memory, block).is_some() {
        reuse::released(block);
    }
    if guard::owns(block) {
        guard::free(block, unwind::call_stack_of(slot, frame));
        return returns(frame, 0);
    }
    PASS
}

fn reallocate(slot: &Slot, frame: &mut Frame, size: Size, noted: bool) -> usize {
    let block = frame.arguments[0];
    if guard::owns(block) || (noted && block == 0 && guard::active()) {
        return guarded_reallocate(slot, frame, size, noted);
    }
    match ledger::remove(Kind::Memory, block).filter(|_| block != 0) {
        Some(entry) => {
            frame.note.entry = entry;
            frame.note.words[0] = TAKEN;
            CALL
        }
        None if fresh::is_wanted(slot) => {
            frame.note.words[1] = fresh::room(block);
            CALL
        }
        None => call_if(noted),
    }
}

fn guarded_reallocate(slot: &Slot, frame: &mut Frame, size: Size, noted: bool) -> usize {
    let block = frame.arguments[0];
    let bytes = block_size(frame, size, block);
    let old = ledger::remove(Kind::Memory, block);
    let stack = unwind::call_stack_of(slot, frame);
    match guard::reallocate(block, bytes, slot.function, stack) {
        Some(0) => returns(frame, 0),
        Some(moved) => {
            match old {
                Some(old) if !noted => ledger::insert(
                    Kind::Memory,
                    moved,
                    Entry {
                        size: bytes as u64,
                        ..old
                    },
                ),
                _ if noted => note(slot, frame, Kind::Memory, moved, bytes),
                _ => {}
            }
            returns(frame, moved)
        }
        None if block == 0 => CALL,
        None => {
            if let Some(old) = old {
                ledger::insert(Kind::Memory, block, old);
            }
            sys::set_errno(libc::ENOMEM);
            returns(frame, 0)
        }
    }
}

/// `realloc` in a library under test makes the block that library's; elsewhere it stays whose it was.
fn reallocated(slot: &Slot, frame: &mut Frame, size: Size, noted: bool) {
    let taken = (frame.note.words[0] == TAKEN).then_some(frame.note.entry);
    let bytes = block_size(frame, size, 0);
    let kept = frame.result == frame.arguments[0] || (frame.result == 0 && bytes != 0);
    if taken.is_some() && !kept {
        reuse::released(frame.arguments[0]);
    }
    match (frame.result, taken) {
        (0, Some(old)) if bytes != 0 => ledger::insert(Kind::Memory, frame.arguments[0], old),
        (0, _) => {}
        (block, None) if noted => frame.result = note_block(slot, frame, size, block),
        (block, Some(_)) if noted => note(slot, frame, Kind::Memory, block, bytes),
        (block, Some(old)) => ledger::insert(
            Kind::Memory,
            block,
            Entry {
                size: bytes as u64,
                ..old
            },
        ),
        (block, None) => {
            if fresh::is_wanted(slot) {
                fresh::clear(block, frame.note.words[1]);
            }
        }
    }
}

/// The C library reallocates the line itself, so it must not be a guarded block.
fn line(slot: &Slot, frame: &mut Frame, noted: bool) -> usize {
    let line = deref(frame.arguments[0]);
    frame.note.words[1] = line;
    if line == 0 {
        return call_if(noted);
    }
    if guard::owns(line) {
        guard::hand_out(
            frame.arguments[0],
            frame.arguments[1],
            unwind::call_stack_of(slot, frame),
        );
    }
    match ledger::remove(Kind::Memory, line) {
        Some(entry) => {
            frame.note.entry = entry;
            frame.note.words[0] = TAKEN;
            CALL
        }
        None => call_if(noted),
    }
}

fn line_done(slot: &Slot, frame: &Frame, noted: bool) {
    let line = deref(frame.arguments[0]);
    let taken = frame.note.words[0] == TAKEN;
    // Even a failed getline may have made a block, which the caller must free.
    if line != 0 && (taken || (noted && frame.note.words[1] == 0)) {
        let entry = if noted {
            entry(slot, frame, deref(frame.arguments[1]))
        } else {
            frame.note.entry
        };
        ledger::insert(Kind::Memory, line, entry);
    }
}

/// `asprintf` may have arguments on the stack, which a second call would lose: it becomes `vasprintf`.
fn format(frame: &mut Frame, fixed: u8, noted: bool) -> usize {
    if !noted {
        return PASS;
    }
    for (at, register) in frame.arguments.iter().enumerate() {
        frame.note.saved[at] = *register;
    }
    for (at, half) in frame.xmm.as_flattened().iter().enumerate() {
        frame.note.saved[6 + at] = usize::try_from(*half).unwrap_or(0);
    }
    // va_list: offsets of the next general and vector register, the stack arguments, the registers.
    frame.note.list = [
        (usize::from(fixed) * 8) | (48 << 32),
        frame.caller_stack(),
        (&raw const frame.note.saved) as usize,
    ];
    frame.arguments[usize::from(fixed)] = (&raw const frame.note.list) as usize;
    frame.target = if fixed == 2 {
        vasprintf as *const () as usize
    } else {
        __vasprintf_chk as *const () as usize
    };
    CALL
}

fn stream_descriptor(stream: usize) -> usize {
    // SAFETY: the stream was opened by this call, or is about to be closed by it; a bad one would fault there as well.
    descriptor(unsafe { libc::fileno(stream as *mut libc::FILE) }.cast_unsigned() as usize)
}

fn directory_descriptor(directory: usize) -> usize {
    // SAFETY: as above.
    descriptor(unsafe { libc::dirfd(directory as *mut libc::DIR) }.cast_unsigned() as usize)
}

fn close_stream(effect: Effect, stream: usize) {
    if stream == 0 {
        return;
    }
    let errno = sys::errno();
    let descriptor = if effect == Effect::CloseDirectory {
        directory_descriptor(stream)
    } else {
        stream_descriptor(stream)
    };
    sys::set_errno(errno);
    ledger::remove(Kind::Descriptor, descriptor);
}

fn close_range(slot: &Slot, frame: &Frame) {
    const CLOSE_RANGE_CLOEXEC: usize = 4;
    let first = descriptor(frame.arguments[0]);
    let bounded = slot.symbol == "close_range";
    if bounded && descriptor(frame.arguments[2]) & CLOSE_RANGE_CLOEXEC != 0 {
        return;
    }
    let last = if bounded {
        descriptor(frame.arguments[1])
    } else {
        usize::MAX
    };
    ledger::remove_descriptors(first, last);
}

/// The same for an array of messages, of which `count` were received.
fn received_many(slot: &Slot, frame: &Frame, count: i32) {
    for number in 0..usize::try_from(count).unwrap_or(0) {
        let message = frame.arguments[1] + number * size_of::<libc::mmsghdr>();
        received(slot, frame, message);
    }
}

/// Notes the descriptors that came with a message.
fn received(slot: &Slot, frame: &Frame, message: usize) {
    let message = message as *const libc::msghdr;
    // SAFETY: recvmsg has just filled this header; the CMSG functions stay inside the control buffer that it describes.
    unsafe {
        if (*message).msg_control.is_null() {
            return;
        }
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(header);
                let size = (*header)
                    .cmsg_len
                    .saturating_sub(data as usize - header as usize);
                for number in 0..size / 4 {
                    let fd = data.add(number * 4).cast::<i32>().read_unaligned();
                    note_descriptor(slot, frame, descriptor(fd.cast_unsigned() as usize));
                }
                plan::note_passed();
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
}

fn segment_size(segment: usize) -> usize {
    // SAFETY: shmid_ds is plain data, and IPC_STAT fills it or fails.
    unsafe {
        let mut data: libc::shmid_ds = std::mem::zeroed();
        let known = libc::shmctl(sys::int(segment), libc::IPC_STAT, &raw mut data) == 0;
        if known { data.shm_segsz } else { 1 }
    }
}

fn take_range(frame: &mut Frame, start: usize, noted: bool) -> usize {
    match ledger::take_range(start) {
        Some((size, entry)) => {
            frame.note.entry = entry;
            frame.note.words[0] = TAKEN;
            frame.note.words[1] = size;
            CALL
        }
        None => call_if(noted),
    }
}

fn remapped(slot: &Slot, frame: &Frame, noted: bool) {
    let taken = (frame.note.words[0] == TAKEN).then_some(frame.note.entry);
    let size = frame.arguments[2];
    match (frame.result, taken) {
        (usize::MAX, Some(old)) => {
            ledger::insert_range(frame.arguments[0], frame.note.words[1], old);
        }
        (usize::MAX, None) => {}
        (start, _) if noted => note_range(slot, frame, start, size),
        (start, Some(old)) => ledger::insert_range(
            start,
            pages(size),
            Entry {
                size: size as u64,
                ..old
            },
        ),
        (_, None) => {}
    }
}
