//! Addresses to functions, files and lines; read lazily, once per object, and only for what is reported.
//!
//! Line information may be in the object itself, in a file named by its build id or `.gnu_debuglink`, in split DWARF
//! (`.dwo`, `.dwp`), and share a supplementary file (`.gnu_debugaltlink`). Without any, symbols still give function names.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use addr2line::{Loader, demangle_auto};

use crate::objects::{self, Object};

mod files;

/// One frame of source for an address. An address inside inlined code has several, innermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Demangled name, from debug information or else from the symbol table.
    pub function: Option<String>,
    /// Source file as the compiler recorded it (directory included).
    pub file: Option<String>,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
    /// Path of the object that the address is in.
    pub object: Option<String>,
    /// The address as the object's file counts it (`addr2line -e object` takes it), or the address itself.
    pub offset: usize,
    /// Whether this frame was inlined into the next one.
    pub inlined: bool,
}

impl Frame {
    fn bare(object: Option<&str>, offset: usize) -> Self {
        Self {
            function: None,
            file: None,
            line: None,
            column: None,
            object: object.map(str::to_owned),
            offset,
            inlined: false,
        }
    }
}

/// What was read of one file.
struct Source {
    /// The object's own file, for its symbols, and for its line information unless `debug` has it.
    main: Option<Loader>,
    /// The separate file.
    debug: Option<Loader>,
    /// Functions of the dynamic symbol table, by address: for stripped files.
    exported: Vec<(u64, u64, String)>,
    lines: bool,
}

/// Files read so far, by path. Kept for the life of the process: reports ask for the same few again and again.
static SOURCES: Mutex<Option<HashMap<String, Source>>> = Mutex::new(None);

/// The frames at `address`, innermost first; at least one. For a return address pass `address - 1`, or use
/// [`symbolize_return`].
#[must_use]
pub fn symbolize(address: usize) -> Vec<Frame> {
    match objects::containing(address) {
        Some(Object { path, bias, .. }) => symbolize_in(&path, address.wrapping_sub(bias)),
        None => vec![Frame::bare(None, address)],
    }
}

/// The frames of the call that returns to `address`. [`Frame::offset`] is that of the call's last byte.
#[must_use]
pub fn symbolize_return(address: usize) -> Vec<Frame> {
    symbolize(address.wrapping_sub(1))
}

/// The frames at `offset` (as the file counts) in the object file at `path`, which need not be loaded; at least one.
#[must_use]
pub fn symbolize_in(path: &str, offset: usize) -> Vec<Frame> {
    with_source(path, |source| {
        let frames = source.frames(path, offset);
        if frames.is_empty() {
            vec![Frame::bare(Some(path), offset)]
        } else {
            frames
        }
    })
}

/// Whether the object at `path` has line information, in itself or in a separate file that can be found.
#[must_use]
pub fn has_debug_info(path: &str) -> bool {
    files::has_lines(path) || files::debug_file(path).is_some_and(|file| files::has_lines(&file))
}

fn with_source<T>(path: &str, ask: impl FnOnce(&Source) -> T) -> T {
    let mut sources = SOURCES.lock().unwrap_or_else(PoisonError::into_inner);
    let sources = sources.get_or_insert_default();
    if !sources.contains_key(path) {
        sources.insert(path.to_owned(), Source::open(path));
    }
    ask(&sources[path])
}

impl Source {
    fn open(path: &str) -> Self {
        let own = files::has_lines(path);
        let debug = if own { None } else { files::debug_file(path) };
        let load = |file: &str| {
            Loader::new_with_sup(file, files::supplement(file))
                .or_else(|_| Loader::new(file))
                .ok()
        };
        Self {
            main: load(path),
            lines: own || debug.is_some(),
            debug: debug.and_then(|file| load(&file)),
            exported: files::exported(path),
        }
    }

    fn frames(&self, path: &str, offset: usize) -> Vec<Frame> {
        let probe = offset as u64;
        let mut found = Vec::new();
        let with_lines = self
            .debug
            .as_ref()
            .or(self.main.as_ref())
            .filter(|_| self.lines);
        if let Some(loader) = with_lines
            && let Ok(mut frames) = loader.find_frames(probe)
        {
            while let Ok(Some(frame)) = frames.next() {
                let location = frame.location.as_ref();
                found.push(Frame {
                    function: frame
                        .function
                        .as_ref()
                        .and_then(|name| name.demangle().ok())
                        .map(|name| name.into_owned()),
                    file: location
                        .and_then(|location| location.file)
                        .map(str::to_owned),
                    line: location.and_then(|location| location.line),
                    column: location
                        .and_then(|location| location.column)
                        .filter(|column| *column != 0),
                    inlined: true,
                    ..Frame::bare(Some(path), offset)
                });
            }
        }
        if found.is_empty() {
            found.push(Frame::bare(Some(path), offset));
        }
        if let Some(outermost) = found.last_mut() {
            outermost.inlined = false;
            if outermost.function.is_none() {
                outermost.function = self.symbol(probe);
            }
        }
        found
    }

    fn symbol(&self, probe: u64) -> Option<String> {
        let of = |loader: &Option<Loader>| loader.as_ref()?.find_symbol(probe).map(str::to_owned);
        let name = of(&self.debug).or_else(|| of(&self.main)).or_else(|| {
            let at = self
                .exported
                .partition_point(|(start, _, _)| *start <= probe)
                .checked_sub(1)?;
            let (start, size, name) = &self.exported[at];
            (probe < start + size).then(|| name.clone())
        })?;
        Some(demangle_auto(name.into(), None).into_owned())
    }
}
