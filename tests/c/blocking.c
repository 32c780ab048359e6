/*
 * Blocking contexts: a server thread waits in the library. Messages of all sizes, in pieces and in bursts,
 * with descriptors; signals; and cancellation of the thread, after which the context can be destroyed.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "harness.h"

#define BIG (1024 * 1024)

static vfu_ctx_t *ctx;
static atomic_uint nr_registered, nr_resets, nr_written;
static atomic_int result, result_errno;

static ssize_t
access_cb(vfu_ctx_t *unused, char *buf, size_t count, loff_t offset, bool is_write)
{
    (void)unused;
    (void)offset;
    if (is_write) {
        CHECK(buf[0] == buf[count - 1]);
        atomic_fetch_add(&nr_written, (unsigned int)count);
    } else {
        memset(buf, 0x5a, count);
    }
    return (ssize_t)count;
}

static int
reset_cb(vfu_ctx_t *unused, vfu_reset_type_t type)
{
    (void)unused;
    (void)type;
    atomic_fetch_add(&nr_resets, 1);
    return 0;
}

static void
register_cb(vfu_ctx_t *unused, vfu_dma_info_t *info)
{
    (void)unused;
    CHECK(info->vaddr != NULL);
    atomic_fetch_add(&nr_registered, 1);
}

static void
unregister_cb(vfu_ctx_t *unused, vfu_dma_info_t *info)
{
    (void)unused;
    (void)info;
}

static void
no_action(int signal)
{
    (void)signal;
}

static void
setup(const char *name)
{
    atomic_store(&nr_registered, 0);
    atomic_store(&nr_resets, 0);
    ctx = new_ctx(name, 0, NULL);
    CHECK(vfu_setup_region(ctx, 0, BIG, access_cb, VFU_REGION_FLAG_RW | VFU_REGION_FLAG_MEM, NULL, 0, -1, 0) == 0);
    CHECK(vfu_setup_device_reset_cb(ctx, reset_cb) == 0);
    CHECK(vfu_setup_device_dma(ctx, 8, register_cb, unregister_cb) == 0);
    CHECK(vfu_realize_ctx(ctx) == 0);
}

/* Attaches if need be, and serves until something fails. */
static void *
serve(void *arg)
{
    const int *cancel_type = arg;

    if (cancel_type != NULL) {
        CHECK(pthread_setcanceltype(*cancel_type, NULL) == 0);
    }
    atomic_store(&result, vfu_attach_ctx(ctx));
    atomic_store(&result_errno, errno);
    if (atomic_load(&result) == 0) {
        atomic_store(&result, vfu_run_ctx(ctx));
        atomic_store(&result_errno, errno);
    }
    return NULL;
}

static int
connect_raw(const char *name)
{
    struct sockaddr_un addr;
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(sock >= 0);
    memset(&addr, 0, sizeof(addr));
    addr.sun_family = AF_UNIX;
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", socket_path(name));
    CHECK(connect(sock, (struct sockaddr *)&addr, sizeof(addr)) == 0);
    return sock;
}

/* As long as the reply is, however it comes. Returns its error. */
static uint32_t
whole_reply(int sock)
{
    static char rest[BIG + 64];
    struct vfio_user_header hdr;

    CHECK(recv(sock, &hdr, sizeof(hdr), MSG_WAITALL) == (ssize_t)sizeof(hdr));
    CHECK(hdr.msg_size >= sizeof(hdr) && hdr.msg_size - sizeof(hdr) <= sizeof(rest));
    if (hdr.msg_size > sizeof(hdr)) {
        CHECK(recv(sock, rest, hdr.msg_size - sizeof(hdr), MSG_WAITALL) == (ssize_t)(hdr.msg_size - sizeof(hdr)));
    }
    return hdr.error_no;
}

static int
connect_negotiated(const char *name)
{
    const uint16_t version[2] = { LIB_VFIO_USER_MAJOR, LIB_VFIO_USER_MINOR };
    int sock = connect_raw(name);

    client_send(sock, VFIO_USER_VERSION, version, sizeof(version), NULL, 0);
    CHECK(whole_reply(sock) == 0);
    return sock;
}

static void
send_all(int sock, const char *bytes, size_t size)
{
    while (size != 0) {
        ssize_t sent = send(sock, bytes, size, MSG_NOSIGNAL);

        CHECK(sent > 0);
        bytes += sent;
        size -= (size_t)sent;
    }
}

static void
send_map(int sock, uint64_t addr, int fd)
{
    struct vfio_user_dma_map map;

    memset(&map, 0, sizeof(map));
    map.argsz = sizeof(map);
    map.flags = VFIO_USER_F_DMA_REGION_READ | VFIO_USER_F_DMA_REGION_WRITE;
    map.addr = addr;
    map.size = 4096;
    client_send(sock, VFIO_USER_DMA_MAP, &map, sizeof(map), &fd, 1);
}

static unsigned int
open_fds(void)
{
    unsigned int count = 0;
    int fd;

    for (fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) != -1;
    }
    return count;
}

