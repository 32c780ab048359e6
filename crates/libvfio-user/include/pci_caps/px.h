/*
 * PCI Express: standard capability PCI_CAP_ID_EXP.
 *
 * The structure has the registers of every kind of port, link, slot and root ones included; what a device does not have
 * stays 0. Control registers are RW and status registers RW1C, the others RO; accesses of any length are merged byte by
 * byte.
 */

#ifndef LIB_VFIO_USER_PCI_CAPS_PX_H
#define LIB_VFIO_USER_PCI_CAPS_PX_H

#include "common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* PCI Express capabilities. 2 bytes. */
struct pxcaps {
    __extension__ uint16_t ver:4;  /* version, 2 for this layout */
    __extension__ uint16_t dpt:4;  /* device or port type */
    __extension__ uint16_t si:1;   /* slot implemented */
    __extension__ uint16_t imn:5;  /* interrupt message number */
    __extension__ uint16_t res1:2;
} __attribute__((packed));

/* Device capabilities. 4 bytes. */
struct pxdcap {
    uint32_t mps:3;   /* largest payload supported */
    uint32_t pfs:2;   /* phantom functions */
    uint32_t etfs:1;  /* extended tags */
    uint32_t l0sl:3;  /* acceptable L0s latency */
    uint32_t l1l:3;   /* acceptable L1 latency */
    uint32_t res1:3;
    uint32_t rer:1;   /* role-based error reporting */
    uint32_t res2:2;
    uint32_t csplv:8; /* slot power limit, value */
    uint32_t cspls:2; /* slot power limit, scale */
    uint32_t flrc:1;  /* function-level reset: set it to get VFU_RESET_PCI_FLR */
    uint32_t res3:3;
} __attribute__((packed));

/* Device control. 2 bytes. */
union pxdc {
    uint16_t raw;
    __extension__ struct {
        __extension__ uint16_t cere:1;  /* report correctable errors */
        __extension__ uint16_t nfere:1; /* report non-fatal errors */
        __extension__ uint16_t fere:1;  /* report fatal errors */
        __extension__ uint16_t urre:1;  /* report unsupported requests */
        __extension__ uint16_t ero:1;   /* relaxed ordering */
        __extension__ uint16_t mps:3;   /* largest payload */
        __extension__ uint16_t ete:1;   /* extended tags */
        __extension__ uint16_t pfe:1;   /* phantom functions */
        __extension__ uint16_t appme:1; /* auxiliary power for PME */
        __extension__ uint16_t ens:1;   /* no snoop */
        __extension__ uint16_t mrrs:3;  /* largest read request */
        __extension__ uint16_t iflr:1;  /* starts a function-level reset; always reads 0 */
    } __attribute__((packed));
} __attribute__((packed));

/* Device status. */
struct pxds {
    __extension__ uint16_t stuff:16;
} __attribute__((packed));

/* Link capabilities. */
struct pxlcap {
    uint32_t stuff:32;
} __attribute__((packed));

/* Link control. 2 bytes. */
union pxlc {
    uint16_t raw;
    __extension__ struct {
        __extension__ uint16_t aspmc:2;      /* active state power management */
        __extension__ uint16_t rsvdp1:1;
        __extension__ uint16_t rcb:1;        /* read completion boundary */
        __extension__ uint16_t ld:1;         /* link disable */
        __extension__ uint16_t rl:1;         /* retrain link; always reads 0 */
        __extension__ uint16_t ccc:1;        /* common clock */
        __extension__ uint16_t es:1;         /* extended synch */
        __extension__ uint16_t clkreq_en:1;  /* clock power management */
        __extension__ uint16_t hawd:1;       /* no autonomous width change */
        __extension__ uint16_t lbmie:1;      /* bandwidth management interrupt */
        __extension__ uint16_t labie:1;      /* autonomous bandwidth interrupt */
        __extension__ uint16_t rsvdp2:4;
    };
} __attribute__((packed));

/* Link status. */
struct pxls {
    __extension__ uint16_t stuff:16;
} __attribute__((packed));

/* Slot capabilities. */
struct pxscap {
    uint32_t stuff:32;
} __attribute__((packed));

/* Slot control. */
struct pxsc {
    __extension__ uint16_t stuff:16;
} __attribute__((packed));

/* Slot status. */
struct pxss {
    __extension__ uint16_t stuff:16;
} __attribute__((packed));

/* Root control. */
struct pxrc {
    __extension__ uint16_t stuff:16;
} __attribute__((packed));

/* Root capabilities. */
struct pxrcap {
    __extension__ uint16_t stuff:16;
} __attribute__((packed));

/* Root status. */
struct pxrs {
    uint32_t stuff:32;
} __attribute__((packed));

