//! All frames from given registers, believing nothing.

use super::{cfi, known};
use crate::{sys, thunk};

/// Registers by their DWARF numbers: rax rdx rcx rbx rsi rdi rbp rsp r8..r15, and the program counter. `None` is unknown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registers(pub(crate) [Option<usize>; 17]);

const RBP: usize = 6;
const RSP: usize = 7;
const PC: usize = 16;

/// Order of `ucontext_t`'s general registers (r8..r15 rdi rsi rbp rbx rdx rax rcx rsp rip) by DWARF number.
const CONTEXT: [usize; 17] = [13, 12, 14, 11, 9, 8, 10, 15, 0, 1, 2, 3, 4, 5, 6, 7, 16];

impl Registers {
    /// From what a signal handler is given.
    pub(crate) fn from_context(context: &libc::ucontext_t) -> Self {
        Self(CONTEXT.map(|at| {
            Some(usize::from_ne_bytes(
                context.uc_mcontext.gregs[at].to_ne_bytes(),
            ))
        }))
    }

    pub(crate) fn pc(&self) -> usize {
        self.0[PC].unwrap_or(0)
    }
}

/// Writes the program counter and then return addresses outwards to `into`; returns how many.
///
/// Each is also given to `found` with its number at once, so that a fault on the way loses only what was not reached.
pub(crate) fn walk(
    start: Registers,
    into: &mut [usize],
    mut found: impl FnMut(usize, usize),
) -> usize {
    let mut registers = start;
    let mut exact = true;
    let mut count = 0;
    while count < into.len() {
        let pc = registers.pc();
        if pc == 0 && count > 0 {
            break;
        }
        into[count] = pc;
        found(count, pc);
        count += 1;
        let Some((caller, caller_exact)) = step(&registers, pc, exact, count == 1) else {
            break;
        };
        // The stack only grows towards its base, except across a signal frame (which may be on another stack).
        if !caller_exact && caller.0[RSP] <= registers.0[RSP] {
            break;
        }
        registers = caller;
        exact = caller_exact;
    }
    count
}

/// The caller's registers, and whether its program counter is exact (it was interrupted) or a return address.
fn step(registers: &Registers, pc: usize, exact: bool, first: bool) -> Option<(Registers, bool)> {
    if thunk::in_stub(pc) {
        return leaf(registers).map(|caller| (caller, false));
    }
    if let Some(caller) = signal_frame(registers, pc) {
        return Some((caller, true));
    }
    let lookup = if exact { pc } else { pc.wrapping_sub(1) };
    match known(lookup) {
        Some(known) => {
            if let Some(caller) = cfi::step(known, lookup, &registers.0) {
                return caller[PC].map(|_| (Registers(caller), false));
            }
            // Code without frame information: a frame pointer may help, or nothing was pushed yet.
            frame_pointer(registers)
                .or_else(|| leaf(registers).filter(|_| first))
                .map(|caller| (caller, false))
        }
        // A call through a wild pointer: the caller's return address is on top of the stack. Generated code may keep frame pointers.
        None if first => leaf(registers)
            .filter(|caller| known(caller.pc()).is_some())
            .or_else(|| frame_pointer(registers))
            .map(|caller| (caller, false)),
        None => frame_pointer(registers).map(|caller| (caller, false)),
    }
}

fn leaf(registers: &Registers) -> Option<Registers> {
    let rsp = registers.0[RSP]?;
    let mut caller = *registers;
    caller.0[PC] = Some(sys::read_word(rsp)?);
    caller.0[RSP] = Some(rsp + 8);
    Some(caller)
}

fn frame_pointer(registers: &Registers) -> Option<Registers> {
    let (rbp, rsp) = (registers.0[RBP]?, registers.0[RSP]?);
    if rbp < rsp || rbp - rsp > 1 << 22 || !rbp.is_multiple_of(8) {
        return None;
    }
    let mut caller = *registers;
    caller.0[RBP] = Some(sys::read_word(rbp)?);
    caller.0[PC] = Some(sys::read_word(rbp + 8)?);
    caller.0[RSP] = Some(rbp + 16);
    known(caller.pc()).map(|_| caller)
}

/// The code that a signal handler returns to: `mov rax, 15; syscall`. The interrupted registers lie at the stack pointer.
fn signal_frame(registers: &Registers, pc: usize) -> Option<Registers> {
    const RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
    let mut code = [0; 9];
    if sys::read_memory(pc, &mut code) != 9 || code != RETURN {
        return None;
    }
    let context = registers.0[RSP]?;
    let general = std::mem::offset_of!(libc::ucontext_t, uc_mcontext)
        + std::mem::offset_of!(libc::mcontext_t, gregs);
    let mut caller = *registers;
    for (number, at) in CONTEXT.iter().enumerate() {
        caller.0[number] = sys::read_word(context + general + at * 8);
    }
    Some(caller)
}
