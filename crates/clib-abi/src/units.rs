//! Gathers the units that describe one library, from all files that hold a part of them: the library or its debug
//! file, the supplementary file of `dwz`, split units in `.dwo` and `.dwp` files, and type units.
//!
//! 1. A *group* is one set of sections with its own offsets; references by offset stay within a group.
//! 2. An entry is named by [`DieId`]: unit number and offset in the unit. Numbers are given in reading order and never
//!    change afterwards.
//! 3. A unit that cannot be read is left out and noted; the others stay usable.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use gimli::{
    AttributeValue, DebuggingInformationEntry, Dwarf, DwarfFileType, DwarfPackage, LittleEndian,
    Reader as _, SectionId, UnitHeader, UnitOffset, UnitType, constants as dw,
};

use crate::error::{Error, Result};
use crate::files::{self, Bytes, Elf};
use crate::model::{DeclId, Language, Location};

pub(crate) type Unit = gimli::Unit<Bytes>;
pub(crate) type Die = DebuggingInformationEntry<Bytes>;
pub(crate) type Value = AttributeValue<Bytes>;

/// Bits of a [`DeclId`] that hold the offset; the rest hold the unit.
const OFFSET_BITS: u32 = 40;

/// Names one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DieId {
    pub(crate) unit: u32,
    pub(crate) offset: usize,
}

impl DieId {
    pub(crate) fn pack(self) -> DeclId {
        DeclId((u64::from(self.unit) << OFFSET_BITS) | self.offset as u64)
    }

    pub(crate) fn unpack(id: DeclId) -> Option<Self> {
        let unit = u32::try_from(id.0 >> OFFSET_BITS).ok()?;
        let offset = usize::try_from(id.0 & ((1 << OFFSET_BITS) - 1)).ok()?;
        Some(Self { unit, offset })
    }
}

struct Group {
    path: PathBuf,
    dwarf: Dwarf<Bytes>,
    /// The group that `DW_FORM_GNU_ref_alt` means.
    supplementary: Option<usize>,
    /// Units of `.debug_info`, ordered by offset.
    by_offset: Vec<(usize, u32)>,
}

pub(crate) struct Member {
    group: usize,
    pub(crate) unit: Unit,
    /// The unit in the main file that stands for this split unit and holds its line table.
    skeleton: Option<u32>,
    pub(crate) language: Language,
    /// Skeletons, and units that only import others, hold nothing to be found by name.
    pub(crate) is_skeleton: bool,
}

/// All units of a library.
#[derive(Default)]
pub(crate) struct Units {
    groups: Vec<Group>,
    pub(crate) members: Vec<Member>,
    signatures: HashMap<u64, DieId>,
    /// What could not be read, as sentences.
    pub(crate) problems: Vec<String>,
}

impl Units {
    /// Reads the units of `main`, the file that holds the DWARF of `library`.
    pub(crate) fn read(library: &Path, main: &Elf, debug_dirs: &[PathBuf]) -> Result<Self> {
        let mut units = Self::default();
        let supplementary = match files::supplementary_file(main, debug_dirs) {
            Ok(found) => found,
            Err(error) => {
                units.problems.push(error.to_string());
                None
            }
        };
        let mut dwarf = units.load(main, SectionId::name)?;
        if let Some(elf) = &supplementary {
            let alt = units.load(elf, SectionId::name)?;
            dwarf.set_sup(units.load(elf, SectionId::name)?);
            units.groups.push(Group {
                path: elf.path.clone(),
                dwarf: alt,
                supplementary: None,
                by_offset: Vec::new(),
            });
            units.read_group(0, None);
        }
        let group = units.groups.len();
        units.groups.push(Group {
            path: main.path.clone(),
            dwarf,
            supplementary: supplementary.is_some().then_some(0),
            by_offset: Vec::new(),
        });
        units.read_group(group, None);
        units.read_split(library, main, group);
        if units.members.is_empty() {
            let detail = units
                .problems
                .first()
                .cloned()
                .unwrap_or_else(|| "it has no units".into());
            return Err(Error::Damaged {
                path: main.path.clone(),
                detail,
            });
        }
        Ok(units)
    }

