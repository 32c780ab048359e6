//! The one routine that every redirected call goes through, and the stubs that lead to it.
//!
//! A slot holds the address of its stub. The stub loads the address of the [`Slot`] into r11, which the calling
//! convention leaves to such code, and jumps to the thunk. The thunk keeps every register that can carry an
//! argument of any function (rdi rsi rdx rcx r8 r9, rax for variadic calls, r10, xmm0-7), asks [`before`], and then
//!
//! - restores them and jumps to the target: the callee returns to the caller and sees its stack arguments, or
//! - returns the value that `before` chose, or
//! - restores them, calls the target, and lets [`after`] look at the result (only for functions in the table
//!   whose arguments all travel in registers).
//!
//! Objects that are only watched for what they release go through a filter first, which looks the block up in
//! [`crate::ledger::filter`] and leaves for the target at once when nobody under test can hold it.
//!
//! The frame is described by CFI, so unwinders, exceptions and thread cancellation pass through it. Pages of stubs
//! are never writable and executable at once, and are never given back: libraries copy pointers.

use std::{
    arch::global_asm,
    mem::offset_of,
    sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering},
};

use crate::{
    Error, dispatch,
    ledger::{self, Entry},
    lock::Lock,
    sys::{self, PAGE},
    table::Effect,
};

/// [`Slot::library`] of objects that are not under test: only releases are watched there.
pub(crate) const WATCHER: u16 = u16::MAX;

/// A place where an object keeps the address of a function it calls. Never freed.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// Where calls go on to.
    pub(crate) target: AtomicUsize,
    /// Calls counted.
    pub(crate) calls: AtomicU64,
    /// Code that takes the target's place, or 0.
    pub(crate) replacement: AtomicUsize,
    /// Calls that went there.
    pub(crate) replaced: AtomicU64,
    /// Which library makes the calls, or [`WATCHER`].
    pub(crate) caller: AtomicU16,
    /// Number of the function: its row, or a number past the table for others.
    pub(crate) function: u16,
    /// Its row's effect.
    pub(crate) effect: Effect,
    /// Calls of it pass by when their block is nobody's ([`crate::ledger::filter`]).
    pub(crate) filtered: bool,
    /// Address of the word that is redirected; 0 if the stub was handed out by a lookup.
    pub(crate) place: usize,
    /// What the word held.
    pub(crate) original: usize,
    /// The symbol.
    pub(crate) symbol: &'static str,
}

impl Slot {
    /// Which library makes the calls, or [`WATCHER`].
    #[inline]
    pub(crate) fn library(&self) -> u16 {
        self.caller.load(Ordering::Relaxed)
    }
}

/// Pass the call on to [`Frame::target`].
pub(crate) const PASS: usize = 0;
/// Return [`Frame::result`].
pub(crate) const RETURN: usize = 1;
/// Call [`Frame::target`], then [`after`].
pub(crate) const CALL: usize = 2;

/// The registers of a call, and what `before` leaves for `after`.
#[derive(Debug)]
#[repr(C, align(16))]
pub(crate) struct Frame {
    /// rdi rsi rdx rcx r8 r9. Followed by `xmm`, as in the register save area of a `va_list`.
    pub(crate) arguments: [usize; 6],
    pub(crate) xmm: [[u64; 2]; 8],
    pub(crate) rax: usize,
    pub(crate) r10: usize,
    pub(crate) slot: usize,
    pub(crate) target: usize,
    pub(crate) result: usize,
    pub(crate) result_high: usize,
    pub(crate) note: Note,
    /// The caller's frame pointer.
    pub(crate) rbp: usize,
    /// Return address: the call site.
    pub(crate) site: usize,
}

/// What `before` leaves for `after`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Note {
    /// Bits of `dispatch`.
    pub(crate) flags: usize,
    pub(crate) entry: Entry,
    pub(crate) words: [usize; 4],
    /// A `va_list`, with the register save area it points to.
    pub(crate) list: [usize; 3],
    pub(crate) saved: [usize; 22],
}

impl Frame {
    /// The stack pointer as the caller left it: its stack arguments begin here.
    pub(crate) fn caller_stack(&self) -> usize {
        (&raw const *self) as usize + size_of::<Self>()
    }
}

