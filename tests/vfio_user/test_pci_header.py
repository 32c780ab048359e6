"""The standard header of the configuration space: what may be written, and BARs."""

import errno

import pytest

from .commands import *
from .harness import *

MEM_RW = VFU_REGION_FLAG_RW | VFU_REGION_FLAG_MEM
MEM64_RW = MEM_RW | VFU_REGION_FLAG_64_BITS
BAR = PCI_BASE_ADDRESS_0


@pytest.fixture
def sock(ctx):
    pci_init(ctx)
    lib.vfu_pci_set_id(ctx, 0x494F, 0x0DC8, 0x1AF4, 0x1100)
    lib.vfu_pci_set_class(ctx, 1, 8, 2)
    return serve(ctx)


def test_reads_show_what_the_device_set(ctx, sock):
    assert cfg_read(ctx, sock, 0, 4) == bytes.fromhex("4f49c80d")
    assert cfg_read(ctx, sock, 9, 3) == bytes([2, 8, 1])
    assert cfg_read(ctx, sock, 0x2C, 4) == bytes.fromhex("f41a0011")


@pytest.mark.parametrize("count", [1, 3, 63, 64, 65, 200, 256])
def test_reads_of_any_length(ctx, sock, count):
    space = bytes(get_config_space(ctx))
    assert cfg_read(ctx, sock, 0, count) == space[:count]
    assert cfg_read(ctx, sock, 256 - count, count) == space[256 - count :]


def test_reads_see_the_live_buffer(ctx, sock):
    get_config_space(ctx)[0x44] = 0x5A
    get_pci_header(ctx).sts |= 0x8
    assert cfg_read(ctx, sock, 0x44, 1) == b"\x5a"
    assert cfg_read_int(ctx, sock, PCI_STATUS, 2) & 8


@pytest.mark.parametrize(("offset", "count"), [(256, 1), (255, 2), (0, 257)])
def test_out_of_bounds(ctx, sock, offset, count):
    cfg_read(ctx, sock, offset, count, expect=errno.EINVAL)
    cfg_write(ctx, sock, offset, bytes(count), expect=errno.EINVAL)


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (PCI_VENDOR_ID, 4),
        (PCI_HEADER_TYPE, 1),
        (PCI_BIST, 1),
        (PCI_CARDBUS_CIS, 4),
        (PCI_SUBSYSTEM_VENDOR_ID, 4),
        (PCI_CAPABILITY_LIST, 1),
        (0x35, 1),
        (0x38, 4),
        (0x3B, 1),
    ],
)
def test_registers_that_must_not_be_written(ctx, sock, offset, size):
    before = bytes(get_config_space(ctx))
    cfg_write(ctx, sock, offset, b"\xff" * size, expect=errno.EINVAL)
    assert bytes(get_config_space(ctx)) == before


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (PCI_REVISION_ID, 1),
        (PCI_CLASS_PROG, 3),
        (PCI_INTERRUPT_PIN, 1),
        (PCI_MIN_GNT, 1),
        (PCI_MAX_LAT, 1),
    ],
)
def test_writes_that_are_ignored(ctx, sock, offset, size):
    before = bytes(get_config_space(ctx))
    cfg_write(ctx, sock, offset, b"\xa5" * size)
    assert bytes(get_config_space(ctx)) == before


@pytest.mark.parametrize(
    "offset", [PCI_CACHE_LINE_SIZE, PCI_LATENCY_TIMER, PCI_INTERRUPT_LINE]
)
def test_registers_that_are_stored(ctx, sock, offset):
    cfg_write(ctx, sock, offset, b"\xa5")
    assert cfg_read(ctx, sock, offset, 1) == b"\xa5"


STORED = (
    PCI_COMMAND_IO
    | PCI_COMMAND_MEMORY
    | PCI_COMMAND_MASTER
    | PCI_COMMAND_INVALIDATE
    | PCI_COMMAND_SERR
    | PCI_COMMAND_INTX_DISABLE
)