/* Device capabilities 2, with the names of all revisions of the specification. 4 bytes. */
struct pxdcap2 {
    uint32_t ctrs:4;   /* completion timeout ranges */
    uint32_t ctds:1;   /* completion timeout can be disabled */
    uint32_t arifs:1;  /* ARI forwarding */
    uint32_t aors:1;   /* atomic operations: routing */
    uint32_t aocs32:1; /* completer, 32 bits */
    uint32_t aocs64:1; /* completer, 64 bits */
    uint32_t ccs128:1; /* compare-and-swap, 128 bits */
    uint32_t nprpr:1;  /* no passing with relaxed ordering */
    uint32_t ltrs:1;   /* latency tolerance reporting */
    uint32_t tphcs:2;  /* processing hints */
    uint32_t ln:2;     /* lightweight notification */
    uint32_t tcs:1;    /* 10-bit tags: completer */
    uint32_t trs:1;    /* 10-bit tags: requester */
    uint32_t obffs:2;  /* optimised buffer flush and fill */
    uint32_t effs:1;   /* extended format field */
    uint32_t eetps:1;  /* end-to-end prefixes */
    uint32_t meetp:2;  /* how many of them */
    uint32_t eprs:2;   /* emergency power reduction */
    uint32_t eprir:1;  /* and its initialisation */
    uint32_t res1:1;
    uint32_t dmwcs:1;  /* deferrable memory writes: completer */
    uint32_t dmwls:2;  /* and their length */
    uint32_t frss:1;   /* function readiness status */
} __attribute__((packed));

/* Device control 2. 2 bytes. */
union pxdc2 {
    uint16_t raw;
    __extension__ struct {
        uint32_t comp_timeout:4;             /* completion timeout, value */
        uint32_t comp_timout_dis:1;          /* completion timeout, off */
        uint32_t ari:1;                      /* ARI forwarding */
        uint32_t atomic_req:1;               /* atomic operations: requester */
        uint32_t atomic_egress_block:1;      /* and blocking them */
        uint32_t ido_req_en:1;               /* id-based ordering: requests */
        uint32_t ido_cmp_en:1;               /* id-based ordering: completions */
        uint32_t ltr_en:1;                   /* latency tolerance reporting */
        uint32_t obff_en:2;                  /* optimised buffer flush and fill */
        uint32_t end_end_tlp_prefix_block:1; /* block end-to-end prefixes */
    } __attribute__((packed));
} __attribute__((packed));

/* Device status 2. */
struct pxds2 {
    __extension__ uint16_t stuff:16;
} __attribute__((packed));

/* Link capabilities 2. */
struct pxlcap2 {
    uint32_t stuff:32;
} __attribute__((packed));

/* Link control 2. */
struct pxlc2 {
    __extension__ uint16_t stuff:16;
} __attribute__((packed));

/* Link status 2. */
struct pxls2 {
    __extension__ uint16_t stuff:16;
} __attribute__((packed));

/* Slot capabilities 2. */
struct pxscap2 {
    uint32_t stuff:32;
} __attribute__((packed));

/* Slot control 2. */
struct pxsc2 {
    __extension__ uint16_t stuff:16;
} __attribute__((packed));

/* Slot status 2. */
struct pxss2 {
    __extension__ uint16_t stuff:16;
} __attribute__((packed));

/*
 * Size of struct pxcap in bytes. Not PCI_CAP_EXP_ENDPOINT_SIZEOF_V2 of <linux/pci_regs.h>, which differs between kernels
 * and leaves out the slot and root registers.
 */
#define VFIO_USER_PCI_CAP_EXP_SIZEOF (0x3c)

/* 60 bytes. The number is the offset. */
struct pxcap {
    struct cap_hdr hdr;     /* 0 */
    struct pxcaps pxcaps;   /* 2 */
    struct pxdcap pxdcap;   /* 4 */
    union pxdc pxdc;        /* 8 */
    struct pxds pxds;       /* 10 */
    struct pxlcap pxlcap;   /* 12 */
    union pxlc pxlc;        /* 16 */
    struct pxls pxls;       /* 18 */
    struct pxscap pxscap;   /* 20 */
    struct pxsc pxsc;       /* 24 */
    struct pxss pxss;       /* 26 */
    struct pxrc pxrc;       /* 28 */
    struct pxrcap pxrcap;   /* 30 */
    struct pxrs pxrs;       /* 32 */
    struct pxdcap2 pxdcap2; /* 36 */
    union pxdc2 pxdc2;      /* 40 */
    struct pxds2 pxds2;     /* 42 */
    struct pxlcap2 pxlcap2; /* 44 */
    struct pxlc2 pxlc2;     /* 48 */
    struct pxls2 pxls2;     /* 50 */
    struct pxscap2 pxscap2; /* 52 */
    struct pxsc2 pxsc2;     /* 56 */
    struct pxss2 pxss2;     /* 58 */
} __attribute__((packed));

#ifdef __cplusplus
}
#endif

#endif /* LIB_VFIO_USER_PCI_CAPS_PX_H */
