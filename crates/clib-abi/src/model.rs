//! The plain description: what a library declares, freed of how DWARF says it.
//!
//! 1. A description never refers to the file it came from: it is owned, and may outlive the [`Library`](crate::Library).
//! 2. Types are trees. Records (structures, unions, classes) and enumerations are the leaves, named by a [`DeclId`]
//!    that [`Library::record`](crate::Library::record) and [`Library::enumeration`](crate::Library::enumeration)
//!    resolve; that is what keeps self-referential types finite.
//! 3. Offsets and sizes are bytes, unless the name says bits. Bit positions count from the least significant bit of
//!    the record's first byte, as x86-64 lays them out.

/// Names one record or enumeration of one [`Library`](crate::Library). Only that library can resolve it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeclId(pub(crate) u64);

impl DeclId {
    /// The identifier as a number, to be carried through another language.
    #[must_use]
    pub fn to_raw(self) -> u64 {
        self.0
    }

    /// The identifier that [`to_raw`](Self::to_raw) gave. A number from anywhere else is refused when it is resolved.
    #[must_use]
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
}

/// Where something is declared in the library's source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Location {
    /// Path as the compiler recorded it, joined with the compilation directory where it was relative.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
}

/// The language of the unit that declares something, as far as it matters to a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// C, any standard.
    C,
    /// C++, any standard.
    Cpp,
    /// Rust. The parameters of its optimised functions may be incomplete in the debug information.
    Rust,
    /// Any other.
    Other,
}

/// `const`, `volatile` and the like, of the outermost level of a type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Qualifiers {
    /// `const`
    pub constant: bool,
    /// `volatile`
    pub volatile: bool,
    /// `restrict`
    pub restrict: bool,
    /// `_Atomic`
    pub atomic: bool,
}

/// A type, with the names under which the source speaks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    /// Qualifiers of the type as used.
    pub qualifiers: Qualifiers,
    /// The typedefs it goes through, the one written in the source first. Empty if it is used directly.
    pub typedefs: Vec<String>,
    /// Size in bytes; `None` for `void`, functions, incomplete records and arrays of unknown length.
    pub size: Option<u64>,
    /// What it is.
    pub kind: Kind,
}

/// What a [`Type`] is once its typedefs are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// No value; also Rust's `()` and `!`.
    Void,
    /// A boolean.
    Boolean {
        /// As the compiler calls it: `_Bool`, `bool`.
        name: String,
    },
    /// A `char` of any width: `char`, `char16_t`, Rust's `char`. `int8_t` and `uint8_t` arrive here too, since
    /// compilers describe them as characters.
    Character {
        /// As the compiler calls it.
        name: String,
        /// Whether values may be negative.
        signed: bool,
    },
    /// An integer that is no character.
    Integer {
        /// As the compiler calls it: `long unsigned int`, `u32`.
        name: String,
        /// Whether values may be negative.
        signed: bool,
    },
    /// A binary floating-point number.
    Float {
        /// As the compiler calls it.
        name: String,
    },
    /// An enumeration.
    Enumeration {
        /// Tag, qualified with its namespaces (`a::b`) if it has any.
        name: Option<String>,
        /// To be resolved with [`Library::enumeration`](crate::Library::enumeration).
        id: DeclId,
        /// Whether the underlying integer is signed.
        signed: bool,
    },
    /// A pointer, or a C++ reference.
    Pointer {
        /// What it points to.
        to: Box<Type>,
        /// `&` or `&&` instead of `*`.
        reference: bool,
    },
    /// A function; functions are met behind pointers and typedefs.
    Function(Box<Prototype>),
    /// One dimension of an array.
    Array {
        /// The element, itself an array if there are more dimensions.
        element: Box<Type>,
        /// Number of elements; `None` for a flexible or unknown length.
        count: Option<u64>,
    },
    /// A structure, union or class.
    Record {
        /// Which of them.
        kind: RecordKind,
        /// Tag, qualified with its namespaces (`a::b`) if it has any.
        name: Option<String>,
        /// To be resolved with [`Library::record`](crate::Library::record).
        id: DeclId,
    },
    /// Something with no equal in C: `nullptr_t`, complex and decimal numbers, a pointer to a member.
    Other {
        /// As the compiler calls it.
        name: String,
    },
}

/// Structure, union or class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// `struct`
    Struct,
    /// `union`
    Union,
    /// `class`
    Class,
}

impl RecordKind {
    /// The keyword.
    #[must_use]
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Struct => "struct",
            Self::Union => "union",
            Self::Class => "class",
        }
    }
}

/// A function's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prototype {
    /// Result; [`Kind::Void`] if there is none.
    pub result: Type,
    /// Parameters in order, without the variable ones.
    pub parameters: Vec<Parameter>,
    /// Ends in `...`.
    pub variadic: bool,
    /// Whether `parameters` is known to be all of them. False for `int f()` in C before C23, and for definitions in
    /// Rust, whose unused parameters leave no trace.
    pub complete: bool,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Name, where the source gives one.
    pub name: Option<String>,
    /// Type; an array parameter is the pointer that it decays to.
    pub ty: Type,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Name in the source, qualified with its namespaces if it has any.
    pub name: String,
    /// Name in the symbol table where that differs from the source's.
    pub linkage_name: Option<String>,
    /// Signature.
    pub prototype: Prototype,
    /// Whether this library defines it. False for what it only calls, where the compiler recorded that.
    pub defined: bool,
    /// Where it is declared.
    pub location: Option<Location>,
    /// Language of its unit.
    pub language: Language,
}

/// A structure, union or class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which of them.
    pub kind: RecordKind,
    /// Tag, qualified with its namespaces if it has any.
    pub name: Option<String>,
    /// Names itself.
    pub id: DeclId,
    /// Size in bytes; `None` if the library has only a declaration of it (`struct foo;`).
    pub size: Option<u64>,
    /// Fields in the order of the source; those of anonymous members and of base classes stand in their place, with
    /// offsets from the start of this record. Empty if it is only declared.
    pub fields: Vec<Field>,
    /// Where it is declared.
    pub location: Option<Location>,
    /// Language of its unit.
    pub language: Language,
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Name; `None` only for what has none and cannot be flattened.
    pub name: Option<String>,
    /// Offset in bytes from the start of the record; for a bit field, that of the byte that holds its first bit.
    pub offset: u64,
    /// Position and width of a bit field.
    pub bits: Option<Bits>,
    /// Type.
    pub ty: Type,
    /// Whether it lies in a union, directly or through anonymous members, so that others may share its bytes.
    pub overlapping: bool,
    /// Where it is declared.
    pub location: Option<Location>,
}

/// Position and width of a bit field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bits {
    /// First bit, counted from the start of the record.
    pub offset: u64,
    /// Width in bits.
    pub width: u64,
}

/// An enumeration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enumeration {
    /// Tag, qualified with its namespaces if it has any.
    pub name: Option<String>,
    /// Names itself.
    pub id: DeclId,
    /// Size in bytes; `None` if it is only declared.
    pub size: Option<u64>,
    /// Whether the underlying integer is signed.
    pub signed: bool,
    /// Constants in the order of the source. Values above `i64::MAX` arrive whole.
    pub constants: Vec<(String, i128)>,
    /// Where it is declared.
    pub location: Option<Location>,
}

/// A typedef.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typedef {
    /// Its name, qualified with its namespaces if it has any.
    pub name: String,
    /// What it stands for; `ty.typedefs` holds the further typedefs on the way, without this one.
    pub ty: Type,
    /// Where it is declared.
    pub location: Option<Location>,
}
