/*
 * The vfio-user protocol on the wire, for both sides.
 *
 * Every message is a struct vfio_user_header and a payload. Integers are in host byte order. Structures are packed; those
 * that end in an array are followed by as many elements as the message has room for.
 */

#ifndef VFIO_USER_H
#define VFIO_USER_H

#include <inttypes.h>
#include <linux/version.h>
#include <linux/vfio.h>

/* Arrays without a size at the end of a structure: C99, and an extension of every C++ compiler for Linux. */
#ifdef __clang__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wc99-extensions"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of data in one message, unless the VERSION exchange says otherwise. */
#define VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE (1024 * 1024)

/* Commands. DMA_READ and DMA_WRITE go from server to client, all others from client to server. */
enum vfio_user_command {
    VFIO_USER_VERSION = 1,
    VFIO_USER_DMA_MAP = 2,
    VFIO_USER_DMA_UNMAP = 3,
    VFIO_USER_DEVICE_GET_INFO = 4,
    VFIO_USER_DEVICE_GET_REGION_INFO = 5,
    VFIO_USER_DEVICE_GET_REGION_IO_FDS = 6,
    VFIO_USER_DEVICE_GET_IRQ_INFO = 7,
    VFIO_USER_DEVICE_SET_IRQS = 8,
    VFIO_USER_REGION_READ = 9,
    VFIO_USER_REGION_WRITE = 10,
    VFIO_USER_DMA_READ = 11,
    VFIO_USER_DMA_WRITE = 12,
    VFIO_USER_DEVICE_RESET = 13,
    VFIO_USER_REGION_WRITE_MULTI = 15,
    VFIO_USER_DEVICE_FEATURE = 16,
    VFIO_USER_MIG_DATA_READ = 17,
    VFIO_USER_MIG_DATA_WRITE = 18,
    VFIO_USER_MAX
};

/* Lowest four bits of the header's flags. */
enum vfio_user_message_type {
    VFIO_USER_MESSAGE_COMMAND = 0,
    VFIO_USER_MESSAGE_REPLY = 1
};

#define VFIO_USER_FLAGS_NO_REPLY (0x1)

/* Bits of vfio_user_header.flags. */
#define VFIO_USER_F_TYPE_MASK (0xf)
#define VFIO_USER_F_TYPE_COMMAND (0x0)
#define VFIO_USER_F_TYPE_REPLY (0x1)
#define VFIO_USER_F_NO_REPLY (0x10) /* command: send no reply */
#define VFIO_USER_F_ERROR (0x20)    /* reply: error_no is valid */

/* Start of every message. 16 bytes. */
struct vfio_user_header {
    uint16_t msg_id;   /* chosen by the sender, echoed in the reply */
    uint16_t cmd;      /* enum vfio_user_command */
    uint32_t msg_size; /* of header and payload, in bytes */
    uint32_t flags;    /* VFIO_USER_F_* */
    uint32_t error_no; /* errno of a failed command */
} __attribute__((packed));

/* VERSION: the payload of both directions. 4 bytes and text. */
struct vfio_user_version {
    uint16_t major;
    uint16_t minor;
    __extension__ uint8_t data[]; /* capabilities as JSON, with a NUL at the end */
} __attribute__((packed));

/* DEVICE_GET_INFO. 16 bytes. */
struct vfio_user_device_info {
    uint32_t argsz;
    uint32_t flags; /* VFIO_DEVICE_FLAGS_* */
    uint32_t num_regions;
    uint32_t num_irqs;
} __attribute__((packed));

/* A bitmap of pages. 16 bytes and the bits, in words of 64. */
struct vfio_user_bitmap {
    uint64_t pgsize; /* bytes that one bit stands for */
    uint64_t size;   /* of the bits, in bytes */
    __extension__ char data[];
} __attribute__((packed));

/* vfio_user_dma_map.flags: what the server may do with the range, and how it can reach it through the descriptor. */
#define VFIO_USER_F_DMA_REGION_READ (1 << 0)
#define VFIO_USER_F_DMA_REGION_WRITE (1 << 1)
#define VFIO_USER_F_DMA_REGION_MMAP (1 << 2)
#define VFIO_USER_F_DMA_REGION_FILE_IO (1 << 3)

