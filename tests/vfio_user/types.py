"""One ctypes structure for each wire or API structure, and the callback prototypes.

Names and fields are those of the C headers, letter for letter, so that a machine can
compare them with the debug information of the library. Structures of the wire are
packed as in C; ``vfio_user_dma_unmap`` and those of linux/vfio.h are not, and have no
padding either way. Nothing here calls the library.
"""

import ctypes as c


class _Wire(c.LittleEndianStructure):
    """A packed structure of the wire protocol."""

    _pack_ = 1
    _layout_ = "ms"  # what _pack_ implies; newer Pythons want it said

    def __repr__(self) -> str:
        fields = (f"{f[0]}={getattr(self, f[0])!r}" for f in self._fields_)
        return f"{type(self).__name__}({', '.join(fields)})"


# Wire structures (vfio-user.h)


class vfio_user_header(_Wire):
    _fields_ = [
        ("msg_id", c.c_uint16),
        ("cmd", c.c_uint16),
        ("msg_size", c.c_uint32),
        ("flags", c.c_uint32),
        ("error_no", c.c_uint32),
    ]


class vfio_user_version(_Wire):
    _fields_ = [("major", c.c_uint16), ("minor", c.c_uint16)]


class vfio_user_device_info(_Wire):
    _fields_ = [
        ("argsz", c.c_uint32),
        ("flags", c.c_uint32),
        ("num_regions", c.c_uint32),
        ("num_irqs", c.c_uint32),
    ]


class vfio_user_bitmap(_Wire):
    _fields_ = [("pgsize", c.c_uint64), ("size", c.c_uint64)]


class vfio_user_dma_map(_Wire):
    _fields_ = [
        ("argsz", c.c_uint32),
        ("flags", c.c_uint32),
        ("offset", c.c_uint64),
        ("addr", c.c_uint64),
        ("size", c.c_uint64),
    ]


class vfio_user_dma_unmap(c.Structure):
    _fields_ = [
        ("argsz", c.c_uint32),
        ("flags", c.c_uint32),
        ("addr", c.c_uint64),
        ("size", c.c_uint64),
    ]


class vfio_user_region_access(_Wire):
    _fields_ = [
        ("offset", c.c_uint64),
        ("region", c.c_uint32),
        ("count", c.c_uint32),
    ]


class vfio_user_dma_region_access(_Wire):
    _fields_ = [("addr", c.c_uint64), ("count", c.c_uint64)]


class vfio_user_region_io_fds_request(_Wire):
    _fields_ = [
        ("argsz", c.c_uint32),
        ("flags", c.c_uint32),
        ("index", c.c_uint32),
        ("count", c.c_uint32),
    ]


class vfio_user_region_io_fds_reply(_Wire):
    _fields_ = vfio_user_region_io_fds_request._fields_


class vfio_user_sub_region_ioeventfd(_Wire):
    _fields_ = [
        ("gpa_offset", c.c_uint64),
        ("size", c.c_uint64),
        ("fd_index", c.c_uint32),
        ("type", c.c_uint32),
        ("flags", c.c_uint32),
        ("shadow_mem_fd_index", c.c_uint32),
        ("shadow_offset", c.c_uint64),
        ("datamatch", c.c_uint64),
    ]


class vfio_user_device_feature(_Wire):
    _fields_ = [("argsz", c.c_uint32), ("flags", c.c_uint32)]


class vfio_user_device_feature_migration(_Wire):
    _fields_ = [("flags", c.c_uint64)]


class vfio_user_device_feature_mig_state(_Wire):
    _fields_ = [("device_state", c.c_uint32), ("data_fd", c.c_uint32)]


class vfio_user_device_feature_dma_logging_control(_Wire):
    _fields_ = [
        ("page_size", c.c_uint64),
        ("num_ranges", c.c_uint32),
        ("reserved", c.c_uint32),
    ]


class vfio_user_device_feature_dma_logging_range(_Wire):
    _fields_ = [("iova", c.c_uint64), ("length", c.c_uint64)]


class vfio_user_device_feature_dma_logging_report(_Wire):
    _fields_ = [
        ("iova", c.c_uint64),
        ("length", c.c_uint64),
        ("page_size", c.c_uint64),
    ]


class vfio_user_mig_data(_Wire):
    _fields_ = [("argsz", c.c_uint32), ("size", c.c_uint32)]


# Structures of linux/vfio.h that travel on the wire


class vfio_region_info(c.Structure):
    _fields_ = [
        ("argsz", c.c_uint32),
        ("flags", c.c_uint32),
        ("index", c.c_uint32),
        ("cap_offset", c.c_uint32),
        ("size", c.c_uint64),
        ("offset", c.c_uint64),
    ]


class vfio_info_cap_header(c.Structure):
    _fields_ = [("id", c.c_uint16), ("version", c.c_uint16), ("next", c.c_uint32)]


