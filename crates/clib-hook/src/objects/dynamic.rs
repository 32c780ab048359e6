//! An object's dynamic section as the loader left it in memory: symbols, versions and relocations.
//!
//! Everything read lies in the object's own segments, which is checked before each read.

use std::{ffi::CStr, slice};

use super::{Mapped, address};

const DT_NEEDED: i64 = 1;
const DT_PLTRELSZ: i64 = 2;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_STRSZ: i64 = 10;
const DT_SONAME: i64 = 14;
const DT_JMPREL: i64 = 23;
const DT_INIT_ARRAY: i64 = 25;
const DT_FINI_ARRAY: i64 = 26;
const DT_INIT_ARRAYSZ: i64 = 27;
const DT_FINI_ARRAYSZ: i64 = 28;
const DT_PREINIT_ARRAY: i64 = 32;
const DT_PREINIT_ARRAYSZ: i64 = 33;
const DT_VERSYM: i64 = 0x6fff_fff0;
const DT_VERNEED: i64 = 0x6fff_fffe;
const DT_VERNEEDNUM: i64 = 0x6fff_ffff;
const DT_VERDEF: i64 = 0x6fff_fffc;
const DT_VERDEFNUM: i64 = 0x6fff_fffd;

/// `Elf64_Dyn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Item {
    tag: i64,
    value: u64,
}

/// `Elf64_Rela`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Rela {
    offset: u64,
    info: u64,
    addend: i64,
}

/// A relocation that names a symbol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relocation {
    /// Address of the word it fills.
    pub(crate) place: usize,
    pub(crate) kind: u32,
    pub(crate) symbol: u32,
    pub(crate) addend: i64,
}

/// A dynamic symbol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol<'a> {
    pub(crate) name: &'a str,
    /// Its address, if the object defines it.
    pub(crate) defined: Option<usize>,
    /// `STT_*`.
    pub(crate) kind: u8,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Dynamic<'a> {
    mapped: &'a Mapped,
    strings: usize,
    strings_size: usize,
    symbols: usize,
    rela: (usize, usize),
    jump: (usize, usize),
    arrays: [(usize, usize); 3],
    versions: usize,
    needed: (usize, usize),
    defined: (usize, usize),
    soname: Option<usize>,
}

impl<'a> Dynamic<'a> {
    /// Reads an object's dynamic section, if it has one that makes sense.
    pub(crate) fn read(mapped: &'a Mapped) -> Option<Self> {
        let mut read = Self {
            mapped,
            strings: 0,
            strings_size: 0,
            symbols: 0,
            rela: (0, 0),
            jump: (0, 0),
            arrays: [(0, 0); 3],
            versions: 0,
            needed: (0, 0),
            defined: (0, 0),
            soname: None,
        };
        let mut at = mapped.dynamic?;
        loop {
            let item: Item = read.at(at)?;
            let value = address(item.value);
            let pointer = read.pointer(value);
            match item.tag {
                0 => break,
                DT_STRTAB => read.strings = pointer,
                DT_STRSZ => read.strings_size = value,
                DT_SYMTAB => read.symbols = pointer,
                DT_RELA => read.rela.0 = pointer,
                DT_RELASZ => read.rela.1 = value,
                DT_JMPREL => read.jump.0 = pointer,
                DT_PLTRELSZ => read.jump.1 = value,
                DT_INIT_ARRAY => read.arrays[0].0 = pointer,
                DT_INIT_ARRAYSZ => read.arrays[0].1 = value,
                DT_FINI_ARRAY => read.arrays[1].0 = pointer,
                DT_FINI_ARRAYSZ => read.arrays[1].1 = value,
                DT_PREINIT_ARRAY => read.arrays[2].0 = pointer,
                DT_PREINIT_ARRAYSZ => read.arrays[2].1 = value,
                DT_VERSYM => read.versions = pointer,
                DT_VERNEED => read.needed.0 = pointer,
                DT_VERNEEDNUM => read.needed.1 = value,
                DT_VERDEF => read.defined.0 = pointer,
                DT_VERDEFNUM => read.defined.1 = value,
                DT_SONAME => read.soname = Some(value),
                _ => {}
            }
            at += size_of::<Item>();
        }
        (read.strings != 0 && read.symbols != 0 && mapped.contains(read.strings, read.strings_size))
            .then_some(read)
    }

    /// The loader turns offsets into addresses in most objects, but not in read-only dynamic sections (the vdso).
    fn pointer(&self, value: usize) -> usize {
        if value < self.mapped.object.bias {
            value.wrapping_add(self.mapped.object.bias)
        } else {
            value
        }
    }

    /// A value in the object's memory, if it lies inside.
    fn at<T: Copy>(&self, at: usize) -> Option<T> {
        if !self.mapped.contains(at, size_of::<T>()) {
            return None;
        }
        // SAFETY: the bytes lie in a loaded segment (checked above), `T` is one of the plain structures of this module, and
        // the read is unaligned.
        Some(unsafe { (at as *const T).read_unaligned() })
    }

