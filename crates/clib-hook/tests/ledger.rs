//! What a library under test holds: blocks, descriptors, mappings, by who opened them and who let them go.

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

use clib_hook::{Held, Kind, Session, session::Mark};
use common::{Loaded, alone, build, session};

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

void *make(size_t size) { return malloc(size); }
void *make_zeroed(size_t n, size_t size) { return calloc(n, size); }
void *grow(void *p, size_t size) { return realloc(p, size); }
void *grow_array(void *p, size_t n, size_t size) { return reallocarray(p, n, size); }
void *make_aligned(size_t a, size_t size) { return aligned_alloc(a, size); }
void *make_posix(size_t a, size_t size) { void *p = NULL; return posix_memalign(&p, a, size) ? NULL : p; }
void *make_memalign(size_t a, size_t size) { return memalign(a, size); }
char *copy(const char *s) { return strdup(s); }
char *copy_part(const char *s, size_t n) { return strndup(s, n); }
char *text(int a, double b, const char *c) {
    char *out = NULL;
    /* more arguments than registers, of both kinds */
    if (asprintf(&out, "%d %.1f %s %d %d %d %d %d %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f", a, b, c, 1, 2, 3, 4, 5,
                 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5) < 0)
        return NULL;
    return out;
}
char *line_of(const char *path) {
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t size = 0;
    if (f == NULL)
        return NULL;
    if (getline(&line, &size, f) < 0) { free(line); line = NULL; }
    fclose(f);
    return line;
}
void drop(void *p) { free(p); }

int open_null(void) { return open("/dev/null", O_RDWR | O_CLOEXEC); }
int open_new(const char *path) { return open(path, O_RDWR | O_CREAT | O_EXCL, 0640); }
int by_fcntl(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 100); }
int flags_of(int fd) { return fcntl(fd, F_GETFL); }
int pair(int fds[2]) { return socketpair(AF_UNIX, SOCK_STREAM, 0, fds); }
int make_pipe(int fds[2]) { return pipe2(fds, O_CLOEXEC); }
int make_all(int *fds) {
    sigset_t mask;
    sigemptyset(&mask);
    fds[0] = eventfd(0, 0);
    fds[1] = epoll_create1(0);
    fds[2] = timerfd_create(CLOCK_MONOTONIC, 0);
    fds[3] = signalfd(-1, &mask, 0);
    fds[4] = inotify_init1(0);
    fds[5] = memfd_create("x", 0);
    fds[6] = dup(fds[0]);
    fds[7] = dup2(fds[0], 200);
    fds[8] = socket(AF_UNIX, SOCK_STREAM, 0);
    fds[9] = openat(AT_FDCWD, "/dev/null", O_RDONLY);
    return 10;
}
FILE *open_stream(void) { return fopen("/dev/null", "r"); }
DIR *open_directory(void) { return opendir("/"); }
int close_stream(FILE *f) { return fclose(f); }
int close_directory(DIR *d) { return closedir(d); }
int let_go(int fd) { return close(fd); }
int receive(int socket) {
    char byte, control[CMSG_SPACE(3 * sizeof(int))];
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    return (int)recvmsg(socket, &message, 0);
}

void *map(size_t size) { return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
void *move_map(void *p, size_t old, size_t size) { return mremap(p, old, size, MREMAP_MAYMOVE); }
int unmap(void *p, size_t size) { return munmap(p, size); }
"#;

struct Fixture {
    library: Loaded,
    session: Session,
    mark: Mark,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let library = build(name, SOURCE, &[]).load();
        let session = session(&[library.name()]);
        let mark = session.mark();
        Self {
            library,
            session,
            mark,
        }
    }

    fn held(&self) -> Vec<Held> {
        self.session.held_since(self.mark)
    }

    fn one(&self, function: &str, kind: Kind, key: usize, size: usize) {
        let held = self.held();
        assert_eq!(held.len(), 1, "{function}: {held:#?}");
        assert_eq!(
            (held[0].function, held[0].kind, held[0].key, held[0].size),
            (function, kind, key, size)
        );
        assert!(held[0].site != 0 && held[0].backtrace.first() == Some(&held[0].site));
    }

    fn none(&self, what: &str) {
        assert_eq!(self.held(), [], "{what}");
    }
}

