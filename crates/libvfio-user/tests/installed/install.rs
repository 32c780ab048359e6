//! `make install`, once for all tests, and the commands that look at the result.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

static PREFIX: LazyLock<PathBuf> = LazyLock::new(|| {
    let prefix = scratch("installed");
    make("install", &[format!("PREFIX={}", prefix.display())]);
    prefix
});

/// Where the library is installed.
pub fn prefix() -> &'static Path {
    &PREFIX
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// An empty directory of that name for this test run.
pub fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            panic!("cannot remove {}: {error}", dir.display())
        }
        _ => {}
    }
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Runs a target of the Makefile with the target directory of this test.
pub fn make(target: &str, arguments: &[String]) {
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut command = Command::new("make");
    // A make that runs these tests must not lend its job server and flags to this one.
    command
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .env_remove("MFLAGS");
    command.arg("-C").arg(root()).arg(target).args(arguments);
    command
        .arg(format!("CARGO={}", env!("CARGO")))
        .arg(format!("CARGO_TARGET_DIR={}", target_dir.display()));
    run(&mut command);
}

/// Runs a command, which must succeed, and returns what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    assert!(
        status.success(),
        "{command:?} failed ({status})\n{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    String::from_utf8_lossy(&stdout).into_owned()
}

/// What pkg-config says about the installed library.
pub fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command
        .env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig"))
        .args(arguments)
        .arg("libvfio-user");
    run(&mut command)
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// The C or C++ compiler: `CC` or `CXX`, as make and configure scripts have it.
pub fn compiler(variable: &str, default: &str) -> Command {
    Command::new(std::env::var_os(variable).unwrap_or_else(|| OsStr::new(default).to_owned()))
}
