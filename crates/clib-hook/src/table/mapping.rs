//! Mappings and shared memory.

use libc::{EACCES, EAGAIN, EINVAL, ENOMEM, ENOSPC, EPERM};

use super::{Effect::*, Function, Group};

const fn row(name: &'static str, prototype: &'static str) -> Function {
    Function::new(Group::Mapping, name, prototype)
}

pub(super) const ROWS: &[Function] = &[
    row(
        "mmap",
        "void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)",
    )
    .alias(&["mmap64", "__mmap"])
    .minus_one(&[ENOMEM, EACCES, EAGAIN, EPERM])
    .effect(Map),
    row("munmap", "int munmap(void *address, size_t size)")
        .alias(&["__munmap"])
        .minus_one(&[ENOMEM])
        .effect(Unmap),
    row(
        "mremap",
        "void *mremap(void *old, size_t old_size, size_t size, int flags, ...)",
    )
    .minus_one(&[ENOMEM, EAGAIN])
    .effect(Remap),
    row(
        "mprotect",
        "int mprotect(void *address, size_t size, int protection)",
    )
    .alias(&["__mprotect"])
    .minus_one(&[ENOMEM, EACCES]),
    row(
        "madvise",
        "int madvise(void *address, size_t size, int advice)",
    )
    .minus_one(&[ENOMEM, EAGAIN, EINVAL]),
    row(
        "posix_madvise",
        "int posix_madvise(void *address, size_t size, int advice)",
    )
    .fails(super::Failure::Code, &[ENOMEM, EINVAL]),
    row("msync", "int msync(void *address, size_t size, int flags)")
        .minus_one(&[libc::EIO, ENOMEM]),
    row(
        "mincore",
        "int mincore(void *address, size_t size, unsigned char *pages)",
    )
    .minus_one(&[ENOMEM, EAGAIN]),
    row("shmget", "int shmget(key_t key, size_t size, int flags)")
        .minus_one(&[ENOMEM, ENOSPC, EACCES]),
    row(
        "shmat",
        "void *shmat(int segment, const void *address, int flags)",
    )
    .minus_one(&[ENOMEM, EACCES])
    .effect(Attach),
    row("shmdt", "int shmdt(const void *address)")
        .minus_one(&[EINVAL])
        .effect(Detach),
    row(
        "shmctl",
        "int shmctl(int segment, int command, struct shmid_ds *)",
    )
    .minus_one(&[EPERM, EINVAL]),
];
