/*
 * libvfio-user: serve an emulated PCI device to a VMM over a UNIX socket.
 *
 * The life of a device: vfu_create_ctx(), describe it (vfu_pci_init(), vfu_setup_region(), ...), vfu_realize_ctx(),
 * vfu_attach_ctx() for each client in turn, vfu_run_ctx() as long as the client stays, vfu_destroy_ctx().
 *
 * Rules that hold unless a function says otherwise:
 *
 * Errors. A function that fails returns -1 (NULL or 0 where that is said), sets errno, and has changed nothing. A NULL
 * context, or a NULL pointer where one is needed, fails with EINVAL; functions returning void ignore it. ENOTRECOVERABLE
 * stands for a fault of the library itself: it is logged, and only vfu_destroy_ctx() works from then on. Success leaves
 * errno alone.
 *
 * Threads. A context may be used by one thread at a time, which need not be the same one always; different contexts are
 * independent. "Threads: any" marks functions that other threads may call on the same context while vfu_run_ctx() is
 * running, as long as the device keeps the promise it makes by being quiesced (vfu_device_quiesce_cb_t).
 *
 * Blocking. Only functions with a line "Blocks:" wait for anything but memory.
 *
 * Callbacks run inside vfu_run_ctx(), vfu_device_quiesced() or vfu_destroy_ctx(), on the calling thread, and get the
 * pointer that vfu_create_ctx() returned. They may call any function here on it, except that vfu_run_ctx() and
 * vfu_attach_ctx() fail with EBUSY there, vfu_device_quiesced() with EINVAL, and vfu_destroy_ctx() does nothing. A callback
 * that fails returns -1 with errno set; without errno, EINVAL is assumed. Memory passed to a callback belongs to the
 * library and is valid until it returns. C++ exceptions and longjmp(3) must not leave a callback.
 *
 * Ownership. Arrays, strings and structures passed in are copied. Descriptors passed in stay the caller's: they are neither
 * duplicated nor closed, and must stay open until the context is destroyed or the setting replaced.
 *
 * Offsets, sizes and counts are in bytes unless they count something named.
 */

#ifndef LIB_VFIO_USER_H
#define LIB_VFIO_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <syslog.h>
#include <unistd.h>

#include "pci_caps/dsn.h"
#include "pci_caps/msi.h"
#include "pci_caps/msix.h"
#include "pci_caps/pm.h"
#include "pci_caps/px.h"
#include "pci_defs.h"
#include "vfio-user.h"

/* Strictly conforming modes of the compiler hide this type of <sys/types.h>. */
#if defined(__GLIBC__) && !defined(__USE_MISC)
typedef __loff_t loff_t;
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Contexts ---------------------------------------------------------------------------------------------------- */

/* Version of the protocol that the library offers. */
#define LIB_VFIO_USER_MAJOR 0
#define LIB_VFIO_USER_MINOR 2

/* A device and its connection. Opaque. */
typedef struct vfu_ctx vfu_ctx_t;

/* vfu_create_ctx(): neither vfu_attach_ctx() nor vfu_run_ctx() waits for the client. */
#define LIBVFIO_USER_FLAG_ATTACH_NB (1 << 0)

typedef enum {
    VFU_TRANS_SOCK, /* a listening UNIX socket */
    VFU_TRANS_PIPE, /* standard input and output: one client, no descriptors, for tests */
    VFU_TRANS_MAX
} vfu_trans_t;

typedef enum {
    VFU_DEV_TYPE_PCI
} vfu_dev_type_t;

