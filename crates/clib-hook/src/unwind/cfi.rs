//! Reads `.eh_frame`: which rule holds at an address. Allocates nothing.

use std::slice;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EndianSlice, Expression, LittleEndian, Operation,
    Pointer, Register, RegisterRule, UnwindContext, UnwindContextStorage, UnwindExpression,
    UnwindSection, UnwindTableRow, X86_64,
};

use super::{Known, Rule};
use crate::sys;

type Reader = EndianSlice<'static, LittleEndian>;

/// Storage inside the context, on the stack: signal handlers must not allocate.
pub(super) struct Inline;

impl UnwindContextStorage<usize> for Inline {
    type Rules = [(Register, RegisterRule<usize>); 24];
    type Stack = [UnwindTableRow<usize, Self>; 4];
}

/// Calls `use_row` with the row for `address` in an object, and the section for its expressions.
fn with_row<T>(
    known: Known,
    address: usize,
    use_row: impl FnOnce(&UnwindTableRow<usize, Inline>, &EhFrame<Reader>) -> Option<T>,
) -> Option<T> {
    let (header_at, header_size) = known.header;
    if header_at == 0 {
        return None;
    }
    // SAFETY: the loader's program headers say that these bytes are mapped and read-only; `known` is of an object that was loaded at
    // the last look. (In a signal handler, a fault here is caught as a second fault.)
    let header = unsafe { slice::from_raw_parts(header_at as *const u8, header_size) };
    let bases = BaseAddresses::default().set_eh_frame_hdr(header_at as u64);
    let header = EhFrameHdr::new(header, LittleEndian)
        .parse(&bases, 8)
        .ok()?;
    let Pointer::Direct(frames_at) = header.eh_frame_ptr() else {
        return None;
    };
    let frames_at = usize::try_from(frames_at).ok()?;
    if frames_at < known.start || frames_at >= known.limit {
        return None;
    }
    let bases = bases.set_eh_frame(frames_at as u64);
    // SAFETY: as above; `.eh_frame` lies in the same read-only segment, which ends at `limit`.
    let frames = unsafe { slice::from_raw_parts(frames_at as *const u8, known.limit - frames_at) };
    let frames = EhFrame::new(frames, LittleEndian);
    let mut context: UnwindContext<usize, Inline> = UnwindContext::new_in();
    let row = header
        .table()?
        .unwind_info_for_address(
            &frames,
            &bases,
            &mut context,
            address as u64,
            EhFrame::cie_from_offset,
        )
        .ok()?;
    use_row(row, &frames)
}

/// The rule at `address`, if it is of the simple kind that nearly all are: CFA from rsp or rbp, return address just below it.
pub(super) fn simple_rule(known: Known, address: usize) -> Option<Rule> {
    with_row(known, address, |row, _| {
        let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else {
            return None;
        };
        let from_rbp = *register == X86_64::RBP;
        if !from_rbp && *register != X86_64::RSP {
            return None;
        }
        if !matches!(row.register(X86_64::RA), Some(RegisterRule::Offset(-8))) {
            return None;
        }
        let rbp_below = match row.register(X86_64::RBP) {
            None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => 0,
            Some(RegisterRule::Offset(offset)) if offset < 0 && offset % 8 == 0 => {
                usize::try_from(-offset / 8).ok()?
            }
            Some(_) => return None,
        };
        let offset = usize::try_from(*offset)
            .ok()
            .filter(|offset| offset.is_multiple_of(8))?;
        Some(Rule {
            from_rbp,
            offset: offset / 8,
            rbp_below,
        })
    })
}