#[test]
fn blocks_are_held_until_freed() {
    let _alone = alone();
    let fixture = Fixture::new("blocks");
    let drop: extern "C" fn(usize) = fixture.library.function("drop");
    let make: extern "C" fn(usize) -> usize = fixture.library.function("make");
    let two = |name: &str, a: usize, b: usize| {
        let function: extern "C" fn(usize, usize) -> usize = fixture.library.function(name);
        function(a, b)
    };
    let text = c"some text".as_ptr() as usize;
    for (function, block, size) in [
        ("malloc", make(100), 100),
        ("calloc", 0, 60),
        ("aligned_alloc", 0, 128),
        ("posix_memalign", 0, 77),
        ("memalign", 0, 33),
        ("strndup", 0, 5),
    ] {
        let block = match function {
            "malloc" => block,
            "calloc" => two("make_zeroed", 3, 20),
            "aligned_alloc" => two("make_aligned", 64, 128),
            "posix_memalign" => two("make_posix", 32, 77),
            "memalign" => two("make_memalign", 64, 33),
            _ => two("copy_part", text, 4),
        };
        fixture.one(function, Kind::Memory, block, size);
        drop(block);
        fixture.none(function);
    }
    let copy: extern "C" fn(usize) -> usize = fixture.library.function("copy");
    let block = copy(text);
    fixture.one("strdup", Kind::Memory, block, 10);
    drop(block);
    fixture.none("strdup");
    assert_eq!(fixture.session.calls("free").expect("known"), 7);
}

#[test]
fn others_release_and_resize_what_is_held() {
    let _alone = alone();
    let other = build("others", SOURCE, &[]).load();
    let fixture = Fixture::new("held");
    let make: extern "C" fn(usize) -> usize = fixture.library.function("make");
    let drop: extern "C" fn(usize) = other.function("drop");
    let grow: extern "C" fn(usize, usize) -> usize = other.function("grow");
    // More than fit into one group of the filter's, and some that share one.
    let blocks: Vec<usize> = (0..3000).map(|size| make(size % 700 + 1)).collect();
    assert_eq!(fixture.held().len(), blocks.len());
    let (last, rest) = blocks.split_last().expect("many");
    rest.iter().for_each(|block| drop(*block));
    assert_eq!(fixture.held().len(), 1);
    let moved = grow(*last, 100_000);
    fixture.one("malloc", Kind::Memory, moved, 100_000);
    drop(moved);
    fixture.none("released by another");
    drop(0);
    // What is the other's own is nobody's here.
    let make: extern "C" fn(usize) -> usize = other.function("make");
    drop(grow(make(10), 5000));
    fixture.none("another's");
}

#[test]
fn realloc_moves_what_is_held() {
    let _alone = alone();
    let fixture = Fixture::new("moves");
    let make: extern "C" fn(usize) -> usize = fixture.library.function("make");
    let grow: extern "C" fn(usize, usize) -> usize = fixture.library.function("grow");
    let grow_array: extern "C" fn(usize, usize, usize) -> usize =
        fixture.library.function("grow_array");
    let block = grow(make(10), 100_000);
    fixture.one("realloc", Kind::Memory, block, 100_000);
    assert_eq!(grow(block, usize::MAX / 4), 0, "too much");
    fixture.one("realloc", Kind::Memory, block, 100_000);
    let block = grow_array(block, 10, 20);
    fixture.one("reallocarray", Kind::Memory, block, 200);
    assert_eq!(grow(block, 0), 0, "released");
    fixture.none("realloc to nothing");
}

#[test]
fn asprintf_keeps_all_its_arguments() {
    let _alone = alone();
    for flags in [&[][..], &["-O2", "-D_FORTIFY_SOURCE=2"]] {
        let library = build("text", SOURCE, flags).load();
        let session = session(&[library.name()]);
        let mark = session.mark();
        let text: extern "C" fn(i32, f64, *const libc::c_char) -> *mut libc::c_char =
            library.function("text");
        let made = text(7, 0.5, c"word".as_ptr());
        // SAFETY: asprintf succeeded.
        let content = unsafe { std::ffi::CStr::from_ptr(made) }
            .to_str()
            .expect("ASCII");
        assert_eq!(
            content,
            "7 0.5 word 1 2 3 4 5 1.5 2.5 3.5 4.5 5.5 6.5 7.5 8.5"
        );
        let held = session.held_since(mark);
        assert_eq!(held.len(), 1);
        assert_eq!(
            (held[0].key, held[0].size),
            (made as usize, content.len() + 1)
        );
        let drop: extern "C" fn(usize) = library.function("drop");
        drop(made as usize);
        assert_eq!(session.held_since(mark), []);
    }
}

