"""DEVICE_GET_INFO and DEVICE_GET_IRQ_INFO."""

import errno

import pytest

from .commands import *
from .harness import *


@pytest.fixture
def sock(ctx):
    pci_init(ctx)
    setup_irqs(ctx, VFU_DEV_MSIX_IRQ, 2048)
    setup_irqs(ctx, VFU_DEV_MSI_IRQ, 32)
    return serve(ctx)


@pytest.mark.parametrize("argsz", [16, 32, UINT32_MAX])
def test_device_info(ctx, sock, argsz):
    info = get_device_info(ctx, sock, argsz)
    assert info.argsz == 16
    assert info.flags == VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET
    assert info.num_regions == VFU_PCI_DEV_NUM_REGIONS
    assert info.num_irqs == VFU_DEV_NUM_IRQS


@pytest.mark.parametrize("argsz", [0, 8, 15])
def test_device_info_argsz_too_small(ctx, sock, argsz):
    get_device_info(ctx, sock, argsz, expect=errno.EINVAL)


@pytest.mark.parametrize("length", [1, 8, 15])
def test_device_info_request_too_short(ctx, sock, length):
    request = bytes(t.vfio_user_device_info(argsz=16))[:length]
    msg(ctx, sock, VFIO_USER_DEVICE_GET_INFO, request, expect=errno.EINVAL)


def test_device_info_ignores_what_follows(ctx, sock):
    request = bytes(t.vfio_user_device_info(argsz=16)) + b"more"
    assert len(msg(ctx, sock, VFIO_USER_DEVICE_GET_INFO, request)) == 16


def irq_info(ctx, sock, index, argsz=16, **how):
    request = bytes(t.vfio_irq_info(argsz=argsz, index=index))
    return msg(ctx, sock, VFIO_USER_DEVICE_GET_IRQ_INFO, request, **how)


@pytest.mark.parametrize(
    ("index", "count"),
    [
        (VFU_DEV_INTX_IRQ, 0),
        (VFU_DEV_MSI_IRQ, 32),
        (VFU_DEV_MSIX_IRQ, 2048),
        (VFU_DEV_ERR_IRQ, 1),
        (VFU_DEV_REQ_IRQ, 1),
    ],
)
@pytest.mark.parametrize("argsz", [16, 64])
def test_irq_info(ctx, sock, index, count, argsz):
    payload = irq_info(ctx, sock, index, argsz)
    assert payload == bytes(t.vfio_irq_info(16, VFIO_IRQ_INFO_EVENTFD, index, count))


@pytest.mark.parametrize("index", [VFU_DEV_NUM_IRQS, 77, UINT32_MAX])
def test_irq_info_of_no_such_index(ctx, sock, index):
    irq_info(ctx, sock, index, expect=errno.EINVAL)


def test_irq_info_argsz_too_small(ctx, sock):
    irq_info(ctx, sock, VFU_DEV_ERR_IRQ, argsz=15, expect=errno.EINVAL)


def test_irq_info_request_too_short(ctx, sock):
    request = bytes(t.vfio_irq_info(argsz=16, index=VFU_DEV_ERR_IRQ))[:15]
    msg(ctx, sock, VFIO_USER_DEVICE_GET_IRQ_INFO, request, expect=errno.EINVAL)


@pytest.mark.parametrize("index", [-1, VFU_DEV_NUM_IRQS, 1000])
def test_number_of_irqs_of_no_such_type(ctx, index):
    fails(errno.EINVAL, lib.vfu_setup_device_nr_irqs, ctx, index, 1)
    assert ctx.logged(LOG_ERR)


@pytest.mark.defect("D87")
@pytest.mark.parametrize("index", [VFU_DEV_ERR_IRQ, VFU_DEV_REQ_IRQ])
def test_more_err_or_req_irqs_than_slots_close_nothing(new_ctx, fds, index):
    """Refused, or with room for them; never other descriptors at the end."""
    ctx = new_ctx()
    bystanders = fds.eventfds(50)
    lib.vfu_setup_device_nr_irqs(ctx, index, 3)
    sock = serve(ctx)
    for irq in (VFU_DEV_ERR_IRQ, VFU_DEV_REQ_IRQ):
        set_irqs(ctx, sock, irq, SET_EVENTFDS, 0, 1, fds=[bystanders[0]])
    disconnect(ctx, sock)
    ctx.destroy()
    assert set(bystanders) <= set(open_fds())
