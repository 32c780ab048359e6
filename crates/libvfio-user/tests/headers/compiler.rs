//! The C and C++ compilers of this machine, and scratch directories for what they make.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A language and its modes of interest; the first is the usual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    C,
    Cxx,
}

impl Language {
    pub(crate) const BOTH: [Self; 2] = [Self::C, Self::Cxx];

    pub(crate) fn standards(self) -> &'static [&'static str] {
        match self {
            Self::C => &["gnu99", "c99", "c11", "gnu11", "c17", "gnu17"],
            Self::Cxx => &["gnu++98", "c++11", "gnu++14", "c++17", "gnu++20"],
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cxx => "cc",
        }
    }

    /// The compilers that are there: the system's own must be, others are welcome.
    pub(crate) fn compilers(self) -> Vec<&'static str> {
        let (own, others) = match self {
            Self::C => ("cc", ["gcc", "clang"]),
            Self::Cxx => ("c++", ["g++", "clang++"]),
        };
        assert!(works(own), "no {own}: the headers cannot be checked");
        let mut found: Vec<_> = others.into_iter().filter(|name| works(name)).collect();
        if found.is_empty() {
            found.push(own);
        }
        found
    }
}

fn works(name: &str) -> bool {
    Command::new(name)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// The directory of the headers.
pub(crate) fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

/// A directory of this test, emptied.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("headers")
        .join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Runs a compiler with `arguments` on `source`; all warnings are errors.
pub(crate) fn compile(
    compiler: &str,
    language: Language,
    dir: &Path,
    source: &str,
    arguments: &[&str],
) -> Output {
    let file = dir.join(format!("source.{}", language.suffix()));
    std::fs::write(&file, source).unwrap();
    Command::new(compiler)
        .args(["-Wall", "-Wextra", "-Werror"])
        .args(arguments)
        .arg(&file)
        .current_dir(dir)
        .output()
        .unwrap()
}

/// As [`compile`]; fails the test with the compiler's own words.
pub(crate) fn must_compile(
    compiler: &str,
    language: Language,
    dir: &Path,
    source: &str,
    arguments: &[&str],
) {
    let output = compile(compiler, language, dir, source, arguments);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{compiler} {arguments:?}:\n{words}"
    );
}

/// Compiles a program that includes the header, runs it, and returns what it prints.
pub(crate) fn run(compiler: &str, language: Language, name: &str, source: &str) -> String {
    let dir = scratch(&format!("{name}-{compiler}"));
    let include = format!("-I{}", include().display());
    // Probes cast and compare on purpose; the headers themselves are judged in `matrix`.
    let arguments = [include.as_str(), "-Wno-error", "-w", "-o", "probe"];
    must_compile(compiler, language, &dir, source, &arguments);
    let output = Command::new(dir.join("probe")).output().unwrap();
    assert!(
        output.status.success(),
        "{compiler}: the probe failed: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}
