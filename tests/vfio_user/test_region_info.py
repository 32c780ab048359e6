"""vfu_setup_region, and DEVICE_GET_REGION_INFO as the client sees it."""

import errno
import os
import struct

import pytest

from .commands import *
from .harness import *

BAR0 = VFU_PCI_DEV_BAR0_REGION_IDX
BAR1 = VFU_PCI_DEV_BAR1_REGION_IDX
BAR2 = VFU_PCI_DEV_BAR2_REGION_IDX
BAR3 = VFU_PCI_DEV_BAR3_REGION_IDX
ROM = VFU_PCI_DEV_ROM_REGION_IDX
CFG = VFU_PCI_DEV_CFG_REGION_IDX
VGA = VFU_PCI_DEV_VGA_REGION_IDX
RW = VFU_REGION_FLAG_RW
MEM_RW = VFU_REGION_FLAG_RW | VFU_REGION_FLAG_MEM
MEM64_RW = MEM_RW | VFU_REGION_FLAG_64_BITS


# What a device may set up


@pytest.mark.parametrize("flags", [0, VFU_REGION_FLAG_MEM, 0x40 | RW, 999, -1])
def test_flags_that_are_refused(ctx, flags):
    setup_region(ctx, BAR0, 4096, flags=flags, expect=errno.EINVAL)


@pytest.mark.parametrize("flags", [VFU_REGION_FLAG_READ, VFU_REGION_FLAG_WRITE, RW])
def test_one_direction_is_enough(ctx, flags):
    setup_region(ctx, BAR0, 4096, flags=flags)


def test_always_cb_needs_a_callback(ctx):
    flags = RW | VFU_REGION_FLAG_ALWAYS_CB
    setup_region(ctx, CFG, 256, flags=flags, expect=errno.EINVAL)
    setup_region(ctx, CFG, 256, RegionMemory(256), flags=flags)


@pytest.mark.parametrize("index", [-2, -1, VFU_PCI_DEV_NUM_REGIONS, 1000])
def test_index_out_of_range(ctx, index):
    setup_region(ctx, index, 4096, expect=errno.EINVAL)


def test_areas_need_a_descriptor(ctx):
    areas = [(0, 0x1000)]
    setup_region(ctx, BAR0, 0x4000, areas=areas, expect=errno.EINVAL)


@pytest.mark.parametrize(
    ("pointer", "count"), [(True, 0), (False, 1)], ids=["no count", "no pointer"]
)
def test_areas_and_their_count_belong_together(ctx, fds, pointer, count):
    areas = (t.iovec * 1)((0, 0x1000)) if pointer else None
    args = (BAR0, 0x4000, t.vfu_region_access_cb_t(), RW, areas, count)
    fails(errno.EINVAL, lib.vfu_setup_region, ctx, *args, fds.memfd(0x4000), 0)


@pytest.mark.parametrize(
    "area", [(0, 0x4001), (0x4000, 1), (0x3000, 0x1001), (0x8000, 0)]
)
def test_area_past_the_end(ctx, fds, area):
    fd = fds.memfd(0x4000)
    areas = [(0, 0x1000), area]
    setup_region(ctx, BAR0, 0x4000, areas=areas, fd=fd, expect=errno.EINVAL)


@pytest.mark.defect("D30")
def test_area_whose_end_wraps(ctx, fds):
    areas = [(UINT64_MAX - 0xFFF, 0x1000)]
    fd = fds.memfd(0x4000)
    setup_region(ctx, BAR0, 0x4000, areas=areas, fd=fd, expect=errno.EINVAL)


def test_refused_region_leaves_the_descriptor_alone(ctx, fds):
    fd = fds.memfd(0x4000)
    before = open_fds()
    areas = [(0, 0x8000)]
    setup_region(ctx, BAR0, 0x4000, areas=areas, fd=fd, expect=errno.EINVAL)
    assert open_fds() == before


def test_descriptor_stays_the_callers(new_ctx, fds):
    ctx = new_ctx()
    fd = fds.memfd(0x4000)
    setup_region(ctx, BAR0, 0x4000, fd=fd)
    realize(ctx)
    ctx.destroy()
    assert fd in open_fds()


@pytest.mark.parametrize(
    ("size", "flags"),
    [(3, RW), (2, RW), (6, RW), (0x3000, RW), (8, MEM_RW), (0x1001, MEM_RW)],
)
def test_bar_sizes_that_no_register_can_express(ctx, size, flags):
    setup_region(ctx, BAR0, size, flags=flags, expect=errno.EINVAL)


@pytest.mark.parametrize(("size", "flags"), [(4, RW), (16, MEM_RW), (1 << 31, MEM_RW)])
def test_smallest_and_large_bars(ctx, size, flags):
    setup_region(ctx, BAR0, size, flags=flags)


@pytest.mark.parametrize("index", [ROM, VGA])
def test_other_regions_may_have_any_size(ctx, index):
    setup_region(ctx, index, 0x3001)