/// What a frame's registers become in its caller. `registers` are rax rdx rcx rbx rsi rdi rbp rsp r8..r15 and the
/// program counter, by their DWARF numbers.
pub(super) fn step(
    known: Known,
    lookup: usize,
    registers: &[Option<usize>; 17],
) -> Option<[Option<usize>; 17]> {
    with_row(known, lookup, |row, frames| {
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                get(registers, *register)?.wrapping_add_signed(isize::try_from(*offset).ok()?)
            }
            CfaRule::Expression(expression) => evaluate(expression, frames, registers, None)?,
        };
        let mut caller = *registers;
        for number in 0..17_u16 {
            let place = |offset: i64| Some(cfa.wrapping_add_signed(isize::try_from(offset).ok()?));
            let value = match row.register(Register(number)) {
                // Only what a callee saves survives a call.
                None => match number {
                    3 | 6 | 12..=15 => registers[usize::from(number)],
                    _ => None,
                },
                Some(RegisterRule::SameValue) => registers[usize::from(number)],
                Some(RegisterRule::Offset(offset)) => place(offset).and_then(sys::read_word),
                Some(RegisterRule::ValOffset(offset)) => place(offset),
                Some(RegisterRule::Register(other)) => get(registers, other),
                Some(RegisterRule::Expression(expression)) => {
                    evaluate(&expression, frames, registers, Some(cfa)).and_then(sys::read_word)
                }
                Some(RegisterRule::ValExpression(expression)) => {
                    evaluate(&expression, frames, registers, Some(cfa))
                }
                Some(_) => None,
            };
            caller[usize::from(number)] = value;
        }
        if !matches!(row.register(X86_64::RSP), Some(rule) if rule != RegisterRule::Undefined) {
            caller[usize::from(X86_64::RSP.0)] = Some(cfa);
        }
        Some(caller)
    })
}

fn get(registers: &[Option<usize>; 17], register: Register) -> Option<usize> {
    *registers.get(usize::from(register.0))?
}

/// The little stack machine of DWARF, as far as unwind information uses it (procedure linkage tables, signal frames).
fn evaluate(
    expression: &UnwindExpression<usize>,
    frames: &EhFrame<Reader>,
    registers: &[Option<usize>; 17],
    initial: Option<usize>,
) -> Option<usize> {
    let expression: Expression<Reader> = expression.get(frames).ok()?;
    let encoding = gimli::Encoding {
        address_size: 8,
        format: gimli::Format::Dwarf32,
        version: 4,
    };
    let mut operations = expression.operations(encoding);
    let mut stack = Stack {
        words: [0; 16],
        depth: 0,
    };
    if let Some(initial) = initial {
        stack.push(initial)?;
    }
    while let Some(operation) = operations.next().ok()? {
        match operation {
            Operation::RegisterOffset {
                register, offset, ..
            } => {
                stack.push(
                    get(registers, register)?.wrapping_add_signed(isize::try_from(offset).ok()?),
                )?;
            }
            Operation::UnsignedConstant { value } => stack.push(usize::try_from(value).ok()?)?,
            Operation::SignedConstant { value } => {
                stack.push(isize::try_from(value).ok()?.cast_unsigned())?;
            }
            Operation::PlusConstant { value } => {
                let word = stack.pop()?.wrapping_add(usize::try_from(value).ok()?);
                stack.push(word)?;
            }
            Operation::Deref { .. } => {
                let word = sys::read_word(stack.pop()?)?;
                stack.push(word)?;
            }
            Operation::And => stack.binary(|a, b| a & b)?,
            Operation::Or => stack.binary(|a, b| a | b)?,
            Operation::Plus => stack.binary(usize::wrapping_add)?,
            Operation::Minus => stack.binary(usize::wrapping_sub)?,
            Operation::Mul => stack.binary(usize::wrapping_mul)?,
            Operation::Shl => stack.binary(|a, b| {
                a.checked_shl(u32::try_from(b).unwrap_or(u32::MAX))
                    .unwrap_or(0)
            })?,
            Operation::Ge => {
                stack.binary(|a, b| usize::from(a.cast_signed() >= b.cast_signed()))?;
            }
            Operation::Nop => {}
            _ => return None,
        }
    }
    stack.pop()
}

struct Stack {
    words: [usize; 16],
    depth: usize,
}

impl Stack {
    fn push(&mut self, word: usize) -> Option<()> {
        *self.words.get_mut(self.depth)? = word;
        self.depth += 1;
        Some(())
    }

    fn pop(&mut self) -> Option<usize> {
        self.depth = self.depth.checked_sub(1)?;
        Some(self.words[self.depth])
    }

    fn binary(&mut self, operation: impl FnOnce(usize, usize) -> usize) -> Option<()> {
        let (second, first) = (self.pop()?, self.pop()?);
        self.push(operation(first, second))
    }
}