#[test]
fn getline_buffers_are_held_and_its_stream_is_not() {
    let _alone = alone();
    let fixture = Fixture::new("line");
    let line_of: extern "C" fn(*const libc::c_char) -> usize = fixture.library.function("line_of");
    let line = line_of(c"/proc/self/status".as_ptr());
    assert_ne!(line, 0);
    let held = fixture.held();
    assert_eq!(held.len(), 1, "{held:#?}");
    // Headers turn it into getdelim.
    assert!(
        held[0].function.starts_with("get") && held[0].key == line,
        "{held:?}"
    );
    let drop: extern "C" fn(usize) = fixture.library.function("drop");
    drop(line);
    fixture.none("line");
}

#[test]
fn descriptors_belong_to_who_opened_them() {
    use std::os::fd::AsRawFd;
    let _alone = alone();
    let fixture = Fixture::new("descriptors");
    let let_go: extern "C" fn(usize) -> i32 = fixture.library.function("let_go");
    // Ours are not the library's.
    let own = std::fs::File::open("/dev/null").expect("open");
    let open_null: extern "C" fn() -> i32 = fixture.library.function("open_null");
    let fd = open_null() as usize;
    fixture.one("open", Kind::Descriptor, fd, 0);
    assert_eq!(let_go(fd), 0);
    // The number may be someone else's at once.
    // SAFETY: an own descriptor, closed below.
    let reused = unsafe { libc::fcntl(own.as_raw_fd(), libc::F_DUPFD, fd as libc::c_int) };
    assert_eq!(reused as usize, fd);
    fixture.none("open");
    // SAFETY: as above.
    unsafe { libc::close(reused) };
    let mut fds = [0_i32; 10];
    let make_all: extern "C" fn(*mut i32) -> i32 = fixture.library.function("make_all");
    assert_eq!(make_all(fds.as_mut_ptr()), 10);
    let held: Vec<_> = fixture
        .held()
        .iter()
        .map(|held| (held.function, held.key as i32))
        .collect();
    let names = [
        "eventfd",
        "epoll_create1",
        "timerfd_create",
        "signalfd",
        "inotify_init1",
        "memfd_create",
        "dup",
        "dup2",
        "socket",
        "openat",
    ];
    assert_eq!(held, names.into_iter().zip(fds).collect::<Vec<_>>());
    for fd in fds {
        assert_eq!(let_go(fd as usize), 0);
    }
    fixture.none("all kinds");
    for name in ["pair", "make_pipe"] {
        let function: extern "C" fn(*mut i32) -> i32 = fixture.library.function(name);
        assert_eq!(function(fds.as_mut_ptr()), 0);
        let held: Vec<_> = fixture.held().iter().map(|held| held.key as i32).collect();
        assert_eq!(held, fds[..2]);
        fds[..2]
            .iter()
            .for_each(|fd| assert_eq!(let_go(*fd as usize), 0));
    }
    fixture.none("pairs");
    drop(own);
}

#[test]
fn variadic_calls_keep_their_third_argument() {
    let _alone = alone();
    let fixture = Fixture::new("variadic");
    let path = format!("{}.new\0", fixture.library.path());
    let open_new: extern "C" fn(*const u8) -> i32 = fixture.library.function("open_new");
    let fd = open_new(path.as_ptr());
    assert!(fd >= 0);
    let mode = {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path.trim_end_matches('\0'))
            .expect("made")
            .permissions()
            .mode()
    };
    assert_eq!(mode & 0o777 & !0o022, 0o640, "{mode:o}");
    let by_fcntl: extern "C" fn(i32) -> i32 = fixture.library.function("by_fcntl");
    let copy = by_fcntl(fd);
    assert!(copy >= 100);
    let flags_of: extern "C" fn(i32) -> i32 = fixture.library.function("flags_of");
    assert_eq!(flags_of(fd) & libc::O_ACCMODE, libc::O_RDWR);
    let held: Vec<_> = fixture
        .held()
        .iter()
        .map(|held| (held.function, held.key as i32))
        .collect();
    assert_eq!(held, [("open", fd), ("fcntl", copy)]);
    // Closed behind our back: the ledger finds out.
    // SAFETY: the descriptors are this test's.
    unsafe {
        libc::close(fd);
        libc::close(copy);
    }
    fixture.none("closed elsewhere");
}