@pytest.mark.parametrize("index", [1, 3, 5])
def test_64_bit_bar_must_be_even(ctx, index):
    setup_region(ctx, index, 4096, flags=MEM64_RW, expect=errno.EINVAL)


@pytest.mark.parametrize("index", [0, 2, 4])
@pytest.mark.parametrize("size", [0, 4096])
def test_upper_half_of_a_64_bit_bar_is_taken(ctx, index, size):
    setup_region(ctx, index, 4096, flags=MEM64_RW)
    setup_region(ctx, index + 1, size, expect=errno.EINVAL)


@pytest.mark.parametrize("index", [0, 2, 4])
def test_64_bit_bar_needs_its_neighbour_free(ctx, index):
    setup_region(ctx, index + 1, 4096)
    setup_region(ctx, index, 4096, flags=MEM64_RW, expect=errno.EINVAL)
    setup_region(ctx, index + 1, 0)
    setup_region(ctx, index, 4096, flags=MEM64_RW)


@pytest.mark.parametrize("flags", [MEM_RW, VFU_REGION_FLAG_READ, VFU_REGION_FLAG_WRITE])
def test_config_region_must_be_read_write_and_not_memory(ctx, flags):
    setup_region(ctx, CFG, 256, flags=flags, expect=errno.EINVAL)


def test_region_may_be_set_up_while_a_client_is_there(ctx):
    sock = serve(ctx)
    assert get_region_info(ctx, sock, BAR2).size == 0
    setup_region(ctx, BAR2, 0x1000)
    assert get_region_info(ctx, sock, BAR2).size == 0x1000


def test_size_0_makes_a_region_vanish(ctx):
    setup_region(ctx, BAR2, 0x1000)
    sock = serve(ctx)
    setup_region(ctx, BAR2, 0)
    assert get_region_info(ctx, sock, BAR2).size == 0
    region_read(ctx, sock, BAR2, 0, 1, expect=errno.EINVAL)


# What a client sees


@pytest.fixture
def sock(ctx, fds):
    pci_init(ctx)
    setup_region(ctx, BAR1, 0x1000)
    ctx.memory = fds.memfd(0x20000)
    setup_region(
        ctx,
        BAR2,
        0x8000,
        flags=MEM_RW,
        areas=[(0x1000, 0x1000), (0x4000, 0x2000)],
        fd=ctx.memory,
    )
    setup_region(ctx, BAR3, 0x10000, flags=MEM_RW, fd=ctx.memory, offset=0x8000)
    return serve(ctx)


@pytest.mark.parametrize("length", [1, 8, 31])
def test_request_too_short(ctx, sock, length):
    request = region_info_payload(BAR1)[:length]
    cmd = VFIO_USER_DEVICE_GET_REGION_INFO
    msg(ctx, sock, cmd, request, expect=errno.EINVAL)


@pytest.mark.parametrize("argsz", [0, 8, 31])
def test_argsz_too_small(ctx, sock, argsz):
    request = region_info_payload(BAR1, argsz)
    cmd = VFIO_USER_DEVICE_GET_REGION_INFO
    msg(ctx, sock, cmd, request, expect=errno.EINVAL)


@pytest.mark.parametrize("index", [VFU_PCI_DEV_NUM_REGIONS, 100, UINT32_MAX])
def test_no_such_region(ctx, sock, index):
    request = region_info_payload(index)
    cmd = VFIO_USER_DEVICE_GET_REGION_INFO
    msg(ctx, sock, cmd, request, expect=errno.EINVAL)


@pytest.mark.parametrize("argsz", [32, 40, 4096])
def test_plain_region(ctx, sock, argsz):
    info = get_region_info(ctx, sock, BAR1, argsz)
    assert (info.argsz, info.index) == (32, BAR1)
    assert info.flags == VFIO_REGION_INFO_FLAG_RW
    assert (info.size, info.offset, info.cap_offset) == (0x1000, 0, 0)


def test_region_never_set_up(ctx, sock):
    info = get_region_info(ctx, sock, VFU_PCI_DEV_BAR5_REGION_IDX, 128)
    assert (info.argsz, info.flags, info.cap_offset) == (32, 0, 0)
    assert (info.size, info.offset) == (0, 0)


@pytest.mark.parametrize(
    ("flags", "seen"),
    [
        (VFU_REGION_FLAG_READ, VFIO_REGION_INFO_FLAG_READ),
        (VFU_REGION_FLAG_WRITE, VFIO_REGION_INFO_FLAG_WRITE),
    ],
)
def test_direction_is_told(ctx, sock, flags, seen):
    setup_region(ctx, ROM, 0x1000, flags=flags)
    assert get_region_info(ctx, sock, ROM).flags == seen


@pytest.mark.parametrize("argsz", [32, 48, 79])
def test_without_room_for_capabilities_there_are_none(ctx, sock, argsz):
    request = region_info_payload(BAR2, argsz)
    reply = exchange(ctx, sock, VFIO_USER_DEVICE_GET_REGION_INFO, request)
    info = t.vfio_region_info.from_buffer_copy(reply.payload)
    assert len(reply.payload) == argsz
    assert reply.fds == []
    assert info.argsz == 80
    assert info.flags == VFIO_REGION_INFO_FLAG_RW | VFIO_REGION_INFO_FLAG_MMAP
    assert info.cap_offset == 0