/*
 * Creates a context and listens on `path`, so that a client can connect at once. It has one ERR and one REQ interrupt,
 * no other interrupts, no regions, and logs nothing.
 *
 * path: name of the socket, at most 107 bytes; it must not exist, and is removed by vfu_destroy_ctx(). "" creates a
 *     context that no client can find by name. Not used with VFU_TRANS_PIPE.
 * flags: 0 or LIBVFIO_USER_FLAG_ATTACH_NB.
 * pvt: what vfu_get_private() returns; never dereferenced.
 *
 * Returns the context, which the caller destroys with vfu_destroy_ctx(), or NULL. errno: EINVAL for other flags or no path;
 * ENOTSUP for another transport or device type; ENAMETOOLONG; EADDRINUSE if `path` exists; ENOMEM; or what socket(2),
 * bind(2) or listen(2) say.
 */
vfu_ctx_t *
vfu_create_ctx(vfu_trans_t trans, const char *path, int flags, void *pvt, vfu_dev_type_t dev_type);

/*
 * Finishes the description of the device: sets up what depends on regions, interrupts and capabilities together (describing
 * bits of the BARs, interrupt pin, capability bit of the status register, room for eventfds). Needed before
 * vfu_run_ctx(). Further calls do nothing.
 *
 * Returns 0 or -1. errno: ENOMEM.
 */
int
vfu_realize_ctx(vfu_ctx_t *vfu_ctx);

/*
 * Accepts a client and agrees on the protocol version with it. A client that fails to is disconnected, and the call can be
 * repeated.
 *
 * Returns 0 or -1. errno: EAGAIN if no client is waiting, or it has not said all it must (with ATTACH_NB); EINTR; EINVAL if a
 * client is attached already or offers what is not supported; ENOMSG, ECONNRESET if it left; ENOMEM; or what accept(2) says.
 * Blocks: until a client has come and agreed, unless created with ATTACH_NB.
 */
int
vfu_attach_ctx(vfu_ctx_t *vfu_ctx);

/*
 * Descriptor to wait on with poll(2): readable means that vfu_attach_ctx(), or once attached vfu_run_ctx(), has work. It
 * stays the library's. Ask again after vfu_attach_ctx() succeeded and after vfu_run_ctx() failed with ENOTCONN.
 *
 * Returns the descriptor or -1.
 */
int
vfu_get_poll_fd(vfu_ctx_t *vfu_ctx);

/*
 * Serves the client. With ATTACH_NB: what is waiting, then returns. Otherwise: until something goes wrong.
 *
 * A request that fails is answered with an error and is no failure of this call; errno then holds the request's error even
 * though the call succeeds.
 *
 * Returns the number of requests served, or -1. errno: ENOTCONN if no client is attached, or it left: callbacks have been
 * told, and vfu_attach_ctx() can be called; EBUSY while a quiesce is waiting for vfu_device_quiesced();
 * EINVAL before vfu_realize_ctx(); EINTR if a signal came; ENOMEM; or what recvmsg(2) says.
 * Blocks: for requests, unless created with ATTACH_NB; and in callbacks.
 */
int
vfu_run_ctx(vfu_ctx_t *vfu_ctx);

/*
 * Disconnects the client, unregisters its memory (dma_unregister callbacks), tells the device (reset callback with
 * VFU_RESET_LOST_CONN, exactly once) and frees the context and its configuration space. Nothing asks the device to quiesce
 * first: it must not use the context any more. NULL is allowed. errno is unspecified afterwards.
 */
void
vfu_destroy_ctx(vfu_ctx_t *vfu_ctx);

/*
 * What vfu_create_ctx() got as `pvt`. Threads: any.
 */
void *
vfu_get_private(vfu_ctx_t *vfu_ctx);

/* ---- Log --------------------------------------------------------------------------------------------------------- */

/*
 * Receives a log line without a newline. `level` is one of <syslog.h>, LOG_EMERG to LOG_DEBUG. May be called by any function
 * here, on the thread that called it, and may change errno without harm.
 */
typedef void(vfu_log_fn_t)(vfu_ctx_t *vfu_ctx, int level, const char *msg);

