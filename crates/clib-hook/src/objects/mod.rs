//! The objects that the dynamic loader has mapped, and which of them a user means.

use std::{
    collections::HashMap,
    ffi::{CStr, c_int, c_void},
    path::Path,
    slice,
};

pub(crate) mod dynamic;
mod pattern;

pub use pattern::Pattern;

/// One loaded object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Path as the loader knows it; the executable's own for the main program.
    pub path: String,
    /// `DT_SONAME`, if it has one.
    pub soname: Option<String>,
    /// GNU build id, in hexadecimal.
    pub build_id: Option<String>,
    /// What is added to addresses in the file to get addresses in memory.
    pub bias: usize,
    /// First address of its mappings.
    pub start: usize,
    /// Address after its last mapping.
    pub end: usize,
}

/// An object with what else its program headers say.
#[derive(Debug, Clone)]
pub(crate) struct Mapped {
    pub(crate) object: Object,
    /// Whether it is the executable itself.
    pub(crate) main: bool,
    /// Address of the dynamic section, if there is one.
    pub(crate) dynamic: Option<usize>,
    /// `.eh_frame_hdr`: address and size.
    pub(crate) frames: Option<(usize, usize)>,
    /// Its loaded segments: start, end, whether executable, whether writable.
    pub(crate) segments: Vec<Segment>,
}

/// A loaded segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) executable: bool,
}

impl Mapped {
    /// Whether `size` bytes at `address` lie in one of its segments.
    pub(crate) fn contains(&self, address: usize, size: usize) -> bool {
        self.segments
            .iter()
            .any(|segment| segment.start <= address && address.saturating_add(size) <= segment.end)
    }

    /// Whether `address` is in one of its executable segments.
    pub(crate) fn executes(&self, address: usize) -> bool {
        self.segments
            .iter()
            .any(|segment| segment.executable && (segment.start..segment.end).contains(&address))
    }
}

/// All objects that are loaded now, in the loader's order.
#[must_use]
pub fn loaded() -> Vec<Object> {
    mapped().into_iter().map(|mapped| mapped.object).collect()
}

/// The object that `address` is in.
#[must_use]
pub fn containing(address: usize) -> Option<Object> {
    mapped()
        .into_iter()
        .find(|mapped| mapped.contains(address, 1))
        .map(|mapped| mapped.object)
}

/// How many objects have been loaded and unloaded since the process began: the loader's counters, read in about
/// 100 ns. If neither changed, a rescan finds nothing new.
#[must_use]
pub fn generation() -> (u64, u64) {
    unsafe extern "C" fn first(
        info: *mut libc::dl_phdr_info,
        _: usize,
        into: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader passes a valid record, and `into` is the pair given below, which outlives the walk.
        unsafe { *into.cast::<(u64, u64)>() = ((*info).dlpi_adds, (*info).dlpi_subs) };
        1
    }
    let mut generation = (0, 0);
    // SAFETY: the callback has the right signature and only writes to `generation`.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut generation).cast()) };
    generation
}

/// All loaded objects with their segments.
pub(crate) fn mapped() -> Vec<Mapped> {
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _: usize, into: *mut c_void) -> c_int {
        // SAFETY: `into` is the vector given below; the loader passes a record that is valid during the call.
        let (all, info) = unsafe { (&mut *into.cast::<Vec<Mapped>>(), &*info) };
        let main = all.is_empty();
        // SAFETY: the loader's record describes that many program headers and, if not null, a C string.
        let (headers, name) = unsafe {
            let headers = if info.dlpi_phdr.is_null() {
                &[]
            } else {
                slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum))
            };
            let name = if info.dlpi_name.is_null() {
                c""
            } else {
                CStr::from_ptr(info.dlpi_name)
            };
            (headers, name)
        };
        all.push(describe(address(info.dlpi_addr), main, name, headers));
        0
    }
    let mut all: Vec<Mapped> = Vec::with_capacity(64);
    // SAFETY: the callback has the right signature, does not unwind, and only uses `all`.
    unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut all).cast()) };
    if let Some(first) = all.first_mut()
        && let Ok(path) = std::fs::read_link("/proc/self/exe")
    {
        first.object.path = path.to_string_lossy().into_owned();
    }
    all
}

