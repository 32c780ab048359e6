//! Requests to valgrind, if the process runs under it.
//!
//! A request is a sequence of instructions that does nothing elsewhere, and that valgrind recognises: no header and
//! no library of valgrind's is needed. The numbers are those of its public interface, which never change.

use std::arch::asm;

const RUNNING_ON_VALGRIND: usize = 0x1001;
const CHANGE_ERR_DISABLEMENT: usize = 0x1801;
/// `VG_USERREQ_TOOL_BASE('M', 'C') + 6`.
const DO_LEAK_CHECK: usize = 0x4d43_0006;
/// The same, `+ 8`.
const GET_VBITS: usize = 0x4d43_0008;
/// Its answer where not all of the bytes may be accessed.
const NOT_ADDRESSABLE: usize = 3;

/// Makes a request; `default` is the answer without valgrind.
fn request(number: usize, arguments: [usize; 3], default: usize) -> usize {
    let [first, second, third] = arguments;
    let arguments = [number, first, second, third, 0, 0];
    let mut answer = default;
    // SAFETY: rotating rdi by 128 bits in all and exchanging rbx with itself change nothing. Valgrind reads the six
    // words that rax points to, and writes rdx.
    unsafe {
        asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") answer,
        );
    }
    answer
}

/// How many valgrinds the process runs under: 0 without, 1 as a rule.
pub fn running() -> usize {
    request(RUNNING_ON_VALGRIND, [0; 3], 0)
}

/// Looks for leaks as at the end, and reports those that are new since the last look. Only memcheck does anything.
pub fn check_added_leaks() {
    request(DO_LEAK_CHECK, [0, 1, 0], 0);
}

/// Makes errors of the calling thread count, or not. Calls nest.
pub fn report_errors(report: bool) {
    let change = if report { -1_isize } else { 1 };
    request(CHANGE_ERR_DISABLEMENT, [change.cast_unsigned(), 0, 0], 0);
}

/// Whether the word at `address` may mean something, as far as memcheck knows: all of it is part of a block, a variable or
/// the like, and has been written. What was released, or never written, is not. `true` without it.
pub fn is_defined_word(address: usize) -> bool {
    let mut undefined = 0_usize;
    let to = (&raw mut undefined).expose_provenance();
    let answer = request(GET_VBITS, [address, to, size_of::<usize>()], 1);
    answer != NOT_ADDRESSABLE && undefined == 0
}

/// Whether a mapping is valgrind's own, as far as memcheck knows: it keeps them above the program's, which may access none of it.
/// `false` without it.
pub fn is_its_own(start: usize, end: usize) -> bool {
    const LOWEST: usize = 64 << 30;
    const PROBES: usize = 256;
    let step = ((end - start) / PROBES).max(1);
    start >= LOWEST
        && (start..end).step_by(step).all(|at| {
            let mut undefined = 0_u8;
            let to = (&raw mut undefined).expose_provenance();
            request(GET_VBITS, [at, to, 1], 0) == NOT_ADDRESSABLE
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_do_nothing_outside_of_valgrind() {
        assert_eq!(request(0x1234, [1, 2, 3], 77), 77);
        assert_eq!(running(), 0);
        check_added_leaks();
        report_errors(false);
        report_errors(true);
        assert!(is_defined_word(0));
        assert!(!is_its_own(64 << 30, 65 << 30));
    }
}
