"""Realizing a device: what it settles, and what needs it."""

import ctypes
import errno

import pytest

from .harness import *


def bars(ctx):
    return [bar.raw for bar in get_pci_header(ctx).bars]


def test_realize_twice_changes_nothing(ctx):
    realize(ctx)
    before = bytes(get_config_space(ctx))
    realize(ctx)
    assert bytes(get_config_space(ctx)) == before


def test_run_needs_realize(ctx):
    run(ctx, errno.EINVAL)


def test_run_needs_a_client(ctx):
    realize(ctx)
    run(ctx, errno.ENOTCONN)


def test_config_space_exists_from_realize_on(ctx):
    assert not lib.vfu_pci_get_config_space(ctx)
    realize(ctx)
    assert len(bytes(get_config_space(ctx))) == 256


def test_config_space_stays_at_its_address(ctx):
    pci_init(ctx, VFU_PCI_TYPE_EXPRESS)
    before = c_address(ctx)
    setup_region(ctx, VFU_PCI_DEV_CFG_REGION_IDX, 4096)
    realize(ctx)
    sock = connect_client(ctx)
    disconnect(ctx, sock)
    assert c_address(ctx) == before


def c_address(ctx):
    return ctypes.addressof(lib.vfu_pci_get_config_space(ctx).contents)


def test_unconfigured_bars_read_as_io(ctx):
    realize(ctx)
    assert bars(ctx) == [1] * 6


@pytest.mark.parametrize(
    ("flags", "register"),
    [
        (0, 0x1),
        (VFU_REGION_FLAG_MEM, 0x0),
        (VFU_REGION_FLAG_MEM | VFU_REGION_FLAG_64_BITS, 0x4),
        (VFU_REGION_FLAG_MEM | VFU_REGION_FLAG_PREFETCH, 0x8),
        (
            VFU_REGION_FLAG_MEM | VFU_REGION_FLAG_64_BITS | VFU_REGION_FLAG_PREFETCH,
            0xC,
        ),
    ],
)
def test_bar_type_bits(ctx, flags, register):
    setup_region(ctx, VFU_PCI_DEV_BAR2_REGION_IDX, 4096, flags=flags | 3)
    realize(ctx)
    assert bars(ctx)[2] == register
    assert bars(ctx)[1] == 1


def test_prefetch_without_64_bits_is_warned_about(ctx):
    flags = VFU_REGION_FLAG_RW | VFU_REGION_FLAG_MEM | VFU_REGION_FLAG_PREFETCH
    setup_region(ctx, VFU_PCI_DEV_BAR0_REGION_IDX, 4096, flags=flags)
    realize(ctx)
    assert ctx.logged(LOG_WARNING)


@pytest.mark.defect("D15")
@pytest.mark.parametrize("size", [4096, 4 << 30])
def test_upper_half_of_a_64_bit_bar_starts_as_zero(ctx, size):
    flags = VFU_REGION_FLAG_RW | VFU_REGION_FLAG_MEM | VFU_REGION_FLAG_64_BITS
    setup_region(ctx, VFU_PCI_DEV_BAR0_REGION_IDX, size, flags=flags)
    realize(ctx)
    assert bars(ctx)[:3] == [4, 0, 1]


@pytest.mark.parametrize(("count", "pin"), [(0, 0), (1, 1)])
def test_interrupt_pin_follows_intx(ctx, count, pin):
    setup_irqs(ctx, VFU_DEV_INTX_IRQ, count)
    realize(ctx)
    assert get_pci_header(ctx).intr.ipin == pin


def test_capability_sets_the_status_bit(ctx):
    pci_init(ctx)
    ok(lib.vfu_pci_add_capability, ctx, 0, 0, bytes([PCI_CAP_ID_PM]) + bytes(7))
    realize(ctx)
    assert get_pci_header(ctx).sts == PCI_STATUS_CAP_LIST


def test_no_capability_no_status_bit(ctx):
    pci_init(ctx)
    realize(ctx)
    assert get_pci_header(ctx).sts == 0


@pytest.mark.defect("D23")
def test_capability_after_realize_sets_the_status_bit_too(ctx):
    pci_init(ctx)
    realize(ctx)
    ok(lib.vfu_pci_add_capability, ctx, 0, 0, bytes([PCI_CAP_ID_PM]) + bytes(7))
    assert get_pci_header(ctx).sts == PCI_STATUS_CAP_LIST


def test_what_the_device_wrote_survives(ctx):
    pci_init(ctx)
    lib.vfu_pci_set_id(ctx, 0x494F, 0x0DC8, 0x1AF4, 0x1100)
    lib.vfu_pci_set_class(ctx, 1, 8, 2)
    get_pci_header(ctx).rid = 7
    realize(ctx)
    header = get_pci_header(ctx)
    assert (header.id.vid, header.id.did) == (0x494F, 0x0DC8)
    assert (header.ss.vid, header.ss.sid) == (0x1AF4, 0x1100)
    assert (header.cc.bcc, header.cc.scc, header.cc.pi) == (1, 8, 2)
    assert header.rid == 7


@pytest.mark.parametrize("pci_type", [-1, 4, 99])
def test_pci_init_unknown_type(ctx, pci_type):
    fails(errno.EINVAL, lib.vfu_pci_init, ctx, pci_type, 0, 0)
    assert ctx.logged(LOG_ERR)


@pytest.mark.parametrize("header_type", [1, 2, -1])
def test_pci_init_unknown_header_type(ctx, header_type):
    fails(errno.EINVAL, lib.vfu_pci_init, ctx, 0, header_type, 0)


def test_pci_init_only_once(ctx):
    pci_init(ctx)
    fails(errno.EEXIST, lib.vfu_pci_init, ctx, VFU_PCI_TYPE_EXPRESS, 0, 0)


def test_pci_init_after_realize_is_too_late(ctx):
    realize(ctx)
    fails(errno.EEXIST, lib.vfu_pci_init, ctx, VFU_PCI_TYPE_EXPRESS, 0, 0)


@pytest.mark.defect("D24")
def test_pci_init_stores_the_revision(ctx):
    ok(lib.vfu_pci_init, ctx, VFU_PCI_TYPE_EXPRESS, 0, 0x42)
    assert get_pci_header(ctx).rid == 0x42


@pytest.mark.defect("D27")
def test_config_region_cannot_outgrow_what_was_allocated(ctx):
    pci_init(ctx)
    # Either refused, or cut down to the 256 bytes that exist.
    lib.vfu_setup_region(
        ctx,
        VFU_PCI_DEV_CFG_REGION_IDX,
        1 << 20,
        t.vfu_region_access_cb_t(),
        VFU_REGION_FLAG_RW,
        None,
        0,
        -1,
        0,
    )
    sock = serve(ctx)
    request = bytes(t.vfio_user_region_access(offset=1 << 19, region=7, count=64))
    msg(ctx, sock, VFIO_USER_REGION_READ, request, expect=errno.EINVAL)
