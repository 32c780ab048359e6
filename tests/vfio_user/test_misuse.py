"""Wrong use of the C API: an error and a line in the log, never the end of the process.

What the C library leaves undefined has an answer here.
"""

import ctypes
import errno

import pytest

from .api import PROTOTYPES
from .commands import *
from .harness import *

pytestmark = pytest.mark.extension

PCI_CAP = bytes([PCI_CAP_ID_PM]) + bytes(7)

NAMES = sorted(name for name, (_, arguments) in PROTOTYPES.items() if arguments)
WITH_CONTEXT = [name for name in NAMES if name != "vfu_create_ctx"]


def zeros(name):
    """A null or 0 for each argument."""
    return [
        None if argument in (ctypes.c_void_p, ctypes.c_char_p) else argument()
        for argument in PROTOTYPES[name][1]
    ]


@pytest.mark.parametrize("name", WITH_CONTEXT)
def test_null_context(name):
    set_errno(0)
    result = getattr(lib, name)(*zeros(name))
    kind = PROTOTYPES[name][0]
    if kind in (ctypes.c_int, ctypes.c_ssize_t):
        assert (result, get_errno()) == (-1, errno.EINVAL)
    else:
        assert not result


@pytest.mark.parametrize("name", sorted({*WITH_CONTEXT} - {"vfu_destroy_ctx"}))
@pytest.mark.parametrize("state", ["created", "realized", "attached"])
def test_null_for_everything_else(new_ctx, name, state):
    """Whatever the answer is, it is one; and the context can still be destroyed."""
    ctx = new_ctx()
    setup_dma(ctx)
    setup_quiesce(ctx)
    setup_migration(ctx)
    if state != "created":
        realize(ctx)
    if state == "attached":
        connect_client(ctx)
    getattr(lib, name)(ctx, *zeros(name)[1:])
    ctx.destroy()


def test_create_without_a_path():
    fails(errno.EINVAL, lib.vfu_create_ctx, 0, None, 0, None, 0, result=None)


def test_migration_without_callbacks(ctx):
    function = lib.vfu_setup_device_migration_callbacks
    fails(errno.EINVAL, function, ctx, None)


def test_trigger_before_realize(ctx):
    setup_irqs(ctx, VFU_DEV_MSIX_IRQ, 4)
    fails(errno.EINVAL, lib.vfu_irq_trigger, ctx, 0)


def test_ids_before_there_is_a_config_space(ctx):
    lib.vfu_pci_set_id(ctx, 1, 2, 3, 4)
    lib.vfu_pci_set_class(ctx, 1, 2, 3)
    realize(ctx)
    assert get_pci_header(ctx).id.vid in (0, 1)


def test_capability_before_there_is_a_config_space(ctx):
    fails(errno.EINVAL, lib.vfu_pci_add_capability, ctx, 0, 0, b"\x01" + bytes(7))
    assert lib.vfu_pci_find_capability(ctx, False, PCI_CAP_ID_PM) == 0
    assert ctx.logged(LOG_ERR)


def test_capability_without_data(ctx):
    pci_init(ctx)
    fails(errno.EINVAL, lib.vfu_pci_add_capability, ctx, 0, 0, None)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_vendor_capability_that_says_it_is_smaller_than_its_header(ctx, size):
    pci_init(ctx)
    data = bytes([PCI_CAP_ID_VNDR, 0, size]) + bytes(32)
    fails(errno.EINVAL, lib.vfu_pci_add_capability, ctx, 0, 0, data)


@pytest.mark.parametrize("size", [0, 4, 7])
def test_extended_vendor_capability_smaller_than_its_header(ctx, size):
    pci_init(ctx, VFU_PCI_TYPE_EXPRESS)
    data = bytes([PCI_EXT_CAP_ID_VNDR, 0, 1, 0]) + (size << 20).to_bytes(4, "little")
    flags = VFU_CAP_FLAG_EXTENDED
    fails(errno.EINVAL, lib.vfu_pci_add_capability, ctx, 0, flags, data + bytes(64))


@pytest.fixture
def device(ctx, fds):
    ctx.quiesce = setup_quiesce(ctx)
    setup_dma(ctx)
    ctx.sock = serve(ctx)
    dma_map(ctx, ctx.sock, 0x10000, PAGE_SIZE, fds.memfd(PAGE_SIZE))
    ctx.sgl = addr_to_sgl(ctx, 0x10000, 8)
    return ctx


@pytest.mark.parametrize("function", [lib.vfu_sgl_read, lib.vfu_sgl_write])
def test_transfer_by_message_while_the_device_quiesces(device, function):
    """The client waits for the parked request: it could not be asked."""
    device.quiesce.fail(errno.EBUSY)
    msg(device, device.sock, VFIO_USER_DEVICE_RESET, busy=True)
    buffer = ctypes.create_string_buffer(8)
    fails(errno.EBUSY, function, device, device.sgl, 1, buffer, 0)
    ok(lib.vfu_device_quiesced, device, 0)


