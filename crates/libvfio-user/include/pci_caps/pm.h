/*
 * Power Management: standard capability PCI_CAP_ID_PM.
 */

#ifndef LIB_VFIO_USER_PCI_CAPS_PM_H
#define LIB_VFIO_USER_PCI_CAPS_PM_H

#include "common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Capabilities. 2 bytes, RO. */
struct pc {
    __extension__ uint16_t vs:3;   /* version */
    __extension__ uint16_t pmec:1; /* PME clock */
    __extension__ uint16_t res:1;
    __extension__ uint16_t dsi:1;  /* device specific initialisation */
    __extension__ uint16_t auxc:3; /* auxiliary current */
    __extension__ uint16_t d1s:1;  /* D1 supported */
    __extension__ uint16_t d2s:1;  /* D2 supported */
    __extension__ uint16_t psup:5; /* states from which PME can be sent */
} __attribute__((packed));

/* Control and status. 2 bytes. */
__extension__ struct pmcs {
    __extension__ union {
        uint16_t raw;
        __extension__ struct {
            __extension__ uint16_t ps:2;     /* RW: power state */
            __extension__ uint16_t res1:1;   /* RO */
            __extension__ uint16_t nsfrst:1; /* RO: no soft reset */
            __extension__ uint16_t res2:4;   /* RO */
            __extension__ uint16_t pmee:1;   /* RW: PME enable */
            __extension__ uint16_t dse:4;    /* RW: data select */
            __extension__ uint16_t dsc:2;    /* RO: data scale */
            __extension__ uint16_t pmes:1;   /* RW1C: PME status */
        };
    };
} __attribute__((packed));

/* 8 bytes. */
struct pmcap {
    struct cap_hdr hdr;
    struct pc pc;
    struct pmcs pmcs;
    uint8_t pmcsr_bse; /* RO: bridge extensions */
    uint8_t data;      /* RO */
} __attribute__((packed));

#ifdef __cplusplus
}
#endif

#endif /* LIB_VFIO_USER_PCI_CAPS_PM_H */