/// Bytes below the saved frame pointer.
const ROOM: usize = offset_of!(Frame, rbp);
const _: () = assert!(ROOM.is_multiple_of(16) && offset_of!(Frame, xmm) == 48);

global_asm!(
    ".text",
    ".p2align 6",
    ".globl clib_hook_thunk",
    ".hidden clib_hook_thunk",
    ".type clib_hook_thunk, @function",
    "clib_hook_thunk:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "sub rsp, {room}",
    "mov [rsp], rdi",
    "mov [rsp + 8], rsi",
    "mov [rsp + 16], rdx",
    "mov [rsp + 24], rcx",
    "mov [rsp + 32], r8",
    "mov [rsp + 40], r9",
    "movaps [rsp + 48], xmm0",
    "movaps [rsp + 64], xmm1",
    "movaps [rsp + 80], xmm2",
    "movaps [rsp + 96], xmm3",
    "movaps [rsp + 112], xmm4",
    "movaps [rsp + 128], xmm5",
    "movaps [rsp + 144], xmm6",
    "movaps [rsp + 160], xmm7",
    "mov [rsp + {rax}], rax",
    "mov [rsp + {r10}], r10",
    "mov [rsp + {slot}], r11",
    "mov rdi, r11",
    "mov rsi, rsp",
    "call {before}",
    "cmp eax, 1",
    "je 2f",
    // Registers as the caller left them (or as `before` changed them).
    "mov rdi, [rsp]",
    "mov rsi, [rsp + 8]",
    "mov rdx, [rsp + 16]",
    "mov rcx, [rsp + 24]",
    "mov r8, [rsp + 32]",
    "mov r9, [rsp + 40]",
    "movaps xmm0, [rsp + 48]",
    "movaps xmm1, [rsp + 64]",
    "movaps xmm2, [rsp + 80]",
    "movaps xmm3, [rsp + 96]",
    "movaps xmm4, [rsp + 112]",
    "movaps xmm5, [rsp + 128]",
    "movaps xmm6, [rsp + 144]",
    "movaps xmm7, [rsp + 160]",
    "mov r10, [rsp + {r10}]",
    "mov r11, [rsp + {target}]",
    "ja 3f",
    "mov rax, [rsp + {rax}]",
    ".cfi_remember_state",
    "leave",
    ".cfi_def_cfa rsp, 8",
    "jmp r11",
    ".cfi_restore_state",
    "3:",
    "mov rax, [rsp + {rax}]",
    "call r11",
    "mov [rsp + {result}], rax",
    "mov [rsp + {high}], rdx",
    "mov rdi, [rsp + {slot}]",
    "mov rsi, rsp",
    "call {after}",
    "2:",
    "mov rax, [rsp + {result}]",
    "mov rdx, [rsp + {high}]",
    ".cfi_remember_state",
    "leave",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_restore_state",
    ".cfi_endproc",
    // The same for functions that release or resize a block, and take no variable arguments: rax is free. Most blocks are nobody's.
    ".p2align 5",
    ".globl clib_hook_filter",
    ".hidden clib_hook_filter",
    "clib_hook_filter:",
    ".cfi_startproc",
    "mov r10, rdi",
    "shr r10, 4",
    "movzx r10d, r10w",
    "lea rax, [rip + {counters}]",
    "cmp byte ptr [rax + r10], 0",
    "jne clib_hook_thunk",
    "cmp qword ptr [rip + {loading}], 0",
    "jne clib_hook_thunk",
    "jmp [r11 + {slot_target}]",
    ".cfi_endproc",
    ".globl clib_hook_thunk_end",
    ".hidden clib_hook_thunk_end",
    "clib_hook_thunk_end:",
    ".size clib_hook_thunk, . - clib_hook_thunk",
    room = const ROOM,
    rax = const offset_of!(Frame, rax),
    r10 = const offset_of!(Frame, r10),
    slot = const offset_of!(Frame, slot),
    target = const offset_of!(Frame, target),
    result = const offset_of!(Frame, result),
    high = const offset_of!(Frame, result_high),
    before = sym before,
    after = sym after,
    counters = sym ledger::filter::COUNTERS,
    loading = sym dispatch::LOADING,
    slot_target = const offset_of!(Slot, target),
);

