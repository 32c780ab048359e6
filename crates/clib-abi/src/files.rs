//! Finds and reads the files that hold a library's debug information.
//!
//! 1. A file is read once, whole, and shared: a section that is not compressed is a range of that one allocation.
//!    (A mapping would be undefined behaviour in waiting: a library that is rebuilt while the tests run would change
//!    under the reader, or raise SIGBUS.)
//! 2. A separate debug file is believed only if it carries the library's build identifier, or the checksum that the
//!    library's `.gnu_debuglink` names.
//! 3. Nothing is fetched from a network.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gimli::{LittleEndian, Reader as _};
use object::{CompressionFormat, Object, ObjectSection, ObjectSymbol, SymbolKind};

use crate::error::{Error, Result};

/// What every DWARF reader of this crate reads from.
pub(crate) type Bytes = gimli::EndianArcSlice<LittleEndian>;

/// Where distributions keep separate debug files.
pub(crate) const SYSTEM_DEBUG_DIR: &str = "/usr/lib/debug";

/// Best ratio that zlib can reach (1032), rounded up: more is a damaged header, and must not be allocated.
const MAX_COMPRESSION: u64 = 1100;

/// Most sections of one name that are joined.
const MAX_SECTIONS: usize = 65_536;

/// One ELF file in memory.
pub(crate) struct Elf {
    pub(crate) path: PathBuf,
    data: Arc<[u8]>,
}

/// The dynamic symbols that are functions.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    /// Defined here: name to address.
    pub(crate) exported: HashMap<Vec<u8>, u64>,
    /// Used but defined elsewhere.
    pub(crate) imported: Vec<Vec<u8>>,
}

impl Elf {
    /// Reads a file and checks that it is ELF for x86-64.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let read_error = |source| Error::Read {
            path: path.to_path_buf(),
            source,
        };
        let mut file = File::open(path).map_err(read_error)?;
        let meta = file.metadata().map_err(read_error)?;
        let not_elf = |detail: &str| Error::NotElf {
            path: path.to_path_buf(),
            detail: detail.into(),
        };
        if !meta.is_file() {
            return Err(not_elf("not a regular file"));
        }
        let length = usize::try_from(meta.len()).map_err(|_| not_elf("too large to be read"))?;
        let mut data: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
        let buffer = Arc::get_mut(&mut data).ok_or_else(|| not_elf("could not be read"))?;
        file.read_exact(buffer).map_err(read_error)?;

        let elf = Self {
            path: path.to_path_buf(),
            data,
        };
        let architecture = elf.object()?.architecture();
        if architecture != object::Architecture::X86_64 {
            let found = format!("{architecture:?}").to_lowercase();
            return Err(Error::ForeignArchitecture {
                path: elf.path,
                found,
            });
        }
        Ok(elf)
    }

    fn object(&self) -> Result<object::read::elf::ElfFile64<'_>> {
        let data = &*self.data;
        if !data.starts_with(b"\x7fELF") {
            return Err(Error::NotElf {
                path: self.path.clone(),
                detail: "it does not begin as one".into(),
            });
        }
        match object::FileKind::parse(data) {
            Ok(object::FileKind::Elf64) => {
                object::read::elf::ElfFile64::parse(data).map_err(|error| Error::NotElf {
                    path: self.path.clone(),
                    detail: error.to_string(),
                })
            }
            Ok(_) => Err(Error::ForeignArchitecture {
                path: self.path.clone(),
                found: "a 32-bit machine".into(),
            }),
            Err(error) => Err(Error::NotElf {
                path: self.path.clone(),
                detail: error.to_string(),
            }),
        }
    }

    /// A section's contents, decompressed; empty if there is none of that name. In a `.dwo` each type unit may have a
    /// section of its own, all of one name; their contents are joined.
    pub(crate) fn section(&self, name: &str) -> Result<Bytes> {
        let object = self.object()?;
        let of_name = object
            .sections()
            .filter(|section| section.name() == Ok(name))
            .take(MAX_SECTIONS);
        let mut parts = of_name
            .map(|section| self.contents(&section, name))
            .collect::<Result<Vec<_>>>()?;
        if parts.is_empty() {
            // Finds `.zdebug_info` for `.debug_info` too.
            let section = object.section_by_name(name);
            parts.extend(
                section
                    .map(|section| self.contents(&section, name))
                    .transpose()?,
            );
        }
        if parts.len() > 1 {
            let mut joined = Vec::new();
            for part in &parts {
                joined.extend_from_slice(part.bytes());
            }
            return Ok(Bytes::new(Arc::from(joined), LittleEndian));
        }
        Ok(parts
            .pop()
            .unwrap_or_else(|| Bytes::new(Arc::from([].as_slice()), LittleEndian)))
    }

    fn contents<'a>(&'a self, section: &impl ObjectSection<'a>, name: &str) -> Result<Bytes> {
        let damaged = |detail: String| Error::Damaged {
            path: self.path.clone(),
            detail,
        };
        let range = section
            .compressed_file_range()
            .map_err(|e| damaged(format!("{name}: {e}")))?;
        if range.format != CompressionFormat::None {
            if range.uncompressed_size / MAX_COMPRESSION > range.compressed_size {
                let size = range.uncompressed_size;
                return Err(damaged(format!("{name} claims to hold {size} bytes")));
            }
            let data = section
                .uncompressed_data()
                .map_err(|e| damaged(format!("{name}: {e}")))?;
            return Ok(Bytes::new(Arc::from(data.as_ref()), LittleEndian));
        }
        let cut = || damaged(format!("{name} ends outside the file"));
        let start = usize::try_from(range.offset).map_err(|_| cut())?;
        let size = usize::try_from(range.compressed_size).map_err(|_| cut())?;
        if start
            .checked_add(size)
            .is_none_or(|end| end > self.data.len())
        {
            return Err(cut());
        }
        let mut bytes = Bytes::new(Arc::clone(&self.data), LittleEndian);
        bytes.skip(start).map_err(|_| cut())?;
        bytes.truncate(size).map_err(|_| cut())?;
        Ok(bytes)
    }

    /// Whether the file has DWARF of its own (and not merely the emptied section headers that a debug file has for
    /// code, or the other way round).
    pub(crate) fn has_dwarf(&self) -> bool {
        [".debug_info", ".debug_info.dwo"].iter().any(|name| {
            self.section(name).is_ok_and(|bytes| !bytes.is_empty()) || self.section_is_broken(name)
        })
    }

    /// A section that is there but cannot be read: worth an error about itself rather than "no debug information".
    fn section_is_broken(&self, name: &str) -> bool {
        self.section(name).is_err()
    }

    pub(crate) fn build_id(&self) -> Option<Vec<u8>> {
        self.object().ok()?.build_id().ok()?.map(<[u8]>::to_vec)
    }

    /// Functions among the dynamic symbols. A symbol table that cannot be read is an empty one.
    pub(crate) fn symbols(&self) -> Symbols {
        let mut symbols = Symbols::default();
        let Ok(object) = self.object() else {
            return symbols;
        };
        for symbol in object.dynamic_symbols() {
            let Ok(name) = symbol.name_bytes() else {
                continue;
            };
            if name.is_empty() {
                continue;
            }
            if symbol.is_undefined() {
                symbols.imported.push(name.to_vec());
            } else if symbol.kind() == SymbolKind::Text || symbol.kind() == SymbolKind::Unknown {
                symbols.exported.insert(name.to_vec(), symbol.address());
            }
        }
        symbols
    }

    fn debuglink(&self) -> Option<(PathBuf, u32)> {
        let object = self.object().ok()?;
        let (name, checksum) = object.gnu_debuglink().ok()??;
        Some((path_from(name)?, checksum))
    }

    fn debugaltlink(&self) -> Option<(PathBuf, Vec<u8>)> {
        let object = self.object().ok()?;
        let (name, build_id) = object.gnu_debugaltlink().ok()??;
        Some((path_from(name)?, build_id.to_vec()))
    }
}

