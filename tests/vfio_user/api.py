"""The library under test: found, loaded, and its 34 functions declared exactly.

``LIBVFIO_USER_SO`` names the file; without it the release build of this checkout is
taken. ``lib`` is a plain ``ctypes.CDLL``; after a call that failed, ``get_errno()``
has its errno.
"""

import ctypes as c
import os
from pathlib import Path

from . import types as t

ROOT = Path(__file__).resolve().parents[2]

_ctx = c.c_void_p
_sgl = c.POINTER(t.dma_sg_t)
_iov = c.POINTER(t.iovec)

# name: (result, arguments)
PROTOTYPES: dict[str, tuple[type | None, list[type]]] = {
    "dma_sg_size": (c.c_size_t, []),
    "vfu_create_ctx": (_ctx, [c.c_int, c.c_char_p, c.c_int, c.c_void_p, c.c_int]),
    "vfu_realize_ctx": (c.c_int, [_ctx]),
    "vfu_attach_ctx": (c.c_int, [_ctx]),
    "vfu_get_poll_fd": (c.c_int, [_ctx]),
    "vfu_run_ctx": (c.c_int, [_ctx]),
    "vfu_destroy_ctx": (None, [_ctx]),
    "vfu_get_private": (c.c_void_p, [_ctx]),
    # C-variadic: what follows fmt is passed as is
    "vfu_log": (None, [_ctx, c.c_int, c.c_char_p]),
    "vfu_setup_log": (c.c_int, [_ctx, t.vfu_log_fn_t, c.c_int]),
    "vfu_setup_region": (
        c.c_int,
        [
            _ctx,
            c.c_int,
            c.c_size_t,
            t.vfu_region_access_cb_t,
            c.c_int,
            _iov,
            c.c_uint32,
            c.c_int,
            c.c_uint64,
        ],
    ),
    "vfu_setup_device_reset_cb": (c.c_int, [_ctx, t.vfu_reset_cb_t]),
    "vfu_setup_device_quiesce_cb": (None, [_ctx, t.vfu_device_quiesce_cb_t]),
    "vfu_device_quiesced": (c.c_int, [_ctx, c.c_int]),
    "vfu_setup_device_dma": (
        c.c_int,
        [_ctx, c.c_size_t, t.vfu_dma_register_cb_t, t.vfu_dma_unregister_cb_t],
    ),
    "vfu_setup_device_nr_irqs": (c.c_int, [_ctx, c.c_int, c.c_uint32]),
    "vfu_setup_irq_state_callback": (
        c.c_int,
        [_ctx, c.c_int, t.vfu_dev_irq_state_cb_t],
    ),
    "vfu_setup_device_migration_callbacks": (
        c.c_int,
        [_ctx, c.POINTER(t.vfu_migration_callbacks_t)],
    ),
    "vfu_irq_trigger": (c.c_int, [_ctx, c.c_uint32]),
    "vfu_addr_to_sgl": (
        c.c_int,
        [_ctx, c.c_void_p, c.c_size_t, _sgl, c.c_size_t, c.c_int],
    ),
    "vfu_sgl_get": (c.c_int, [_ctx, _sgl, _iov, c.c_size_t, c.c_int]),
    "vfu_sgl_mark_dirty": (None, [_ctx, _sgl, c.c_size_t]),
    "vfu_sgl_put": (None, [_ctx, _sgl, _iov, c.c_size_t]),
    "vfu_sgl_read": (c.c_int, [_ctx, _sgl, c.c_size_t, c.c_void_p, c.c_int]),
    "vfu_sgl_write": (c.c_int, [_ctx, _sgl, c.c_size_t, c.c_void_p, c.c_int]),
    "vfu_sg_is_mappable": (c.c_bool, [_ctx, _sgl]),
    "vfu_pci_init": (c.c_int, [_ctx, c.c_int, c.c_int, c.c_int]),
    "vfu_pci_set_id": (
        None,
        [_ctx, c.c_uint16, c.c_uint16, c.c_uint16, c.c_uint16],
    ),
    "vfu_pci_set_class": (None, [_ctx, c.c_uint8, c.c_uint8, c.c_uint8]),
    "vfu_pci_get_config_space": (c.POINTER(t.vfu_pci_config_space_t), [_ctx]),
    "vfu_pci_add_capability": (
        c.c_ssize_t,
        [_ctx, c.c_size_t, c.c_int, c.c_void_p],
    ),
    "vfu_pci_find_capability": (c.c_size_t, [_ctx, c.c_bool, c.c_int]),
    "vfu_pci_find_next_capability": (
        c.c_size_t,
        [_ctx, c.c_bool, c.c_size_t, c.c_int],
    ),
    "vfu_create_ioeventfd": (
        c.c_int,
        [
            _ctx,
            c.c_uint32,
            c.c_int,
            c.c_size_t,
            c.c_uint32,
            c.c_uint32,
            c.c_uint64,
            c.c_int,
            c.c_size_t,
        ],
    ),
}


def library_path() -> str:
    """Where the library under test is; FileNotFoundError says how to get one."""
    named = os.environ.get("LIBVFIO_USER_SO")
    path = Path(named) if named else ROOT / "target/release/libvfio_user.so"
    if not path.exists():
        raise FileNotFoundError(
            f"no library under test at {path}: build it with "
            "`cargo build --release -p libvfio-user`, or set LIBVFIO_USER_SO to the "
            "path of a libvfio-user.so.0"
        )
    return str(path.resolve())


def load(path: str) -> c.CDLL:
    """Load the library and declare its functions; a missing one is an error."""
    library = c.CDLL(path, use_errno=True)
    for name, (result, arguments) in PROTOTYPES.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


lib = load(library_path())
get_errno = c.get_errno
set_errno = c.set_errno
