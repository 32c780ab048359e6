//! C and C++ programs of `tests/c`, built as a user builds: with what pkg-config says, and all warnings.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::install::{compiler, pkg_config, prefix, root, run, scratch};

const WARNINGS: [&str; 3] = ["-Wall", "-Wextra", "-Werror"];

#[derive(Clone, Copy, PartialEq)]
enum Linking {
    Shared,
    /// The static library, shared C library.
    Archive,
    /// Everything static.
    Static,
}

fn source(name: &str) -> PathBuf {
    root().join("tests/c").join(name)
}

/// Compiles and links `source` into `dir`, with a compiler that is set up already.
fn build(mut compiler: Command, source: &Path, dir: &Path, linking: Linking) -> PathBuf {
    let program = dir.join("program");
    compiler
        .args(WARNINGS)
        .arg("-g")
        .arg("-pthread")
        .args(pkg_config(&["--cflags"]))
        .arg(source)
        .arg("-o")
        .arg(&program);
    match linking {
        Linking::Shared => {
            compiler.args(pkg_config(&["--libs"])).arg("-Wl,-z,now");
            compiler.arg(format!("-Wl,-rpath,{}/lib", prefix().display()));
        }
        Linking::Archive => {
            let libs = pkg_config(&["--static", "--libs"]);
            compiler.args(libs.iter().map(|arg| {
                if arg == "-lvfio-user" {
                    "-l:libvfio-user.a"
                } else {
                    arg
                }
            }));
        }
        Linking::Static => {
            compiler
                .arg("-static")
                .args(pkg_config(&["--static", "--libs"]));
        }
    }
    run(&mut compiler);
    program
}

fn c(standard: &str) -> Command {
    let mut command = compiler("CC", "cc");
    command.arg(format!("-std={standard}"));
    command
}

/// Builds a program of `tests/c`, runs it, and returns what it printed.
fn passes(name: &str, linking: Linking) -> String {
    let dir = scratch(&format!("{name}-{}", linking as u8));
    let program = build(c("gnu11"), &source(&format!("{name}.c")), &dir, linking);
    // A short path, since it has to fit into the address of a socket.
    let sockets = std::env::temp_dir().join(format!(
        "vfu-{}-{name}-{}",
        std::process::id(),
        linking as u8
    ));
    fs::create_dir(&sockets).unwrap();
    let printed = run(Command::new(program).env("TEST_DIR", &sockets));
    fs::remove_dir(&sockets)
        .unwrap_or_else(|error| panic!("{name} left files in {}: {error}", sockets.display()));
    printed
}

fn exports() -> BTreeSet<String> {
    fs::read_to_string(root().join("crates/libvfio-user/exports.txt"))
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn names(printed: &str) -> BTreeSet<String> {
    printed.lines().map(str::to_owned).collect()
}

#[test]
fn every_function_links_with_the_shared_library_bound_at_load() {
    assert_eq!(names(&passes("linkage", Linking::Shared)), exports());
}

#[test]
fn every_function_links_with_the_static_library() {
    assert_eq!(names(&passes("linkage", Linking::Archive)), exports());
    assert_eq!(names(&passes("linkage", Linking::Static)), exports());
}

#[test]
fn every_function_links_from_cpp() {
    let dir = scratch("linkage-cpp");
    let mut cpp = compiler("CXX", "c++");
    cpp.args(["-std=c++17", "-x", "c++"]);
    let program = build(cpp, &source("linkage.c"), &dir, Linking::Shared);
    assert_eq!(names(&run(&mut Command::new(program))), exports());
}

#[test]
fn vfu_log_formats_filters_truncates_and_keeps_errno() {
    passes("log", Linking::Shared);
    passes("log", Linking::Static);
}

#[test]
fn wrong_use_is_refused_and_logged() {
    passes("wrong_use", Linking::Shared);
}

#[test]
fn callbacks_may_call_back() {
    passes("reentry", Linking::Shared);
}

#[test]
fn errno_follows_the_conventions() {
    passes("errnos", Linking::Shared);
    passes("errnos", Linking::Static);
}

#[test]
fn blocking_contexts_take_all_messages_signals_and_cancellation() {
    passes("blocking", Linking::Shared);
    passes("blocking", Linking::Static);
}

#[test]
fn translation_and_interrupts_work_from_four_threads_under_map_churn() {
    passes("threads", Linking::Shared);
}