/* DMA_MAP; a descriptor may come along. 32 bytes. */
struct vfio_user_dma_map {
    uint32_t argsz;
    uint32_t flags;  /* VFIO_USER_F_DMA_REGION_* */
    uint64_t offset; /* in the descriptor's file */
    uint64_t addr;   /* IOVA */
    uint64_t size;
} __attribute__((packed));

/* For kernel headers that are too old. */
#ifndef VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP
#define VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP (1 << 0)
#endif
#ifndef VFIO_DMA_UNMAP_FLAG_ALL
#define VFIO_DMA_UNMAP_FLAG_ALL (1 << 1)
#endif

/* DMA_UNMAP. 24 bytes and, with GET_DIRTY_BITMAP, a bitmap. */
struct vfio_user_dma_unmap {
    uint32_t argsz;
    uint32_t flags; /* VFIO_DMA_UNMAP_FLAG_* */
    uint64_t addr;  /* IOVA */
    uint64_t size;
    __extension__ struct vfio_user_bitmap bitmap[];
};

/* REGION_READ and REGION_WRITE. 16 bytes and data. */
struct vfio_user_region_access {
    uint64_t offset; /* in the region */
    uint32_t region; /* index */
    uint32_t count;  /* of data, in bytes */
    __extension__ uint8_t data[];
} __attribute__((packed));

/* DMA_READ and DMA_WRITE. 16 bytes and data. */
struct vfio_user_dma_region_access {
    uint64_t addr;  /* IOVA */
    uint64_t count; /* of data, in bytes */
    __extension__ uint8_t data[];
} __attribute__((packed));

/* One interrupt. 4 bytes. */
struct vfio_user_irq_info {
    uint32_t subindex;
} __attribute__((packed));

/* DEVICE_GET_REGION_IO_FDS, request. 16 bytes. */
typedef struct vfio_user_region_io_fds_request {
    uint32_t argsz;
    uint32_t flags; /* 0 */
    uint32_t index; /* of the region */
    uint32_t count; /* 0 */
} __attribute__((packed)) vfio_user_region_io_fds_request_t;

/* Values of `type` in sub-regions. */
#define VFIO_USER_IO_FD_TYPE_IOEVENTFD 0
#define VFIO_USER_IO_FD_TYPE_IOREGIONFD 1
#define VFIO_USER_IO_FD_TYPE_IOEVENTFD_SHADOW 2

/* Part of a region that an eventfd serves. 48 bytes. */
typedef struct vfio_user_sub_region_ioeventfd {
    uint64_t gpa_offset; /* in the region */
    uint64_t size;
    uint32_t fd_index; /* among the reply's descriptors */
    uint32_t type;     /* VFIO_USER_IO_FD_TYPE_* */
    uint32_t flags;    /* of KVM's ioeventfd */
    uint32_t shadow_mem_fd_index;
    uint64_t shadow_offset;
    uint64_t datamatch;
} __attribute__((packed)) vfio_user_sub_region_ioeventfd_t;

/* Part of a region that an ioregionfd serves. 40 bytes. The library never sends one. */
typedef struct vfio_user_sub_region_ioregionfd {
    uint64_t offset;
    uint64_t size;
    uint32_t fd_index;
    uint32_t type;
    uint32_t flags;
    uint32_t padding;
    uint64_t user_data;
} __attribute__((packed)) vfio_user_sub_region_ioregionfd_t;

/* Either; `type` tells which. 48 bytes. */
union sub_region {
    struct vfio_user_sub_region_ioeventfd ioeventfd;
    struct vfio_user_sub_region_ioregionfd ioregionfd;
};

/* DEVICE_GET_REGION_IO_FDS, reply. 16 bytes and sub-regions. */
typedef struct vfio_user_region_io_fds_reply {
    uint32_t argsz; /* bytes that all sub-regions need */
    uint32_t flags;
    uint32_t index;
    uint32_t count; /* of sub-regions */
    __extension__ union sub_region sub_regions[];
} __attribute__((packed)) vfio_user_region_io_fds_reply_t;

