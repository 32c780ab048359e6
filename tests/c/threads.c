/*
 * Four threads translate, map, mark, read, write, trigger and log, while a client maps and unmaps under
 * them and the main thread serves it. An entry whose region has gone is refused, never followed.
 *
 * The device keeps the quiesce protocol: memory of a mapping is touched only between two quiesces. The
 * calls themselves go on all the time.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "harness.h"

#define THREADS 4
#define ROUNDS 2000
#define REGIONS 4
#define SIZE 0x4000ULL
#define BASE 0x100000ULL
#define STRIDE 0x10000ULL

static vfu_ctx_t *ctx;
static atomic_bool stop;
static atomic_ulong translated, absent, stale, direct, logged;
static pthread_rwlock_t memory_lock = PTHREAD_RWLOCK_INITIALIZER;

static void
count_log(vfu_ctx_t *unused, int level, const char *text)
{
    (void)unused;
    (void)level;
    (void)text;
    atomic_fetch_add(&logged, 1);
}

/* The device stops touching client memory until the operation is over. */
static int
quiesce_cb(vfu_ctx_t *unused)
{
    (void)unused;
    return 0;
}

static void
register_cb(vfu_ctx_t *unused, vfu_dma_info_t *info)
{
    (void)unused;
    (void)info;
}

static void
unregister_cb(vfu_ctx_t *unused, vfu_dma_info_t *info)
{
    (void)unused;
    (void)info;
    /* whoever got an address before has let go of it when this returns */
    CHECK(pthread_rwlock_wrlock(&memory_lock) == 0);
    CHECK(pthread_rwlock_unlock(&memory_lock) == 0);
}

static void *
device_thread(void *arg)
{
    unsigned int seed = (unsigned int)(uintptr_t)arg;
    uint64_t sg[5], old_sg[5];
    bool have_old = false;
    struct iovec iov;
    char data[64];

    memset(data, 0x33, sizeof(data));
    while (!atomic_load(&stop)) {
        uint64_t addr = BASE + (uint64_t)(rand_r(&seed) % REGIONS) * STRIDE + (uint64_t)(rand_r(&seed) % 0x3000);
        int nr = vfu_addr_to_sgl(ctx, (vfu_dma_addr_t)(uintptr_t)addr, sizeof(data), (dma_sg_t *)sg, 1,
                                 PROT_READ | PROT_WRITE);

        CHECK(vfu_get_private(ctx) == (void *)&stop);
        if (nr != 1) {
            CHECK(nr == -1 && errno == ENOENT);
            atomic_fetch_add(&absent, 1);
        } else {
            atomic_fetch_add(&translated, 1);
            (void)vfu_sg_is_mappable(ctx, (dma_sg_t *)sg);
            /* the address is good while the lock keeps the unregister callback from returning */
            CHECK(pthread_rwlock_rdlock(&memory_lock) == 0);
            if (vfu_sgl_get(ctx, (dma_sg_t *)sg, &iov, 1, 0) == 0) {
                CHECK(iov.iov_len == sizeof(data));
                memcpy(iov.iov_base, data, sizeof(data));
                vfu_sgl_put(ctx, (dma_sg_t *)sg, &iov, 1);
            } else {
                CHECK(errno == EINVAL);
                atomic_fetch_add(&stale, 1);
            }
            CHECK(pthread_rwlock_unlock(&memory_lock) == 0);
            vfu_sgl_mark_dirty(ctx, (dma_sg_t *)sg, 1);
            if (vfu_sgl_write(ctx, (dma_sg_t *)sg, 1, data, VFU_SGL_DIRECT_ACCESS) == 0 &&
                vfu_sgl_read(ctx, (dma_sg_t *)sg, 1, data, VFU_SGL_DIRECT_ACCESS) == 0) {
                atomic_fetch_add(&direct, 1);
            } else {
                CHECK(errno == EINVAL);
                atomic_fetch_add(&stale, 1);
            }
            if (!have_old) {
                memcpy(old_sg, sg, sizeof(sg));
                have_old = true;
            }
        }
        /* an old entry is still good, or refused; its region may be a new one of the same address */
        if (have_old && vfu_sgl_read(ctx, (dma_sg_t *)old_sg, 1, data, VFU_SGL_DIRECT_ACCESS) != 0) {
            CHECK(errno == EINVAL);
            atomic_fetch_add(&stale, 1);
            have_old = false;
        }
        CHECK(vfu_irq_trigger(ctx, 0) == 0);
        vfu_log(ctx, LOG_NOTICE, "thread %u: %d", seed, nr);
    }
    return NULL;
}