    /// Loads the sections of one file. Only the three that hold the entries themselves are indispensable.
    fn load(
        &mut self,
        elf: &Elf,
        name: impl Fn(SectionId) -> &'static str,
    ) -> Result<Dwarf<Bytes>> {
        Dwarf::load(|id| self.load_section(elf, id, name(id)))
    }

    fn load_section(&mut self, elf: &Elf, id: SectionId, name: &'static str) -> Result<Bytes> {
        if name.is_empty() {
            return Ok(empty());
        }
        match elf.section(name) {
            Err(error @ Error::Damaged { .. })
                if !matches!(
                    id,
                    SectionId::DebugInfo | SectionId::DebugAbbrev | SectionId::DebugStr
                ) =>
            {
                self.problems.push(error.to_string());
                Ok(empty())
            }
            other => other,
        }
    }

    /// Reads all unit headers of a group, and notes the first that cannot be read.
    fn read_group(&mut self, group: usize, skeleton: Option<u32>) {
        let mut headers: Vec<(bool, UnitHeader<Bytes>)> = Vec::new();
        let mut failure = None;
        if let Some(Group { dwarf, .. }) = self.groups.get(group) {
            let mut infos = dwarf.units();
            let failed = loop {
                match infos.next() {
                    Ok(Some(header)) => headers.push((true, header)),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            let mut types = dwarf.type_units();
            let types_failed = loop {
                match types.next() {
                    Ok(Some(header)) => headers.push((false, header)),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            failure = failed
                .or(types_failed)
                .map(|error| format!("unit header: {error}"));
        }
        for (in_info, header) in headers {
            self.read_unit(group, header, in_info, skeleton);
        }
        if let Some(detail) = failure {
            self.note(group, &detail);
        }
    }

    fn read_unit(
        &mut self,
        group: usize,
        header: UnitHeader<Bytes>,
        in_info: bool,
        skeleton: Option<u32>,
    ) {
        let Ok(number) = u32::try_from(self.members.len()) else {
            return;
        };
        if number >= 1 << (u64::BITS - OFFSET_BITS) {
            return;
        }
        let offset = header.offset().0;
        let kind = header.type_();
        let Some(Group { dwarf, .. }) = self.groups.get(group) else {
            return;
        };
        let opened = dwarf.unit(header).and_then(|unit| {
            let root = unit.entry(unit.header.root_offset())?;
            Ok((unit, root))
        });
        let (mut unit, root) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.note(group, &format!("unit at {offset:#x}: {error}")),
        };
        if let Some(skeleton) = skeleton.and_then(|skeleton| self.members.get(skeleton as usize)) {
            unit.copy_relocated_attributes(&skeleton.unit);
        }
        let split = root.has_attr(dw::DW_AT_GNU_dwo_name) || root.has_attr(dw::DW_AT_dwo_name);
        let is_skeleton = skeleton.is_none() && (matches!(kind, UnitType::Skeleton(_)) || split);
        let language = match root.attr_value(dw::DW_AT_language) {
            Some(Value::Language(language)) => language_of(language),
            _ => Language::Other,
        };
        if let UnitType::Type {
            type_signature,
            type_offset,
        }
        | UnitType::SplitType {
            type_signature,
            type_offset,
        } = kind
        {
            self.signatures.entry(type_signature.0).or_insert(DieId {
                unit: number,
                offset: type_offset.0,
            });
        }
        if in_info && let Some(group) = self.groups.get_mut(group) {
            group.by_offset.push((offset, number));
        }
        self.members.push(Member {
            group,
            unit,
            skeleton,
            language,
            is_skeleton,
        });
    }

    /// Reads the split units that the skeletons of `main` stand for.
    fn read_split(&mut self, library: &Path, main: &Elf, main_group: usize) {
        let skeletons: Vec<u32> = (0u32..)
            .zip(&self.members)
            .filter(|(_, member)| member.group == main_group && member.is_skeleton)
            .map(|(number, _)| number)
            .collect();
        if skeletons.is_empty() {
            return;
        }
        let package = [main.path.as_path(), library].iter().find_map(|path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".dwp");
            Elf::read(Path::new(&name)).ok()
        });
        if let Some(package) = package {
            match self.read_package(&package, main_group, &skeletons) {
                Ok(()) => return,
                Err(error) => self.problems.push(error.to_string()),
            }
        }
        for skeleton in skeletons {
            if let Err(error) = self.read_dwo(library, main_group, skeleton) {
                self.problems.push(error.to_string());
            }
        }
    }

    fn read_package(&mut self, elf: &Elf, main_group: usize, skeletons: &[u32]) -> Result<()> {
        let damaged = |error: gimli::Error| Error::Damaged {
            path: elf.path.clone(),
            detail: error.to_string(),
        };
        let package = {
            let sections =
                gimli::DwarfPackageSections::load(|id| -> std::result::Result<Bytes, LoadError> {
                    Ok(self.load_section(elf, id, id.dwo_name().unwrap_or(id.name()))?)
                });
            let sections = sections.map_err(|error| match error {
                LoadError::Ours(error) => error,
                LoadError::Gimli(error) => damaged(error),
            })?;
            sections.borrow(Clone::clone, empty()).map_err(damaged)?
        };
        for &skeleton in skeletons {
            let Some(id) = self
                .members
                .get(skeleton as usize)
                .and_then(|member| member.unit.dwo_id)
            else {
                continue;
            };
            let Some(Group { dwarf: parent, .. }) = self.groups.get(main_group) else {
                continue;
            };
            let found = package.find_cu(id, parent);
            self.add_package_group(elf, main_group, found, Some(skeleton));
        }
        self.read_package_types(elf, &package, main_group);
        Ok(())
    }

    fn read_package_types(&mut self, elf: &Elf, package: &DwarfPackage<Bytes>, main_group: usize) {
        for row in 1..=package.tu_index.unit_count() {
            let Some(Group { dwarf: parent, .. }) = self.groups.get(main_group) else {
                continue;
            };
            let found = package.tu_sections(row, parent).map(Some);
            self.add_package_group(elf, main_group, found, None);
        }
    }

    fn add_package_group(
        &mut self,
        elf: &Elf,
        main_group: usize,
        found: gimli::Result<Option<Dwarf<Bytes>>>,
        skeleton: Option<u32>,
    ) {
        match found {
            Ok(Some(dwarf)) => {
                let number = self.groups.len();
                let supplementary = self
                    .groups
                    .get(main_group)
                    .and_then(|group| group.supplementary);
                self.groups.push(Group {
                    path: elf.path.clone(),
                    dwarf,
                    supplementary,
                    by_offset: Vec::new(),
                });
                self.read_group(number, skeleton);
            }
            Ok(None) => self
                .problems
                .push(format!("{}: lacks a split unit", elf.path.display())),
            Err(error) => self
                .problems
                .push(format!("{}: {error}", elf.path.display())),
        }
    }

    fn read_dwo(&mut self, library: &Path, main_group: usize, skeleton: u32) -> Result<()> {
        let Some(member) = self.members.get(skeleton as usize) else {
            return Ok(());
        };
        let Some(Group { dwarf, .. }) = self.groups.get(main_group) else {
            return Ok(());
        };
        let name = member.unit.dwo_name().ok().flatten();
        let Some(name) = name.and_then(|name| text(dwarf, &member.unit, name)) else {
            return Ok(());
        };
        let wanted = member.unit.dwo_id;
        let mut candidates = Vec::new();
        if let Some(directory) = member
            .unit
            .comp_dir
            .as_ref()
            .and_then(|directory| directory.to_string_lossy().ok())
        {
            candidates.push(Path::new(&*directory).join(&name));
        }
        let beside = library.parent().unwrap_or(Path::new("."));
        candidates.push(beside.join(&name));
        if let Some(base) = Path::new(&name).file_name() {
            candidates.push(beside.join(base));
        }
        for candidate in &candidates {
            let Ok(elf) = Elf::read(candidate) else {
                continue;
            };
            let mut dwo = self.load(&elf, |id| id.dwo_name().unwrap_or(""))?;
            let Some(Group { dwarf: parent, .. }) = self.groups.get(main_group) else {
                continue;
            };
            dwo.make_dwo(parent);
            if !has_unit(&dwo, wanted) {
                continue;
            }
            let number = self.groups.len();
            self.groups.push(Group {
                path: elf.path,
                dwarf: dwo,
                supplementary: None,
                by_offset: Vec::new(),
            });
            self.read_group(number, Some(skeleton));
            return Ok(());
        }
        Err(Error::NoDebugInformation {
            path: library.to_path_buf(),
            searched: candidates
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    pub(crate) fn note(&mut self, group: usize, detail: &str) {
        if let Some(group) = self.groups.get(group) {
            self.problems
                .push(format!("{}: {detail}", group.path.display()));
        }
    }

    /// Notes something that went wrong in reading a unit.
    pub(crate) fn note_unit(&mut self, unit: u32, detail: &str) {
        if let Some(group) = self.members.get(unit as usize).map(|member| member.group) {
            self.note(group, detail);
        }
    }

    pub(crate) fn member(&self, unit: u32) -> Option<&Member> {
        self.members.get(unit as usize)
    }

    pub(crate) fn dwarf(&self, member: &Member) -> Option<&Dwarf<Bytes>> {
        self.groups.get(member.group).map(|group| &group.dwarf)
    }

    /// An error about the file that holds `unit`.
    pub(crate) fn damaged(&self, unit: u32, detail: impl Into<String>) -> Error {
        let group = self
            .member(unit)
            .and_then(|member| self.groups.get(member.group));
        let path = group.map_or_else(PathBuf::new, |group| group.path.clone());
        Error::Damaged {
            path,
            detail: detail.into(),
        }
    }

    /// Reads one entry.
    pub(crate) fn entry(&self, id: DieId) -> Result<Die> {
        let member = self
            .member(id.unit)
            .ok_or_else(|| Error::UnknownId(id.pack().0))?;
        let entry = member.unit.entry(UnitOffset(id.offset));
        match entry {
            Ok(entry) if !entry.is_null() => Ok(entry),
            Ok(_) => Err(self.damaged(id.unit, format!("no entry at {:#x}", id.offset))),
            Err(error) => Err(self.damaged(id.unit, format!("entry at {:#x}: {error}", id.offset))),
        }
    }

    /// The entry that an attribute of an entry in `unit` refers to.
    pub(crate) fn reference(&self, unit: u32, value: &Value) -> Option<DieId> {
        let member = self.member(unit)?;
        match *value {
            Value::UnitRef(offset) => Some(DieId {
                unit,
                offset: offset.0,
            }),
            Value::DebugInfoRef(offset) => self.by_section_offset(member.group, offset.0),
            Value::DebugInfoRefSup(offset) => {
                let group = self.groups.get(member.group)?.supplementary?;
                self.by_section_offset(group, offset.0)
            }
            Value::DebugTypesRef(signature) => self.signatures.get(&signature.0).copied(),
            _ => None,
        }
    }

    fn by_section_offset(&self, group: usize, offset: usize) -> Option<DieId> {
        let units = &self.groups.get(group)?.by_offset;
        let index = units
            .partition_point(|&(start, _)| start <= offset)
            .checked_sub(1)?;
        let &(start, unit) = units.get(index)?;
        Some(DieId {
            unit,
            offset: offset.checked_sub(start)?,
        })
    }

    /// A string attribute.
    pub(crate) fn string(&self, unit: u32, value: &Value) -> Option<String> {
        let member = self.member(unit)?;
        text(self.dwarf(member)?, &member.unit, value.clone())
    }

    /// Where an entry says it is declared.
    pub(crate) fn location(&self, unit: u32, entry: &Die) -> Option<Location> {
        let line = entry.attr(dw::DW_AT_decl_line)?.udata_value()?;
        let file = match entry.attr_value(dw::DW_AT_decl_file)? {
            Value::FileIndex(index) => index,
            other => other.udata_value()?,
        };
        Some(Location {
            file: self.file_name(unit, file)?,
            line,
        })
    }

    fn file_name(&self, unit: u32, index: u64) -> Option<String> {
        let mut member = self.member(unit)?;
        let mut comp_dir = member.unit.comp_dir.clone();
        if member.unit.line_program.is_none() {
            member = self.member(member.skeleton?)?;
            comp_dir = comp_dir.or_else(|| member.unit.comp_dir.clone());
        }
        let dwarf = self.dwarf(member)?;
        let header = member.unit.line_program.as_ref()?.header();
        let file = header.file(index)?;
        let mut path = PathBuf::new();
        if let Some(comp_dir) = comp_dir {
            path.push(comp_dir.to_string_lossy().ok()?.as_ref());
        }
        if let Some(directory) = file.directory(header) {
            path.push(text(dwarf, &member.unit, directory)?);
        }
        path.push(text(dwarf, &member.unit, file.path_name())?);
        Some(tidy(&path).display().to_string())
    }
}

/// For the loader of packages, which insists on an error that gimli's own converts into.
enum LoadError {
    Ours(Error),
    Gimli(gimli::Error),
}

impl From<gimli::Error> for LoadError {
    fn from(error: gimli::Error) -> Self {
        Self::Gimli(error)
    }
}

impl From<Error> for LoadError {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

fn empty() -> Bytes {
    Bytes::new(std::sync::Arc::from([].as_slice()), LittleEndian)
}

fn has_unit(dwo: &Dwarf<Bytes>, wanted: Option<gimli::DwoId>) -> bool {
    debug_assert!(dwo.file_type == DwarfFileType::Dwo);
    let mut units = dwo.units();
    while let Ok(Some(header)) = units.next() {
        if dwo
            .unit(header)
            .is_ok_and(|unit| unit.dwo_id.is_some() && unit.dwo_id == wanted)
        {
            return true;
        }
    }
    false
}

fn text(dwarf: &Dwarf<Bytes>, unit: &Unit, value: Value) -> Option<String> {
    dwarf
        .attr_string(unit, value)
        .ok()?
        .to_string_lossy()
        .ok()
        .map(std::borrow::Cow::into_owned)
}

/// Takes `.` and `..` out of a path by its text alone: these paths are shown, never opened.
fn tidy(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut tidy = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(tidy.components().next_back(), Some(Component::Normal(_))) =>
            {
                tidy.pop();
            }
            other => tidy.push(other),
        }
    }
    tidy
}

fn language_of(language: dw::DwLang) -> Language {
    match language {
        dw::DW_LANG_C | dw::DW_LANG_C89 | dw::DW_LANG_C99 | dw::DW_LANG_C11 | dw::DW_LANG_C17 => {
            Language::C
        }
        dw::DW_LANG_C_plus_plus
        | dw::DW_LANG_C_plus_plus_03
        | dw::DW_LANG_C_plus_plus_11
        | dw::DW_LANG_C_plus_plus_14
        | dw::DW_LANG_C_plus_plus_17
        | dw::DW_LANG_C_plus_plus_20 => Language::Cpp,
        dw::DW_LANG_Rust => Language::Rust,
        // DWARF 6 gives C23 a number of its own, which gimli has no name for.
        dw::DwLang(0x003e) => Language::C,
        _ => Language::Other,
    }
}