/// Addresses in ELF structures are 64 bits wide, as are ours on this platform.
#[expect(
    clippy::cast_possible_truncation,
    reason = "usize has 64 bits on x86-64"
)]
pub(crate) const fn address(value: u64) -> usize {
    value as usize
}

fn describe(bias: usize, main: bool, name: &CStr, headers: &[libc::Elf64_Phdr]) -> Mapped {
    const NOTE_ALIGN: usize = 4;
    let mut mapped = Mapped {
        object: Object {
            path: name.to_string_lossy().into_owned(),
            soname: None,
            build_id: None,
            bias,
            start: usize::MAX,
            end: 0,
        },
        main,
        dynamic: None,
        frames: None,
        segments: Vec::new(),
    };
    for header in headers {
        let start = bias.wrapping_add(address(header.p_vaddr));
        let size = address(header.p_memsz);
        match header.p_type {
            libc::PT_LOAD => {
                mapped.object.start = mapped.object.start.min(start);
                mapped.object.end = mapped.object.end.max(start + size);
                let executable = header.p_flags & libc::PF_X != 0;
                mapped.segments.push(Segment {
                    start,
                    end: start + size,
                    executable,
                });
            }
            libc::PT_DYNAMIC => mapped.dynamic = Some(start),
            libc::PT_GNU_EH_FRAME => mapped.frames = Some((start, size)),
            _ => {}
        }
    }
    // Notes need the segments, to check that they are really mapped.
    for header in headers
        .iter()
        .filter(|header| header.p_type == libc::PT_NOTE)
    {
        let start = bias.wrapping_add(address(header.p_vaddr));
        let size = address(header.p_memsz);
        if mapped.contains(start, size)
            && start.is_multiple_of(NOTE_ALIGN)
            && mapped.object.build_id.is_none()
        {
            // SAFETY: the bytes lie in a loaded segment (checked above), and notes are never written to.
            let notes = unsafe { slice::from_raw_parts(start as *const u8, size) };
            mapped.object.build_id = build_id(notes);
        }
    }
    mapped.object.soname = dynamic::Dynamic::read(&mapped).and_then(|dynamic| dynamic.soname());
    mapped
}

/// The GNU build id in a note segment.
fn build_id(mut notes: &[u8]) -> Option<String> {
    const NT_GNU_BUILD_ID: u32 = 3;
    let word =
        |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    loop {
        let name = usize::try_from(word(notes, 0)?).ok()?;
        let size = usize::try_from(word(notes, 4)?).ok()?;
        let kind = word(notes, 8)?;
        let body = 12 + name.checked_next_multiple_of(4)?;
        let content = notes.get(body..body.checked_add(size)?)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..16) == Some(b"GNU\0") {
            return Some(content.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = notes.get(body + size.checked_next_multiple_of(4)?..)?;
    }
}

/// Whether an object is the C library.
pub(crate) fn is_c_library(object: &Object) -> bool {
    let name = Path::new(&object.path)
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    name.starts_with("libc.so") || name.starts_with("libc-2.")
}

/// Whether `malloc` is the C library's, whose chunks are known.
pub(crate) fn has_c_library_s_malloc() -> bool {
    // SAFETY: a lookup by a C string in the global scope.
    let malloc = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"malloc".as_ptr()) } as usize;
    loaded()
        .iter()
        .any(|object| (object.start..object.end).contains(&malloc) && is_c_library(object))
}