def test_memory_outside_callbacks_while_the_device_quiesces(device):
    """No abort: an error, or the entries; they are checked on every use."""
    device.quiesce.fail(errno.EBUSY)
    msg(device, device.sock, VFIO_USER_DEVICE_RESET, busy=True)
    iov = (t.iovec * 1)()
    assert lib.vfu_addr_to_sgl(device, 0x10000, 8, device.sgl, 1, 3) in (1, -1)
    assert lib.vfu_sgl_get(device, device.sgl, iov, 1, 0) in (0, -1)
    lib.vfu_sgl_put(device, device.sgl, iov, 1)
    ok(lib.vfu_device_quiesced, device, 0)


@pytest.mark.parametrize("count", [0, 1 << 20])
def test_get_of_no_entries_and_of_empty_ones(device, count):
    sgl, iov = sgl_array(max(count, 1)), (t.iovec * max(count, 1))()
    assert lib.vfu_sgl_get(device, sgl, iov, count, 0) in (0, -1)
    lib.vfu_sgl_put(device, sgl, iov, count)
    lib.vfu_sgl_mark_dirty(device, sgl, count)


@pytest.mark.parametrize("garbage", [1, UINT32_MAX, 0x7FFF_FFFF_FFFF_FFF8, UINT64_MAX])
def test_entry_that_the_device_made_up(device, garbage):
    [entry] = device.sgl
    entry.region = garbage
    iov = (t.iovec * 1)()
    fails(errno.EINVAL, lib.vfu_sgl_get, device, device.sgl, iov, 1, 0)
    assert not lib.vfu_sg_is_mappable(device, device.sgl)
    lib.vfu_sgl_put(device, device.sgl, iov, 1)
    buffer = ctypes.create_string_buffer(8)
    for function in (lib.vfu_sgl_read, lib.vfu_sgl_write):
        assert function(device, device.sgl, 1, buffer, VFU_SGL_DIRECT_ACCESS) == -1


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (PAGE_SIZE, 8),
        (PAGE_SIZE - 4, 8),
        (UINT64_MAX, 8),
        (0, UINT64_MAX),
        (8, 1 << 63),
    ],
)
def test_entry_that_the_device_made_longer(device, offset, length):
    """Entries live in the device's memory, but do not lead out of their region."""
    [entry] = device.sgl
    entry.offset, entry.length = offset, length
    iov = (t.iovec * 1)()
    assert lib.vfu_sgl_get(device, device.sgl, iov, 1, 0) == -1
    lib.vfu_sgl_mark_dirty(device, device.sgl, 1)
    buffer = ctypes.create_string_buffer(8)
    for function in (lib.vfu_sgl_read, lib.vfu_sgl_write):
        assert function(device, device.sgl, 1, buffer, VFU_SGL_DIRECT_ACCESS) == -1


def test_entry_of_another_context(device, new_ctx, fds):
    other = new_ctx()
    setup_dma(other)
    sock = serve(other)
    dma_map(other, sock, 0x10000, PAGE_SIZE, fds.memfd(PAGE_SIZE))
    iov = (t.iovec * 1)()
    assert lib.vfu_sgl_get(other, device.sgl, iov, 1, 0) in (0, -1)
    other.destroy()
    assert sgl_get(device, device.sgl)[0].iov_len == 8


def test_setup_repeated_while_a_client_is_there(device):
    """Each is refused, or takes the place of the one before."""
    for _ in range(3):
        setup_migration(device)
        setup_irqs_if_possible(device)
        realize(device)
        setup_region(device, 0, 4096, RegionMemory(4096))
    get_device_info(device, device.sock)


def setup_irqs_if_possible(ctx):
    if lib.vfu_setup_device_nr_irqs(ctx, VFU_DEV_MSIX_IRQ, 1000) == -1:
        assert get_errno() in (errno.EINVAL, errno.EBUSY)


@pytest.mark.parametrize("count", [65_537, 1 << 31, UINT32_MAX])
def test_more_vectors_than_any_device_has(ctx, count):
    """They would be a table of gigabytes."""
    fails(errno.EINVAL, lib.vfu_setup_device_nr_irqs, ctx, VFU_DEV_MSIX_IRQ, count)
    ok(lib.vfu_realize_ctx, ctx)


