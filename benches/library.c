/*
 * A libvfio-user.so.0, reached through its C API alone; which one is known when the program runs. What is counted are the
 * functions library_*() of this file, and all that they call (run.py).
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/un.h>

#include "bench.h"

#define FUNCTIONS(X) \
    X(vfu_create_ctx) X(vfu_realize_ctx) X(vfu_attach_ctx) X(vfu_run_ctx) X(vfu_destroy_ctx) X(vfu_get_private) \
    X(vfu_setup_region) X(vfu_setup_device_dma) X(vfu_setup_device_nr_irqs) X(vfu_irq_trigger) X(vfu_pci_init) \
    X(vfu_setup_device_migration_callbacks) X(dma_sg_size) X(vfu_addr_to_sgl) X(vfu_sgl_get) X(vfu_sgl_put) \
    X(vfu_sgl_mark_dirty) X(vfu_sgl_read) X(vfu_sgl_write)

#define DECLARE(name) static __typeof__(name) *lib_##name;
FUNCTIONS(DECLARE)

void
library_load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(EXIT_FAILURE);
    }
#define FIND(name) \
    lib_##name = (__typeof__(name) *)(uintptr_t)dlsym(library, #name); \
    NEED(lib_##name != NULL);
    FUNCTIONS(FIND)
}

static ssize_t
access_region(vfu_ctx_t *ctx, char *buf, size_t count, loff_t offset, bool is_write)
{
    struct server *server = lib_vfu_get_private(ctx);
    struct device *device = server->device;

    if (!is_write) {
        memcpy(buf, device->memory + offset, count);
        return (ssize_t)count;
    }
    memcpy(device->memory + offset, buf, count);
    device->writes++;
    if (offset == GO_OFFSET) {
        uint64_t times;

        memcpy(&times, buf, sizeof(times));
        sgl_go(server, times);
    }
    return (ssize_t)count;
}

static void
on_dma(vfu_ctx_t *ctx, vfu_dma_info_t *info)
{
    (void)ctx;
    (void)info;
}

static int
enter_state(vfu_ctx_t *ctx, vfu_migr_state_t state)
{
    (void)ctx;
    (void)state;
    return 0;
}

static ssize_t
no_data(vfu_ctx_t *ctx, void *buf, uint64_t count)
{
    (void)ctx;
    (void)buf;
    (void)count;
    return 0;
}

/* Serves one turn, or until the client has gone. */
static void
library_serve(struct server *server)
{
    NEED(lib_vfu_run_ctx(server->own) >= 0 || errno == ENOTCONN);
}

static uint64_t *
segment(void)
{
    static _Thread_local uint64_t space[16];

    return space;
}

static bool
library_translate(struct server *server, uint64_t addr)
{
    return lib_vfu_addr_to_sgl(server->own, (vfu_dma_addr_t)(uintptr_t)addr, 64, (dma_sg_t *)segment(), 1,
                               PROT_READ | PROT_WRITE) == 1;
}

static void
library_mark(struct server *server, uint64_t addr, uint64_t length)
{
    dma_sg_t *sg = (dma_sg_t *)segment();
    struct iovec iov;

    NEED(lib_vfu_addr_to_sgl(server->own, (vfu_dma_addr_t)(uintptr_t)addr, length, sg, 1, PROT_READ | PROT_WRITE) == 1);
    NEED(lib_vfu_sgl_get(server->own, sg, &iov, 1, 0) == 0);
    lib_vfu_sgl_mark_dirty(server->own, sg, 1);
    lib_vfu_sgl_put(server->own, sg, &iov, 1);
}

static void
library_trigger(struct server *server)
{
    NEED(lib_vfu_irq_trigger(server->own, 0) == 0);
}

static void
library_dma(struct server *server)
{
    dma_sg_t *sg = (dma_sg_t *)segment();
    struct device *device = server->device;
    int (*access)(vfu_ctx_t *, dma_sg_t *, size_t, void *, int) = device->dma_write ? lib_vfu_sgl_write : lib_vfu_sgl_read;

    NEED(lib_vfu_addr_to_sgl(server->own, (vfu_dma_addr_t)DMA_BASE, device->dma_size, sg, 1, PROT_READ | PROT_WRITE) == 1);
    NEED(access(server->own, sg, 1, device->memory, 0) == 0);
}

static void
destroy(struct server *server)
{
    lib_vfu_destroy_ctx(server->own);
    free(server);
}

static void
set_up(struct server *server)
{
    static const vfu_migration_callbacks_t migration = { VFU_MIGR_CALLBACKS_VERS, enter_state, no_data, no_data };
    vfu_ctx_t *ctx = server->own;

    NEED(lib_dma_sg_size() <= 16 * sizeof(uint64_t));
    NEED(lib_vfu_pci_init(ctx, VFU_PCI_TYPE_EXPRESS, 0, 0) == 0);
    NEED(lib_vfu_setup_region(ctx, VFU_PCI_DEV_BAR0_REGION_IDX, DEVICE_SIZE, access_region,
                              VFU_REGION_FLAG_RW | VFU_REGION_FLAG_MEM, NULL, 0, -1, 0) == 0);
    NEED(lib_vfu_setup_device_dma(ctx, 2 * LIBVFIO_USER_MAX_DMA_REGIONS, on_dma, on_dma) == 0);
    NEED(lib_vfu_setup_device_nr_irqs(ctx, VFU_DEV_MSIX_IRQ, 1) == 0);
    NEED(lib_vfu_setup_device_migration_callbacks(ctx, &migration) == 0);
    NEED(lib_vfu_realize_ctx(ctx) == 0);
}

struct server *
library_new(bool blocking)
{
    static unsigned number;
    struct server *server = calloc(1, sizeof(*server));
    struct sockaddr_un name = { .sun_family = AF_UNIX };

    NEED(server != NULL);
    *server = (struct server){ .serve = library_serve, .close = destroy, .translate = library_translate, .mark = library_mark,
                               .trigger = library_trigger, .dma = library_dma };
    server->device = &the_device;
    snprintf(name.sun_path, sizeof(name.sun_path), "%s/vfu-bench-%d-%u.sock", getenv("BENCH_DIR"), getpid(), number++);
    server->own = lib_vfu_create_ctx(VFU_TRANS_SOCK, name.sun_path, blocking ? 0 : LIBVFIO_USER_FLAG_ATTACH_NB, server,
                                     VFU_DEV_TYPE_PCI);
    NEED(server->own != NULL);
    set_up(server);
    server->client = socket(AF_UNIX, SOCK_STREAM, 0);
    NEED(connect(server->client, (struct sockaddr *)&name, sizeof(name)) == 0);
    wire_negotiate(server->client);
    NEED(lib_vfu_attach_ctx(server->own) == 0);
    wire_check(server->client, VFIO_USER_VERSION);
    return server;
}
