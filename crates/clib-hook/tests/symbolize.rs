//! Addresses to functions, files and lines, wherever the debug information is kept.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::mem_forget,
    clippy::too_many_lines,
    reason = "a test says what is wrong by failing"
)]

mod common;

use std::{path::Path, process::Command};

use clib_hook::symbolize::{Frame, has_debug_info, symbolize, symbolize_in};
use common::{build, build_with};

const SOURCE: &str = r"
static inline __attribute__((always_inline)) int inner(volatile int *p) {
    return *p / 3; /* line 3 */
}
int outer(volatile int *p) {
    return inner(p) + 1; /* line 6 */
}
";

/// Frames at the first instruction of `outer` that belongs to line 3.
fn frames_inside(path: &str, start: usize) -> Vec<Frame> {
    (start..start + 64)
        .map(|offset| symbolize_in(path, offset))
        .find(|frames| frames[0].line == Some(3))
        .unwrap_or_else(|| panic!("no line 3 from {start:#x}: {:?}", symbolize_in(path, start)))
}

fn check(path: &str, start: usize) {
    assert!(has_debug_info(path));
    let frames = frames_inside(path, start);
    let seen: Vec<_> = frames
        .iter()
        .map(|frame| {
            (
                frame.function.as_deref().unwrap_or("?"),
                frame.line.unwrap_or(0),
                frame.inlined,
            )
        })
        .collect();
    assert_eq!(seen, [("inner", 3, true), ("outer", 6, false)], "{path}");
    assert!(
        frames[0]
            .file
            .as_ref()
            .is_some_and(|file| file.ends_with(".c")),
        "{frames:?}"
    );
    assert_eq!(frames[0].object.as_deref(), Some(path));
}

fn run(tool: &str, arguments: &[&str], directory: &Path) {
    let output = Command::new(tool)
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect(tool);
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Where `outer` starts in the file.
fn start(path: &str) -> usize {
    let output = Command::new("nm").args(["-D", path]).output().expect("nm");
    let text = String::from_utf8(output.stdout).expect("ASCII");
    let line = text
        .lines()
        .find(|line| line.ends_with(" outer"))
        .expect("outer");
    usize::from_str_radix(line.split(' ').next().expect("address"), 16).expect("hexadecimal")
}

#[test]
fn inlines_in_dwarf_4_and_5_plain_and_compressed() {
    for flags in [
        &["-O2", "-gdwarf-4"][..],
        &["-O2", "-gdwarf-5"],
        &["-O2", "-g", "-gz=zlib"],
        &["-O2", "-g", "-fuse-ld=lld"],
    ] {
        let library = build("lines", SOURCE, flags);
        let path = library.path.to_str().expect("UTF-8");
        check(path, start(path));
    }
}

#[test]
fn separate_files_are_found_by_link() {
    for place in ["x.debug", ".debug/x.debug"] {
        let library = build("linked", SOURCE, &["-O2", "-Wl,--build-id=none"]);
        let path = library.path.to_str().expect("UTF-8").to_owned();
        let directory = library.path.parent().expect("a directory").to_owned();
        std::fs::create_dir_all(directory.join(".debug")).expect("directory");
        run("objcopy", &["--only-keep-debug", &path, place], &directory);
        run("objcopy", &["--strip-debug", &path], &directory);
        assert!(!has_debug_info(&path));
        run(
            "objcopy",
            &[&format!("--add-gnu-debuglink={place}"), &path],
            &directory,
        );
        check(&path, start(&path));
        // A file that is not the one that was stripped away must not be believed.
        let file = directory.join(place);
        let mut bytes = std::fs::read(&file).expect("debug file");
        *bytes.last_mut().expect("not empty") ^= 1;
        std::fs::write(&file, bytes).expect("debug file");
        assert!(!has_debug_info(&path));
    }
}

#[test]
fn split_dwarf_is_followed() {
    for dwarf in ["-gdwarf-5", "-gdwarf-4"] {
        let library = build("split", SOURCE, &["-O2", dwarf, "-gsplit-dwarf"]);
        let path = library.path.to_str().expect("UTF-8");
        check(path, start(path));
    }
}

#[test]
fn packages_of_split_dwarf_are_followed() {
    let library = build(
        "package",
        SOURCE,
        &["-O2", "-gdwarf-5", "-gsplit-dwarf", "-c"],
    );
    let directory = library.path.parent().expect("a directory").to_owned();
    // -c made an object file under the library's name.
    run("mv", &["libpackage.so", "package.o"], &directory);
    run(
        "gcc",
        &["-shared", "-o", "libpackage.so", "package.o"],
        &directory,
    );
    run(
        "llvm-dwp",
        &["-e", "libpackage.so", "-o", "libpackage.so.dwp"],
        &directory,
    );
    for entry in std::fs::read_dir(&directory).expect("directory") {
        let file = entry.expect("entry").path();
        if file.extension().is_some_and(|extension| extension == "dwo") {
            std::fs::remove_file(file).expect("removed");
        }
    }
    let path = library.path.to_str().expect("UTF-8");
    check(path, start(path));
}

#[test]
fn stripped_objects_still_have_function_names() {
    let library = build("stripped", SOURCE, &["-O2", "-s"]);
    let path = library.path.to_str().expect("UTF-8");
    assert!(!has_debug_info(path));
    let frames = symbolize_in(path, start(path));
    assert_eq!(frames.len(), 1);
    assert_eq!(
        (frames[0].function.as_deref(), frames[0].line),
        (Some("outer"), None)
    );
}

#[test]
fn names_are_demangled() {
    let library = build_with(
        "g++",
        "cc",
        "mangled",
        "namespace n { int f(int a) { return a + 1; } }",
        &["-O2"],
    );
    let loaded = library.load();
    let frames = symbolize(loaded.address("_ZN1n1fEi"));
    assert_eq!(frames[0].function.as_deref(), Some("n::f(int)"));
    assert_eq!(frames[0].line, Some(1));
}

#[test]
fn what_is_unknown_is_said_to_be() {
    let frames = symbolize(8);
    assert_eq!(
        (frames.len(), frames[0].offset, frames[0].object.as_ref()),
        (1, 8, None)
    );
    let frames = symbolize_in("/nonexistent", 16);
    assert_eq!((frames.len(), frames[0].function.as_ref()), (1, None));
    assert!(!has_debug_info("/proc/self/status"));
}
