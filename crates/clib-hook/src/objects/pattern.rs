//! What users write for a library, and the names that libraries really have.

use std::{ffi::CString, path::Path};

use super::Object;
use crate::Error;

/// How a user names a library: a path, a file name, or a glob of either.
///
/// A file name also matches the copies that wheels carry (`libfoo-1a2b3c4d.so.1` for `libfoo.so`), longer versions
/// (`libfoo.so.1.2` for `libfoo.so`), and extension modules by their module name (`_foo.cpython-311-x86_64-linux-gnu.so` for
/// `_foo.so` or `_foo`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
}

impl Pattern {
    /// Parses what the user wrote.
    ///
    /// # Errors
    ///
    /// [`Error::BadPattern`] when it is empty, a directory's name (ends with a slash), or holds a NUL byte.
    pub fn new(text: &str) -> Result<Self, Error> {
        if text.trim().is_empty() || text.contains('\0') || text.ends_with('/') {
            return Err(Error::BadPattern(format!(
                "{text:?} names no file; write a path, a file name or a glob"
            )));
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

    /// Whether it has wildcards (`*`, `?`, `[`).
    #[must_use]
    pub fn is_glob(&self) -> bool {
        self.text.contains(['*', '?', '['])
    }

    /// Whether `object` is meant.
    #[must_use]
    pub fn matches(&self, object: &Object) -> bool {
        if object.path.is_empty() {
            return false;
        }
        if self.text.contains('/') {
            return self.matches_path(&object.path);
        }
        let name = Path::new(&object.path)
            .file_name()
            .map(|name| name.to_string_lossy())
            .unwrap_or_default();
        let names = [Some(name.as_ref()), object.soname.as_deref()];
        names.into_iter().flatten().any(|name| {
            name == self.text
                || (self.is_glob()
                    && (glob(&self.text, name, 0)
                        || glob(&self.text, &Name::parse(name).plain(), 0)))
                || Name::parse(&self.text).covers(&Name::parse(name))
        })
    }

    fn matches_path(&self, path: &str) -> bool {
        if self.is_glob() {
            return glob(&self.text, path, libc::FNM_PATHNAME);
        }
        let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
        self.text == path || same(Path::new(&self.text), Path::new(path))
    }
}

fn glob(pattern: &str, name: &str, flags: i32) -> bool {
    let (Ok(pattern), Ok(name)) = (CString::new(pattern), CString::new(name)) else {
        return false;
    };
    // SAFETY: both are C strings; fnmatch only reads them.
    unsafe { libc::fnmatch(pattern.as_ptr(), name.as_ptr(), flags) == 0 }
}

/// A library's file name in parts: `libfoo-1a2b3c4d.so.1.2` is `libfoo`, and version `1.2`.
struct Name<'a> {
    stem: &'a str,
    version: &'a str,
    shared: bool,
}

impl<'a> Name<'a> {
    fn parse(name: &'a str) -> Self {
        let (stem, version, shared) = match name.find(".so") {
            Some(at) if name[at + 3..].is_empty() => (&name[..at], "", true),
            Some(at) if name[at + 3..].starts_with('.') => (&name[..at], &name[at + 4..], true),
            _ => (name, "", false),
        };
        // Wheels add a hash of the contents; interpreters a tag.
        let stem = match stem.rsplit_once('-') {
            Some((rest, hash))
                if hash.len() >= 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
            {
                rest
            }
            _ => stem,
        };
        let stem = match stem.split_once('.') {
            Some((module, tag)) if shared && (tag.starts_with("cpython-") || tag == "abi3") => {
                module
            }
            _ => stem,
        };
        Self {
            stem,
            version,
            shared,
        }
    }

    /// Whether a user who wrote this may mean `other`.
    fn covers(&self, other: &Name<'_>) -> bool {
        if !other.shared || self.stem != other.stem {
            return false;
        }
        match other.version.strip_prefix(self.version) {
            Some(rest) => self.version.is_empty() || rest.is_empty() || rest.starts_with('.'),
            None => false,
        }
    }

    /// The name without hash or tag.
    fn plain(&self) -> String {
        match (self.shared, self.version) {
            (false, _) => self.stem.to_owned(),
            (true, "") => format!("{}.so", self.stem),
            (true, version) => format!("{}.so.{version}", self.stem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let object = Object {
            path: path.to_owned(),
            soname: None,
            build_id: None,
            bias: 0,
            start: 0,
            end: 0,
        };
        Pattern::new(pattern).expect("valid").matches(&object)
    }

    #[test]
    fn names_as_users_write_them() {
        for (pattern, path) in [
            ("libfoo.so", "/usr/lib/libfoo.so"),
            ("libfoo.so", "/usr/lib/libfoo.so.1.2.3"),
            ("libfoo.so.1", "/usr/lib/libfoo.so.1.2.3"),
            ("libfoo", "/usr/lib/libfoo.so.1"),
            ("libfoo.so", "/x/foo.libs/libfoo-1a2b3c4d.so.1.2.3"),
            ("libfoo.so.1", "/x/foo.libs/libfoo-1a2b3c4d.so.1.2.3"),
            ("libfoo*.so", "/x/foo.libs/libfoobar-1a2b3c4d5e6f.so"),
            ("*foo*", "/usr/lib/libfoo.so.1"),
            ("/usr/*/libfoo.so*", "/usr/lib/libfoo.so.1"),
            ("_foo", "/x/_foo.cpython-311-x86_64-linux-gnu.so"),
            ("_foo.so", "/x/_foo.abi3.so"),
            ("/proc/self/exe", "/proc/self/exe"),
        ] {
            assert!(matches(pattern, path), "{pattern} means {path}");
        }
    }

    #[test]
    fn names_that_are_not_meant() {
        for (pattern, path) in [
            ("libfoo.so.1", "/usr/lib/libfoo.so.12"),
            ("libfoo.so", "/usr/lib/libfoo2.so"),
            ("libfoo.so", "/usr/lib/libfoo-extra.so"),
            ("libfoo", "/usr/bin/libfoo"),
            ("/usr/*/libfoo.so", "/usr/lib/deep/libfoo.so"),
            ("foo", "/usr/lib/libfoo.so"),
        ] {
            assert!(
                !matches(pattern, path) || pattern == Path::new(path).file_name().expect("name"),
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        for text in ["", "  ", "a\0b", "/usr/lib/"] {
            assert!(
                matches!(Pattern::new(text), Err(Error::BadPattern(_))),
                "{text:?}"
            );
        }
    }
}
