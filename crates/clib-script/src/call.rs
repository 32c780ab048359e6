//! Calls to C functions whose signature is known only at run time.
//!
//! The System V AMD64 convention passes integers and pointers in six registers,
//! floating point in eight others, and the rest on the stack, each list on its
//! own. So one call with all registers and some stack words filled serves every
//! function without structures by value: the callee reads what is its own.
//!
//! This module must not look at what is called, nor keep anything of it.

use crate::value::Value;

const REGISTERS: usize = 6;
const VECTORS: usize = 8;
const STACK: usize = 8;

/// One argument of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// An integer or a pointer; narrower types take its low bytes.
    Integer(Value),
    /// A `double`.
    Double(f64),
    /// A `float`.
    Float(f32),
}

/// How the result is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// Nothing; compares as 0.
    Void,
    /// A signed integer of so many bytes (1, 2, 4, 8).
    Signed(u8),
    /// An unsigned integer or pointer of so many bytes (1, 2, 4, 8).
    Unsigned(u8),
    /// `_Bool`.
    Bool,
    /// `double`, compared as the integer that it rounds to.
    Double,
}

/// A C function: its address, name and kind of result.
#[derive(Clone, Debug)]
pub struct Function {
    address: usize,
    name: String,
    returned: Returned,
}

impl Function {
    /// A function at `address`.
    ///
    /// # Safety
    ///
    /// * `address` is the entry of a function of the C convention that stays loaded while a script uses it.
    /// * It takes the arguments that the steps give it, none of them a structure by value, and
    ///   returns what `returned` says.
    /// * It may be called from any thread with those arguments, as the run's threads and instances will.
    #[must_use]
    pub unsafe fn new(address: usize, name: String, returned: Returned) -> Self {
        Self {
            address,
            name,
            returned,
        }
    }

    /// Its name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Arguments sorted into registers once, so that an iteration only fills in numbers.
#[derive(Debug)]
pub(crate) struct Call {
    function: Function,
    integers: Vec<Value>,
    vectors: [f64; VECTORS],
    plain: bool,
}

type Plain = unsafe extern "C" fn(u64, u64, u64, u64, u64, u64) -> u64;
macro_rules! wide {
    ($result:ty) => {
        unsafe extern "C" fn(
            u64, u64, u64, u64, u64, u64,
            f64, f64, f64, f64, f64, f64, f64, f64,
            u64, u64, u64, u64, u64, u64, u64, u64,
        ) -> $result
    };
}

impl Call {
    /// Sorts the arguments. The error is a sentence: too many, or floats beyond the registers.
    pub(crate) fn new(function: &Function, arguments: &[Argument]) -> Result<Self, String> {
        let mut integers = Vec::new();
        let mut vectors = [0.0; VECTORS];
        let mut floats = 0;
        for argument in arguments {
            let bits = match argument {
                Argument::Integer(value) => {
                    integers.push(value.clone());
                    continue;
                }
                Argument::Double(number) => *number,
                Argument::Float(number) => f64::from_bits(u64::from(number.to_bits())),
            };
            *vectors.get_mut(floats).ok_or_else(|| {
                format!(
                    "{}: more than {VECTORS} floating-point arguments",
                    function.name
                )
            })? = bits;
            floats += 1;
        }
        if integers.len() > REGISTERS + STACK {
            return Err(format!(
                "{}: more than {} integer arguments",
                function.name,
                REGISTERS + STACK
            ));
        }
        let plain =
            integers.len() <= REGISTERS && floats == 0 && function.returned != Returned::Double;
        Ok(Self {
            function: function.clone(),
            integers,
            vectors,
            plain,
        })
    }

    /// Calls, with errno 0 before. Returns the result and the errno after.
    pub(crate) fn call(&self, iteration: u64, instance: &[u64]) -> (i128, i32) {
        let mut i = [0u64; REGISTERS + STACK];
        for (place, value) in i.iter_mut().zip(&self.integers) {
            *place = value.at(iteration, instance);
        }
        set_errno(0);
        let raw = if self.plain {
            self.plain(&i)
        } else {
            self.wide(&i)
        };
        (self.read(raw), errno())
    }

    fn plain(&self, i: &[u64; REGISTERS + STACK]) -> u64 {
        // SAFETY: Function::new's caller vouched for address and signature; a callee of up to six
        // integers reads only the registers that are its own.
        let function = unsafe { std::mem::transmute::<usize, Plain>(self.function.address) };
        // SAFETY: as above.
        unsafe { function(i[0], i[1], i[2], i[3], i[4], i[5]) }
    }

