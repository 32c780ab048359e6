//! Files, directories and streams.

use libc::{
    EACCES, EBADF, EBUSY, EDQUOT, EEXIST, EINTR, EINVAL, EIO, EMFILE, ENOENT, ENOLCK, ENOMEM,
    ENOSPC, ENOTEMPTY, EPERM, EROFS, ESPIPE, ETXTBSY, EXDEV,
};

use super::{Effect::*, Failure, Function, Group, Partial};

const fn row(name: &'static str, prototype: &'static str) -> Function {
    Function::new(Group::File, name, prototype)
}

const READ: &[i32] = &[EIO, EINTR];
const WRITE: &[i32] = &[ENOSPC, EIO, EINTR, EDQUOT];
const STAT: &[i32] = &[ENOENT, EACCES, ENOMEM];
const FSTAT: &[i32] = &[ENOMEM, EIO];
const PATH: &[i32] = &[EACCES, ENOENT, EROFS, EIO];
const SPACE: &[i32] = &[ENOSPC, EACCES, EIO, ENOMEM];

const fn reads_vector(function: Function) -> Function {
    function.partial(Partial::Vector {
        arg: 1,
        reads: true,
    })
}

const fn writes_vector(function: Function) -> Function {
    function.partial(Partial::Vector {
        arg: 1,
        reads: false,
    })
}

