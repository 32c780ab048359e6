//! A library's declarations, by name.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::{self, Elf, SYSTEM_DEBUG_DIR, Symbols};
use crate::index::{Class, Found, Index};
use crate::model::{DeclId, Enumeration, Function, Record, RecordKind, Typedef};
use crate::types::Resolver;
use crate::units::Units;

/// A shared library with its debug information.
///
/// Opening reads the files once and indexes the names; every description is made when it is asked for. The value is
/// immutable, and may be used from any number of threads at once.
pub struct Library {
    path: PathBuf,
    debug_path: PathBuf,
    build_id: Option<Vec<u8>>,
    symbols: Symbols,
    units: Units,
    index: Index,
}

impl Library {
    /// Opens the shared library at `path`, looking for a separate debug file in the usual places if it is stripped.
    ///
    /// # Errors
    ///
    /// Each with a sentence that names the file: [`Error::Read`], [`Error::NotElf`], [`Error::ForeignArchitecture`],
    /// [`Error::NoDebugInformation`], and [`Error::Damaged`] if nothing at all could be made of it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &[])
    }

    /// Like [`open`](Self::open), with further directories laid out like `/usr/lib/debug`, which are tried first.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, debug_dirs: &[PathBuf]) -> Result<Self> {
        let path = path.as_ref();
        let mut directories = debug_dirs.to_vec();
        directories.push(PathBuf::from(SYSTEM_DEBUG_DIR));
        let library = Elf::read(path)?;
        let separate = files::debug_file(&library, &directories)?;
        let main = separate.as_ref().unwrap_or(&library);
        let mut units = Units::read(path, main, &directories)?;
        let symbols = library.symbols();
        let index = Index::build(&mut units, &symbols);
        if index.is_empty() {
            return Err(match units.problems.first() {
                Some(detail) => Error::Damaged {
                    path: path.to_path_buf(),
                    detail: detail.clone(),
                },
                None => Error::NoDebugInformation {
                    path: path.to_path_buf(),
                    searched: format!(
                        "{}, which has lines but no declarations",
                        main.path.display()
                    ),
                },
            });
        }
        Ok(Self {
            path: path.to_path_buf(),
            debug_path: main.path.clone(),
            build_id: library.build_id(),
            symbols,
            units,
            index,
        })
    }

    /// The library, as it was named.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file its debug information was read from: the library itself, or a separate debug file.
    #[must_use]
    pub fn debug_path(&self) -> &Path {
        &self.debug_path
    }

    /// The linker's build identifier.
    #[must_use]
    pub fn build_id(&self) -> Option<&[u8]> {
        self.build_id.as_deref()
    }

    /// What could not be read, as sentences. The rest is usable.
    #[must_use]
    pub fn damage(&self) -> &[String] {
        &self.units.problems
    }

    /// Names of the functions that the library exports, in order.
    #[must_use]
    pub fn exported_functions(&self) -> Vec<String> {
        let names = self
            .symbols
            .exported
            .keys()
            .map(|name| String::from_utf8_lossy(name).into_owned());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
    }

    /// Names of the structures, unions and classes, without namespaces, in order.
    #[must_use]
    pub fn record_names(&self) -> Vec<String> {
        self.names(&[Class::Struct, Class::Union])
    }

    /// Names of the typedefs, without namespaces, in order.
    #[must_use]
    pub fn typedef_names(&self) -> Vec<String> {
        self.names(&[Class::Typedef])
    }

    /// A function by the name in the symbol table: one that the library exports, or one that it calls and whose
    /// prototype the compiler recorded. `None` if the debug information does not speak of it.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`].
    pub fn function(&self, symbol: &str) -> Result<Option<Function>> {
        let found = self
            .index
            .named(symbol)
            .iter()
            .filter(|found| found.class == Class::Function);
        // A definition before a declaration; without a name (an alias, a versioned symbol) by address.
        let by_name = found.min_by_key(|found| found.declaration);
        let address = self.symbols.exported.get(symbol.as_bytes());
        let die = match by_name {
            Some(found) if !found.declaration => Some(found.die),
            _ => address
                .and_then(|address| self.index.at(*address))
                .or(by_name.map(|found| found.die)),
        };
        die.map(|die| self.resolver().describe_function(die))
            .transpose()
    }

    /// All records of a name, with or without namespaces (`foo`, `a::foo`); those with another keyword than `kind`
    /// are left out, where `struct` and `class` are one. Several are possible: units may differ in what they mean by
    /// a name. Records that are only declared (`struct foo;`) come only if there is no definition.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`].
    pub fn records(&self, kind: Option<RecordKind>, name: &str) -> Result<Vec<Record>> {
        let wanted = |class| match kind {
            None => matches!(class, Class::Struct | Class::Union),
            Some(RecordKind::Union) => class == Class::Union,
            Some(RecordKind::Struct | RecordKind::Class) => class == Class::Struct,
        };
        let found: Vec<Found> = self
            .named(name)
            .filter(|found| wanted(found.class))
            .collect();
        let defined: Vec<&Found> = found.iter().filter(|found| !found.declaration).collect();
        let chosen = if defined.is_empty() {
            found.iter().take(1).collect()
        } else {
            defined
        };
        let resolver = self.resolver();
        let mut records = Vec::new();
        for found in chosen {
            let record = resolver.describe_record(found.die.pack())?;
            if !records.contains(&record) {
                records.push(record);
            }
        }
        Ok(records)
    }

    /// All typedefs of a name, with or without namespaces. Several are possible, as for [`records`](Self::records).
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`].
    pub fn typedefs(&self, name: &str) -> Result<Vec<Typedef>> {
        let resolver = self.resolver();
        let found = self
            .named(name)
            .filter(|found| found.class == Class::Typedef);
        found
            .map(|found| resolver.describe_typedef(found.die))
            .collect()
    }

    /// All enumerations of a name, with or without namespaces.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`].
    pub fn enumerations(&self, name: &str) -> Result<Vec<Enumeration>> {
        let resolver = self.resolver();
        let found = self
            .named(name)
            .filter(|found| found.class == Class::Enumeration && !found.declaration);
        found
            .map(|found| resolver.describe_enumeration(found.die.pack()))
            .collect()
    }

    /// The record that a [`Kind::Record`](crate::Kind::Record) of this library names.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownId`] if this library never gave out the identifier, [`Error::Damaged`].
    pub fn record(&self, id: DeclId) -> Result<Record> {
        self.resolver().describe_record(id)
    }

    /// The enumeration that a [`Kind::Enumeration`](crate::Kind::Enumeration) of this library names.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownId`] if this library never gave out the identifier, [`Error::Damaged`].
    pub fn enumeration(&self, id: DeclId) -> Result<Enumeration> {
        self.resolver().describe_enumeration(id)
    }

    fn resolver(&self) -> Resolver<'_> {
        Resolver::new(&self.units, &self.index)
    }

    fn names(&self, classes: &[Class]) -> Vec<String> {
        let names = classes.iter().flat_map(|&class| self.index.names(class));
        let mut names: Vec<String> = names
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Declarations under a name that may be qualified; unqualified, those of the global scope come first.
    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Found> + 'a {
        let (scope, simple) = split_scope(name);
        let mut found: Vec<Found> = self.index.named(simple).to_vec();
        found.retain(|found| {
            scope.is_none_or(|scope| {
                self.index
                    .scopes
                    .get(found.scope as usize)
                    .is_some_and(|s| s == scope)
            })
        });
        found.sort_by_key(|found| found.scope != 0);
        found.into_iter()
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library")
            .field("path", &self.path)
            .field("debug_path", &self.debug_path)
            .finish_non_exhaustive()
    }
}

/// Splits `a::b::name` before its last part, leaving template arguments alone.
fn split_scope(name: &str) -> (Option<&str>, &str) {
    let mut depth = 0u32;
    let bytes = name.as_bytes();
    for (at, byte) in bytes.iter().enumerate().rev() {
        match byte {
            b'>' => depth += 1,
            b'<' => depth = depth.saturating_sub(1),
            b':' if depth == 0 && at > 0 && bytes.get(at - 1) == Some(&b':') => {
                return (name.get(..at - 1), name.get(at + 1..).unwrap_or(name));
            }
            _ => {}
        }
    }
    (None, name)
}

#[cfg(test)]
mod tests {
    use super::split_scope;

    #[test]
    fn scopes_split_before_the_last_name() {
        assert_eq!(split_scope("foo"), (None, "foo"));
        assert_eq!(split_scope("a::b::foo"), (Some("a::b"), "foo"));
        assert_eq!(split_scope("a::foo<b::c>"), (Some("a"), "foo<b::c>"));
        assert_eq!(split_scope("foo<b::c>"), (None, "foo<b::c>"));
    }
}
