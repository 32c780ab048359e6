/*
 * The variadic half of vfu_log, which stable Rust cannot define.
 *
 * The exported vfu_log (src/log.rs) jumps here with its arguments untouched. This file only turns
 * the format and its arguments into text; whether a message is wanted, and where it goes, is Rust's
 * affair. Symbols are hidden: nothing here is part of the ABI.
 */

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#define TEXT_SIZE 8192 /* longest message, with its NUL */

struct vfu_ctx;

void vfu_log_format(struct vfu_ctx *ctx, int level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* src/log.rs; neither unwinds. */
extern bool vfu_log_wanted(struct vfu_ctx *ctx, int level);
extern void vfu_log_emit(struct vfu_ctx *ctx, int level, const char *text);

void
vfu_log_format(struct vfu_ctx *ctx, int level, const char *fmt, ...)
{
    const int saved_errno = errno;
    char text[TEXT_SIZE];
    va_list args;

    if (fmt != NULL && vfu_log_wanted(ctx, level)) {
        errno = saved_errno; /* what %m shows */
        va_start(args, fmt);
        if (vsnprintf(text, sizeof(text), fmt, args) < 0) {
            (void)snprintf(text, sizeof(text), "%s", fmt);
        }
        va_end(args);
        vfu_log_emit(ctx, level, text);
    }
    errno = saved_errno;
}