fn path_from(name: &[u8]) -> Option<PathBuf> {
    std::str::from_utf8(name)
        .ok()
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
}

/// The file that holds `library`'s DWARF: itself, or a separate debug file that matches it.
pub(crate) fn debug_file(library: &Elf, debug_dirs: &[PathBuf]) -> Result<Option<Elf>> {
    if library.has_dwarf() {
        return Ok(None);
    }
    let mut searched = vec!["the file itself".to_owned()];
    let own_id = library.build_id();
    for candidate in by_build_id(own_id.as_deref(), debug_dirs) {
        searched.push(candidate.display().to_string());
        if let Ok(elf) = Elf::read(&candidate)
            && elf.has_dwarf()
            && elf.build_id() == own_id
        {
            return Ok(Some(elf));
        }
    }
    if let Some((name, checksum)) = library.debuglink() {
        for candidate in beside(&library.path, &name, debug_dirs) {
            searched.push(candidate.display().to_string());
            if let Ok(elf) = Elf::read(&candidate)
                && elf.has_dwarf()
                && crc32fast::hash(&elf.data) == checksum
            {
                return Ok(Some(elf));
            }
        }
    }
    Err(Error::NoDebugInformation {
        path: library.path.clone(),
        searched: searched.join(", "),
    })
}

/// The supplementary file that `dwz` moved common entries to, if `elf` refers to one.
pub(crate) fn supplementary_file(elf: &Elf, debug_dirs: &[PathBuf]) -> Result<Option<Elf>> {
    let Some((name, build_id)) = elf.debugaltlink() else {
        return Ok(None);
    };
    let mut candidates = vec![real_directory(&elf.path).join(&name)];
    candidates.extend(by_build_id(Some(&build_id), debug_dirs));
    for candidate in &candidates {
        if let Ok(found) = Elf::read(candidate)
            && found.build_id().as_deref() == Some(build_id.as_slice())
        {
            return Ok(Some(found));
        }
    }
    let detail = format!(
        "the supplementary file {} (of dwz) is missing or another one",
        name.display()
    );
    Err(Error::Damaged {
        path: elf.path.clone(),
        detail,
    })
}

fn by_build_id(build_id: Option<&[u8]>, debug_dirs: &[PathBuf]) -> Vec<PathBuf> {
    let Some(id) = build_id.filter(|id| id.len() > 1) else {
        return Vec::new();
    };
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (directory, rest) = hex.split_at(2);
    debug_dirs
        .iter()
        .map(|root| {
            root.join(".build-id")
                .join(directory)
                .join(format!("{rest}.debug"))
        })
        .collect()
}

fn beside(library: &Path, name: &Path, debug_dirs: &[PathBuf]) -> Vec<PathBuf> {
    let directory = real_directory(library);
    let mut candidates = vec![directory.join(name), directory.join(".debug").join(name)];
    let below_root = directory.strip_prefix("/").unwrap_or(&directory);
    candidates.extend(
        debug_dirs
            .iter()
            .map(|root| root.join(below_root).join(name)),
    );
    candidates
}

fn real_directory(path: &Path) -> PathBuf {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    path.parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
