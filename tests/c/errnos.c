/* errno: what failures set, what successes leave or clear. */
#include <sys/mman.h>

#include "harness.h"

static int answer;       /* what the region callback returns */
static int answer_errno; /* and sets */

static ssize_t
access_cb(vfu_ctx_t *ctx, char *buf, size_t count, loff_t offset, bool is_write)
{
    (void)ctx;
    (void)buf;
    (void)offset;
    (void)is_write;
    errno = answer_errno;
    return answer == 0 ? (ssize_t)count : answer;
}

static int
reset_cb(vfu_ctx_t *ctx, vfu_reset_type_t type)
{
    (void)ctx;
    if (type == VFU_RESET_DEVICE) {
        errno = 0xbeef;
        return -1;
    }
    return 0;
}

static int quiesce_result;

static int
quiesce_cb(vfu_ctx_t *ctx)
{
    (void)ctx;
    errno = quiesce_result;
    return quiesce_result == 0 ? 0 : -1;
}

int
main(void)
{
    vfu_ctx_t *ctx = new_ctx("errnos.sock", LIBVFIO_USER_FLAG_ATTACH_NB, NULL);
    uint64_t sg[15];
    dma_sg_t *sgl = (dma_sg_t *)sg;
    const char byte = 1;
    char reply[64];
    uint32_t error;
    int sock;

    CHECK(vfu_setup_region(ctx, 0, 4096, access_cb, VFU_REGION_FLAG_RW, NULL, 0, -1, 0) == 0);
    CHECK(vfu_setup_device_reset_cb(ctx, reset_cb) == 0);
    CHECK(vfu_setup_device_dma(ctx, 8, NULL, NULL) == 0);
    CHECK(vfu_realize_ctx(ctx) == 0);
    sock = client_connect(ctx, "errnos.sock");

    /* nothing to do */
    CHECK(vfu_run_ctx(ctx) == 0);

    /* a served request's failure is errno after the success of vfu_run_ctx, whatever the log handler did */
    errno = 0;
    CHECK(roundtrip(ctx, sock, VFIO_USER_DEVICE_RESET, NULL, 0) == 0xbeef);
    client_send(sock, VFIO_USER_DEVICE_RESET, NULL, 0, NULL, 0);
    errno = 0;
    CHECK(vfu_run_ctx(ctx) >= 0);
    CHECK(errno == 0xbeef);
    client_reply(sock, reply, sizeof(reply), &error);
    CHECK(error == 0xbeef);

    /* region callbacks: -1 is their errno; a short count, or -1 without errno, is EINVAL */
    answer = -1;
    answer_errno = ENODEV;
    CHECK(region_write(ctx, sock, 0, 0, &byte, 1) == ENODEV);
    answer_errno = 0;
    CHECK(region_write(ctx, sock, 0, 0, &byte, 1) == EINVAL);
    answer = 3;
    CHECK(region_write(ctx, sock, 0, 0, "four", 4) == EINVAL);
    answer = 0;
    answer_errno = EDOM; /* a success that leaves errno behind is a success */
    CHECK(region_write(ctx, sock, 0, 0, &byte, 1) == 0);

    /* translation */
    CHECK(dma_map(ctx, sock, 0x1000, 0x1000, -1) == 0);
    CHECK(dma_map(ctx, sock, 0x2000, 0x1000, -1) == 0);
    errno = EDOM;
    CHECK(vfu_addr_to_sgl(ctx, (vfu_dma_addr_t)0x1000, 0x2000, sgl, 2, PROT_READ) == 2);
    CHECK(errno == 0);
    FAILS_AS(vfu_addr_to_sgl(ctx, (vfu_dma_addr_t)0x1000, 0x2000, sgl, 1, PROT_READ), -3, 0);
    FAILS_AS(vfu_addr_to_sgl(ctx, (vfu_dma_addr_t)0x1000, 1, sgl, 0, PROT_READ), -2, 0);
    errno = EDOM;
    CHECK(vfu_addr_to_sgl(ctx, (vfu_dma_addr_t)0x9000, 0, sgl, 1, PROT_READ) == 0);
    CHECK(errno == 0);
    FAILS(vfu_addr_to_sgl(ctx, (vfu_dma_addr_t)0x9000, 1, sgl, 1, PROT_READ), ENOENT);
    FAILS(vfu_addr_to_sgl(ctx, (vfu_dma_addr_t)0x1000, (size_t)-256, sgl, 1, PROT_READ), ENOENT);

    /* quiesce: an error fails the request only; EBUSY is for the caller, again and again */
    vfu_setup_device_quiesce_cb(ctx, quiesce_cb);
    quiesce_result = ENOTTY;
    CHECK(dma_unmap(ctx, sock, 0x1000, 0x1000) == ENOTTY);
    quiesce_result = EBUSY;
    client_send(sock, VFIO_USER_DEVICE_RESET, NULL, 0, NULL, 0);
    FAILS(vfu_run_ctx(ctx), EBUSY);
    FAILS(vfu_run_ctx(ctx), EBUSY);
    CHECK(vfu_device_quiesced(ctx, 0) == 0);
    client_reply(sock, reply, sizeof(reply), &error);
    CHECK(error == 0xbeef);
    CHECK(vfu_run_ctx(ctx) == 0);
    FAILS(vfu_device_quiesced(ctx, 0), EINVAL);

    quiesce_result = 0;
    close(sock);
    FAILS(vfu_run_ctx(ctx), ENOTCONN);
    FAILS(vfu_run_ctx(ctx), ENOTCONN);
    vfu_destroy_ctx(ctx);
    return 0;
}