@pytest.mark.parametrize(
    "bit",
    [
        PCI_COMMAND_IO,
        PCI_COMMAND_MEMORY,
        PCI_COMMAND_MASTER,
        PCI_COMMAND_INVALIDATE,
        PCI_COMMAND_SERR,
        PCI_COMMAND_INTX_DISABLE,
    ],
)
def test_command_bits_that_are_stored(ctx, sock, bit):
    cfg_write(ctx, sock, PCI_COMMAND, bit, 2)
    assert cfg_read_int(ctx, sock, PCI_COMMAND, 2) == bit
    cfg_write(ctx, sock, PCI_COMMAND, STORED, 2)
    cfg_write(ctx, sock, PCI_COMMAND, STORED & ~bit, 2)
    assert cfg_read_int(ctx, sock, PCI_COMMAND, 2) == STORED & ~bit


def test_vga_palette_snoop_is_accepted_and_ignored(ctx, sock):
    cfg_write(ctx, sock, PCI_COMMAND, PCI_COMMAND_VGA_PALETTE | 2, 2)
    assert cfg_read_int(ctx, sock, PCI_COMMAND, 2) == 2


@pytest.mark.defect("D53")
@pytest.mark.parametrize(
    "bit",
    [
        PCI_COMMAND_SPECIAL,
        PCI_COMMAND_PARITY,
        PCI_COMMAND_WAIT,
        PCI_COMMAND_FAST_BACK,
        0x800,
        0x8000,
    ],
)
def test_other_command_bits_do_no_harm(ctx, sock, bit):
    """Real guests enable parity checking."""
    cfg_write(ctx, sock, PCI_COMMAND, bit | PCI_COMMAND_MEMORY, 2)
    value = cfg_read_int(ctx, sock, PCI_COMMAND, 2)
    assert value & STORED == PCI_COMMAND_MEMORY


@pytest.mark.defect("D10")
def test_one_byte_of_the_command_register(ctx, sock):
    cfg_write(ctx, sock, PCI_COMMAND, PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE, 2)
    leave_leftovers(24, 0)
    cfg_write(ctx, sock, PCI_COMMAND, b"\x07")
    value = cfg_read_int(ctx, sock, PCI_COMMAND, 2)
    assert value == 0x07 | PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE


@pytest.mark.defect("D10")
@pytest.mark.parametrize("size", [1, 2, 3])
def test_some_bytes_of_a_bar(ctx, size):
    setup_region(ctx, 0, 16, flags=MEM_RW)
    sock = serve(ctx)
    cfg_write(ctx, sock, BAR, 0xAABBCCD0, 4)
    leave_leftovers(24)
    cfg_write(ctx, sock, BAR, bytes([0x10, 0x22, 0x33][:size]))
    want = (0x10, 0x2210, 0x332210)[size - 1]
    mask = (1 << (8 * size)) - 1
    assert cfg_read_int(ctx, sock, BAR, 4) == want | (0xAABBCCD0 & ~mask)


def test_status_is_not_stored(ctx, sock):
    cfg_write(ctx, sock, PCI_STATUS, b"\xff\x07")
    assert cfg_read_int(ctx, sock, PCI_STATUS, 2) == 0


@pytest.mark.defect("D55")
def test_status_error_bits_are_cleared_by_writing_ones(ctx, sock):
    get_pci_header(ctx).sts = 0xF900 | PCI_STATUS_CAP_LIST
    cfg_write(ctx, sock, PCI_STATUS, 0x8000 | PCI_STATUS_CAP_LIST, 2)
    assert cfg_read_int(ctx, sock, PCI_STATUS, 2) == 0x7900 | PCI_STATUS_CAP_LIST


def test_command_and_status_in_one_write(ctx, sock):
    cfg_write(ctx, sock, PCI_COMMAND, PCI_COMMAND_MASTER, 4)
    assert cfg_read_int(ctx, sock, PCI_COMMAND, 4) == PCI_COMMAND_MASTER