/// Whether an object is the dynamic loader, the kernel's own, the C library or a checking tool: never hooked.
pub(crate) fn is_system(object: &Object) -> bool {
    let name = Path::new(&object.path)
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    name.starts_with("ld-linux")
        || name.starts_with("ld.so")
        || name.starts_with("ld-2.")
        || name.starts_with("linux-vdso")
        || name.starts_with("linux-gate")
        || is_c_library(object)
        || ["libasan", "libtsan", "libubsan", "liblsan", "vgpreload_"]
            .iter()
            .any(|tool| name.starts_with(tool))
        || name.starts_with("libpthread")
        || name.starts_with("libdl.so")
        || name.starts_with("libdl-2.")
        || object.path.is_empty()
}

/// Whether an object is the C or C++ runtime.
pub(crate) fn is_runtime(object: &Object) -> bool {
    let name = Path::new(&object.path)
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    is_system(object)
        || [
            "libm.so",
            "libm-2.",
            "libstdc++.so",
            "libgcc_s.so",
            "libc++.so",
            "libc++abi.so",
            "librt.so",
        ]
        .iter()
        .any(|runtime| name.starts_with(runtime))
}

/// Whether `name` (as in another object's list of needed ones) means this object.
pub(crate) fn is_named(object: &Object, name: &str) -> bool {
    object.soname.as_deref() == Some(name)
        || Path::new(&object.path)
            .file_name()
            .is_some_and(|file| file == name)
}

/// The object that holds this very code.
pub(crate) fn own() -> Option<Mapped> {
    let here = own as fn() -> Option<Mapped> as usize;
    mapped().into_iter().find(|mapped| mapped.contains(here, 1))
}

/// One line of `/proc/self/maps`.
#[derive(Debug, Clone)]
pub(crate) struct Area {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// `PROT_*` bits.
    pub(crate) protection: i32,
    pub(crate) private: bool,
    /// Inode of the file, 0 for anonymous memory.
    pub(crate) inode: u64,
    /// Path or name (`[heap]`), may be empty.
    pub(crate) name: String,
}

/// The process' address space.
pub(crate) fn areas() -> Result<Vec<Area>, crate::Error> {
    let text = std::fs::read("/proc/self/maps").map_err(|error| {
        crate::Error::System(
            "reading /proc/self/maps".to_owned(),
            error.raw_os_error().unwrap_or(0),
        )
    })?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(area).collect())
}

fn area(line: &[u8]) -> Option<Area> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut bounds = fields.next()?.splitn(2, |byte| *byte == b'-');
    let (start, end) = (number(bounds.next()?, 16)?, number(bounds.next()?, 16)?);
    let rights = fields.next()?;
    let (_offset, _device) = (fields.next()?, fields.next()?);
    let inode = number(fields.next()?, 10)?;
    let name = fields.next().unwrap_or_default().trim_ascii_start();
    let mut protection = libc::PROT_NONE;
    for (at, letter, bit) in [
        (0, b'r', libc::PROT_READ),
        (1, b'w', libc::PROT_WRITE),
        (2, b'x', libc::PROT_EXEC),
    ] {
        if rights.get(at) == Some(&letter) {
            protection |= bit;
        }
    }
    Some(Area {
        start,
        end,
        protection,
        private: rights.get(3) == Some(&b'p'),
        inode: inode as u64,
        name: String::from_utf8_lossy(name).into_owned(),
    })
}

/// A number that fits into a word.
fn number(digits: &[u8], radix: u32) -> Option<usize> {
    let digit = |byte: &u8| {
        char::from(*byte)
            .to_digit(radix)
            .map(|digit| digit as usize)
    };
    digits.iter().try_fold(0_usize, |number, byte| {
        number
            .checked_mul(radix as usize)?
            .checked_add(digit(byte)?)
    })
}

/// The area that holds `address`, in areas that are in order (as the kernel lists them).
pub(crate) fn area_of(areas: &[Area], address: usize) -> Option<&Area> {
    let at = areas.partition_point(|area| area.end <= address);
    areas.get(at).filter(|area| area.start <= address)
}

