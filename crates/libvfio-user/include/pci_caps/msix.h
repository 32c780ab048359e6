/*
 * MSI-X: standard capability PCI_CAP_ID_MSIX. The vector table and the pending bits lie in BARs and are the device's.
 */

#ifndef LIB_VFIO_USER_PCI_CAPS_MSIX_H
#define LIB_VFIO_USER_PCI_CAPS_MSIX_H

#include <linux/pci_regs.h>
#include <stdint.h>

#include "common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Message control. 2 bytes. */
struct mxc {
    __extension__ uint16_t ts:11;      /* RO: vectors, minus 1 */
    __extension__ uint16_t reserved:3; /* RO */
    __extension__ uint16_t fm:1;       /* RW: mask the whole function */
    __extension__ uint16_t mxe:1;      /* RW: enable */
} __attribute__((packed));

/* Where the vector table is. 4 bytes, RO. */
struct mtab {
    uint32_t tbir:3; /* BAR */
    uint32_t to:29;  /* offset in the BAR >> 3 */
} __attribute__((packed));

/* Where the pending bits are. 4 bytes, RO. */
struct mpba {
    uint32_t pbir:3;  /* BAR */
    uint32_t pbao:29; /* offset in the BAR >> 3 */
} __attribute__((packed));

/* 12 bytes, aligned to 4. */
struct msixcap {
    struct cap_hdr hdr;
    struct mxc mxc;
    struct mtab mtab;
    struct mpba mpba;
} __attribute__((packed)) __attribute__((aligned(4)));

#ifdef __cplusplus
}
#endif

#endif /* LIB_VFIO_USER_PCI_CAPS_MSIX_H */