#[test]
fn streams_and_directories_hold_their_descriptors() {
    let _alone = alone();
    let fixture = Fixture::new("streams");
    for (open, close, function) in [
        ("open_stream", "close_stream", "fopen"),
        ("open_directory", "close_directory", "opendir"),
    ] {
        let open: extern "C" fn() -> usize = fixture.library.function(open);
        let close: extern "C" fn(usize) -> i32 = fixture.library.function(close);
        let stream = open();
        let held = fixture.held();
        assert_eq!(held.len(), 1);
        assert_eq!(
            (held[0].function, held[0].kind),
            (function, Kind::Descriptor)
        );
        assert_eq!(close(stream), 0);
        fixture.none(function);
    }
}

#[test]
fn passed_descriptors_are_held() {
    use std::os::fd::AsRawFd;
    let _alone = alone();
    let fixture = Fixture::new("passed");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("sockets");
    let fds = [0_i32, 1, 2];
    // SAFETY: a message that describes local buffers; the control buffer is aligned and large enough.
    unsafe {
        let mut control = [0_u64; 8];
        let mut byte = 1_u8;
        let mut vector = libc::iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(12) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(12) as usize;
        std::ptr::copy_nonoverlapping(fds.as_ptr(), libc::CMSG_DATA(header).cast(), 3);
        assert_eq!(libc::sendmsg(ours.as_raw_fd(), &raw const message, 0), 1);
    }
    let receive: extern "C" fn(i32) -> i32 = fixture.library.function("receive");
    assert_eq!(receive(theirs.as_raw_fd()), 1);
    let held = fixture.held();
    assert_eq!(held.len(), 3, "{held:#?}");
    assert!(
        held.iter()
            .all(|held| held.function == "recvmsg" && held.key > 2)
    );
    let let_go: extern "C" fn(usize) -> i32 = fixture.library.function("let_go");
    held.iter().for_each(|held| assert_eq!(let_go(held.key), 0));
    fixture.none("closed");
}

#[test]
fn mappings_are_cut_moved_and_let_go() {
    let _alone = alone();
    let fixture = Fixture::new("mappings");
    let map: extern "C" fn(usize) -> usize = fixture.library.function("map");
    let unmap: extern "C" fn(usize, usize) -> i32 = fixture.library.function("unmap");
    let move_map: extern "C" fn(usize, usize, usize) -> usize =
        fixture.library.function("move_map");
    let start = map(0x4000);
    fixture.one("mmap", Kind::Mapping, start, 0x4000);
    assert_eq!(unmap(start + 0x1000, 0x1000), 0);
    let held: Vec<_> = fixture
        .held()
        .iter()
        .map(|held| (held.key, held.size))
        .collect();
    assert_eq!(held, [(start, 0x1000), (start + 0x2000, 0x2000)]);
    assert_eq!(unmap(start, 0x1000), 0);
    let moved = move_map(start + 0x2000, 0x2000, 0x100_0000);
    fixture.one("mremap", Kind::Mapping, moved, 0x100_0000);
    assert_eq!(unmap(moved, 0x100_0000), 0);
    fixture.none("mappings");
}

#[test]
fn backtraces_reach_to_the_edge_of_the_library() {
    let _alone = alone();
    let source = r"
        #include <stdlib.h>
        __attribute__((noinline)) static void *inner(size_t n) { void *p = malloc(n); __asm__ volatile(''); return p; }
        __attribute__((noinline)) static void *middle(size_t n) {
            char big[5000]; __asm__ volatile('' :: 'r'(big) : 'memory');
            void *p = inner(n); __asm__ volatile('' :: 'r'(big) : 'memory'); return p;
        }
        void *outer(size_t n) { void *p = middle(n); __asm__ volatile(''); return p; }
    "
    .replace('\'', "\"");
    for flags in [&["-O2"][..], &["-O2", "-fno-omit-frame-pointer"], &["-O0"]] {
        let library = build("deep", &source, flags).load();
        let session = session(&[library.name()]);
        let mark = session.mark();
        let outer: extern "C" fn(usize) -> usize = library.function("outer");
        let block = outer(24);
        let held = session.held_since(mark);
        assert_eq!(held.len(), 1);
        let names: Vec<_> = held[0]
            .backtrace
            .iter()
            .map(|address| {
                clib_hook::symbolize::symbolize_return(*address)[0]
                    .function
                    .clone()
                    .unwrap_or_default()
            })
            .collect();
        assert_eq!(names, ["inner", "middle", "outer"], "{flags:?}");
        // SAFETY: the block is this test's.
        unsafe { libc::free(block as *mut libc::c_void) };
    }
}
