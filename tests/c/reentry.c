/*
 * Every callback calls back into the library on the same context: setup, translation, interrupts, logging
 * and the calls that are refused there. Run in one thread, client and server by turns.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "harness.h"

#define BASE ((vfu_dma_addr_t)0x10000)

static unsigned int called[8];
enum { ACCESS, RESET, QUIESCE, REGISTER, UNREGISTER, IRQ_STATE, TRANSITION, DATA };
static bool client_memory; /* BASE is mapped, and has been seen so */

static int quiesce_cb(vfu_ctx_t *ctx);
static int reset_cb(vfu_ctx_t *ctx, vfu_reset_type_t type);
static ssize_t access_cb(vfu_ctx_t *ctx, char *buf, size_t count, loff_t offset, bool is_write);

/* What any callback may do. */
static void
everything(vfu_ctx_t *ctx)
{
    uint64_t sg[5];
    dma_sg_t *sgl = (dma_sg_t *)sg;
    struct iovec iov;
    char byte = 1;

    CHECK(*(int *)vfu_get_private(ctx) == 42);
    vfu_log(ctx, LOG_DEBUG, "from a callback");
    CHECK(vfu_pci_get_config_space(ctx) != NULL);
    CHECK(vfu_get_poll_fd(ctx) >= 0);
    CHECK(vfu_setup_log(ctx, keep_log, LOG_DEBUG) == 0);
    CHECK(vfu_setup_region(ctx, VFU_PCI_DEV_BAR1_REGION_IDX, 4096, access_cb, VFU_REGION_FLAG_RW, NULL, 0, -1,
                           0) == 0);
    CHECK(vfu_create_ioeventfd(ctx, VFU_PCI_DEV_BAR1_REGION_IDX, -1, 0, 8, 0, 0, -1, 0) == 0);
    CHECK(vfu_setup_device_reset_cb(ctx, reset_cb) == 0);
    vfu_setup_device_quiesce_cb(ctx, quiesce_cb);
    CHECK(vfu_pci_find_capability(ctx, false, PCI_CAP_ID_VNDR) == 0x40);
    CHECK(vfu_realize_ctx(ctx) == 0);
    FAILS(vfu_irq_trigger(ctx, 3), ENOENT);

    /* not from here: they would serve a request, or free the context, under the caller's feet */
    FAILS(vfu_run_ctx(ctx), EBUSY);
    FAILS(vfu_device_quiesced(ctx, 0), EINVAL);
    CHECK(vfu_attach_ctx(ctx) == -1 && (errno == EBUSY || errno == EINVAL));
    forget_log();
    vfu_destroy_ctx(ctx);
    CHECK(nr_logs == 1 && last_level == LOG_ERR);

    if (client_memory) {
        CHECK(vfu_addr_to_sgl(ctx, BASE, 16, sgl, 1, PROT_READ | PROT_WRITE) == 1);
        CHECK(vfu_sg_is_mappable(ctx, sgl));
        CHECK(vfu_sgl_get(ctx, sgl, &iov, 1, 0) == 0);
        memset(iov.iov_base, 0x5a, iov.iov_len);
        vfu_sgl_mark_dirty(ctx, sgl, 1);
        vfu_sgl_put(ctx, sgl, &iov, 1);
        CHECK(vfu_addr_to_sgl(ctx, BASE, 1, sgl, 1, PROT_READ | PROT_WRITE) == 1);
        CHECK(vfu_sgl_write(ctx, sgl, 1, &byte, VFU_SGL_DIRECT_ACCESS) == 0);
        CHECK(vfu_sgl_read(ctx, sgl, 1, &byte, VFU_SGL_DIRECT_ACCESS) == 0);
    }
}

static ssize_t
access_cb(vfu_ctx_t *ctx, char *buf, size_t count, loff_t offset, bool is_write)
{
    (void)offset;
    called[ACCESS]++;
    everything(ctx);
    if (!is_write) {
        memset(buf, 0x77, count);
    }
    return (ssize_t)count;
}

static int
reset_cb(vfu_ctx_t *ctx, vfu_reset_type_t type)
{
    called[RESET]++;
    if (type == VFU_RESET_LOST_CONN) {
        client_memory = false; /* unregistered already */
    }
    everything(ctx);
    return 0;
}

static int
quiesce_cb(vfu_ctx_t *ctx)
{
    called[QUIESCE]++;
    everything(ctx);
    return 0;
}

static void
register_cb(vfu_ctx_t *ctx, vfu_dma_info_t *info)
{
    called[REGISTER]++;
    CHECK(info->iova.iov_base == BASE && info->vaddr != NULL);
    client_memory = true;
    everything(ctx);
}

static void
unregister_cb(vfu_ctx_t *ctx, vfu_dma_info_t *info)
{
    called[UNREGISTER]++;
    CHECK(info->iova.iov_base == BASE && info->vaddr != NULL);
    everything(ctx); /* the region is usable until this returns */
    client_memory = false;
}