NO_CB = t.vfu_region_access_cb_t()
REFUSED = {
    "region flags": (lib.vfu_setup_region, 0, 4096, NO_CB, 99, None, 0, -1, 0),
    "region index": (lib.vfu_setup_region, 9, 4096, NO_CB, 3, None, 0, -1, 0),
    "region size": (lib.vfu_setup_region, 0, 4097, NO_CB, 3, None, 0, -1, 0),
    "region callback": (lib.vfu_setup_region, 7, 256, NO_CB, 11, None, 0, -1, 0),
    "region areas": (lib.vfu_setup_region, 0, 4096, NO_CB, 3, None, 1, -1, 0),
    "config region": (lib.vfu_setup_region, 7, 256, NO_CB, 7, None, 0, -1, 0),
    "odd 64-bit BAR": (lib.vfu_setup_region, 1, 4096, NO_CB, 23, None, 0, -1, 0),
    "irq type": (lib.vfu_setup_device_nr_irqs, 5, 1),
    "irq callback": (lib.vfu_setup_irq_state_callback, 5, t.vfu_dev_irq_state_cb_t()),
    "pci type": (lib.vfu_pci_init, 9, 0, 0),
    "ioeventfd region": (lib.vfu_create_ioeventfd, 9, -1, 0, 8, 0, 0, -1, 0),
    "ioeventfd range": (lib.vfu_create_ioeventfd, 0, -1, 0, 8, 0, 0, -1, 0),
    "ioeventfd": (lib.vfu_create_ioeventfd, 0, -2, 0, 0, 0, 0, -1, 0),
    "trigger": (lib.vfu_irq_trigger, 7),
    "quiesced": (lib.vfu_device_quiesced, 0),
    "attach": (lib.vfu_attach_ctx,),
    "run": (lib.vfu_run_ctx,),
    "log level": (lib.vfu_setup_log, t.vfu_log_fn_t(), 8),
    "capability flags": (lib.vfu_pci_add_capability, 0, 99, PCI_CAP),
    "capability position": (lib.vfu_pci_add_capability, 8, 0, PCI_CAP),
    "migration": (lib.vfu_setup_device_migration_callbacks, None),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_refusal_is_explained_in_the_log(ctx, call):
    function, *arguments = call
    ctx.log.clear()
    assert function(ctx, *arguments) == -1
    if get_errno() != errno.EAGAIN:
        assert ctx.log


def test_translation_without_a_place_for_entries(device):
    fails(errno.EINVAL, lib.vfu_addr_to_sgl, device, 0x10000, 8, None, 1, 3)
    assert lib.vfu_addr_to_sgl(device, 0x10000, 8, None, 0, 3) == -2


@pytest.mark.parametrize("function", [lib.vfu_sgl_read, lib.vfu_sgl_write])
def test_list_with_an_entry_that_was_never_filled(device, function):
    entries = sgl_array(2)
    entries[0] = device.sgl[0]
    buffer = ctypes.create_string_buffer(16)
    fails(errno.ENOTSUP, function, device, entries, 2, buffer, VFU_SGL_DIRECT_ACCESS)


def test_destroy_inside_a_callback(ctx):
    region = RegionMemory(64)

    def destroy(_buf, count, *_):
        lib.vfu_destroy_ctx(ctx)
        return count

    region.action = destroy
    setup_region(ctx, 0, 64, region)
    sock = serve(ctx)
    assert region_read(ctx, sock, 0, 0, 4) == bytes(4)
    assert "vfu_destroy_ctx" in ctx.logged(LOG_ERR)


def test_destroy_inside_the_log_handler(ctx, tmp_path):
    def destroy(this, _level, text):
        lines.append(text)
        if len(lines) == 1:
            lib.vfu_destroy_ctx(this)

    lines = []
    handler = ctx.keep(t.vfu_log_fn_t(destroy))
    ok(lib.vfu_setup_log, ctx, handler, LOG_ERR)
    realize(ctx)
    fails(errno.ENOTCONN, lib.vfu_run_ctx, ctx)  # which is logged
    lib.vfu_log(ctx, LOG_ERR, b"still here")
    assert lines[-1] == b"still here"
    assert any(b"vfu_destroy_ctx" in line for line in lines)
    ok(lib.vfu_setup_log, ctx, ctx._log_fn, LOG_DEBUG)


@pytest.mark.parametrize("revision", [-1, 256, 0x1234])
def test_revision_that_does_not_fit(ctx, revision):
    ok(lib.vfu_pci_init, ctx, VFU_PCI_TYPE_CONVENTIONAL, 0, revision)
    assert get_config_space(ctx)[8] == revision & 0xFF
    assert "revision" in ctx.logged(LOG_WARNING)


@pytest.mark.parametrize("size", [1, 63])
def test_config_region_smaller_than_a_header(ctx, size):
    index = VFU_PCI_DEV_CFG_REGION_IDX
    setup_region(ctx, index, size, expect=errno.EINVAL)


@pytest.mark.parametrize("command", [VFIO_USER_VERSION, VFIO_USER_DMA_WRITE])
def test_command_of_the_other_side_while_stopped(ctx, command):
    setup_migration(ctx)
    sock = serve(ctx)
    set_mig_state(ctx, sock, VFIO_USER_DEVICE_STATE_STOP)
    ctx.log.clear()
    msg(ctx, sock, command, bytes(16), expect=errno.EINVAL)
    name = {VFIO_USER_VERSION: "VERSION", VFIO_USER_DMA_WRITE: "DMA_WRITE"}[command]
    assert name in ctx.logged(LOG_ERR)