@pytest.mark.parametrize("argsz", [80, 1024])
def test_areas_that_can_be_mapped(ctx, sock, fds, argsz):
    request = region_info_payload(BAR2, argsz)
    reply = exchange(ctx, sock, VFIO_USER_DEVICE_GET_REGION_INFO, request)
    [fd] = reply.fds
    fds.add(fd)
    info = t.vfio_region_info.from_buffer_copy(reply.payload)
    assert len(reply.payload) == 80
    assert (info.argsz, info.cap_offset) == (80, 32)
    assert info.flags == (
        VFIO_REGION_INFO_FLAG_RW
        | VFIO_REGION_INFO_FLAG_MMAP
        | VFIO_REGION_INFO_FLAG_CAPS
    )
    cap = t.vfio_region_info_cap_sparse_mmap.from_buffer_copy(reply.payload, 32)
    assert cap.header.id == VFIO_REGION_INFO_CAP_SPARSE_MMAP
    assert (cap.header.version, cap.header.next) == (1, 0)
    assert (cap.nr_areas, cap.reserved) == (2, 0)
    areas = struct.unpack("<4Q", reply.payload[48:])
    assert areas == (0x1000, 0x1000, 0x4000, 0x2000)
    assert os.fstat(fd).st_ino == os.fstat(ctx.memory).st_ino


def test_descriptor_without_areas_is_one_area(ctx, sock, fds):
    request = region_info_payload(BAR3, 64)
    reply = exchange(ctx, sock, VFIO_USER_DEVICE_GET_REGION_INFO, request)
    fds.add(*reply.fds)
    info = t.vfio_region_info.from_buffer_copy(reply.payload)
    assert (info.argsz, info.offset) == (64, 0x8000)
    assert struct.unpack("<2Q", reply.payload[48:]) == (0, 0x10000)


def test_many_areas(ctx, sock, fds):
    areas = [(i * 0x1000, 0x800) for i in range(9)]
    setup_region(ctx, ROM, 0x10000, flags=RW, areas=areas, fd=ctx.memory)
    request = region_info_payload(ROM, 48 + 9 * 16)
    reply = exchange(ctx, sock, VFIO_USER_DEVICE_GET_REGION_INFO, request)
    fds.add(*reply.fds)
    seen = struct.unpack("<18Q", reply.payload[48:])
    assert list(zip(seen[::2], seen[1::2], strict=True)) == areas


def test_client_may_leave_the_descriptor_unread(ctx, sock):
    send(sock, VFIO_USER_DEVICE_GET_REGION_INFO, region_info_payload(BAR2, 80))
    run(ctx)
    disconnect(ctx, sock)


@pytest.mark.parametrize(
    ("pci_type", "size"),
    [
        (VFU_PCI_TYPE_CONVENTIONAL, 256),
        (VFU_PCI_TYPE_PCI_X_1, 256),
        (VFU_PCI_TYPE_PCI_X_2, 4096),
        (VFU_PCI_TYPE_EXPRESS, 4096),
    ],
)
def test_pci_init_sets_up_the_config_region(ctx, pci_type, size):
    pci_init(ctx, pci_type)
    sock = serve(ctx)
    info = get_region_info(ctx, sock, CFG)
    assert (info.size, info.flags) == (size, VFIO_REGION_INFO_FLAG_RW)


def test_config_region_without_pci_init(ctx):
    sock = serve(ctx)
    info = get_region_info(ctx, sock, CFG)
    assert (info.size, info.flags) == (256, VFIO_REGION_INFO_FLAG_RW)


def test_config_region_size_without_pci_init_is_the_devices(ctx):
    setup_region(ctx, CFG, 4096)
    sock = serve(ctx)
    assert get_region_info(ctx, sock, CFG).size == 4096
    assert cfg_read(ctx, sock, 4092, 4) == bytes(4)


@pytest.mark.parametrize("size", [4 << 30, 8 << 30])
def test_large_64_bit_bars(ctx, size):
    setup_region(ctx, BAR0, size, flags=MEM64_RW)
    sock = serve(ctx)
    assert get_region_info(ctx, sock, BAR0).size == size


def test_regions_survive_the_client(ctx, sock):
    disconnect(ctx, sock)
    sock = connect_client(ctx)
    assert get_region_info(ctx, sock, BAR1).size == 0x1000


@pytest.mark.extension
def test_more_areas_than_fit_into_a_message(ctx, sock, fds):
    areas = [(i * 16, 16) for i in range(1 << 16)]
    setup_region(ctx, ROM, 1 << 20, flags=RW, areas=areas, fd=fds.memfd(1 << 20))
    request = region_info_payload(ROM, 32)
    cmd = VFIO_USER_DEVICE_GET_REGION_INFO
    msg(ctx, sock, cmd, request, expect=errno.EINVAL)
    assert "do not fit into one message" in ctx.logged(LOG_ERR)