static void
irq_state_cb(vfu_ctx_t *ctx, uint32_t start, uint32_t count, bool mask)
{
    called[IRQ_STATE]++;
    CHECK(start == 0 && count == 1 && mask);
    everything(ctx);
}

static int
transition_cb(vfu_ctx_t *ctx, vfu_migr_state_t state)
{
    called[TRANSITION]++;
    CHECK(state == VFU_MIGR_STATE_PRE_COPY);
    everything(ctx);
    return 0;
}

static ssize_t
data_cb(vfu_ctx_t *ctx, void *buf, uint64_t count)
{
    called[DATA]++;
    memset(buf, 0, count);
    everything(ctx);
    return (ssize_t)count;
}

static void
migrate(vfu_ctx_t *ctx, int sock)
{
    struct {
        struct vfio_user_device_feature feature;
        struct vfio_user_device_feature_mig_state state;
    } __attribute__((packed)) request;
    struct vfio_user_mig_data data;

    memset(&request, 0, sizeof(request));
    request.feature.argsz = sizeof(request);
    request.feature.flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
    request.state.device_state = VFIO_USER_DEVICE_STATE_PRE_COPY;
    CHECK(roundtrip(ctx, sock, VFIO_USER_DEVICE_FEATURE, &request, sizeof(request)) == 0);
    memset(&data, 0, sizeof(data));
    data.argsz = sizeof(data) + 16;
    data.size = 16;
    CHECK(roundtrip(ctx, sock, VFIO_USER_MIG_DATA_READ, &data, sizeof(data)) == 0);
}

int
main(void)
{
    int answer = 42;
    vfu_ctx_t *ctx = new_ctx("reentry.sock", LIBVFIO_USER_FLAG_ATTACH_NB, &answer);
    const vfu_migration_callbacks_t cbs = { VFU_MIGR_CALLBACKS_VERS, transition_cb, data_cb, data_cb };
    const struct { struct vsc vsc; uint8_t data[5]; } cap = { { { PCI_CAP_ID_VNDR, 0 }, 8 }, { 0 } };
    struct vfio_irq_set irq_set;
    int memory = memfd_create("client", MFD_CLOEXEC);
    int sock;
    size_t i;
    const char byte = 1;

    CHECK(ftruncate(memory, 4096) == 0);
    CHECK(vfu_pci_init(ctx, VFU_PCI_TYPE_EXPRESS, 0, 0) == 0);
    CHECK(vfu_pci_add_capability(ctx, 0, 0, (void *)(uintptr_t)&cap) == 0x40);
    CHECK(vfu_setup_region(ctx, VFU_PCI_DEV_BAR0_REGION_IDX, 4096, access_cb, VFU_REGION_FLAG_RW, NULL, 0, -1,
                           0) == 0);
    CHECK(vfu_setup_device_nr_irqs(ctx, VFU_DEV_MSIX_IRQ, 8) == 0);
    CHECK(vfu_setup_irq_state_callback(ctx, VFU_DEV_MSIX_IRQ, irq_state_cb) == 0);
    CHECK(vfu_setup_device_dma(ctx, 8, register_cb, unregister_cb) == 0);
    CHECK(vfu_setup_device_migration_callbacks(ctx, &cbs) == 0);
    CHECK(vfu_setup_device_reset_cb(ctx, reset_cb) == 0);
    CHECK(vfu_realize_ctx(ctx) == 0);
    vfu_setup_device_quiesce_cb(ctx, quiesce_cb);
    sock = client_connect(ctx, "reentry.sock");

    CHECK(dma_map(ctx, sock, (uintptr_t)BASE, 4096, memory) == 0);
    CHECK(region_write(ctx, sock, VFU_PCI_DEV_BAR0_REGION_IDX, 0, &byte, 1) == 0);
    memset(&irq_set, 0, sizeof(irq_set));
    irq_set.argsz = sizeof(irq_set);
    irq_set.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK;
    irq_set.index = VFU_DEV_MSIX_IRQ;
    irq_set.count = 1;
    CHECK(roundtrip(ctx, sock, VFIO_USER_DEVICE_SET_IRQS, &irq_set, sizeof(irq_set)) == 0);
    CHECK(roundtrip(ctx, sock, VFIO_USER_DEVICE_RESET, NULL, 0) == 0);
    migrate(ctx, sock);
    CHECK(dma_unmap(ctx, sock, (uintptr_t)BASE, 4096) == 0);
    CHECK(dma_map(ctx, sock, (uintptr_t)BASE, 4096, memory) == 0);

    close(sock); /* unregister and reset, from the lost connection */
    FAILS(vfu_run_ctx(ctx), ENOTCONN);
    CHECK(called[UNREGISTER] == 2);
    for (i = 0; i < sizeof(called) / sizeof(called[0]); i++) {
        CHECK(called[i] != 0);
    }
    close(memory);
    vfu_destroy_ctx(ctx);
    return 0;
}
