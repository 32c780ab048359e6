/*
 * Headers of PCI capabilities, and the vendor-specific capabilities.
 *
 * All structures here are images of registers: packed, little-endian, bit fields from the lowest bit up. They are what
 * vfu_pci_add_capability() takes and what lies in configuration space. "RO" marks bits that clients cannot change,
 * "RW" bits that they can, "RW1C" bits that a written 1 clears.
 */

#ifndef LIB_VFIO_USER_PCI_CAPS_COMMON_H
#define LIB_VFIO_USER_PCI_CAPS_COMMON_H

#include <linux/pci_regs.h>
#include <stddef.h>
#include <stdint.h>

/* Arrays without a size at the end of a structure: C99, and an extension of every C++ compiler for Linux. */
#ifdef __clang__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wc99-extensions"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Start of every standard capability. 2 bytes. */
struct cap_hdr {
    uint8_t id;   /* PCI_CAP_ID_* */
    uint8_t next; /* offset of the next one, 0 at the end; set by the library */
} __attribute__((packed));

/* PCI_CAP_ID_VNDR: vendor specific. 3 bytes, then whatever the vendor likes. */
struct vsc {
    struct cap_hdr hdr;
    uint8_t size; /* of the whole capability in bytes, 3 or more */
    __extension__ uint8_t data[];
} __attribute__((packed));

/* Start of every extended capability. 4 bytes. */
struct pcie_ext_cap_hdr {
    uint32_t id:16; /* PCI_EXT_CAP_ID_* */
    uint32_t version:4;
    uint32_t next:12; /* offset of the next one, 0 at the end; set by the library */
} __attribute__((packed));

/* PCI_EXT_CAP_ID_VNDR: vendor specific. 8 bytes, then whatever the vendor likes. */
struct pcie_ext_cap_vsc_hdr {
    struct pcie_ext_cap_hdr hdr;
    uint32_t id:16; /* the vendor's own number */
    uint32_t rev:4;
    uint32_t len:12; /* of the whole capability in bytes, 8 or more */
    __extension__ uint8_t data[];
} __attribute__((packed));

#ifdef __cplusplus
}
#endif

#ifdef __clang__
#pragma clang diagnostic pop
#endif

#endif /* LIB_VFIO_USER_PCI_CAPS_COMMON_H */
