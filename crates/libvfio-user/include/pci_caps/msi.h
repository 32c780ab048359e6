/*
 * Message Signalled Interrupts: standard capability PCI_CAP_ID_MSI.
 *
 * The library always takes and reserves the 24 bytes of struct msicap. The structure shows where registers are when both
 * c64 and pvm are set. Without c64 the message data is at offset 8 and what follows moves up by 4 bytes; without pvm there
 * is no mask register. Clients cannot write the bytes that this leaves over.
 */

#ifndef LIB_VFIO_USER_PCI_CAPS_MSI_H
#define LIB_VFIO_USER_PCI_CAPS_MSI_H

#include "common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Message control. 2 bytes. */
struct mc {
    unsigned int msie:1; /* RW: enable */
    unsigned int mmc:3;  /* RO: log2 of the vectors offered, 0 to 5 */
    unsigned int mme:3;  /* RW: log2 of the vectors in use, at most mmc */
    unsigned int c64:1;  /* RO: 64-bit addresses */
    unsigned int pvm:1;  /* RO: vectors can be masked one by one */
    unsigned int res1:7; /* RO */
} __attribute__((packed));

/* Message address, lower half. 4 bytes. */
struct ma {
    unsigned int res1:2;  /* RO */
    unsigned int addr:30; /* RW: address >> 2 */
} __attribute__((packed));

/* Size of struct msicap in bytes. */
#define VFIO_USER_PCI_CAP_MSI_SIZEOF (0x18)

/* 24 bytes. */
struct msicap {
    struct cap_hdr hdr;
    struct mc mc;
    struct ma ma;
    uint32_t mua;     /* RW: message address, upper half */
    uint16_t md;      /* RW: message data */
    uint16_t padding; /* RO */
    uint32_t mmask;   /* RW: a bit a vector */
    uint32_t mpend;   /* RO: a bit a vector, set by the device */
} __attribute__((packed));

#ifdef __cplusplus
}
#endif

#endif /* LIB_VFIO_USER_PCI_CAPS_MSI_H */
