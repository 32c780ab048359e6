/*
 * The standard PCI header (type 0) and configuration space, as vfu_pci_get_config_space() shows them.
 *
 * All types are images of registers: packed, little-endian, bit fields from the lowest bit up. `raw` is the whole register.
 */

#ifndef LIBVFIO_USER_PCI_DEFS_H
#define LIBVFIO_USER_PCI_DEFS_H

#include <linux/pci_regs.h>
#include <stdbool.h>
#include <stdint.h>

/* Arrays without a size at the end of a structure: C99, and an extension of every C++ compiler for Linux. */
#ifdef __clang__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wc99-extensions"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Values of vfu_bar_t.mem.locatable. */
#define PCI_BASE_ADDRESS_MEM_TYPE_LOCATABLE_32 (PCI_BASE_ADDRESS_MEM_TYPE_32 >> 1)
#define PCI_BASE_ADDRESS_MEM_TYPE_LOCATABLE_1M (PCI_BASE_ADDRESS_MEM_TYPE_1M >> 1)
#define PCI_BASE_ADDRESS_MEM_TYPE_LOCATABLE_64 (PCI_BASE_ADDRESS_MEM_TYPE_64 >> 1)

/* Ids of the subsystem's vendor and of the subsystem. 4 bytes. */
typedef union {
    uint32_t raw;
    __extension__ struct {
        uint16_t vid;
        uint16_t sid;
    } __attribute__((packed));
} __attribute__((packed)) vfu_pci_hdr_ss_t;

/* Built-in self test. 1 byte. */
typedef union {
    uint8_t raw;
} __attribute__((packed)) vfu_pci_hdr_bist_t;

/* Base address register. 4 bytes. */
typedef union {
    uint32_t raw;
    __extension__ union {
        __extension__ struct {
            unsigned int region_type:1; /* 0 */
            unsigned int locatable:2;   /* PCI_BASE_ADDRESS_MEM_TYPE_LOCATABLE_* */
            unsigned int prefetchable:1;
            unsigned int base_address:28;
        } __attribute__((packed)) mem;
        __extension__ struct {
            unsigned int region_type:1; /* 1 */
            unsigned int reserved:1;
            unsigned int base_address:30;
        } __attribute__((packed)) io;
    } __attribute__((packed));
} __attribute__((packed)) vfu_bar_t;

/* Header type. 1 byte. */
typedef union {
    uint8_t raw;
} __attribute__((packed)) vfu_pci_hdr_htype_t;

/* Class code: programming interface, sub-class, base class. 3 bytes. */
typedef union {
    uint8_t raw[3];
    __extension__ struct {
        uint8_t pi;
        uint8_t scc;
        uint8_t bcc;
    } __attribute__((packed));
} __attribute__((packed)) vfu_pci_hdr_cc_t;

/* Device status. 2 bytes. */
typedef union {
    uint16_t raw;
    __extension__ struct {
        unsigned int res1:3;
        unsigned int is:1;   /* interrupt pending */
        unsigned int cl:1;   /* has capabilities; set by the library */
        unsigned int c66:1;  /* 66 MHz */
        unsigned int res2:1;
        unsigned int fbc:1;  /* fast back-to-back */
        unsigned int dpd:1;  /* parity error as master */
        unsigned int devt:2; /* DEVSEL timing */
        unsigned int sta:1;  /* signalled target abort */
        unsigned int rta:1;  /* received target abort */
        unsigned int rma:1;  /* received master abort */
        unsigned int sse:1;  /* signalled system error */
        unsigned int dpe:1;  /* detected parity error */
    } __attribute__((packed));
} __attribute__((packed)) vfu_pci_hdr_sts_t;

/* Command. 2 bytes. Clients can change iose, mse, bme, mwie, see and id. */
typedef union {
    uint16_t raw;
    __extension__ struct {
        __extension__ uint8_t iose:1; /* I/O space */
        __extension__ uint8_t mse:1;  /* memory space */
        __extension__ uint8_t bme:1;  /* bus master */
        __extension__ uint8_t sce:1;  /* special cycles */
        __extension__ uint8_t mwie:1; /* memory write and invalidate */
        __extension__ uint8_t vga:1;  /* palette snoop */
        __extension__ uint8_t pee:1;  /* parity errors */
        __extension__ uint8_t zero:1;
        __extension__ uint8_t see:1;  /* SERR# */
        __extension__ uint8_t fbe:1;  /* fast back-to-back */
        __extension__ uint8_t id:1;   /* INTx off */
        __extension__ uint8_t res1:5;
    } __attribute__((packed));
} __attribute__((packed)) vfu_pci_hdr_cmd_t;

/* Vendor id and device id. 4 bytes. */
typedef union {
    uint32_t raw;
    __extension__ struct {
        uint16_t vid;
        uint16_t did;
    } __attribute__((packed));
} __attribute__((packed)) vfu_pci_hdr_id_t;

/* Interrupt line and pin. 2 bytes. */
typedef union {
    uint16_t raw;
    __extension__ struct {
        uint8_t iline;
        uint8_t ipin; /* 0 none, 1 INTA */
    } __attribute__((packed));
} __attribute__((packed)) vfu_pci_hdr_intr_t;

/* Number of base address registers. */
#define PCI_BARS_NR 6

/* The standard header. 64 bytes. */
typedef union {
    uint8_t raw[PCI_STD_HEADER_SIZEOF];
    __extension__ struct {
        vfu_pci_hdr_id_t id;         /* 0x00 */
        vfu_pci_hdr_cmd_t cmd;       /* 0x04 */
        vfu_pci_hdr_sts_t sts;       /* 0x06 */
        uint8_t rid;                 /* 0x08: revision */
        vfu_pci_hdr_cc_t cc;         /* 0x09 */
        uint8_t cls;                 /* 0x0c: cache line size */
        uint8_t mlt;                 /* 0x0d: latency timer */
        vfu_pci_hdr_htype_t htype;   /* 0x0e */
        vfu_pci_hdr_bist_t bist;     /* 0x0f */
        vfu_bar_t bars[PCI_BARS_NR]; /* 0x10 */
        uint32_t ccptr;              /* 0x28: CardBus CIS */
        vfu_pci_hdr_ss_t ss;         /* 0x2c */
        uint32_t erom;               /* 0x30: expansion ROM */
        uint8_t cap;                 /* 0x34: first standard capability */
        uint8_t res1[7];
        vfu_pci_hdr_intr_t intr;     /* 0x3c */
        uint8_t mgnt;                /* 0x3e: minimum grant */
        uint8_t mlat;                /* 0x3f: maximum latency */
    } __attribute__((packed));
} __attribute__((packed)) vfu_pci_hdr_t;

/* Configuration space: 256 bytes, and up to 4096 in `extended` for PCI-X 2 and PCI Express. */
typedef struct {
    __extension__ union {
        uint8_t raw[PCI_CFG_SPACE_SIZE];
        vfu_pci_hdr_t hdr;
    } __attribute__((packed));
    __extension__ uint8_t extended[];
} __attribute__((packed)) vfu_pci_config_space_t;

#ifdef __cplusplus
}
#endif

#ifdef __clang__
#pragma clang diagnostic pop
#endif

#endif /* LIBVFIO_USER_PCI_DEFS_H */