static void
send_eventfd(int sock, int efd)
{
    struct vfio_irq_set irq_set;
    char reply[16];
    uint32_t error;

    memset(&irq_set, 0, sizeof(irq_set));
    irq_set.argsz = sizeof(irq_set);
    irq_set.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    irq_set.index = VFU_DEV_MSIX_IRQ;
    irq_set.count = 1;
    client_send(sock, VFIO_USER_DEVICE_SET_IRQS, &irq_set, sizeof(irq_set), &efd, 1);
    CHECK(vfu_run_ctx(ctx) >= 0);
    client_reply(sock, reply, sizeof(reply), &error);
    CHECK(error == 0);
}

int
main(void)
{
    pthread_t threads[THREADS];
    int memory = memfd_create("client", MFD_CLOEXEC);
    int efd = eventfd(0, EFD_CLOEXEC);
    uint64_t last_sg[5];
    char data[8];
    int sock, i;

    CHECK(ftruncate(memory, SIZE) == 0);
    ctx = new_ctx("threads.sock", LIBVFIO_USER_FLAG_ATTACH_NB, &stop);
    CHECK(vfu_setup_log(ctx, count_log, LOG_NOTICE) == 0);
    CHECK(vfu_setup_device_dma(ctx, REGIONS, register_cb, unregister_cb) == 0);
    CHECK(vfu_setup_device_nr_irqs(ctx, VFU_DEV_MSIX_IRQ, 2) == 0);
    CHECK(vfu_realize_ctx(ctx) == 0);
    vfu_setup_device_quiesce_cb(ctx, quiesce_cb);
    sock = client_connect(ctx, "threads.sock");
    send_eventfd(sock, efd);
    for (i = 0; i < REGIONS; i++) {
        CHECK(dma_map(ctx, sock, BASE + (uint64_t)i * STRIDE, SIZE, memory) == 0);
    }
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, device_thread, (void *)(uintptr_t)(i + 1)) == 0);
    }

    for (i = 0; i < ROUNDS; i++) {
        uint64_t addr = BASE + (uint64_t)(i % REGIONS) * STRIDE;

        CHECK(dma_unmap(ctx, sock, addr, SIZE) == 0);
        CHECK(dma_map(ctx, sock, addr, SIZE, memory) == 0);
        if (i % 16 == 0) {
            send_eventfd(sock, efd);
        }
    }
    /* until each thread's kinds of outcome have been seen */
    while (atomic_load(&translated) == 0 || atomic_load(&direct) == 0 || atomic_load(&absent) == 0 ||
           atomic_load(&stale) == 0) {
        CHECK(dma_unmap(ctx, sock, BASE, SIZE) == 0);
        CHECK(dma_map(ctx, sock, BASE, SIZE, memory) == 0);
    }
    atomic_store(&stop, true);
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(atomic_load(&logged) != 0);

    /* with certainty: an entry of a region that has gone, and one of its successor at the same address */
    CHECK(vfu_addr_to_sgl(ctx, (vfu_dma_addr_t)BASE, sizeof(data), (dma_sg_t *)last_sg, 1, PROT_READ) == 1);
    CHECK(dma_unmap(ctx, sock, BASE, SIZE) == 0);
    FAILS(vfu_sgl_read(ctx, (dma_sg_t *)last_sg, 1, data, VFU_SGL_DIRECT_ACCESS), EINVAL);
    CHECK(dma_map(ctx, sock, BASE, SIZE, memory) == 0);
    FAILS(vfu_sgl_read(ctx, (dma_sg_t *)last_sg, 1, data, VFU_SGL_DIRECT_ACCESS), EINVAL);

    printf("translated %lu, absent %lu, stale %lu, direct %lu, logged %lu\n", atomic_load(&translated),
           atomic_load(&absent), atomic_load(&stale), atomic_load(&direct), atomic_load(&logged));
    close(sock);
    FAILS(vfu_run_ctx(ctx), ENOTCONN);
    vfu_destroy_ctx(ctx);
    close(memory);
    close(efd);
    return 0;
}