    fn wide(&self, i: &[u64; REGISTERS + STACK]) -> u64 {
        let [a, b, c, d, e, f, s0, s1, s2, s3, s4, s5, s6, s7] = *i;
        let [v0, v1, v2, v3, v4, v5, v6, v7] = self.vectors;
        if self.function.returned == Returned::Double {
            // SAFETY: as in `plain`; vectors and stack words beyond the callee's own are ignored by it.
            let function =
                unsafe { std::mem::transmute::<usize, wide!(f64)>(self.function.address) };
            // SAFETY: as above.
            let result = unsafe {
                function(
                    a, b, c, d, e, f, v0, v1, v2, v3, v4, v5, v6, v7, s0, s1, s2, s3, s4, s5, s6,
                    s7,
                )
            };
            return result.to_bits();
        }
        // SAFETY: as in `plain`; vectors and stack words beyond the callee's own are ignored by it.
        let function = unsafe { std::mem::transmute::<usize, wide!(u64)>(self.function.address) };
        // SAFETY: as above.
        unsafe {
            function(
                a, b, c, d, e, f, v0, v1, v2, v3, v4, v5, v6, v7, s0, s1, s2, s3, s4, s5, s6, s7,
            )
        }
    }

    fn read(&self, raw: u64) -> i128 {
        let low = raw.to_le_bytes();
        match self.function.returned {
            Returned::Void => 0,
            Returned::Bool | Returned::Unsigned(1) => i128::from(low[0]),
            Returned::Unsigned(2) => i128::from(u16::from_le_bytes([low[0], low[1]])),
            Returned::Unsigned(4) => {
                i128::from(u32::from_le_bytes([low[0], low[1], low[2], low[3]]))
            }
            Returned::Unsigned(_) => i128::from(raw),
            Returned::Signed(1) => i128::from(i8::from_le_bytes([low[0]])),
            Returned::Signed(2) => i128::from(i16::from_le_bytes([low[0], low[1]])),
            Returned::Signed(4) => i128::from(i32::from_le_bytes([low[0], low[1], low[2], low[3]])),
            Returned::Signed(_) => i128::from(i64::from_le_bytes(low)),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "saturates, which is what a comparison wants"
            )]
            Returned::Double => f64::from_bits(raw).round() as i128,
        }
    }
}

pub(crate) fn errno() -> i32 {
    // SAFETY: the pointer is the calling thread's own errno, valid for its life.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(value: i32) {
    // SAFETY: as in `errno`.
    unsafe { *libc::__errno_location() = value };
}

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn many(
        a: u8,
        b: f64,
        c: i32,
        d: u64,
        e: f32,
        f: i16,
        g: u32,
        h: i64,
        i: u64,
    ) -> i64 {
        let floats = if b + f64::from(e) < 5.0 { 1000 } else { 0 };
        let integers = i64::from(a) + i64::from(c) + i64::from(f) + i64::from(g) + h;
        floats + integers + d.cast_signed() + i.cast_signed()
    }

    extern "C" fn half(x: f64) -> f64 {
        x / 2.0
    }

    extern "C" fn fails(code: i32) -> i32 {
        set_errno(code);
        -1
    }

    fn integer(number: i64) -> Argument {
        Argument::Integer(Value::Constant(u64::from_le_bytes(number.to_le_bytes())))
    }

    fn call(address: usize, returned: Returned, arguments: &[Argument]) -> (i128, i32) {
        // SAFETY: the tests below pass functions of this module with fitting arguments.
        let function = unsafe { Function::new(address, "f".to_owned(), returned) };
        Call::new(&function, arguments).unwrap().call(0, &[])
    }

    #[test]
    fn arguments_reach_registers_vectors_and_stack() {
        let arguments = [
            integer(1),
            Argument::Double(0.5),
            integer(-2),
            integer(3),
            Argument::Float(4.0),
            integer(-5),
            integer(6),
            integer(-70),
            integer(800),
        ];
        let expected = many(1, 0.5, -2, 3, 4.0, -5, 6, -70, 800);
        let (result, _) = call(many as *const () as usize, Returned::Signed(8), &arguments);
        assert_eq!(result, i128::from(expected));
    }

    #[test]
    fn results_of_each_kind_are_read() {
        let (result, _) = call(
            half as *const () as usize,
            Returned::Double,
            &[Argument::Double(8.0)],
        );
        assert_eq!(result, 4);
        let (result, errno) = call(
            fails as *const () as usize,
            Returned::Signed(4),
            &[integer(32)],
        );
        assert_eq!((result, errno), (-1, 32));
        let (result, _) = call(
            fails as *const () as usize,
            Returned::Unsigned(4),
            &[integer(32)],
        );
        assert_eq!(result, 0xffff_ffff);
        let (result, _) = call(fails as *const () as usize, Returned::Void, &[integer(32)]);
        assert_eq!(result, 0);
    }

    #[test]
    fn too_many_arguments_are_refused() {
        // SAFETY: never called.
        let function = unsafe { Function::new(1, "f".to_owned(), Returned::Void) };
        let many = vec![integer(0); REGISTERS + STACK + 1];
        assert!(Call::new(&function, &many).is_err());
        assert!(Call::new(&function, &vec![Argument::Double(0.0); 9]).is_err());
    }
}
