//! A socket path that cannot be used: the examples, as programs, say in one line which, why and what to do, end with a failure, and
//! leave everything as it was. So does the builder.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests fail by panicking"
)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use vfu::builder::{Bar, BarIndex, Builder, Capability};
use vfu::{Errno, Mode};

const EXAMPLES: [&str; 4] = ["gpio", "dma", "migration", "event_loop"];
/// Someone who may not write where root may.
const NOBODY: u32 = 65534;

/// Where the examples are, built as this test is.
fn examples() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let folder = test.ancestors().nth(2).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--offline", "--examples"]);
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.args(folder.ends_with("release").then_some("--release"));
        assert!(cargo.status().unwrap().success());
        folder.join("examples")
    })
}

/// An empty folder with a short path.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vfu-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn files(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An example, which a wrong server would not end by itself.
fn server(program: impl AsRef<OsStr>) -> Command {
    const HANGS: &str = "60";
    let mut command = Command::new("timeout");
    command.arg(HANGS).arg(program);
    command
}

/// The one line that a server says before it fails.
fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

/// Runs every example with this path, and checks what it says.
fn all_refuse(path: &Path, parts: &[&str]) {
    for name in EXAMPLES {
        let said = refusal(&server(examples().join(name)).arg(path).output().unwrap());
        let start = format!("{name}: {}: ", path.display());
        assert!(said.starts_with(&start), "{said}");
        for part in parts {
            assert!(said.contains(part), "no {part:?} in: {said}");
        }
    }
}

#[test]
fn the_path_of_a_server_that_runs() {
    let folder = Folder::new("running");
    let path = folder.0.join("sock");
    let _server = UnixListener::bind(&path).unwrap();
    all_refuse(&path, &["EADDRINUSE", "exists", "remove the file"]);
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
}

#[test]
fn the_path_that_a_dead_server_left() {
    let folder = Folder::new("dead");
    let path = folder.0.join("sock");
    drop(UnixListener::bind(&path).unwrap());
    all_refuse(&path, &["EADDRINUSE", "exists", "remove the file"]);
    fs::remove_file(&path).unwrap(); // as the message says
    let ctx = Builder::new(1, 2).build(&path, Mode::NonBlocking).unwrap();
    drop(ctx);
    assert_eq!(folder.files(), 0);
}

#[test]
fn the_path_of_a_file_or_of_a_folder() {
    let folder = Folder::new("taken");
    let path = folder.0.join("file");
    fs::write(&path, "mine").unwrap();
    all_refuse(&path, &["EADDRINUSE", "exists"]);
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    all_refuse(&folder.0, &["EADDRINUSE", "exists"]);
    all_refuse(&path.join("sock"), &["ENOTDIR", "no directory"]);
    all_refuse(
        &folder.0.join("none/sock"),
        &["ENOENT", "directory does not exist", "create it"],
    );
    assert_eq!(folder.files(), 1);
}

#[test]
fn a_path_that_is_too_long() {
    let folder = Folder::new("long");
    let path = folder.0.join("s".repeat(108));
    let length = path.as_os_str().len().to_string();
    all_refuse(&path, &[&length, "107 fit", "shorter"]);
    assert_eq!(folder.files(), 0);
}

#[test]
fn a_folder_that_cannot_be_written_to() {
    let folder = Folder::new("closed");
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o555)).unwrap();
    // SAFETY: no pointers, no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    for name in EXAMPLES {
        // `nobody` need not be able to reach the program: it is this user's copy in memory by then
        let program = fs::File::open(examples().join(name)).unwrap();
        let mut command = server(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&program)
        ));
        command.current_dir(&folder.0).arg("sock");
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        // SAFETY: fcntl is async-signal-safe, and touches this descriptor only.
        unsafe {
            let fd = std::os::fd::AsRawFd::as_raw_fd(&program);
            command.pre_exec(move || match libc::fcntl(fd, libc::F_SETFD, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let said = refusal(&command.output().unwrap());
        assert!(said.starts_with(&format!("{name}: sock: ")), "{said}");
        assert!(
            said.contains("EACCES") && said.contains("permissions"),
            "{said}"
        );
    }
    assert_eq!(folder.files(), 0);
}

#[test]
fn no_path_at_all() {
    for name in EXAMPLES {
        let said = refusal(&server(examples().join(name)).output().unwrap());
        assert!(said.starts_with(&format!("usage: {name} SOCKET")), "{said}");
    }
}

#[test]
fn a_device_that_cannot_be_built_leaves_no_file() {
    let folder = Folder::new("builder");
    let path = folder.0.join("sock");
    let wrong = [
        Builder::new(1, 2).bar(BarIndex::Bar0, Bar::memory32(3000)),
        Builder::new(1, 2).capabilities(&[Capability::SerialNumber(1)]),
    ];
    for builder in wrong {
        let error = builder.build(&path, Mode::NonBlocking).unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL);
        assert_eq!(folder.files(), 0);
    }
    let error = Builder::new(1, 2)
        .build(OsStr::new("a\0b"), Mode::NonBlocking)
        .unwrap_err();
    assert_eq!(error.errno(), Errno::EINVAL);
}