/// Keeps an object loaded for good, since pointers into it or out of it may have been copied.
pub(crate) fn pin(mapped: &Mapped) {
    if mapped.main {
        return;
    }
    if let Ok(path) = std::ffi::CString::new(mapped.object.path.as_str()) {
        // SAFETY: RTLD_NOLOAD runs no code; the handle is kept for ever on purpose.
        unsafe {
            libc::dlopen(
                path.as_ptr(),
                libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE,
            )
        };
    }
}

/// Looks symbols up as the loader would for an object: the global scope first, then the object and its dependencies.
#[derive(Debug)]
pub(crate) struct Resolver {
    handle: usize,
    known: HashMap<String, usize>,
}

impl Resolver {
    pub(crate) fn for_object(mapped: &Mapped) -> Self {
        let path = std::ffi::CString::new(if mapped.main {
            ""
        } else {
            mapped.object.path.as_str()
        })
        .unwrap_or_default();
        let name = if mapped.main {
            std::ptr::null()
        } else {
            path.as_ptr()
        };
        // SAFETY: RTLD_NOLOAD runs no code, and NULL means the main program.
        let handle = unsafe { libc::dlopen(name, libc::RTLD_LAZY | libc::RTLD_NOLOAD) } as usize;
        Self {
            handle,
            known: HashMap::new(),
        }
    }

    /// The address of a function, by name and version.
    pub(crate) fn resolve(&mut self, symbol: &str, version: Option<&str>) -> Option<usize> {
        if let Some(address) = self.known.get(symbol) {
            return Some(*address).filter(|address| *address != 0);
        }
        let name = std::ffi::CString::new(symbol).ok()?;
        let version = version.and_then(|version| std::ffi::CString::new(version).ok());
        let mut found = 0;
        for handle in [libc::RTLD_DEFAULT as usize, self.handle] {
            if found != 0 || (handle == 0 && libc::RTLD_DEFAULT as usize != 0) {
                continue;
            }
            let handle = handle as *mut c_void;
            // SAFETY: the handle is RTLD_DEFAULT or came from dlopen; names are C strings.
            found = unsafe {
                match &version {
                    Some(version) => libc::dlvsym(handle, name.as_ptr(), version.as_ptr()),
                    None => libc::dlsym(handle, name.as_ptr()),
                }
            } as usize;
        }
        self.known.insert(symbol.to_owned(), found);
        Some(found).filter(|address| *address != 0)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        if self.handle != 0 {
            // SAFETY: the handle came from dlopen and is not used any more.
            unsafe { libc::dlclose(self.handle as *mut c_void) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_and_its_c_library_are_found() {
        let objects = loaded();
        let here = this_program_and_its_c_library_are_found as fn() as usize;
        let main = containing(here).expect("this program");
        assert_eq!(
            Some(main.path.clone()),
            std::env::current_exe()
                .ok()
                .map(|path| path.display().to_string())
        );
        assert_eq!(objects[0], main);
        let libc = containing(libc::getpid as unsafe extern "C" fn() -> i32 as usize);
        assert!(libc.is_none_or(|object| object.start < object.end));
        let c_library = objects
            .iter()
            .find(|object| object.soname.as_deref() == Some("libc.so.6"))
            .expect("libc");
        assert_eq!(c_library.build_id.as_ref().map(String::len), Some(40));
        assert!(is_system(c_library) && !is_system(&main));
        assert!(generation().0 >= objects.len() as u64);
    }

    #[test]
    fn maps_lines_are_understood() {
        let line = b"7f00-7f10 r-xp 00001000 08:01 42                       /usr/lib/with space.so";
        let area = area(line).expect("well-formed");
        assert_eq!((area.start, area.end, area.inode), (0x7f00, 0x7f10, 42));
        assert_eq!(area.protection, libc::PROT_READ | libc::PROT_EXEC);
        assert_eq!(area.name, "/usr/lib/with space.so");
        assert!(area.private);
    }
}