/* A range of memory. 16 bytes. */
struct vfio_user_device_feature_dma_logging_range {
    uint64_t iova;
    uint64_t length;
} __attribute__((packed));

/* DMA_LOGGING_START. 16 bytes and ranges. */
struct vfio_user_device_feature_dma_logging_control {
    uint64_t page_size;
    uint32_t num_ranges;
    uint32_t reserved;
    __extension__ struct vfio_user_device_feature_dma_logging_range ranges[];
} __attribute__((packed));

/* DMA_LOGGING_REPORT. 24 bytes and, in the reply, a bit a page. */
struct vfio_user_device_feature_dma_logging_report {
    uint64_t iova;
    uint64_t length;
    uint64_t page_size;
    __extension__ uint8_t bitmap[];
} __attribute__((packed));

/* For kernel headers that are too old. */
#ifndef VFIO_DEVICE_FEATURE_DMA_LOGGING_START
#define VFIO_DEVICE_FEATURE_DMA_LOGGING_START 6
#define VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP 7
#define VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT 8
#endif
#ifndef VFIO_DEVICE_FEATURE_MASK
#define VFIO_DEVICE_FEATURE_MASK (0xffff)
#define VFIO_DEVICE_FEATURE_GET (1 << 16)
#define VFIO_DEVICE_FEATURE_SET (1 << 17)
#define VFIO_DEVICE_FEATURE_PROBE (1 << 18)
#endif
#ifndef VFIO_REGION_TYPE_MIGRATION_DEPRECATED
#define VFIO_MIGRATION_STOP_COPY (1 << 0)
#define VFIO_MIGRATION_P2P (1 << 1)
#define VFIO_DEVICE_FEATURE_MIGRATION 1
#endif
#ifndef VFIO_MIGRATION_PRE_COPY
#define VFIO_MIGRATION_PRE_COPY (1 << 2)
#endif
#ifndef VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE
#define VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE 2
#endif

/* DEVICE_FEATURE. 8 bytes and the feature's structure. */
struct vfio_user_device_feature {
    uint32_t argsz;
    uint32_t flags; /* feature number and VFIO_DEVICE_FEATURE_{GET,SET,PROBE} */
    __extension__ uint8_t data[];
} __attribute__((packed));

/* Feature MIGRATION. 8 bytes. */
struct vfio_user_device_feature_migration {
    uint64_t flags; /* VFIO_MIGRATION_* */
} __attribute__((packed));

/* Feature MIG_DEVICE_STATE. 8 bytes. */
struct vfio_user_device_feature_mig_state {
    uint32_t device_state; /* enum vfio_user_device_mig_state */
    uint32_t data_fd;      /* unused, all ones */
} __attribute__((packed));

/* Migration states, with the numbers of the kernel's enum vfio_device_mig_state. */
enum vfio_user_device_mig_state {
    VFIO_USER_DEVICE_STATE_ERROR = 0,
    VFIO_USER_DEVICE_STATE_STOP = 1,
    VFIO_USER_DEVICE_STATE_RUNNING = 2,
    VFIO_USER_DEVICE_STATE_STOP_COPY = 3,
    VFIO_USER_DEVICE_STATE_RESUMING = 4,
    VFIO_USER_DEVICE_STATE_RUNNING_P2P = 5,
    VFIO_USER_DEVICE_STATE_PRE_COPY = 6,
    VFIO_USER_DEVICE_STATE_PRE_COPY_P2P = 7,
    VFIO_USER_DEVICE_NUM_STATES = 8
};

/* MIG_DATA_READ and MIG_DATA_WRITE. 8 bytes and data. */
struct vfio_user_mig_data {
    uint32_t argsz;
    uint32_t size; /* of data, in bytes */
    __extension__ uint8_t data[];
} __attribute__((packed));

#ifdef __cplusplus
}
#endif

#ifdef __clang__
#pragma clang diagnostic pop
#endif

#endif /* VFIO_USER_H */