pub(super) const ROWS: &[Function] = &[
    row("read", "ssize_t read(int fd, void *bytes, size_t size)")
        .alias(&["__read", "__read_chk"])
        .minus_one(READ)
        .reads(2),
    row("write", "ssize_t write(int fd, const void *bytes, size_t size)").alias(&["__write"]).minus_one(WRITE).writes(2),
    row("pread", "ssize_t pread(int fd, void *bytes, size_t size, off_t offset)")
        .alias(&["pread64", "__pread64", "__pread_chk", "__pread64_chk"])
        .minus_one(READ)
        .reads(2),
    row("pwrite", "ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)")
        .alias(&["pwrite64", "__pwrite64"])
        .minus_one(WRITE)
        .writes(2),
    reads_vector(row("readv", "ssize_t readv(int fd, const struct iovec *, int count)").minus_one(READ)),
    writes_vector(row("writev", "ssize_t writev(int fd, const struct iovec *, int count)").minus_one(WRITE)),
    reads_vector(
        row("preadv", "ssize_t preadv(int fd, const struct iovec *, int count, off_t offset)")
            .alias(&["preadv64", "preadv2", "preadv64v2"])
            .minus_one(READ),
    ),
    writes_vector(
        row("pwritev", "ssize_t pwritev(int fd, const struct iovec *, int count, off_t offset)")
            .alias(&["pwritev64", "pwritev2", "pwritev64v2"])
            .minus_one(WRITE),
    ),
    row("sendfile", "ssize_t sendfile(int out, int in, off_t *offset, size_t size)")
        .alias(&["sendfile64"])
        .minus_one(&[EIO, ENOMEM, EINTR])
        .writes(3),
    row("copy_file_range", "ssize_t copy_file_range(int, off_t *, int, off_t *, size_t size, unsigned)")
        .minus_one(&[EIO, ENOSPC, EXDEV, ENOMEM])
        .writes(4),
    row("splice", "ssize_t splice(int, off_t *, int, off_t *, size_t size, unsigned)").minus_one(&[ENOMEM, EINTR]).writes(4),
    row("getrandom", "ssize_t getrandom(void *bytes, size_t size, unsigned flags)").minus_one(&[EINTR, libc::ENOSYS]).reads(1),
    row("getentropy", "int getentropy(void *bytes, size_t size)").minus_one(&[EIO, libc::ENOSYS]),
    row("lseek", "off_t lseek(int fd, off_t offset, int whence)").alias(&["lseek64"]).minus_one(&[EINVAL, ESPIPE]),
    row("stat", "int stat(const char *path, struct stat *)").alias(&["stat64"]).minus_one(STAT),
    row("lstat", "int lstat(const char *path, struct stat *)").alias(&["lstat64"]).minus_one(STAT),
    row("fstat", "int fstat(int fd, struct stat *)").alias(&["fstat64"]).minus_one(FSTAT),
    row("fstatat", "int fstatat(int directory, const char *path, struct stat *, int flags)")
        .alias(&["fstatat64"])
        .minus_one(STAT),
    row("__xstat", "int __xstat(int version, const char *path, struct stat *)").alias(&["__xstat64"]).minus_one(STAT),
    row("__lxstat", "int __lxstat(int version, const char *path, struct stat *)").alias(&["__lxstat64"]).minus_one(STAT),
    row("__fxstat", "int __fxstat(int version, int fd, struct stat *)").alias(&["__fxstat64"]).minus_one(FSTAT),
    row("__fxstatat", "int __fxstatat(int version, int directory, const char *path, struct stat *, int flags)")
        .alias(&["__fxstatat64"])
        .minus_one(STAT),
    row("statx", "int statx(int directory, const char *path, int flags, unsigned mask, struct statx *)").minus_one(STAT),
    row("statfs", "int statfs(const char *path, struct statfs *)").alias(&["statfs64"]).minus_one(STAT),
    row("fstatfs", "int fstatfs(int fd, struct statfs *)").alias(&["fstatfs64"]).minus_one(FSTAT),
    row("statvfs", "int statvfs(const char *path, struct statvfs *)").alias(&["statvfs64"]).minus_one(STAT),
    row("fstatvfs", "int fstatvfs(int fd, struct statvfs *)").alias(&["fstatvfs64"]).minus_one(FSTAT),
    row("access", "int access(const char *path, int mode)").minus_one(&[EACCES, ENOENT]),
    row("faccessat", "int faccessat(int directory, const char *path, int mode, int flags)").minus_one(&[EACCES, ENOENT]),
    row("chmod", "int chmod(const char *path, mode_t mode)").minus_one(&[EPERM, ENOENT, EROFS]),
    row("fchmod", "int fchmod(int fd, mode_t mode)").minus_one(&[EPERM, EROFS]),
    row("chown", "int chown(const char *path, uid_t, gid_t)").minus_one(&[EPERM, ENOENT]),
    row("fchown", "int fchown(int fd, uid_t, gid_t)").minus_one(&[EPERM]),
    row("unlink", "int unlink(const char *path)").minus_one(&[EACCES, ENOENT, EBUSY]),
    row("unlinkat", "int unlinkat(int directory, const char *path, int flags)").minus_one(&[EACCES, ENOENT, EBUSY]),
    row("shm_unlink", "int shm_unlink(const char *name)").minus_one(&[EACCES, ENOENT]),
    row("remove", "int remove(const char *path)").minus_one(&[EACCES, ENOENT, EBUSY]),
    row("rename", "int rename(const char *from, const char *to)").minus_one(&[EACCES, ENOSPC, EXDEV]),
    row("renameat", "int renameat(int, const char *, int, const char *)").minus_one(&[EACCES, ENOSPC, EXDEV]),
    row("link", "int link(const char *from, const char *to)").minus_one(&[EEXIST, ENOSPC, EPERM]),
    row("symlink", "int symlink(const char *target, const char *path)").minus_one(&[EEXIST, ENOSPC, EACCES]),
    row("readlink", "ssize_t readlink(const char *path, char *buffer, size_t size)")
        .alias(&["__readlink_chk"])
        .minus_one(&[EACCES, ENOENT, EINVAL, ENOMEM]),
    row("readlinkat", "ssize_t readlinkat(int directory, const char *path, char *buffer, size_t size)")
        .alias(&["__readlinkat_chk"])
        .minus_one(&[EACCES, ENOENT, EINVAL, ENOMEM]),
    row("mkdir", "int mkdir(const char *path, mode_t mode)").minus_one(&[EACCES, EEXIST, ENOSPC]),
    row("mkdirat", "int mkdirat(int directory, const char *path, mode_t mode)").minus_one(&[EACCES, EEXIST, ENOSPC]),
    row("mkdtemp", "char *mkdtemp(char *template)").null(&[EACCES, ENOSPC]),
    row("rmdir", "int rmdir(const char *path)").minus_one(&[ENOTEMPTY, EBUSY, EACCES]),
    row("mknod", "int mknod(const char *path, mode_t mode, dev_t device)").minus_one(&[EPERM, EEXIST, ENOSPC]),
    row("mkfifo", "int mkfifo(const char *path, mode_t mode)").minus_one(&[EACCES, EEXIST, ENOSPC]),
    row("chdir", "int chdir(const char *path)").minus_one(PATH),
    row("fchdir", "int fchdir(int fd)").minus_one(&[EACCES]),
    row("truncate", "int truncate(const char *path, off_t size)").alias(&["truncate64"]).minus_one(&[EACCES, ETXTBSY, EIO]),
    row("ftruncate", "int ftruncate(int fd, off_t size)").alias(&["ftruncate64"]).minus_one(&[EIO, EINVAL, ENOSPC, EINTR]),
    row("fallocate", "int fallocate(int fd, int mode, off_t offset, off_t size)")
        .alias(&["fallocate64"])
        .minus_one(&[ENOSPC, EINTR, EIO]),
    row("posix_fallocate", "int posix_fallocate(int fd, off_t offset, off_t size)")
        .alias(&["posix_fallocate64"])
        .fails(Failure::Code, &[ENOSPC, EINTR]),
    row("posix_fadvise", "int posix_fadvise(int fd, off_t offset, off_t size, int advice)")
        .alias(&["posix_fadvise64"])
        .fails(Failure::Code, &[ESPIPE]),
    row("fsync", "int fsync(int fd)").minus_one(&[EIO, ENOSPC]),
    row("fdatasync", "int fdatasync(int fd)").minus_one(&[EIO, ENOSPC]),
    row("flock", "int flock(int fd, int operation)").minus_one(&[EINTR, ENOLCK]),
    row("lockf", "int lockf(int fd, int command, off_t size)").alias(&["lockf64"]).minus_one(&[EINTR, ENOLCK]),
    row("utimensat", "int utimensat(int directory, const char *path, const struct timespec *, int flags)").minus_one(PATH),
    row("futimens", "int futimens(int fd, const struct timespec *)").minus_one(&[EACCES, EROFS]),
    row("utimes", "int utimes(const char *path, const struct timeval *)").minus_one(PATH),
    row("getxattr", "ssize_t getxattr(const char *path, const char *name, void *value, size_t size)").minus_one(&[libc::ENODATA]),
    row("setxattr", "int setxattr(const char *path, const char *name, const void *value, size_t size, int flags)")
        .minus_one(&[ENOSPC]),
    row("opendir", "DIR *opendir(const char *path)").null(&[EMFILE, ENOENT, EACCES, ENOMEM]).effect(OpenDirectory),
    row("fdopendir", "DIR *fdopendir(int fd)").null(&[ENOMEM, EBADF]),
    row("readdir", "struct dirent *readdir(DIR *directory)").alias(&["readdir64"]).null(&[EIO]),
    row("closedir", "int closedir(DIR *directory)").minus_one(&[EIO]).still_done().effect(CloseDirectory),
    row("fopen", "FILE *fopen(const char *path, const char *mode)")
        .alias(&["fopen64"])
        .null(&[EMFILE, ENOENT, EACCES, ENOMEM])
        .effect(OpenStream),
    row("fdopen", "FILE *fdopen(int fd, const char *mode)").null(&[ENOMEM, EINVAL]),
    row("freopen", "FILE *freopen(const char *path, const char *mode, FILE *stream)")
        .alias(&["freopen64"])
        .null(&[EMFILE, ENOENT, EACCES, ENOMEM])
        .still_done()
        .effect(ReopenStream),
    row("tmpfile", "FILE *tmpfile(void)").alias(&["tmpfile64"]).null(SPACE).effect(OpenStream),
    row("fmemopen", "FILE *fmemopen(void *buffer, size_t size, const char *mode)").null(&[ENOMEM]),
    row("open_memstream", "FILE *open_memstream(char **text, size_t *size)").null(&[ENOMEM]),
    row("fclose", "int fclose(FILE *stream)").minus_one(&[EIO, ENOSPC]).still_done().effect(CloseStream),
    row("fflush", "int fflush(FILE *stream)").fails(Failure::Stream(-1, 0), &[EIO, ENOSPC]),
    row("fread", "size_t fread(void *items, size_t size, size_t count, FILE *stream)")
        .alias(&["fread_unlocked"])
        .fails(Failure::Stream(0, 3), READ),
    row("__fread_chk", "size_t __fread_chk(void *items, size_t room, size_t size, size_t count, FILE *stream)")
        .alias(&["__fread_unlocked_chk"])
        .fails(Failure::Stream(0, 4), READ),
    row("fwrite", "size_t fwrite(const void *items, size_t size, size_t count, FILE *stream)")
        .alias(&["fwrite_unlocked"])
        .fails(Failure::Stream(0, 3), WRITE),
    row("fgets", "char *fgets(char *line, int size, FILE *stream)")
        .alias(&["fgets_unlocked"])
        .fails(Failure::Stream(0, 2), READ),
    row("__fgets_chk", "char *__fgets_chk(char *line, size_t room, int size, FILE *stream)")
        .alias(&["__fgets_unlocked_chk"])
        .fails(Failure::Stream(0, 3), READ),
    row("fgetc", "int fgetc(FILE *stream)")
        .alias(&["getc", "_IO_getc", "getc_unlocked", "fgetc_unlocked", "__uflow"])
        .fails(Failure::Stream(-1, 0), READ),
    row("fputs", "int fputs(const char *text, FILE *stream)")
        .alias(&["fputs_unlocked"])
        .fails(Failure::Stream(-1, 1), WRITE),
    row("fputc", "int fputc(int character, FILE *stream)")
        .alias(&["putc", "_IO_putc", "fputc_unlocked", "putc_unlocked"])
        .fails(Failure::Stream(-1, 1), WRITE),
    row("fprintf", "int fprintf(FILE *stream, const char *format, ...)")
        .alias(&["__fprintf_chk"])
        .fails(Failure::Stream(-1, 0), WRITE),
    row("vfprintf", "int vfprintf(FILE *stream, const char *format, va_list arguments)")
        .alias(&["__vfprintf_chk"])
        .fails(Failure::Stream(-1, 0), WRITE),
    row("dprintf", "int dprintf(int fd, const char *format, ...)").alias(&["__dprintf_chk"]).minus_one(WRITE),
    row("vdprintf", "int vdprintf(int fd, const char *format, va_list arguments)").alias(&["__vdprintf_chk"]).minus_one(WRITE),
    row("fseek", "int fseek(FILE *stream, long offset, int whence)").minus_one(&[ESPIPE, EIO]),
    row("fseeko", "int fseeko(FILE *stream, off_t offset, int whence)").alias(&["fseeko64"]).minus_one(&[ESPIPE, EIO]),
    row("ftell", "long ftell(FILE *stream)").minus_one(&[ESPIPE]),
    row("ftello", "off_t ftello(FILE *stream)").alias(&["ftello64"]).minus_one(&[ESPIPE]),
    row("getgroups", "int getgroups(int size, gid_t list[])").alias(&["__getgroups_chk"]).minus_one(&[EINVAL]),
    row("gethostname", "int gethostname(char *name, size_t size)").alias(&["__gethostname_chk"]).minus_one(&[libc::ENAMETOOLONG]),
    row("uname", "int uname(struct utsname *)").minus_one(&[libc::EFAULT]),
    row("sysconf", "long sysconf(int name)").minus_one(&[EINVAL]),
    row("kcmp", "int kcmp(pid_t, pid_t, int type, unsigned long, unsigned long)").minus_one(&[EPERM, libc::ENOSYS]),
    row("syscall", "long syscall(long number, ...)").minus_one(&[EPERM, libc::ENOSYS]),
];
