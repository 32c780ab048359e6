/*
 * Wrong use of every function: the failure value, EINVAL (or what the header names), a line in the log
 * that says what was wrong, and never an abort. Then the context still works.
 */
#include <sys/mman.h>

#include "harness.h"

/* The call fails so, and says so. */
#define REFUSED_AS(call, failed, error) \
    do { \
        forget_log(); \
        FAILS_AS(call, failed, error); \
        if (nr_logs == 0) { \
            fprintf(stderr, "%s:%d: %s logged nothing\n", __FILE__, __LINE__, #call); \
            exit(EXIT_FAILURE); \
        } \
    } while (0)

#define REFUSED(call, error) REFUSED_AS(call, -1, error)

static ssize_t
access_cb(vfu_ctx_t *ctx, char *buf, size_t count, loff_t offset, bool is_write)
{
    (void)ctx;
    (void)buf;
    (void)offset;
    (void)is_write;
    return (ssize_t)count;
}

static int
transition_cb(vfu_ctx_t *ctx, vfu_migr_state_t state)
{
    (void)ctx;
    (void)state;
    return 0;
}

static void
without_context(void)
{
    struct iovec iov;
    uint64_t sg[5] = { 0 };
    dma_sg_t *sgl = (dma_sg_t *)sg;
    vfu_migration_callbacks_t cbs;

    memset(&cbs, 0, sizeof(cbs));
    memset(&iov, 0, sizeof(iov));
    FAILS(vfu_realize_ctx(NULL), EINVAL);
    FAILS(vfu_attach_ctx(NULL), EINVAL);
    FAILS(vfu_run_ctx(NULL), EINVAL);
    FAILS(vfu_get_poll_fd(NULL), EINVAL);
    FAILS_AS((uintptr_t)vfu_get_private(NULL), 0, EINVAL);
    FAILS(vfu_setup_log(NULL, keep_log, LOG_ERR), EINVAL);
    FAILS(vfu_setup_region(NULL, 0, 4096, NULL, VFU_REGION_FLAG_RW, NULL, 0, -1, 0), EINVAL);
    FAILS(vfu_setup_device_nr_irqs(NULL, VFU_DEV_INTX_IRQ, 1), EINVAL);
    FAILS(vfu_setup_irq_state_callback(NULL, VFU_DEV_INTX_IRQ, NULL), EINVAL);
    FAILS(vfu_setup_device_reset_cb(NULL, NULL), EINVAL);
    FAILS(vfu_setup_device_dma(NULL, 1, NULL, NULL), EINVAL);
    FAILS(vfu_setup_device_migration_callbacks(NULL, &cbs), EINVAL);
    FAILS(vfu_create_ioeventfd(NULL, 0, -1, 0, 0, 0, 0, -1, 0), EINVAL);
    FAILS(vfu_pci_init(NULL, VFU_PCI_TYPE_EXPRESS, 0, 0), EINVAL);
    FAILS_AS((uintptr_t)vfu_pci_get_config_space(NULL), 0, EINVAL);
    FAILS(vfu_pci_add_capability(NULL, 0, 0, &cbs), EINVAL);
    FAILS_AS(vfu_pci_find_capability(NULL, false, 1), 0, EINVAL);
    FAILS_AS(vfu_pci_find_next_capability(NULL, false, 64, 1), 0, EINVAL);
    FAILS(vfu_irq_trigger(NULL, 0), EINVAL);
    FAILS(vfu_device_quiesced(NULL, 0), EINVAL);
    FAILS(vfu_addr_to_sgl(NULL, NULL, 1, sgl, 1, PROT_READ), EINVAL);
    FAILS(vfu_sgl_get(NULL, sgl, &iov, 1, 0), EINVAL);
    FAILS(vfu_sgl_read(NULL, sgl, 1, &iov, 0), EINVAL);
    FAILS(vfu_sgl_write(NULL, sgl, 1, &iov, 0), EINVAL);
    FAILS_AS(vfu_sg_is_mappable(NULL, sgl), false, EINVAL);
    vfu_sgl_put(NULL, sgl, &iov, 1);
    vfu_sgl_mark_dirty(NULL, sgl, 1);
    vfu_setup_device_quiesce_cb(NULL, NULL);
    vfu_pci_set_id(NULL, 1, 2, 3, 4);
    vfu_pci_set_class(NULL, 1, 2, 3);
    vfu_destroy_ctx(NULL);
}

static void
creation(void)
{
    char long_path[200];

    memset(long_path, 'p', sizeof(long_path) - 1);
    long_path[sizeof(long_path) - 1] = '\0';
    FAILS_AS((uintptr_t)vfu_create_ctx(VFU_TRANS_SOCK, NULL, 0, NULL, VFU_DEV_TYPE_PCI), 0, EINVAL);
    FAILS_AS((uintptr_t)vfu_create_ctx(VFU_TRANS_SOCK, "x", 2, NULL, VFU_DEV_TYPE_PCI), 0, EINVAL);
    FAILS_AS((uintptr_t)vfu_create_ctx(VFU_TRANS_MAX, "x", 0, NULL, VFU_DEV_TYPE_PCI), 0, ENOTSUP);
    FAILS_AS((uintptr_t)vfu_create_ctx(VFU_TRANS_SOCK, "x", 0, NULL, (vfu_dev_type_t)4), 0, ENOTSUP);
    FAILS_AS((uintptr_t)vfu_create_ctx(VFU_TRANS_SOCK, long_path, 0, NULL, VFU_DEV_TYPE_PCI), 0,
             ENAMETOOLONG);
    FAILS_AS((uintptr_t)vfu_create_ctx(VFU_TRANS_SOCK, "/nonexistent/x", 0, NULL, VFU_DEV_TYPE_PCI), 0,
             ENOENT);
}

static void
setup(vfu_ctx_t *ctx)
{
    const vfu_migration_callbacks_t old = { 1, transition_cb, NULL, NULL };
    const vfu_migration_callbacks_t partial = { VFU_MIGR_CALLBACKS_VERS, transition_cb, NULL, NULL };
    struct iovec area;
    char cap[256] = { 0 };

    area.iov_base = (void *)4096;
    area.iov_len = (size_t)-1;
    REFUSED(vfu_setup_region(ctx, 0, 4096, NULL, 0x40, NULL, 0, -1, 0), EINVAL);
    REFUSED(vfu_setup_region(ctx, 0, 4096, NULL, 0, NULL, 0, -1, 0), EINVAL);
    REFUSED(vfu_setup_region(ctx, 0, 4096, NULL, VFU_REGION_FLAG_RW | VFU_REGION_FLAG_ALWAYS_CB, NULL, 0,
                             -1, 0), EINVAL);
    REFUSED(vfu_setup_region(ctx, 0, 4096, access_cb, VFU_REGION_FLAG_RW, NULL, 1, 0, 0), EINVAL);
    REFUSED(vfu_setup_region(ctx, 0, 4096, access_cb, VFU_REGION_FLAG_RW, &area, 1, -1, 0), EINVAL);
    REFUSED(vfu_setup_region(ctx, 0, 4096, access_cb, VFU_REGION_FLAG_RW, &area, 1, 0, 0), EINVAL);
    REFUSED(vfu_setup_region(ctx, -1, 4096, access_cb, VFU_REGION_FLAG_RW, NULL, 0, -1, 0), EINVAL);
    REFUSED(vfu_setup_region(ctx, 9, 4096, access_cb, VFU_REGION_FLAG_RW, NULL, 0, -1, 0), EINVAL);
    REFUSED(vfu_setup_region(ctx, 0, 4097, access_cb, VFU_REGION_FLAG_RW, NULL, 0, -1, 0), EINVAL);
    REFUSED(vfu_setup_region(ctx, VFU_PCI_DEV_CFG_REGION_IDX, 32, NULL, VFU_REGION_FLAG_RW, NULL, 0, -1, 0),
            EINVAL);

    REFUSED(vfu_setup_device_nr_irqs(ctx, (enum vfu_dev_irq_type)5, 1), EINVAL);
    REFUSED(vfu_setup_device_nr_irqs(ctx, (enum vfu_dev_irq_type)-1, 1), EINVAL);
    REFUSED(vfu_setup_device_nr_irqs(ctx, VFU_DEV_ERR_IRQ, 2), EINVAL);
    REFUSED(vfu_setup_irq_state_callback(ctx, (enum vfu_dev_irq_type)5, NULL), EINVAL);
    REFUSED(vfu_setup_log(ctx, keep_log, 8), EINVAL);
    REFUSED(vfu_setup_device_migration_callbacks(ctx, NULL), EINVAL);
    REFUSED(vfu_setup_device_migration_callbacks(ctx, &old), EINVAL);
    REFUSED(vfu_setup_device_migration_callbacks(ctx, &partial), EINVAL);
    REFUSED(vfu_create_ioeventfd(ctx, 9, -1, 0, 0, 0, 0, -1, 0), EINVAL);
    REFUSED(vfu_create_ioeventfd(ctx, 0, -1, (size_t)-1, 2, 0, 0, -1, 0), EINVAL);
    REFUSED(vfu_create_ioeventfd(ctx, 0, -2, 0, 0, 0, 0, -1, 0), EINVAL);

    /* before vfu_pci_init */
    forget_log();
    vfu_pci_set_id(ctx, 1, 2, 3, 4);
    vfu_pci_set_class(ctx, 1, 2, 3);
    CHECK(nr_logs == 2);
    CHECK(vfu_pci_get_config_space(ctx) == NULL);
    REFUSED(vfu_pci_init(ctx, (vfu_pci_type_t)4, 0, 0), EINVAL);
    REFUSED(vfu_pci_init(ctx, VFU_PCI_TYPE_EXPRESS, 1, 0), EINVAL);
    CHECK(vfu_pci_init(ctx, VFU_PCI_TYPE_EXPRESS, 0, 0) == 0);
    REFUSED(vfu_pci_init(ctx, VFU_PCI_TYPE_EXPRESS, 0, 0), EEXIST);

    REFUSED(vfu_pci_add_capability(ctx, 0, 8, cap), EINVAL);
    REFUSED(vfu_pci_add_capability(ctx, 0, 0, NULL), EINVAL);
    REFUSED(vfu_pci_add_capability(ctx, 0, VFU_CAP_FLAG_CALLBACK, cap), EINVAL);
    cap[0] = (char)0x81;
    REFUSED(vfu_pci_add_capability(ctx, 0, 0, cap), ENOTSUP);
    cap[0] = PCI_CAP_ID_PM;
    REFUSED(vfu_pci_add_capability(ctx, 32, 0, cap), EINVAL);
    cap[0] = 0x03;
    REFUSED(vfu_pci_add_capability(ctx, 0x102, VFU_CAP_FLAG_EXTENDED, cap), EINVAL);
    FAILS_AS(vfu_pci_find_capability(ctx, false, PCI_CAP_ID_PM), 0, ENOENT);
    FAILS_AS(vfu_pci_find_next_capability(ctx, false, 4096, PCI_CAP_ID_PM), 0, EINVAL);
}

static void
before_its_time(vfu_ctx_t *ctx)
{
    struct iovec iov;
    uint64_t sg[5] = { 0 };
    dma_sg_t *sgl = (dma_sg_t *)sg;

    REFUSED(vfu_run_ctx(ctx), EINVAL);
    REFUSED(vfu_irq_trigger(ctx, 0), EINVAL);
    REFUSED(vfu_device_quiesced(ctx, 0), EINVAL);
    REFUSED(vfu_addr_to_sgl(ctx, NULL, 1, sgl, 1, PROT_READ), EINVAL);
    CHECK(vfu_setup_device_dma(ctx, 4, NULL, NULL) == 0);
    REFUSED(vfu_addr_to_sgl(ctx, NULL, 1, NULL, 1, PROT_READ), EINVAL);
    FAILS(vfu_sgl_get(ctx, sgl, &iov, 1, 0), EINVAL); /* no unregister callback */
    CHECK(vfu_setup_device_dma(ctx, 4, NULL, NULL) == 0);
    REFUSED(vfu_sgl_get(ctx, sgl, &iov, 1, 1), EINVAL);
    REFUSED(vfu_sgl_get(ctx, NULL, &iov, 1, 0), EINVAL);
    REFUSED(vfu_sgl_get(ctx, sgl, NULL, 1, 0), EINVAL);
    REFUSED(vfu_sgl_get(ctx, sgl, &iov, 0, 0), EINVAL);
    REFUSED(vfu_sgl_read(ctx, sgl, 1, &iov, 0x42), EINVAL);
    REFUSED(vfu_sgl_write(ctx, sgl, 1, &iov, 0x42), EINVAL);
    REFUSED(vfu_sgl_read(ctx, NULL, 1, &iov, 0), EINVAL);
    REFUSED(vfu_sgl_write(ctx, sgl, 1, NULL, 0), EINVAL);
    FAILS_AS(vfu_sg_is_mappable(ctx, NULL), false, EINVAL);
    vfu_sgl_put(ctx, sgl, &iov, 1);
    vfu_sgl_put(ctx, NULL, NULL, 1);
    vfu_sgl_mark_dirty(ctx, sgl, 0);
    vfu_sgl_mark_dirty(ctx, NULL, 1);
}

static unsigned int nr_refused;

/* A log handler that destroys the context whose message it gets. */
static void
destroying_log(vfu_ctx_t *ctx, int level, const char *text)
{
    if (strstr(text, "vfu_destroy_ctx") != NULL) {
        CHECK(level == LOG_ERR);
        nr_refused++;
    } else {
        vfu_destroy_ctx(ctx);
    }
}

static void
destroyed_by_its_log(void)
{
    vfu_ctx_t *ctx = new_ctx("log.sock", 0, NULL);

    CHECK(vfu_setup_log(ctx, destroying_log, LOG_ERR) == 0);
    FAILS(vfu_setup_region(ctx, -1, 0, NULL, VFU_REGION_FLAG_RW, NULL, 0, -1, 0), EINVAL);
    vfu_log(ctx, LOG_ERR, "from the device");
    FAILS(vfu_irq_trigger(ctx, 0), EINVAL);
    CHECK(nr_refused == 3);
    CHECK(vfu_setup_log(ctx, NULL, LOG_ERR) == 0);
    vfu_destroy_ctx(ctx);
    CHECK(access(socket_path("log.sock"), F_OK) == -1);
}

int
main(void)
{
    vfu_ctx_t *ctx;
    int sock;
    const char byte = 1;

    without_context();
    creation();
    destroyed_by_its_log();
    ctx = new_ctx("wrong.sock", LIBVFIO_USER_FLAG_ATTACH_NB, NULL);
    FAILS(vfu_attach_ctx(ctx), EAGAIN); /* nobody is waiting */
    setup(ctx);
    before_its_time(ctx);

    CHECK(vfu_setup_region(ctx, 0, 4096, access_cb, VFU_REGION_FLAG_RW, NULL, 0, -1, 0) == 0);
    CHECK(vfu_realize_ctx(ctx) == 0);
    REFUSED(vfu_run_ctx(ctx), ENOTCONN);
    REFUSED(vfu_irq_trigger(ctx, 5000), EINVAL);
    REFUSED(vfu_irq_trigger(ctx, 0), ENOENT);
    sock = client_connect(ctx, "wrong.sock");
    REFUSED(vfu_attach_ctx(ctx), EINVAL);

    /* and all of that did no harm */
    CHECK(region_write(ctx, sock, 0, 0, &byte, 1) == 0);
    CHECK(vfu_run_ctx(ctx) == 0);
    close(sock);
    FAILS(vfu_run_ctx(ctx), ENOTCONN);
    vfu_destroy_ctx(ctx);
    return 0;
}
