//! Compiles the small libraries of `tests/data` in every variant that the tests want.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory of its own for one test, emptied.
pub(crate) fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// A file of `tests/data`.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// Runs a command to success.
pub(crate) fn run(program: &str, arguments: &[&str], directory: &Path) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap_or_else(|error| panic!("{program}, which this test needs, cannot be run: {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{program} {}: {said}",
        arguments.join(" ")
    );
}

/// Compiles and links a source of `tests/data` into `directory` as `libshapes.so`, in two steps, so that split
/// debug information lands beside the object.
pub(crate) fn library(directory: &Path, compiler: &str, source: &str, flags: &[&str]) -> PathBuf {
    let source = data(source);
    let source = source.to_str().unwrap();
    let mut compile = vec!["-c", "-fPIC", "-o", "shapes.o"];
    compile.extend(flags);
    compile.push(source);
    run(compiler, &compile, directory);
    let mut link = vec![
        "-shared",
        "-Wl,--build-id",
        "-o",
        "libshapes.so",
        "shapes.o",
    ];
    link.extend(flags.iter().filter(|flag| flag.starts_with("-gz")));
    run(compiler, &link, directory);
    directory.join("libshapes.so")
}

/// Moves the debug information of a library to a file of its own, as distributions do.
pub(crate) fn strip_to(directory: &Path, library: &str, debug: &str) {
    run("objcopy", &["--only-keep-debug", library, debug], directory);
    run("objcopy", &["--strip-debug", library], directory);
}
