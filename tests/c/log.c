/* vfu_log: formats, %m, truncation, the level filter, errno kept. */
#include "harness.h"

static int evaluated;

static const char *
expensive(void)
{
    evaluated++;
    return "argument";
}

int
main(void)
{
    vfu_ctx_t *ctx = new_ctx("log.sock", 0, NULL);
    static char big[10000];
    char expected[256];

    /* every class of argument passes through: integer registers, stack, floating point */
    forget_log();
    vfu_log(ctx, LOG_INFO, "%d %s %ld %x %c %u %lld %.2f %g", -1, "two", 3L, 4U, '5', 6U, 7LL, 8.25, 1e10);
    CHECK(strcmp(last_log, "-1 two 3 4 5 6 7 8.25 1e+10") == 0);
    CHECK(last_level == LOG_INFO && nr_logs == 1);

    /* %m shows errno on entry; errno survives the format and the handler (which sets EXDEV) */
    errno = ENOSPC;
    vfu_log(ctx, LOG_ERR, "failed: %m");
    CHECK(errno == ENOSPC);
    snprintf(expected, sizeof(expected), "failed: %s", strerror(ENOSPC));
    CHECK(strcmp(last_log, expected) == 0);

    /* a message that does not fit is cut at 8191 bytes */
    memset(big, 'x', sizeof(big) - 1);
    forget_log();
    vfu_log(ctx, LOG_ERR, "%s", big);
    CHECK(nr_logs == 1 && strlen(last_log) == 8191);

    /* filtered: no handler call, errno kept */
    CHECK(vfu_setup_log(ctx, keep_log, LOG_WARNING) == 0);
    forget_log();
    errno = EDOM;
    vfu_log(ctx, LOG_NOTICE, "%s", expensive());
    CHECK(nr_logs == 0 && errno == EDOM && evaluated == 1);
    vfu_log(ctx, LOG_WARNING, "at the level");
    CHECK(nr_logs == 1);

    /* a refused setting keeps the old one */
    FAILS(vfu_setup_log(ctx, NULL, 8), EINVAL);
    FAILS(vfu_setup_log(ctx, NULL, -1), EINVAL);
    vfu_log(ctx, LOG_WARNING, "still there");
    CHECK(strcmp(last_log, "still there") == 0);

    /* no format, no handler, no context: nothing happens */
    forget_log();
    errno = EDOM;
    {
        const char *volatile no_format = NULL;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-security"
        vfu_log(ctx, LOG_ERR, no_format);
        vfu_log(NULL, LOG_ERR, "nobody");
#pragma GCC diagnostic pop
    }
    CHECK(nr_logs == 0 && errno == EDOM);
    CHECK(vfu_setup_log(ctx, NULL, LOG_DEBUG) == 0);
    vfu_log(ctx, LOG_ERR, "unheard");
    CHECK(nr_logs == 0);

    vfu_destroy_ctx(ctx);
    return 0;
}