def test_write_over_several_registers_stops_at_the_first_refused(ctx, sock):
    """What came before stays written."""
    cfg_write(ctx, sock, PCI_CACHE_LINE_SIZE, b"\x10\x20\x30\x40", expect=errno.EINVAL)
    assert cfg_read(ctx, sock, PCI_CACHE_LINE_SIZE, 2) == b"\x10\x20"


def test_failed_write_carries_the_request_back(ctx, sock):
    payload = cfg_write(ctx, sock, 0, b"\0\0\0\0", expect=errno.EINVAL)
    assert len(payload) == 16


# BARs


def size_bar(ctx, sock, index):
    """The sizing protocol: all ones, read back, restore."""
    at = BAR + 4 * index
    before = cfg_read_int(ctx, sock, at, 4)
    cfg_write(ctx, sock, at, UINT32_MAX, 4)
    sized = cfg_read_int(ctx, sock, at, 4)
    cfg_write(ctx, sock, at, before, 4)
    assert cfg_read_int(ctx, sock, at, 4) == before
    return sized


@pytest.mark.parametrize("size", [16, 4 << 10, 8 << 10, 16 << 10, 1 << 31])
@pytest.mark.parametrize("index", [0, 3, 5])
def test_sizing_a_memory_bar(ctx, size, index):
    setup_region(ctx, index, size, flags=MEM_RW)
    sock = serve(ctx)
    assert size_bar(ctx, sock, index) == ~(size - 1) & UINT32_MAX


@pytest.mark.parametrize("size", [4, 16, 256])
def test_sizing_an_io_bar(ctx, size):
    setup_region(ctx, 2, size)
    sock = serve(ctx)
    assert size_bar(ctx, sock, 2) == ~(size - 1) & UINT32_MAX | 1


def test_sizing_a_prefetchable_bar(ctx):
    setup_region(ctx, 0, 4096, flags=MEM_RW | VFU_REGION_FLAG_PREFETCH)
    sock = serve(ctx)
    assert size_bar(ctx, sock, 0) == 0xFFFFF008


def test_sizing_a_bar_that_is_not_there(ctx):
    sock = serve(ctx)
    assert [size_bar(ctx, sock, index) for index in range(6)] == [1] * 6


@pytest.mark.parametrize("size", [4 << 30, 8 << 30, 16 << 30])
@pytest.mark.parametrize("index", [0, 2, 4])
def test_sizing_a_large_64_bit_bar(ctx, size, index):
    setup_region(ctx, index, size, flags=MEM64_RW)
    sock = serve(ctx)
    assert size_bar(ctx, sock, index) == 4
    at = BAR + 4 * (index + 1)
    cfg_write(ctx, sock, at, UINT32_MAX, 4)
    assert cfg_read_int(ctx, sock, at, 4) == ~((size >> 32) - 1) & UINT32_MAX


@pytest.mark.defect("D15")
@pytest.mark.parametrize("size", [16, 4096, 1 << 31])
def test_small_64_bit_bar_can_be_placed_above_4_gib(ctx, size):
    setup_region(ctx, 0, size, flags=MEM64_RW)
    sock = serve(ctx)
    assert size_bar(ctx, sock, 0) == (~(size - 1) & UINT32_MAX) | 4
    assert size_bar(ctx, sock, 1) == UINT32_MAX
    cfg_write(ctx, sock, BAR + 4, 0x1234, 4)
    assert cfg_read_int(ctx, sock, BAR + 4, 4) == 0x1234


def test_address_bits_below_the_size_are_fixed(ctx):
    setup_region(ctx, 1, 64 << 10, flags=MEM_RW)
    sock = serve(ctx)
    cfg_write(ctx, sock, BAR + 4, 0xFEDCBA98, 4)
    assert cfg_read_int(ctx, sock, BAR + 4, 4) == 0xFEDC0000