static void
messages(void)
{
    static char big[sizeof(struct vfio_user_header) + sizeof(struct vfio_user_region_access) + BIG];
    struct vfio_user_header hdr;
    struct vfio_user_region_access access;
    const unsigned int fds_before = open_fds();
    int memory = memfd_create("client", MFD_CLOEXEC);
    pthread_t thread;
    unsigned int i;
    int sock;

    CHECK(ftruncate(memory, 4096) == 0);
    setup("blocking.sock");
    CHECK(pthread_create(&thread, NULL, serve, NULL) == 0);
    sock = connect_negotiated("blocking.sock");

    /* a burst, each message with a descriptor of its own */
    for (i = 0; i < 5; i++) {
        send_map(sock, 0x10000 * (i + 1), memory);
    }
    for (i = 0; i < 5; i++) {
        CHECK(whole_reply(sock) == 0);
    }
    CHECK(atomic_load(&nr_registered) == 5);

    /* byte by byte, then as large as can be */
    memset(&access, 0, sizeof(access));
    memset(&hdr, 0, sizeof(hdr));
    hdr.cmd = VFIO_USER_REGION_WRITE;
    access.count = 4;
    hdr.msg_size = sizeof(hdr) + sizeof(access) + access.count;
    memcpy(big, &hdr, sizeof(hdr));
    memcpy(big + sizeof(hdr), &access, sizeof(access));
    for (i = 0; i < hdr.msg_size; i++) {
        send_all(sock, big + i, 1);
    }
    CHECK(whole_reply(sock) == 0);
    CHECK(atomic_load(&nr_written) == 4);
    access.count = BIG;
    hdr.msg_size = sizeof(big);
    memcpy(big, &hdr, sizeof(hdr));
    memcpy(big + sizeof(hdr), &access, sizeof(access));
    send_all(sock, big, sizeof(big));
    CHECK(whole_reply(sock) == 0);
    CHECK(atomic_load(&nr_written) == 4 + BIG);
    client_send(sock, VFIO_USER_REGION_READ, &access, sizeof(access), NULL, 0);
    CHECK(whole_reply(sock) == 0);

    close(sock);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(atomic_load(&result) == -1 && atomic_load(&result_errno) == ENOTCONN);
    CHECK(atomic_load(&nr_resets) == 1);
    vfu_destroy_ctx(ctx);
    close(memory);
    CHECK(open_fds() == fds_before);
}

/* A signal that comes while the thread waits: sent again and again, since nobody knows when it begins to. */
static void
interrupted(bool attached)
{
    struct sigaction action;
    pthread_t thread;
    int sock = -1;

    memset(&action, 0, sizeof(action));
    action.sa_handler = no_action;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    setup("signal.sock");
    atomic_store(&result, 1);
    CHECK(pthread_create(&thread, NULL, serve, NULL) == 0);
    if (attached) {
        sock = connect_negotiated("signal.sock");
    }
    while (atomic_load(&result) != -1) {
        CHECK(pthread_kill(thread, SIGUSR1) == 0);
        sched_yield();
    }
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(atomic_load(&result_errno) == EINTR);
    CHECK(atomic_load(&nr_resets) == 0);

    if (attached) { /* nothing was lost: the same client is served on */
        CHECK(pthread_create(&thread, NULL, serve, NULL) == 0); /* EINVAL: attached already */
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(atomic_load(&result_errno) == EINVAL);
        client_send(sock, VFIO_USER_DEVICE_RESET, NULL, 0, NULL, 0);
        CHECK(shutdown(sock, SHUT_WR) == 0);
        FAILS(vfu_run_ctx(ctx), ENOTCONN);
        CHECK(whole_reply(sock) == 0);
        CHECK(atomic_load(&nr_resets) == 2);
        close(sock);
    }
    vfu_destroy_ctx(ctx);
}

static void
cancelled(int type, bool attached)
{
    const unsigned int fds_before = open_fds();
    pthread_t thread;
    void *how;
    int sock = -1;

    setup("cancel.sock");
    CHECK(pthread_create(&thread, NULL, serve, &type) == 0);
    if (attached) {
        sock = connect_negotiated("cancel.sock");
        client_send(sock, VFIO_USER_DEVICE_RESET, NULL, 0, NULL, 0);
        CHECK(whole_reply(sock) == 0);
    }
    CHECK(pthread_cancel(thread) == 0);
    CHECK(pthread_join(thread, &how) == 0);
    CHECK(how == PTHREAD_CANCELED);
    atomic_store(&nr_resets, 0);
    vfu_destroy_ctx(ctx);
    CHECK(atomic_load(&nr_resets) == 1);
    CHECK(access(socket_path("cancel.sock"), F_OK) == -1);
    if (attached) {
        close(sock);
    }
    CHECK(open_fds() == fds_before);
}

int
main(void)
{
    int i;

    messages();
    interrupted(false);
    interrupted(true);
    for (i = 0; i < 2; i++) {
        cancelled(PTHREAD_CANCEL_DEFERRED, i);
        cancelled(PTHREAD_CANCEL_ASYNCHRONOUS, i);
    }
    return 0;
}
