/*
 * What the compiled C tests share: checks that end the program, a log that is kept, and a client that
 * lives on the server's own thread (it sends, the test runs the server once, it receives).
 */
#ifndef TEST_HARNESS_H
#define TEST_HARNESS_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <vfio-user/libvfio-user.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s does not hold (errno %d, last log: %s)\n", \
                    __FILE__, __LINE__, #condition, errno, last_log); \
            exit(EXIT_FAILURE); \
        } \
    } while (0)

/* The call returns `failed` with this errno. */
#define FAILS_AS(call, failed, error) \
    do { \
        errno = 0; \
        long long result_ = (long long)(call); \
        int errno_ = errno; \
        if (result_ != (long long)(failed) || errno_ != (error)) { \
            fprintf(stderr, "%s:%d: %s gave %lld with errno %d, expected %lld with %d (last log: %s)\n", \
                    __FILE__, __LINE__, #call, result_, errno_, (long long)(failed), (error), last_log); \
            exit(EXIT_FAILURE); \
        } \
    } while (0)

#define FAILS(call, error) FAILS_AS(call, -1, error)

static char last_log[8192];
static int last_level;
static unsigned int nr_logs;

__attribute__((unused)) static void
keep_log(vfu_ctx_t *ctx, int level, const char *text)
{
    (void)ctx;
    snprintf(last_log, sizeof(last_log), "%s", text);
    last_level = level;
    nr_logs++;
    errno = EXDEV; /* a careless handler: the library keeps errno across it */
}

__attribute__((unused)) static void
forget_log(void)
{
    last_log[0] = '\0';
    nr_logs = 0;
}

/* A socket path in the test's own directory, which the driver makes and removes. */
__attribute__((unused)) static const char *
socket_path(const char *name)
{
    static char path[108];
    const char *dir = getenv("TEST_DIR");

    snprintf(path, sizeof(path), "%s/%s", dir != NULL ? dir : ".", name);
    return path;
}

__attribute__((unused)) static vfu_ctx_t *
new_ctx(const char *name, int flags, void *pvt)
{
    vfu_ctx_t *ctx = vfu_create_ctx(VFU_TRANS_SOCK, socket_path(name), flags, pvt, VFU_DEV_TYPE_PCI);

    CHECK(ctx != NULL);
    CHECK(vfu_setup_log(ctx, keep_log, LOG_DEBUG) == 0);
    return ctx;
}

__attribute__((unused)) static void
client_send(int sock, uint16_t cmd, const void *payload, size_t size, const int *fds, size_t nr_fds)
{
    struct vfio_user_header hdr;
    struct iovec iov[2];
    struct msghdr msg;
    char control[CMSG_SPACE(8 * sizeof(int))];

    memset(&hdr, 0, sizeof(hdr));
    hdr.msg_id = 7;
    hdr.cmd = cmd;
    hdr.msg_size = (uint32_t)(sizeof(hdr) + size);
    iov[0].iov_base = &hdr;
    iov[0].iov_len = sizeof(hdr);
    iov[1].iov_base = (void *)(uintptr_t)payload;
    iov[1].iov_len = size;
    memset(&msg, 0, sizeof(msg));
    msg.msg_iov = iov;
    msg.msg_iovlen = size == 0 ? 1 : 2;
    if (nr_fds != 0) {
        struct cmsghdr *cmsg;

        memset(control, 0, sizeof(control));
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
        cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, nr_fds * sizeof(int));
    }
    CHECK(sendmsg(sock, &msg, MSG_NOSIGNAL) == (ssize_t)(sizeof(hdr) + size));
}

/* One reply; its payload goes to `payload`. Returns the payload's size, and the error in *error. */
__attribute__((unused)) static size_t
client_reply(int sock, void *payload, size_t room, uint32_t *error)
{
    static char buf[65536];
    struct vfio_user_header hdr;
    ssize_t got = recv(sock, buf, sizeof(buf), 0);
    size_t size;

    CHECK(got >= (ssize_t)sizeof(hdr));
    memcpy(&hdr, buf, sizeof(hdr));
    CHECK(hdr.msg_size == (size_t)got);
    size = (size_t)got - sizeof(hdr);
    CHECK(size <= room);
    memcpy(payload, buf + sizeof(hdr), size);
    *error = hdr.error_no;
    return size;
}

/* A connected client that has negotiated. */
__attribute__((unused)) static int
client_connect(vfu_ctx_t *ctx, const char *name)
{
    struct sockaddr_un addr;
    const uint16_t version[2] = { LIB_VFIO_USER_MAJOR, LIB_VFIO_USER_MINOR };
    char reply[4096];
    uint32_t error;
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(sock >= 0);
    memset(&addr, 0, sizeof(addr));
    addr.sun_family = AF_UNIX;
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", socket_path(name));
    CHECK(connect(sock, (struct sockaddr *)&addr, sizeof(addr)) == 0);
    client_send(sock, VFIO_USER_VERSION, version, sizeof(version), NULL, 0);
    CHECK(vfu_attach_ctx(ctx) == 0);
    client_reply(sock, reply, sizeof(reply), &error);
    CHECK(error == 0);
    return sock;
}

/* A request and its reply, the server run once in between. Returns the error in the reply. */
__attribute__((unused)) static uint32_t
roundtrip(vfu_ctx_t *ctx, int sock, uint16_t cmd, const void *payload, size_t size)
{
    static char reply[65536];
    uint32_t error;

    client_send(sock, cmd, payload, size, NULL, 0);
    CHECK(vfu_run_ctx(ctx) >= 0);
    client_reply(sock, reply, sizeof(reply), &error);
    return error;
}

__attribute__((unused)) static uint32_t
dma_map(vfu_ctx_t *ctx, int sock, uint64_t addr, uint64_t size, int fd)
{
    struct vfio_user_dma_map map;
    char reply[64];
    uint32_t error;

    memset(&map, 0, sizeof(map));
    map.argsz = sizeof(map);
    map.flags = VFIO_USER_F_DMA_REGION_READ | VFIO_USER_F_DMA_REGION_WRITE;
    map.addr = addr;
    map.size = size;
    client_send(sock, VFIO_USER_DMA_MAP, &map, sizeof(map), &fd, fd == -1 ? 0 : 1);
    CHECK(vfu_run_ctx(ctx) >= 0);
    client_reply(sock, reply, sizeof(reply), &error);
    return error;
}

__attribute__((unused)) static uint32_t
dma_unmap(vfu_ctx_t *ctx, int sock, uint64_t addr, uint64_t size)
{
    struct vfio_user_dma_unmap unmap;

    memset(&unmap, 0, sizeof(unmap));
    unmap.argsz = sizeof(unmap);
    unmap.addr = addr;
    unmap.size = size;
    return roundtrip(ctx, sock, VFIO_USER_DMA_UNMAP, &unmap, sizeof(unmap));
}

__attribute__((unused)) static uint32_t
region_write(vfu_ctx_t *ctx, int sock, uint32_t region, uint64_t offset, const void *data, uint32_t count)
{
    char request[sizeof(struct vfio_user_region_access) + 64];
    struct vfio_user_region_access access;

    CHECK(count <= 64);
    memset(&access, 0, sizeof(access));
    access.offset = offset;
    access.region = region;
    access.count = count;
    memcpy(request, &access, sizeof(access));
    memcpy(request + sizeof(access), data, count);
    return roundtrip(ctx, sock, VFIO_USER_REGION_WRITE, request, sizeof(access) + count);
}

#endif
