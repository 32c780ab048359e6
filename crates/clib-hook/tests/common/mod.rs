//! Compiles small libraries with the system's compilers and loads them.
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
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of this"
)]

use std::{
    ffi::{CString, c_void},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use clib_hook::{Options, Session, objects::Pattern};

/// One session at a time in this process.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A library compiled for one test; its files go when it is dropped.
pub struct Built {
    pub path: PathBuf,
    directory: PathBuf,
}

impl Drop for Built {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn directory() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", std::process::id()));
    fs::create_dir_all(&path).expect("a directory for compiled libraries");
    path
}

/// Compiles `source` to `lib<name>.so` with `compiler` and `flags`.
pub fn build_with(compiler: &str, suffix: &str, name: &str, source: &str, flags: &[&str]) -> Built {
    let directory = directory();
    let file = directory.join(format!("{name}.{suffix}"));
    fs::write(&file, source).expect("source");
    let path = directory.join(format!("lib{name}.so"));
    let mut command = Command::new(compiler);
    if compiler == "rustc" {
        command.args(["--edition=2021", "--crate-type=cdylib", "-g"]);
    } else {
        command.args(["-shared", "-fPIC", "-g", "-Wall", "-Wno-unused-result"]);
    }
    let output = command
        .args(flags)
        .arg(&file)
        .arg("-o")
        .arg(&path)
        .output()
        .expect(compiler);
    assert!(
        output.status.success(),
        "{compiler} {flags:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Built { path, directory }
}

/// Compiles C with gcc; `-O1` unless the flags say otherwise.
pub fn build(name: &str, source: &str, flags: &[&str]) -> Built {
    let mut all = vec!["-O1"];
    all.extend(flags);
    build_with("gcc", "c", name, source, &all)
}

/// A loaded library.
pub struct Loaded {
    handle: *mut c_void,
    built: Built,
}

impl Built {
    /// Loads it, binding at once.
    pub fn load(self) -> Loaded {
        self.load_as(libc::RTLD_NOW)
    }

    pub fn load_as(self, flags: i32) -> Loaded {
        let path = CString::new(self.path.to_str().expect("UTF-8")).expect("no NUL");
        // SAFETY: a library that this test compiled.
        let handle = unsafe { libc::dlopen(path.as_ptr(), flags) };
        // SAFETY: dlerror returns a C string after a failure.
        assert!(!handle.is_null(), "{:?}", unsafe {
            std::ffi::CStr::from_ptr(libc::dlerror())
        });
        Loaded {
            handle,
            built: self,
        }
    }
}

impl Loaded {
    pub fn path(&self) -> &str {
        self.built.path.to_str().expect("UTF-8")
    }

    pub fn name(&self) -> &str {
        self.built
            .path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name")
    }

    pub fn address(&self, symbol: &str) -> usize {
        let name = CString::new(symbol).expect("no NUL");
        // SAFETY: a lookup in a loaded library.
        let found = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        assert!(!found.is_null(), "{symbol}");
        found as usize
    }

    /// A function, as a Rust function pointer type `F`.
    pub fn function<F: Copy>(&self, symbol: &str) -> F {
        assert_eq!(size_of::<F>(), size_of::<usize>());
        // SAFETY: the test names a function of that type.
        unsafe { std::mem::transmute_copy(&self.address(symbol)) }
    }

    /// Unloads it.
    pub fn close(self) {
        // SAFETY: the handle came from dlopen; the test uses nothing of it any more.
        unsafe { libc::dlclose(self.handle) };
    }
}

/// A session on libraries by name.
pub fn session(names: &[&str]) -> Session {
    session_with(names, Options::default())
}

pub fn session_with(names: &[&str], options: Options) -> Session {
    let patterns = names
        .iter()
        .map(|name| Pattern::new(name).expect("a pattern"))
        .collect();
    Session::start(patterns, options).expect("a session")
}

/// Runs `work` in a forked child, and returns its exit status, or the signal that ended it (negative).
pub fn in_child(work: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only runs `work` and leaves by _exit.
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0, "fork");
        if pid == 0 {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(101);
            libc::_exit(code);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        if libc::WIFEXITED(status) {
            libc::WEXITSTATUS(status)
        } else {
            -libc::WTERMSIG(status)
        }
    }
}