def test_all_bars_in_one_write(ctx):
    for index in range(6):
        setup_region(ctx, index, 4096, flags=MEM_RW)
    sock = serve(ctx)
    cfg_write(
        ctx, sock, BAR, b"".join((i << 12).to_bytes(4, "little") for i in range(6))
    )
    assert [bar.raw for bar in get_pci_header(ctx).bars] == [i << 12 for i in range(6)]


@pytest.mark.parametrize("value", [0, 0xFFFFF800, 0xFFFFFFFE, UINT32_MAX])
def test_rom_register_without_rom_reads_0(ctx, sock, value):
    cfg_write(ctx, sock, PCI_ROM_ADDRESS, value, 4)
    assert cfg_read_int(ctx, sock, PCI_ROM_ADDRESS, 4) == 0


@pytest.mark.defect("D54")
@pytest.mark.parametrize("size", [2 << 10, 64 << 10, 16 << 20])
def test_sizing_a_rom(ctx, size):
    setup_region(ctx, VFU_PCI_DEV_ROM_REGION_IDX, size, RegionMemory(size))
    sock = serve(ctx)
    cfg_write(ctx, sock, PCI_ROM_ADDRESS, 0xFFFFF800, 4)
    sized = cfg_read_int(ctx, sock, PCI_ROM_ADDRESS, 4)
    assert sized & 0xFFFFF800 == ~(size - 1) & UINT32_MAX
    cfg_write(ctx, sock, PCI_ROM_ADDRESS, 0xFE000001, 4)
    assert cfg_read_int(ctx, sock, PCI_ROM_ADDRESS, 4) == 0xFE000001


# Beyond the header, where there is no capability


def test_free_space_reads_the_buffer_and_refuses_writes(ctx, sock):
    get_config_space(ctx)[0x80] = 9
    assert cfg_read(ctx, sock, 0x80, 2) == b"\x09\0"
    cfg_write(ctx, sock, 0x80, b"\1", expect=errno.EINVAL)


def test_free_space_belongs_to_the_device_if_it_wants(ctx):
    space = RegionMemory(256)
    setup_region(ctx, VFU_PCI_DEV_CFG_REGION_IDX, 256, space)
    sock = serve(ctx)
    cfg_write(ctx, sock, 0x80, b"mine")
    assert cfg_read(ctx, sock, 0x80, 4) == b"mine"
    assert space.calls == [Access(0x80, 4, b"mine"), Access(0x80, 4, None)]


def test_access_over_header_and_free_space(ctx):
    space = RegionMemory(256)
    space.memory[0x40:0x44] = b"free"
    setup_region(ctx, VFU_PCI_DEV_CFG_REGION_IDX, 256, space)
    sock = serve(ctx)
    assert cfg_read(ctx, sock, 0x3C, 8)[4:] == b"free"
    assert space.calls == [Access(0x40, 4, None)]


def test_failing_callback_of_the_free_space(ctx):
    space = RegionMemory(256)
    space.fail(errno.EACCES)
    setup_region(ctx, VFU_PCI_DEV_CFG_REGION_IDX, 256, space)
    sock = serve(ctx)
    cfg_write(ctx, sock, 0x80, b"mine", expect=errno.EACCES)


@pytest.mark.defect("D14")
@pytest.mark.parametrize("answer", [0, 3, 5, 1000])
@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_callback_of_the_free_space_that_does_less_or_more(ctx, answer, write):
    space = RegionMemory(256)
    space.action = lambda *_: answer
    setup_region(ctx, VFU_PCI_DEV_CFG_REGION_IDX, 256, space)
    sock = serve(ctx)
    if write:
        cfg_write(ctx, sock, 0x80, b"mine", expect=errno.EINVAL)
    else:
        cfg_read(ctx, sock, 0x80, 4, expect=errno.EINVAL)