unsafe extern "C" {
    fn clib_hook_thunk();
    fn clib_hook_filter();
    fn clib_hook_thunk_end();
}

/// Decides about a call; see [`dispatch::before`].
extern "C" fn before(slot: &'static Slot, frame: &mut Frame) -> usize {
    let action = dispatch::before(slot, frame);
    #[cfg(test)]
    tests::spoil_registers();
    action
}

/// Looks at a call's result; see [`dispatch::after`].
extern "C" fn after(slot: &'static Slot, frame: &mut Frame) {
    dispatch::after(slot, frame);
}

const STUB: usize = 32;

/// Held while stubs are made.
static MAKING: Lock<()> = Lock::new(());

/// Address space for stubs: room for two million.
const STUBS: usize = 64 << 20;

/// Where they are, and how much of it is used.
static START: AtomicUsize = AtomicUsize::new(0);
static USED: AtomicUsize = AtomicUsize::new(0);

/// Whether `address` is in the thunk or a stub.
pub(crate) fn contains(address: usize) -> bool {
    let thunk = clib_hook_thunk as unsafe extern "C" fn() as usize
        ..clib_hook_thunk_end as unsafe extern "C" fn() as usize;
    thunk.contains(&address) || in_stub(address)
}

/// Whether `address` is in a stub, where the stack is still as the caller left it.
pub(crate) fn in_stub(address: usize) -> bool {
    let start = START.load(Ordering::Acquire);
    start != 0 && address.wrapping_sub(start) < USED.load(Ordering::Acquire)
}

