/*
 * Device Serial Number: extended capability PCI_EXT_CAP_ID_DSN. Clients can only read it.
 */

#ifndef LIB_VFIO_USER_PCI_CAPS_DSN_H
#define LIB_VFIO_USER_PCI_CAPS_DSN_H

#include "common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 12 bytes. */
struct dsncap {
    struct pcie_ext_cap_hdr hdr;
    uint32_t sn_lo; /* lower half of the EUI-64 */
    uint32_t sn_hi; /* upper half */
} __attribute__((packed));

#ifdef __cplusplus
}
#endif

#endif /* LIB_VFIO_USER_PCI_CAPS_DSN_H */
