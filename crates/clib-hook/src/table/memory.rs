//! The C and C++ heaps.

use libc::{EINVAL, EIO, ENOENT, ENOMEM};

use super::{Effect::*, Failure, Function, Group, Size::*};

const fn row(name: &'static str, prototype: &'static str) -> Function {
    Function::new(Group::Memory, name, prototype)
}

const NOMEM: &[i32] = &[ENOMEM];

pub(super) const ROWS: &[Function] = &[
    row("malloc", "void *malloc(size_t size)").alias(&["__libc_malloc"]).null(NOMEM).effect(Allocate(Arg(0))),
    row("calloc", "void *calloc(size_t count, size_t size)")
        .alias(&["__libc_calloc"])
        .null(NOMEM)
        .effect(Allocate(Product(0, 1))),
    row("realloc", "void *realloc(void *block, size_t size)")
        .alias(&["__libc_realloc"])
        .null(NOMEM)
        .effect(Reallocate(Arg(1))),
    row("reallocarray", "void *reallocarray(void *block, size_t count, size_t size)")
        .null(NOMEM)
        .effect(Reallocate(Product(1, 2))),
    row("aligned_alloc", "void *aligned_alloc(size_t alignment, size_t size)").null(NOMEM).effect(Allocate(Arg(1))),
    row("memalign", "void *memalign(size_t alignment, size_t size)")
        .alias(&["__libc_memalign"])
        .null(NOMEM)
        .effect(Allocate(Arg(1))),
    row("posix_memalign", "int posix_memalign(void **block, size_t alignment, size_t size)")
        .fails(Failure::Code, NOMEM)
        .effect(AllocateAt(0, Arg(2))),
    row("valloc", "void *valloc(size_t size)").null(NOMEM).effect(Allocate(Arg(0))),
    row("pvalloc", "void *pvalloc(size_t size)").null(NOMEM).effect(Allocate(Arg(0))),
    row("free", "void free(void *block)").alias(&["cfree", "__libc_free"]).effect(Free),
    row("malloc_usable_size", "size_t malloc_usable_size(void *block)").effect(UsableSize),
    row("strdup", "char *strdup(const char *text)").alias(&["__strdup"]).null(NOMEM).effect(Allocate(String)),
    row("strndup", "char *strndup(const char *text, size_t most)")
        .alias(&["__strndup"])
        .null(NOMEM)
        .effect(Allocate(String)),
    row("wcsdup", "wchar_t *wcsdup(const wchar_t *text)").null(NOMEM).effect(Allocate(Unknown)),
    row("asprintf", "int asprintf(char **text, const char *format, ...)")
        .alias(&["__asprintf"])
        .minus_one(NOMEM)
        .effect(Format(2)),
    row("__asprintf_chk", "int __asprintf_chk(char **text, int flag, const char *format, ...)")
        .minus_one(NOMEM)
        .effect(Format(3)),
    row("vasprintf", "int vasprintf(char **text, const char *format, va_list arguments)")
        .alias(&["__vasprintf_chk"])
        .minus_one(NOMEM)
        .effect(AllocateAt(0, String)),
    row("getline", "ssize_t getline(char **line, size_t *size, FILE *stream)").minus_one(NOMEM).effect(Line),
    row("getdelim", "ssize_t getdelim(char **line, size_t *size, int delimiter, FILE *stream)")
        .alias(&["__getdelim"])
        .minus_one(NOMEM)
        .effect(Line),
    row("realpath", "char *realpath(const char *path, char *resolved)")
        .alias(&["__realpath_chk"])
        .null(&[ENOENT, ENOMEM, EIO])
        .effect(Allocate(String)),
    row("canonicalize_file_name", "char *canonicalize_file_name(const char *path)")
        .null(&[ENOENT, ENOMEM, EIO])
        .effect(Allocate(String)),
    row("getcwd", "char *getcwd(char *buffer, size_t size)")
        .alias(&["__getcwd_chk"])
        .null(&[ENOENT, ENOMEM])
        .effect(Allocate(String)),
    row("get_current_dir_name", "char *get_current_dir_name(void)").null(&[ENOENT, ENOMEM]).effect(Allocate(String)),
    row("tempnam", "char *tempnam(const char *directory, const char *prefix)").null(NOMEM).effect(Allocate(String)),
    row("backtrace_symbols", "char **backtrace_symbols(void *const *addresses, int size)")
        .null(NOMEM)
        .effect(Allocate(Unknown)),
    row("scandir", "int scandir(const char *path, struct dirent ***list, filter *, compare *)")
        .alias(&["scandir64"])
        .minus_one(&[ENOMEM, ENOENT])
        .effect(AllocateAt(1, Unknown)),
    row("operator new", "void *operator new(size_t size)")
        .alias(&["_Znwm", "_ZnwmSt11align_val_t"])
        .fails(Failure::Throw, &[])
        .effect(Allocate(Arg(0))),
    row("operator new[]", "void *operator new[](size_t size)")
        .alias(&["_Znam", "_ZnamSt11align_val_t"])
        .fails(Failure::Throw, &[])
        .effect(Allocate(Arg(0))),
    row("operator new nothrow", "void *operator new nothrow(size_t size, const std::nothrow_t &)")
        .alias(&["_ZnwmRKSt9nothrow_t", "_ZnwmSt11align_val_tRKSt9nothrow_t"])
        .null(NOMEM)
        .effect(Allocate(Arg(0))),
    row("operator new[] nothrow", "void *operator new[] nothrow(size_t size, const std::nothrow_t &)")
        .alias(&["_ZnamRKSt9nothrow_t", "_ZnamSt11align_val_tRKSt9nothrow_t"])
        .null(NOMEM)
        .effect(Allocate(Arg(0))),
    row("operator delete", "void operator delete(void *block)")
        .alias(&[
            "_ZdlPv",
            "_ZdlPvm",
            "_ZdlPvSt11align_val_t",
            "_ZdlPvmSt11align_val_t",
            "_ZdlPvRKSt9nothrow_t",
            "_ZdlPvSt11align_val_tRKSt9nothrow_t",
        ])
        .effect(Free),
    row("operator delete[]", "void operator delete[](void *block)")
        .alias(&[
            "_ZdaPv",
            "_ZdaPvm",
            "_ZdaPvSt11align_val_t",
            "_ZdaPvmSt11align_val_t",
            "_ZdaPvRKSt9nothrow_t",
            "_ZdaPvSt11align_val_tRKSt9nothrow_t",
        ])
        .effect(Free),
    row("getaddrinfo", "int getaddrinfo(const char *node, const char *service, const struct addrinfo *, struct addrinfo **)")
        .fails(Failure::Status(libc::EAI_MEMORY), NOMEM)
        .effect(AllocateAt(3, Unknown)),
    row("freeaddrinfo", "void freeaddrinfo(struct addrinfo *list)").effect(Free),
    row("getifaddrs", "int getifaddrs(struct ifaddrs **list)").minus_one(NOMEM).effect(AllocateAt(0, Unknown)),
    row("freeifaddrs", "void freeifaddrs(struct ifaddrs *list)").effect(Free),
    row("if_nameindex", "struct if_nameindex *if_nameindex(void)").null(NOMEM).effect(Allocate(Unknown)),
    row("if_freenameindex", "void if_freenameindex(struct if_nameindex *list)").effect(Free),
    row("setvbuf", "int setvbuf(FILE *stream, char *buffer, int mode, size_t size)").minus_one(&[EINVAL]),
    row("brk", "int brk(void *end)").minus_one(NOMEM),
    row("sbrk", "void *sbrk(intptr_t increment)").minus_one(NOMEM),
    row("setenv", "int setenv(const char *name, const char *value, int overwrite)").minus_one(NOMEM),
    row("putenv", "int putenv(char *string)").minus_one(NOMEM),
    row("mlock", "int mlock(const void *address, size_t length)").minus_one(&[ENOMEM, libc::EPERM]),
    row("mlockall", "int mlockall(int flags)").minus_one(&[ENOMEM, libc::EPERM]),
    row("tsearch", "void *tsearch(const void *key, void **root, compare *)").null(NOMEM),
    row("hcreate_r", "int hcreate_r(size_t size, struct hsearch_data *table)").fails(Failure::Status(0), NOMEM),
    row("regcomp", "int regcomp(regex_t *compiled, const char *pattern, int flags)")
        .fails(Failure::Status(libc::REG_ESPACE), NOMEM),
    row("newlocale", "locale_t newlocale(int mask, const char *name, locale_t base)").null(&[ENOMEM, ENOENT]),
];