/// Makes a stub for each slot, in order, and returns their addresses.
///
/// # Errors
///
/// [`Error::System`] when memory or protections cannot be had.
pub(crate) fn stubs(slots: &[&'static Slot]) -> Result<Vec<usize>, Error> {
    let mut addresses = Vec::with_capacity(slots.len());
    if slots.is_empty() {
        return Ok(addresses);
    }
    let size = (STUB * (slots.len() + 1)).next_multiple_of(PAGE);
    let _making = MAKING.lock();
    if START.load(Ordering::Relaxed) == 0 {
        let start = sys::map(STUBS).ok_or_else(|| Error::last_os("mapping room for thunks"))?;
        START.store(start, Ordering::Release);
    }
    let used = USED.load(Ordering::Relaxed);
    if used + size > STUBS {
        let why = "no room for more thunks: too many sessions or libraries in one process";
        return Err(Error::Full(why.to_owned()));
    }
    // Pages of their own, which nobody executes yet.
    let start = START.load(Ordering::Relaxed) + used;
    // The addresses of the thunk and of its filter come first, then the stubs.
    let target = clib_hook_thunk as unsafe extern "C" fn() as usize;
    write(start, &target.to_ne_bytes());
    let filter = clib_hook_filter as unsafe extern "C" fn() as usize;
    write(start + 8, &filter.to_ne_bytes());
    for (number, slot) in slots.iter().enumerate() {
        let at = start + STUB * (number + 1);
        let target = if slot.filtered { start + 8 } else { start };
        write(at, &code(at, target, (&raw const **slot) as usize));
        addresses.push(at);
    }
    sys::protect(start, size, libc::PROT_READ | libc::PROT_EXEC)?;
    USED.store(used + size, Ordering::Release);
    Ok(addresses)
}

fn write(at: usize, bytes: &[u8]) {
    // SAFETY: `stubs` mapped this page writable a moment ago, nobody else knows it yet, and stubs do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
}

/// `endbr64; movabs r11, slot; jmp [target]`, where the address of the thunk or its filter stands at `target`.
fn code(at: usize, target: usize, slot: usize) -> [u8; STUB] {
    let mut code = [0xcc; STUB];
    code[..4].copy_from_slice(&[0xf3, 0x0f, 0x1e, 0xfa]);
    code[4..6].copy_from_slice(&[0x49, 0xbb]);
    code[6..14].copy_from_slice(&slot.to_ne_bytes());
    code[14..16].copy_from_slice(&[0xff, 0x25]);
    let distance = i32::try_from(target.wrapping_sub(at + 20).cast_signed()).unwrap_or_default();
    code[16..20].copy_from_slice(&distance.to_ne_bytes());
    code
}

/// Takes the lock before a fork.
pub(crate) fn hold() {
    MAKING.hold();
}

/// Gives it back in both processes.
pub(crate) fn release() {
    MAKING.release();
}

#[cfg(test)]
mod tests {
    use std::arch::asm;

    use super::*;

    /// Overwrites every register that a callee may change, so that what the thunk does not restore is lost for sure.
    pub(super) fn spoil_registers() {
        // SAFETY: writes registers only, and says which.
        unsafe {
            asm!(
                "mov rdi, -1", "mov rsi, -1", "mov rdx, -1", "mov rcx, -1", "mov r8, -1", "mov r9, -1", "mov r10, -1",
                "pcmpeqd xmm0, xmm0", "pcmpeqd xmm1, xmm1", "pcmpeqd xmm2, xmm2", "pcmpeqd xmm3, xmm3",
                "pcmpeqd xmm4, xmm4", "pcmpeqd xmm5, xmm5", "pcmpeqd xmm6, xmm6", "pcmpeqd xmm7, xmm7",
                out("rdi") _, out("rsi") _, out("rdx") _, out("rcx") _, out("r8") _, out("r9") _, out("r10") _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            );
        }
    }

    type Many = extern "C" fn(
        i64,
        i64,
        i64,
        i64,
        i64,
        i64,
        f64,
        f64,
        f64,
        f64,
        f64,
        f64,
        f64,
        f64,
        i64,
        f64,
    ) -> f64;

    /// Six words, eight numbers, and one of each on the stack.
    extern "C" fn many(
        a: i64,
        b: i64,
        c: i64,
        d: i64,
        e: i64,
        f: i64,
        g: f64,
        h: f64,
        i: f64,
        j: f64,
        k: f64,
        l: f64,
        m: f64,
        n: f64,
        o: i64,
        p: f64,
    ) -> f64 {
        let words = [a, b, c, d, e, f, o];
        assert_eq!(words, [1, 2, 3, 4, 5, 6, 7]);
        [p, n, m, l, k, j, i, h, g]
            .iter()
            .fold(0.0, |sum, number| sum * 10.0 + number)
    }

    fn stub(target: usize, effect: Effect) -> usize {
        let slot: &'static Slot = Box::leak(Box::new(Slot {
            target: AtomicUsize::new(target),
            calls: AtomicU64::new(0),
            replacement: AtomicUsize::new(0),
            replaced: AtomicU64::new(0),
            caller: AtomicU16::new(0),
            function: u16::MAX,
            effect,
            filtered: false,
            place: 0,
            original: 0,
            symbol: "many",
        }));
        stubs(&[slot]).expect("a stub")[0]
    }

    #[test]
    fn every_argument_passes() {
        let address = stub(many as *const () as usize, Effect::None);
        assert!(contains(address) && in_stub(address) && !contains(many as *const () as usize));
        // SAFETY: the stub passes the call on to a function of that type.
        let through: Many = unsafe { std::mem::transmute(address) };
        let result = through(
            1, 2, 3, 4, 5, 6, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 7, 9.0,
        );
        assert!((result - 987_654_321.0).abs() < 1e-6, "{result}");
    }

    extern "C" fn six(a: i64, b: i64, c: i64, d: i64, e: i64, f: i64) -> i64 {
        assert_eq!([a, b, c, d, e, f], [-1, 2, 3, 4, 5, 6]);
        -9
    }

    #[test]
    fn a_watched_call_gets_its_arguments_and_gives_its_result() {
        let address = stub(six as *const () as usize, Effect::DuplicateOnto);
        // SAFETY: the stub calls a function of that type.
        let through: extern "C" fn(i64, i64, i64, i64, i64, i64) -> i64 =
            unsafe { std::mem::transmute(address) };
        assert_eq!(through(-1, 2, 3, 4, 5, 6), -9, "called, and looked at");
    }
}