class vfio_region_info_cap_sparse_mmap(c.Structure):
    _fields_ = [
        ("header", vfio_info_cap_header),
        ("nr_areas", c.c_uint32),
        ("reserved", c.c_uint32),
    ]


class vfio_region_sparse_mmap_area(c.Structure):
    _fields_ = [("offset", c.c_uint64), ("size", c.c_uint64)]


class vfio_irq_info(c.Structure):
    _fields_ = [
        ("argsz", c.c_uint32),
        ("flags", c.c_uint32),
        ("index", c.c_uint32),
        ("count", c.c_uint32),
    ]


class vfio_irq_set(c.Structure):
    _fields_ = [
        ("argsz", c.c_uint32),
        ("flags", c.c_uint32),
        ("index", c.c_uint32),
        ("start", c.c_uint32),
        ("count", c.c_uint32),
    ]


# API structures (libvfio-user.h)


class iovec(c.Structure):
    _fields_ = [("iov_base", c.c_void_p), ("iov_len", c.c_size_t)]


class vfu_dma_info_t(c.Structure):
    _fields_ = [
        ("iova", iovec),
        ("vaddr", c.c_void_p),
        ("mapping", iovec),
        ("page_size", c.c_size_t),
        ("prot", c.c_uint32),
    ]


class dma_sg_t(c.Structure):
    """The layout of the opaque entry, as far as tests need to see it."""

    _fields_ = [
        ("dma_addr", c.c_void_p),
        ("region", c.c_uint64),
        ("length", c.c_uint64),
        ("offset", c.c_uint64),
        ("writeable", c.c_bool),
    ]


class vfu_bar_t(c.Union):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("raw", c.c_uint32)]


class vfu_pci_hdr_id_t(_Wire):
    _fields_ = [("vid", c.c_uint16), ("did", c.c_uint16)]


class vfu_pci_hdr_ss_t(_Wire):
    _fields_ = [("vid", c.c_uint16), ("sid", c.c_uint16)]


class vfu_pci_hdr_intr_t(_Wire):
    _fields_ = [("iline", c.c_uint8), ("ipin", c.c_uint8)]


class vfu_pci_hdr_cc_t(_Wire):
    _fields_ = [("pi", c.c_uint8), ("scc", c.c_uint8), ("bcc", c.c_uint8)]


class vfu_pci_hdr_t(_Wire):
    """The 64 bytes of a type 0 header."""

    _fields_ = [
        ("id", vfu_pci_hdr_id_t),
        ("cmd", c.c_uint16),
        ("sts", c.c_uint16),
        ("rid", c.c_uint8),
        ("cc", vfu_pci_hdr_cc_t),
        ("cls", c.c_uint8),
        ("mlt", c.c_uint8),
        ("htype", c.c_uint8),
        ("bist", c.c_uint8),
        ("bars", vfu_bar_t * 6),
        ("ccptr", c.c_uint32),
        ("ss", vfu_pci_hdr_ss_t),
        ("erom", c.c_uint32),
        ("cap", c.c_uint8),
        ("res1", c.c_uint8 * 7),
        ("intr", vfu_pci_hdr_intr_t),
        ("mgnt", c.c_uint8),
        ("mlat", c.c_uint8),
    ]


class vfu_pci_config_space_t(c.Union):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("raw", c.c_uint8 * 256), ("hdr", vfu_pci_hdr_t)]


# Callback prototypes. use_errno: what a callback leaves in ctypes' errno becomes C's.

vfu_log_fn_t = c.CFUNCTYPE(None, c.c_void_p, c.c_int, c.c_char_p, use_errno=True)
vfu_region_access_cb_t = c.CFUNCTYPE(
    c.c_ssize_t,
    c.c_void_p,
    c.POINTER(c.c_char),
    c.c_size_t,
    c.c_longlong,
    c.c_bool,
    use_errno=True,
)
vfu_device_quiesce_cb_t = c.CFUNCTYPE(c.c_int, c.c_void_p, use_errno=True)
vfu_reset_cb_t = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_int, use_errno=True)
vfu_dma_register_cb_t = c.CFUNCTYPE(
    None, c.c_void_p, c.POINTER(vfu_dma_info_t), use_errno=True
)
vfu_dma_unregister_cb_t = vfu_dma_register_cb_t
vfu_dev_irq_state_cb_t = c.CFUNCTYPE(
    None, c.c_void_p, c.c_uint32, c.c_uint32, c.c_bool, use_errno=True
)
migration_transition_t = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_int, use_errno=True)
migration_data_t = c.CFUNCTYPE(
    c.c_ssize_t, c.c_void_p, c.c_void_p, c.c_uint64, use_errno=True
)


class vfu_migration_callbacks_t(c.Structure):
    _fields_ = [
        ("version", c.c_int),
        ("transition", migration_transition_t),
        ("read_data", migration_data_t),
        ("write_data", migration_data_t),
    ]
