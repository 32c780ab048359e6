"""DEVICE_RESET and the function level reset."""

import errno

import pytest

from .commands import *
from .harness import *

EXP = 0x40
DEVCTL = EXP + PCI_EXP_DEVCTL
FLR = PCI_EXP_DEVCTL_BCR_FLR


def add_express(ctx, flr):
    data = bytearray(VFIO_USER_PCI_CAP_EXP_SIZEOF)
    data[0] = PCI_CAP_ID_EXP
    if flr:
        data[4:8] = PCI_EXP_DEVCAP_FLR.to_bytes(4, "little")
    assert ok(lib.vfu_pci_add_capability, ctx, 0, 0, bytes(data)) == EXP


@pytest.fixture(params=[True], ids=["flr"])
def device(request, ctx):
    pci_init(ctx, VFU_PCI_TYPE_EXPRESS)
    add_express(ctx, flr=request.param)
    ctx.quiesce = setup_quiesce(ctx)
    ctx.reset = setup_reset(ctx)
    ctx.dma = setup_dma(ctx)
    ctx.sock = serve(ctx)
    return ctx


def test_device_reset(device):
    assert msg(device, device.sock, VFIO_USER_DEVICE_RESET) == b""
    assert device.reset.calls == [VFU_RESET_DEVICE]
    assert device.reset.contexts == [device.value]
    assert device.quiesce.count == 1
    assert device.logged(LOG_INFO)


@pytest.mark.parametrize("number", [errno.EIO, errno.EBUSY, 0xBEEF])
def test_failing_device_reset(device, number):
    device.reset.fail(number)
    msg(device, device.sock, VFIO_USER_DEVICE_RESET, expect=number)
    assert get_errno() == number
    msg(device, device.sock, VFIO_USER_DEVICE_RESET)


def test_device_reset_without_callback(ctx):
    sock = serve(ctx)
    msg(ctx, sock, VFIO_USER_DEVICE_RESET)


def test_callback_may_be_removed(device):
    ok(lib.vfu_setup_device_reset_cb, device, t.vfu_reset_cb_t())
    msg(device, device.sock, VFIO_USER_DEVICE_RESET)
    assert device.reset.count == 0


def test_device_reset_leaves_the_rest_alone(device, fds):
    """Memory, interrupts and config space are the device's to reset."""
    event = fds.eventfd()
    set_irqs(device, device.sock, VFU_DEV_ERR_IRQ, SET_EVENTFDS, 0, 1, fds=[event])
    dma_map(device, device.sock, 0x10000, PAGE_SIZE, fds.memfd(PAGE_SIZE))
    cfg_write(device, device.sock, PCI_CACHE_LINE_SIZE, b"\x40")
    before = open_fds()
    msg(device, device.sock, VFIO_USER_DEVICE_RESET)
    assert open_fds() == before
    assert is_mapped(device, 0x10000)
    assert device.dma.unregister.count == 0
    assert cfg_read(device, device.sock, PCI_CACHE_LINE_SIZE, 1) == b"\x40"
    set_irqs(device, device.sock, VFU_DEV_ERR_IRQ, TRIGGER_NONE, 0, 1)
    assert eventfd_value(event) == 1


def test_device_may_reset_its_registers_in_the_callback(device):
    cfg_write(device, device.sock, PCI_COMMAND, PCI_COMMAND_MEMORY, 2)

    def clear(_kind):
        get_pci_header(device).cmd = 0

    device.reset.action = clear
    msg(device, device.sock, VFIO_USER_DEVICE_RESET)
    assert cfg_read_int(device, device.sock, PCI_COMMAND, 2) == 0


# Function level reset


def test_function_level_reset(device):
    cfg_write(device, device.sock, DEVCTL, FLR, 2)
    assert device.reset.calls == [VFU_RESET_PCI_FLR]
    assert device.quiesce.count == 1


def test_the_bit_is_not_stored_but_the_others_are(device):
    cfg_write(device, device.sock, DEVCTL, FLR | 0x0010, 2)
    assert cfg_read_int(device, device.sock, DEVCTL, 2) == 0x0010


def test_without_the_bit_nothing_is_reset(device):
    cfg_write(device, device.sock, DEVCTL, 0x7FFF, 2)
    assert cfg_read_int(device, device.sock, DEVCTL, 2) == 0x7FFF
    assert device.reset.count == 0
    assert device.quiesce.count == 1


@pytest.mark.parametrize("device", [False], indirect=True, ids=["no flr"])
def test_function_level_reset_that_the_device_does_not_have(device):
    cfg_write(device, device.sock, DEVCTL, FLR | 1, 2, expect=errno.EINVAL)
    assert device.reset.count == 0
    assert cfg_read_int(device, device.sock, DEVCTL, 2) == 1


def test_failing_function_level_reset(device):
    device.reset.fail(errno.EIO)
    cfg_write(device, device.sock, DEVCTL, FLR, 2, expect=errno.EIO)


def test_function_level_reset_without_callback(ctx):
    pci_init(ctx, VFU_PCI_TYPE_EXPRESS)
    add_express(ctx, flr=True)
    sock = serve(ctx)
    cfg_write(ctx, sock, DEVCTL, FLR, 2)


def test_function_level_reset_of_a_realized_device(ctx):
    """A capability that came later works as well."""
    pci_init(ctx, VFU_PCI_TYPE_EXPRESS)
    reset = setup_reset(ctx)
    sock = serve(ctx)
    add_express(ctx, flr=True)
    cfg_write(ctx, sock, DEVCTL, FLR, 2)
    assert reset.calls == [VFU_RESET_PCI_FLR]


@pytest.mark.parametrize(
    "number",
    [
        *(errno.EBADF, errno.ENOMEM, errno.EEXIST, errno.ENOTDIR, errno.ENFILE),
        *(errno.EPIPE, errno.ENAMETOOLONG, errno.ENOMSG, errno.EPROTO, errno.ENOBUFS),
        *(errno.EADDRINUSE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT),
        *(errno.ECONNREFUSED, errno.EPERM, errno.ENOSPC, errno.EROFS),
    ],
    ids=error_name,
)
@pytest.mark.extension
def test_the_devices_error_is_named_in_the_log(device, number):
    device.reset.fail(number)
    msg(device, device.sock, VFIO_USER_DEVICE_RESET, expect=number)
    assert error_name(number) in device.logged(LOG_ERR)


@pytest.mark.extension
def test_error_without_a_name_is_a_number(device):
    device.reset.fail(3999)
    msg(device, device.sock, VFIO_USER_DEVICE_RESET, expect=3999)
    assert "3999" in device.logged(LOG_ERR)
