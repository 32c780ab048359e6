//! Where line information is kept: in the object, or in files that it names.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use object::{Object, ObjectSection, ObjectSymbol, ReadCache, SymbolKind};

/// Directories in which distributions put separate debug files.
const DEBUG: &str = "/usr/lib/debug";

fn with_file<T>(
    path: &str,
    read: impl FnOnce(&object::File<'_, &ReadCache<BufReader<File>>>) -> Option<T>,
) -> Option<T> {
    let cache = ReadCache::new(BufReader::new(File::open(path).ok()?));
    let file = object::File::parse(&cache).ok()?;
    read(&file)
}

/// Whether a file has line information of its own.
pub(super) fn has_lines(path: &str) -> bool {
    with_file(path, |file| {
        file.section_by_name(".debug_info")
            .filter(|section| section.size() > 0)
            .map(|_| ())
    })
    .is_some()
}

/// The separate file with an object's line information: by build id, else by `.gnu_debuglink`.
pub(super) fn debug_file(path: &str) -> Option<String> {
    with_file(path, |file| {
        let by_id = file
            .build_id()
            .ok()
            .flatten()
            .and_then(|id| by_build_id(id, "debug"));
        let found = by_id.or_else(|| {
            let (name, checksum) = file.gnu_debuglink().ok()??;
            let name = std::str::from_utf8(name).ok()?;
            let real = Path::new(path).canonicalize().ok()?;
            let directory = real.parent()?;
            let global = Path::new(DEBUG).join(directory.strip_prefix("/").unwrap_or(directory));
            [
                directory.join(name),
                directory.join(".debug").join(name),
                global.join(name),
            ]
            .into_iter()
            .find(|candidate| *candidate != real && crc32(candidate) == Some(checksum))
        })?;
        Some(found.to_str()?.to_owned())
    })
}

/// The supplementary file that an object's line information shares with others (`.gnu_debugaltlink`, made by dwz).
pub(super) fn supplement(path: &str) -> Option<PathBuf> {
    with_file(path, |file| {
        let (name, id) = file.gnu_debugaltlink().ok()??;
        let name = Path::new(std::str::from_utf8(name).ok()?);
        let beside = if name.is_absolute() {
            name.to_owned()
        } else {
            Path::new(path).parent()?.join(name)
        };
        if beside.exists() {
            Some(beside)
        } else {
            by_build_id(id, "debug")
        }
    })
}

fn by_build_id(id: &[u8], extension: &str) -> Option<PathBuf> {
    let (first, rest) = id.split_first()?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = Path::new(DEBUG)
        .join(".build-id")
        .join(format!("{first:02x}"))
        .join(format!("{rest}.{extension}"));
    path.exists().then_some(path)
}

/// Functions of the dynamic symbol table: address, size, name, in order.
pub(super) fn exported(path: &str) -> Vec<(u64, u64, String)> {
    with_file(path, |file| {
        let mut all: Vec<_> = file
            .dynamic_symbols()
            .filter(|symbol| {
                symbol.is_definition() && symbol.kind() == SymbolKind::Text && symbol.size() > 0
            })
            .filter_map(|symbol| {
                Some((
                    symbol.address(),
                    symbol.size(),
                    symbol.name().ok()?.to_owned(),
                ))
            })
            .collect();
        all.sort_unstable();
        Some(all)
    })
    .unwrap_or_default()
}

/// The checksum by which `.gnu_debuglink` knows its file: CRC-32 as in zlib.
fn crc32(path: &Path) -> Option<u32> {
    let bytes = std::fs::read(path).ok()?;
    let mut table = [0_u32; 256];
    for (index, entry) in (0_u32..).zip(table.iter_mut()) {
        *entry = (0..8).fold(index, |word, _| {
            if word & 1 == 1 {
                0xedb8_8320 ^ word >> 1
            } else {
                word >> 1
            }
        });
    }
    let update = |crc: u32, byte: &u8| table[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ crc >> 8;
    Some(!bytes.iter().fold(!0, update))
}