    fn string(&self, offset: usize) -> Option<&'a str> {
        let rest = self.strings_size.checked_sub(offset)?;
        // SAFETY: the string table lies in a loaded segment (checked in `read`) and is never written to; the object is
        // not unloaded while `mapped`, made from the loader's list, is in use by the one scan at a time.
        let bytes = unsafe { slice::from_raw_parts((self.strings + offset) as *const u8, rest) };
        CStr::from_bytes_until_nul(bytes).ok()?.to_str().ok()
    }

    /// `DT_SONAME`.
    pub(crate) fn soname(&self) -> Option<String> {
        self.string(self.soname?).map(str::to_owned)
    }

    /// The names of the objects that it needs.
    pub(crate) fn needed(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut at = self.mapped.dynamic.unwrap_or_default();
        while let Some(item) = self.at::<Item>(at).filter(|item| item.tag != 0) {
            if item.tag == DT_NEEDED {
                names.extend(self.string(address(item.value)).map(str::to_owned));
            }
            at += size_of::<Item>();
        }
        names
    }

    /// The relocations of `DT_RELA` and `DT_JMPREL` that name a symbol.
    pub(crate) fn relocations(&self) -> Vec<Relocation> {
        let mut all = Vec::new();
        let (rela, jump) = (self.rela, self.jump);
        // DT_JMPREL may be the tail of DT_RELA; each word must come once.
        let overlap = jump.0 >= rela.0 && jump.0 + jump.1 <= rela.0 + rela.1;
        for (start, size) in [rela, if overlap { (0, 0) } else { jump }] {
            for number in 0..size / size_of::<Rela>() {
                let Some(item) = self.at::<Rela>(start + number * size_of::<Rela>()) else {
                    break;
                };
                let symbol = u32::try_from(item.info >> 32).unwrap_or(0);
                if symbol != 0 {
                    all.push(Relocation {
                        place: self.mapped.object.bias.wrapping_add(address(item.offset)),
                        kind: u32::try_from(item.info & 0xffff_ffff).unwrap_or(0),
                        symbol,
                        addend: item.addend,
                    });
                }
            }
        }
        all
    }

    /// A dynamic symbol by its number.
    pub(crate) fn symbol(&self, number: u32) -> Option<Symbol<'a>> {
        let symbol: libc::Elf64_Sym =
            self.at(self.symbols + number as usize * size_of::<libc::Elf64_Sym>())?;
        Some(Symbol {
            name: self.string(symbol.st_name as usize)?,
            defined: (symbol.st_shndx != 0).then(|| {
                self.mapped
                    .object
                    .bias
                    .wrapping_add(address(symbol.st_value))
            }),
            kind: symbol.st_info & 0xf,
        })
    }

    /// The version that a symbol is needed or defined in.
    pub(crate) fn version(&self, number: u32) -> Option<&'a str> {
        if self.versions == 0 {
            return None;
        }
        let version = self.at::<u16>(self.versions + number as usize * 2)? & 0x7fff;
        if version < 2 {
            return None;
        }
        self.needed_version(version)
            .or_else(|| self.defined_version(version))
    }

    fn needed_version(&self, version: u16) -> Option<&'a str> {
        let mut need = self.needed.0;
        for _ in 0..self.needed.1 {
            // Elf64_Verneed: version, count (u16 each), file, aux, next (u32 each).
            let [_, _, _, first, next] = [
                self.at::<u16>(need)?.into(),
                self.at::<u16>(need + 2)?.into(),
                self.at::<u32>(need + 4)?,
                self.at::<u32>(need + 8)?,
                self.at::<u32>(need + 12)?,
            ];
            let mut aux = need + first as usize;
            for _ in 0..self.at::<u16>(need + 2)? {
                // Elf64_Vernaux: hash (u32), flags, other (u16 each), name, next (u32 each).
                if self.at::<u16>(aux + 6)? & 0x7fff == version {
                    return self.string(self.at::<u32>(aux + 8)? as usize);
                }
                aux += self.at::<u32>(aux + 12)? as usize;
            }
            need += next as usize;
        }
        None
    }

    fn defined_version(&self, version: u16) -> Option<&'a str> {
        let mut definition = self.defined.0;
        for _ in 0..self.defined.1 {
            // Elf64_Verdef: version, flags, index, count (u16 each), hash, aux, next (u32 each); Elf64_Verdaux: name, next.
            if self.at::<u16>(definition + 4)? & 0x7fff == version {
                let aux = definition + self.at::<u32>(definition + 12)? as usize;
                return self.string(self.at::<u32>(aux)? as usize);
            }
            definition += self.at::<u32>(definition + 16)? as usize;
        }
        None
    }

    /// Whether a word belongs to the object's lists of constructors and destructors.
    pub(crate) fn in_init_arrays(&self, place: usize) -> bool {
        self.arrays
            .iter()
            .any(|(start, size)| (*start..start + size).contains(&place))
    }
}