/*
 * Sends lines of `level` and more urgent ones (smaller numbers, 0 to 7) to `log`; NULL switches the log off. A context starts
 * without a log function and with LOG_ERR.
 *
 * Returns 0 or -1. errno: EINVAL if `level` is not 0 to 7, and the old settings stay; ENOMEM.
 */
int
vfu_setup_log(vfu_ctx_t *vfu_ctx, vfu_log_fn_t *log, int level);

/*
 * Logs a line, formatted as by printf(3); "%m" is the error message of errno. At most 8191 bytes are kept. errno is unchanged.
 * Threads: any.
 */
void
vfu_log(vfu_ctx_t *vfu_ctx, int level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ---- Regions ----------------------------------------------------------------------------------------------------- */

/* Regions of a PCI device, with the numbers of VFIO_PCI_*_REGION_INDEX. */
enum {
    VFU_PCI_DEV_BAR0_REGION_IDX,
    VFU_PCI_DEV_BAR1_REGION_IDX,
    VFU_PCI_DEV_BAR2_REGION_IDX,
    VFU_PCI_DEV_BAR3_REGION_IDX,
    VFU_PCI_DEV_BAR4_REGION_IDX,
    VFU_PCI_DEV_BAR5_REGION_IDX,
    VFU_PCI_DEV_ROM_REGION_IDX,
    VFU_PCI_DEV_CFG_REGION_IDX,
    VFU_PCI_DEV_VGA_REGION_IDX,
    VFU_PCI_DEV_NUM_REGIONS
};

/* Unused; kept for programs that name them. */
enum {
    VFU_GENERIC_DEV_MIGR_REGION_IDX,
    VFU_GENERIC_DEV_NUM_REGIONS
};

#define VFU_REGION_FLAG_READ (1 << 0)
#define VFU_REGION_FLAG_WRITE (1 << 1)
#define VFU_REGION_FLAG_RW (VFU_REGION_FLAG_READ | VFU_REGION_FLAG_WRITE)
#define VFU_REGION_FLAG_MEM (1 << 2)       /* memory space; without it, I/O space */
#define VFU_REGION_FLAG_ALWAYS_CB (1 << 3) /* configuration space: the callback handles everything */
#define VFU_REGION_FLAG_64_BITS (1 << 4)   /* even BARs: takes the register above too */
#define VFU_REGION_FLAG_PREFETCH (1 << 5)  /* BARs: prefetchable */
#define VFU_REGION_FLAG_MASK \
    (VFU_REGION_FLAG_RW | VFU_REGION_FLAG_MEM | VFU_REGION_FLAG_ALWAYS_CB | VFU_REGION_FLAG_64_BITS | \
     VFU_REGION_FLAG_PREFETCH)

/*
 * Handles an access of the client: `count` bytes (1 to 1048576) at `offset` of the region, inside its size. A write finds
 * the data in `buf`, a read puts it there.
 *
 * Returns `count`. Anything else fails the request: -1 with errno, any other number with EINVAL.
 */
typedef ssize_t(vfu_region_access_cb_t)(vfu_ctx_t *vfu_ctx, char *buf, size_t count, loff_t offset, bool is_write);

/*
 * Sets up a region, or replaces it (ioeventfds stay). The client reaches it by messages, which `region_access` handles, and
 * if a descriptor is given by mapping that, which the device does not notice.
 *
 * region_idx: VFU_PCI_DEV_*_REGION_IDX.
 * size: 0 removes the region. BARs: a power of two, at least 16 (memory) or 4 (I/O). Configuration space: at least 64, and
 *     never more than vfu_pci_init() allocated, whatever is asked for.
 * region_access: may be NULL; accesses by message then fail.
 * flags: VFU_REGION_FLAG_*, with READ or WRITE at least.
 * mmap_areas: what of the region can be mapped, as offset (iov_base) and length (iov_len), inside `size`. NULL with a
 *     descriptor: all of it. A client can map other parts of the file too; keep nothing else in it.
 * nr_mmap_areas: number of areas; 0 exactly if `mmap_areas` is NULL.
 * fd: file that clients map, or -1. Needed for areas.
 * offset: where the region starts in the file.
 *
 * Configuration space (VFU_PCI_DEV_CFG_REGION_IDX; needs READ and WRITE, not MEM) is mostly served by the library: the
 * 64-byte header and the capabilities added. `region_access` gets the rest, capabilities with VFU_CAP_FLAG_CALLBACK, and
 * with VFU_REGION_FLAG_ALWAYS_CB everything. Without it the rest can be read but not written.
 *
 * Returns 0 or -1. errno: EINVAL if a rule above is broken, ALWAYS_CB comes without a callback, or a 64-bit BAR and its
 * neighbour get in each other's way; ENOMEM.
 */
int
vfu_setup_region(vfu_ctx_t *vfu_ctx, int region_idx, size_t size, vfu_region_access_cb_t *region_access, int flags,
                 struct iovec *mmap_areas, uint32_t nr_mmap_areas, int fd, uint64_t offset);

/*
 * Lets an eventfd stand for writes to a part of a region, so that KVM can signal them without a message. Clients that ask
 * get all of them. They cannot be removed, and outlive resets and clients.
 *
 * region_idx: VFU_PCI_DEV_*_REGION_IDX.
 * fd: the eventfd, or -1 for none.
 * gpa_offset, size: the part, inside the region.
 * flags, datamatch: passed on to KVM's ioeventfd.
 * shadow_fd, shadow_offset: memory in which the value written is left, for kernels with that extension; -1 and 0 for none.
 *
 * Returns 0 or -1. errno: EINVAL for a region that does not exist, a part outside it, or a descriptor below -1; ENOMEM.
 */
int
vfu_create_ioeventfd(vfu_ctx_t *vfu_ctx, uint32_t region_idx, int fd, size_t gpa_offset, uint32_t size, uint32_t flags,
                     uint64_t datamatch, int shadow_fd, size_t shadow_offset);

/* ---- Reset and quiesce ------------------------------------------------------------------------------------------- */

typedef enum vfu_reset_type {
    VFU_RESET_DEVICE,    /* the client asks for it, for example as its guest reboots */
    VFU_RESET_LOST_CONN, /* the client has gone */
    VFU_RESET_PCI_FLR    /* function-level reset through the PCI Express capability */
} vfu_reset_type_t;

/*
 * Resets the device: stop using interrupts and client memory before returning, and go back to the initial state, registers
 * in configuration space included.
 *
 * Returns 0, or -1 with errno, which becomes the error of the request. The result of VFU_RESET_LOST_CONN is only logged.
 */
typedef int(vfu_reset_cb_t)(vfu_ctx_t *vfu_ctx, vfu_reset_type_t type);

/*
 * Sets the reset callback; NULL: resets succeed without the device noticing.
 *
 * Returns 0.
 */
int
vfu_setup_device_reset_cb(vfu_ctx_t *vfu_ctx, vfu_reset_cb_t *reset);

/*
 * Asks the device to quiesce: to promise that no thread of it uses vfu_addr_to_sgl(), vfu_sgl_*() or memory that these gave
 * out, except from callbacks. Comes before client memory is registered or unregistered, resets, migration state changes and
 * dirty page logging, and when the client has gone. The promise ends when the function that called this returns.
 *
 * Returns 0 if the device is quiet. -1 with EBUSY if it needs time: the request waits, vfu_run_ctx() fails with EBUSY, and
 * the device goes on as usual until it calls vfu_device_quiesced(). -1 with another errno fails the request.
 */
typedef int(vfu_device_quiesce_cb_t)(vfu_ctx_t *vfu_ctx);

/*
 * Sets the quiesce callback; NULL: the device is never asked.
 */
void
vfu_setup_device_quiesce_cb(vfu_ctx_t *vfu_ctx, vfu_device_quiesce_cb_t *quiesce_cb);

/*
 * Tells that the device is quiet now, after its quiesce callback had failed with EBUSY. The waiting request is carried out,
 * with its callbacks, and answered before this returns, and so are requests that have come meanwhile; the device may go on
 * afterwards.
 *
 * quiesce_errno: 0, or why it failed, which becomes the error of the request.
 *
 * Returns 0 or -1. errno: EINVAL if nothing is waiting; or why the answer could not be sent.
 * Blocks: in callbacks.
 */
int
vfu_device_quiesced(vfu_ctx_t *vfu_ctx, int quiesce_errno);

/* ---- Interrupts -------------------------------------------------------------------------------------------------- */

/* Kinds of interrupts, with the numbers of VFIO_PCI_*_IRQ_INDEX. */
enum vfu_dev_irq_type {
    VFU_DEV_INTX_IRQ,
    VFU_DEV_MSI_IRQ,
    VFU_DEV_MSIX_IRQ,
    VFU_DEV_ERR_IRQ,
    VFU_DEV_REQ_IRQ,
    VFU_DEV_NUM_IRQS
};

/*
 * Sets how many interrupts of a kind the device has: at most one of ERR and of REQ.
 *
 * Returns 0 or -1. errno: EINVAL for another kind, more than one of ERR or REQ, or more than 65,536
 * of the others; ENOMEM.
 */
int
vfu_setup_device_nr_irqs(vfu_ctx_t *vfu_ctx, enum vfu_dev_irq_type type, uint32_t count);

/*
 * Tells that the client masks (`mask`) or unmasks the interrupts `start` to `start + count - 1` of the kind it was set for.
 */
typedef void(vfu_dev_irq_state_cb_t)(vfu_ctx_t *vfu_ctx, uint32_t start, uint32_t count, bool mask);

/*
 * Sets the callback for masking of a kind of interrupts; NULL removes it.
 *
 * Returns 0 or -1. errno: EINVAL for another kind.
 */
int
vfu_setup_irq_state_callback(vfu_ctx_t *vfu_ctx, enum vfu_dev_irq_type type, vfu_dev_irq_state_cb_t *cb);

/*
 * Raises interrupt `subindex` of the kind that the client uses (INTx, MSI or MSI-X share one table), by adding 1 to its
 * eventfd. Threads: any.
 *
 * Returns 0 or -1. errno: EINVAL if there are not so many, or before vfu_realize_ctx(); ENOENT if the client has given no
 * eventfd for it; EAGAIN if the eventfd is full; or what write(2) says.
 */
int
vfu_irq_trigger(vfu_ctx_t *vfu_ctx, uint32_t subindex);

/* ---- Client memory ----------------------------------------------------------------------------------------------- */

/* Address in the client's I/O address space. Not a pointer of this process, in spite of its type. */
typedef void *vfu_dma_addr_t;

/* A piece of client memory. Opaque; dma_sg_size() bytes, aligned to 8. Plain memory: copy it, free it, leave it. */
struct dma_sg;
typedef struct dma_sg dma_sg_t;

/* A reasonable `max_regions` for devices that do not know better. */
#define LIBVFIO_USER_MAX_DMA_REGIONS (1000 * 1000)

/*
 * A DMA region. If it is mapped, `vaddr` is where byte `iova.iov_base` is, and `mapping` the whole mapping, which can start
 * earlier and end later because it consists of pages of `page_size`. If it is not, `vaddr` is NULL and `mapping` empty.
 */
typedef struct vfu_dma_info {
    struct iovec iova;    /* address (iov_base) and length in the client's I/O address space */
    void *vaddr;
    struct iovec mapping;
    size_t page_size;
    uint32_t prot;        /* PROT_READ and PROT_WRITE of <sys/mman.h>: what the client permits */
} vfu_dma_info_t;

/*
 * Tells of a new DMA region, which can be used from now on. `info` is valid until the region is unregistered.
 */
typedef void(vfu_dma_register_cb_t)(vfu_ctx_t *vfu_ctx, vfu_dma_info_t *info);

/*
 * Tells that a DMA region goes away. It can still be used until this returns, and must not be any more then.
 */
typedef void(vfu_dma_unregister_cb_t)(vfu_ctx_t *vfu_ctx, vfu_dma_info_t *info);

/*
 * Makes the client's memory usable. Without it, the client's DMA_MAP requests are accepted and forgotten. Further calls
 * change the callbacks only.
 *
 * max_regions: how many regions a client may have; protects against clients that map without end.
 * dma_register, dma_unregister: may be NULL. Only devices with `dma_unregister` can use vfu_sgl_get().
 *
 * Returns 0 or -1. errno: ENOMEM.
 */
int
vfu_setup_device_dma(vfu_ctx_t *vfu_ctx, size_t max_regions, vfu_dma_register_cb_t *dma_register,
                     vfu_dma_unregister_cb_t *dma_unregister);

/*
 * Size of dma_sg_t in bytes. Never fails. Threads: any.
 */
size_t
dma_sg_size(void);

/*
 * Splits `len` bytes from `dma_addr` into one entry a DMA region. Entries stay usable until their region is unregistered;
 * later use fails with EINVAL. Threads: any.
 *
 * sgl: receives the entries, room for `max_nr_sgs` of dma_sg_size() bytes; need not be initialised.
 * prot: PROT_READ, PROT_WRITE or both of <sys/mman.h>: what the memory is wanted for.
 *
 * Returns the number of entries (0 if `len` is 0), with errno 0; -1 if the range is not usable; or -(n) - 1 with errno 0 if n
 * entries are needed, which is more than `max_nr_sgs`: as many as fit are filled. errno: ENOENT if a byte is in no region;
 * EACCES if a region cannot be written; EINVAL without vfu_setup_device_dma().
 */
int
vfu_addr_to_sgl(vfu_ctx_t *vfu_ctx, vfu_dma_addr_t dma_addr, size_t len, dma_sg_t *sgl, size_t max_nr_sgs, int prot);

/*
 * Whether vfu_sgl_get() works on an entry: its region is mapped into this process. False for entries that are not valid.
 * Threads: any.
 */
bool
vfu_sg_is_mappable(vfu_ctx_t *vfu_ctx, dma_sg_t *sg);

/*
 * Gives the address and length of each entry in this process, valid until its region is unregistered. After writing, call
 * vfu_sgl_put() or vfu_sgl_mark_dirty(). Threads: any.
 *
 * iov: receives `cnt` ranges (1 or more).
 * flags: 0.
 *
 * Returns 0 or -1. errno: EINVAL for other flags, entries that are not valid (any more), or without a dma_unregister
 * callback; EFAULT if a region is not mapped.
 */
int
vfu_sgl_get(vfu_ctx_t *vfu_ctx, dma_sg_t *sgl, struct iovec *iov, size_t cnt, int flags);

/*
 * Records that the memory of entries got with PROT_WRITE was written, if the client logs that. To be called after writing.
 * Threads: any.
 */
void
vfu_sgl_mark_dirty(vfu_ctx_t *vfu_ctx, dma_sg_t *sgl, size_t cnt);

/*
 * Ends the use of what vfu_sgl_get() gave; does what vfu_sgl_mark_dirty() does. `iov` is not used. Threads: any.
 */
void
vfu_sgl_put(vfu_ctx_t *vfu_ctx, dma_sg_t *sgl, struct iovec *iov, size_t cnt);

/* vfu_sgl_read() and vfu_sgl_write(): go through the client's descriptor where there is one. */
#define VFU_SGL_DIRECT_ACCESS (1)

/*
 * Copies the memory of `cnt` entries (1 or more), one after the other, to `data`, which has room for their lengths. Works for
 * every region. What was copied before an error stays in `data`. Threads: any, for regions that can be reached directly with
 * VFU_SGL_DIRECT_ACCESS.
 *
 * flags: 0: ask the client by message. VFU_SGL_DIRECT_ACCESS: read its mapping or file, if it gave one.
 *
 * Returns 0 or -1. errno: EINVAL for other flags or an entry that is not valid; ENOTSUP if `cnt` is 0, or several entries
 * have one among them that is not valid; EBUSY if the client must be asked while a quiesce is waiting; EIO if the file is
 * shorter or fails; ENOTCONN if the client went: the next vfu_run_ctx() deals with that; EPROTO for a wrong reply; or the
 * client's own error.
 * Blocks: for the client's replies.
 */
int
vfu_sgl_read(vfu_ctx_t *vfu_ctx, dma_sg_t *sgl, size_t cnt, void *data, int flags);

/*
 * Copies `data` to the memory of `cnt` entries, one after the other, which must have been got with PROT_WRITE. As
 * vfu_sgl_read() otherwise. What is written directly is recorded as dirty; of what is sent by message the client knows
 * itself.
 *
 * Returns 0 or -1. errno: as vfu_sgl_read(); EPERM if an entry is not for writing.
 * Blocks: for the client's replies.
 */
int
vfu_sgl_write(vfu_ctx_t *vfu_ctx, dma_sg_t *sgl, size_t cnt, void *data, int flags);

/* ---- Migration --------------------------------------------------------------------------------------------------- */

typedef enum {
    VFU_MIGR_STATE_STOP,          /* not running, state kept */
    VFU_MIGR_STATE_RUNNING,       /* the usual state */
    VFU_MIGR_STATE_STOP_AND_COPY, /* not running, state being read */
    VFU_MIGR_STATE_PRE_COPY,      /* running, state being read */
    VFU_MIGR_STATE_RESUME         /* not running, state being written */
} vfu_migr_state_t;

/* The only value of vfu_migration_callbacks_t.version. */
#define VFU_MIGR_CALLBACKS_VERS 2

/* What a device does to be migrated. All functions are needed. */
typedef struct {
    int version; /* VFU_MIGR_CALLBACKS_VERS */

    /* Enters a state. Returns 0, or -1 with errno. The device is quiesced. */
    int (*transition)(vfu_ctx_t *vfu_ctx, vfu_migr_state_t state);

    /* Puts up to `count` bytes of state into `buf`. Returns how many, 0 at the end, or -1 with errno. */
    ssize_t (*read_data)(vfu_ctx_t *vfu_ctx, void *buf, uint64_t count);

    /* Takes `count` bytes of state. Returns `count`, or -1 with errno. */
    ssize_t (*write_data)(vfu_ctx_t *vfu_ctx, void *buf, uint64_t count);
} vfu_migration_callbacks_t;

/*
 * Makes the device able to migrate, in state RUNNING. The structure is copied.
 *
 * Returns 0 or -1. errno: EINVAL for another version or a missing function; ENOMEM.
 */
int
vfu_setup_device_migration_callbacks(vfu_ctx_t *vfu_ctx, const vfu_migration_callbacks_t *callbacks);

/* ---- PCI --------------------------------------------------------------------------------------------------------- */

typedef enum {
    VFU_PCI_TYPE_CONVENTIONAL, /* 256 bytes of configuration space */
    VFU_PCI_TYPE_PCI_X_1,      /* 256 bytes */
    VFU_PCI_TYPE_PCI_X_2,      /* 4096 bytes, extended capabilities */
    VFU_PCI_TYPE_EXPRESS       /* 4096 bytes, extended capabilities */
} vfu_pci_type_t;

/*
 * Makes configuration space, all zeroes. Once a context.
 *
 * hdr_type: PCI_HEADER_TYPE_NORMAL.
 * revision: value of the revision id register; the lowest 8 bits count.
 *
 * Returns 0 or -1. errno: EINVAL for another type or header type; EEXIST if it exists already; ENOMEM.
 */
int
vfu_pci_init(vfu_ctx_t *vfu_ctx, vfu_pci_type_t pci_type, int hdr_type, int revision);

/*
 * Sets vendor, device, subsystem vendor and subsystem id. Does nothing before vfu_pci_init().
 */
void
vfu_pci_set_id(vfu_ctx_t *vfu_ctx, uint16_t vid, uint16_t did, uint16_t ssvid, uint16_t ssid);

/*
 * Sets base class, sub-class and programming interface. Does nothing before vfu_pci_init().
 */
void
vfu_pci_set_class(vfu_ctx_t *vfu_ctx, uint8_t base, uint8_t sub, uint8_t pi);

/*
 * The live configuration space. The device may read and write all of it at any time; what it writes is what clients see. The
 * address stays the same until vfu_destroy_ctx().
 *
 * Returns NULL before vfu_pci_init() and vfu_realize_ctx().
 */
vfu_pci_config_space_t *
vfu_pci_get_config_space(vfu_ctx_t *vfu_ctx);

#define VFU_CAP_FLAG_EXTENDED (1 << 0) /* in the extended list; VFU_PCI_TYPE_PCI_X_2 and _EXPRESS have one */
#define VFU_CAP_FLAG_CALLBACK (1 << 1) /* configuration space's callback handles all accesses, the header's too */
#define VFU_CAP_FLAG_READONLY (1 << 2) /* writes fail with EPERM */

/*
 * Adds a capability to the end of its list. Known are, standard: PCI_CAP_ID_PM (struct pmcap), PCI_CAP_ID_MSI (struct
 * msicap), PCI_CAP_ID_VNDR (struct vsc), PCI_CAP_ID_EXP (struct pxcap), PCI_CAP_ID_MSIX (struct msixcap); extended:
 * PCI_EXT_CAP_ID_DSN (struct dsncap), PCI_EXT_CAP_ID_VNDR (struct pcie_ext_cap_vsc_hdr). The library lets clients change
 * what each register permits, and nothing in the header. At most 128 a list.
 *
 * pos: 0 places it behind the last one of the list. Else its offset: standard ones in [64, 256), extended ones in
 *     [256, 4096) and a multiple of 4, the first of them at 256; not over another one.
 * flags: VFU_CAP_FLAG_*.
 * data: the whole capability, as long as its structure is or its size field says. Its next pointer is ignored.
 *
 * Returns the offset or -1. errno: EINVAL for other flags, CALLBACK without a callback, EXTENDED where there is no such list,
 * or a bad place or size; ENOTSUP for other ids; ENOSPC if the list is full or no place is left; ENOMEM.
 */
ssize_t
vfu_pci_add_capability(vfu_ctx_t *vfu_ctx, size_t pos, int flags, void *data);

/*
 * Finds the first capability `cap_id` (PCI_CAP_ID_* or, if `extended`, PCI_EXT_CAP_ID_*) of the list in configuration
 * space.
 *
 * Returns its offset or 0. errno: ENOENT if there is none; EINVAL if there is no such list or it is damaged.
 */
size_t
vfu_pci_find_capability(vfu_ctx_t *vfu_ctx, bool extended, int cap_id);

/*
 * Finds the next capability `cap_id` behind the one at `pos`; 0 starts from the beginning.
 *
 * Returns its offset or 0. errno: as vfu_pci_find_capability(); EINVAL too if `pos` is outside configuration space.
 */
size_t
vfu_pci_find_next_capability(vfu_ctx_t *vfu_ctx, bool extended, size_t pos, int cap_id);

#ifdef __cplusplus
}
#endif

#endif /* LIB_VFIO_USER_H */
