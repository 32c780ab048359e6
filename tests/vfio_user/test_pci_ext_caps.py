"""Extended capabilities."""

import errno

import pytest

from .commands import *
from .harness import *
from .test_pci_caps import WRAPS, add, find, not_found, refuse

EXT = VFU_CAP_FLAG_EXTENDED
DSN_CONTENT = bytes.fromhex("efbeadde bebafeca")
DSN = bytes([PCI_EXT_CAP_ID_DSN, 0, 1, 0]) + DSN_CONTENT
VNDR = PCI_EXT_CAP_ID_VNDR
CFG = VFU_PCI_DEV_CFG_REGION_IDX


def vendor(content, vendor_id=1):
    """An extended vendor capability; its length counts everything."""
    size = 8 + len(content)
    own = vendor_id | 1 << 16 | size << 20
    return bytes([VNDR, 0, 1, 0]) + own.to_bytes(4, "little") + content


def header(ctx, pos):
    """Identity, version and next pointer of the capability at a position."""
    raw = bytes(get_config_space(ctx, PCI_CFG_SPACE_EXP_SIZE)[pos : pos + 4])
    number = int.from_bytes(raw, "little")
    return number & 0xFFFF, number >> 16 & 0xF, number >> 20


@pytest.fixture
def express(ctx):
    pci_init(ctx, VFU_PCI_TYPE_EXPRESS)
    ctx.space = RegionMemory(PCI_CFG_SPACE_EXP_SIZE)
    setup_region(ctx, CFG, PCI_CFG_SPACE_EXP_SIZE, ctx.space)
    return ctx


@pytest.mark.parametrize("kind", [VFU_PCI_TYPE_CONVENTIONAL, VFU_PCI_TYPE_PCI_X_1])
def test_devices_that_have_none(ctx, kind):
    pci_init(ctx, kind)
    refuse(ctx, errno.EINVAL, DSN, flags=EXT)


def test_before_pci_init(ctx):
    refuse(ctx, errno.EINVAL, DSN, flags=EXT)


def test_pci_x_2_has_some(ctx):
    pci_init(ctx, VFU_PCI_TYPE_PCI_X_2)
    assert add(ctx, DSN, flags=EXT) == 256


@pytest.mark.parametrize("capability", [0x01, 0x04, 0x10, 0x81, 0xFFFF])
def test_unknown_capability(express, capability):
    data = capability.to_bytes(2, "little") + bytes(62)
    refuse(express, errno.ENOTSUP, data, flags=EXT)


@pytest.mark.parametrize("pos", [4096, 4092, 1 << 20, 0x40, 0xFC])
def test_positions_that_cannot_be(express, pos):
    add(express, DSN, flags=EXT)
    refuse(express, errno.EINVAL, DSN, pos=pos, flags=EXT)


@pytest.mark.parametrize("pos", [0x104, 0x200])
def test_the_first_must_be_at_256(express, pos):
    refuse(express, errno.EINVAL, DSN, pos=pos, flags=EXT)
    assert add(express, DSN, pos=0x100, flags=EXT) == 0x100


@pytest.mark.parametrize("pos", [0x100, 0x104, 0x108])
def test_overlap(express, pos):
    add(express, DSN, flags=EXT)
    refuse(express, errno.EINVAL, vendor(b"abcd"), pos=pos, flags=EXT)


@pytest.mark.extension
def test_position_that_is_not_a_multiple_of_4(express):
    add(express, DSN, flags=EXT)
    refuse(express, errno.EINVAL, DSN, pos=0x203, flags=EXT)


@pytest.fixture
def five(express):
    """A serial number and four vendor capabilities, two of them far apart."""
    express.made = [
        add(express, DSN, flags=EXT),
        add(express, vendor(b"abcde"), flags=EXT),
        add(express, vendor(b"x" * 12, 2), flags=EXT | VFU_CAP_FLAG_READONLY),
        add(express, vendor(b"call", 3), pos=0x200, flags=EXT | VFU_CAP_FLAG_CALLBACK),
        add(express, vendor(b"last", 4), pos=0x258, flags=EXT),
    ]
    express.sock = serve(express)
    return express


def test_positions(five):
    assert five.made == [0x100, 0x10C, 0x11C, 0x200, 0x258]


def test_list_in_config_space(five):
    assert [header(five, pos) for pos in five.made] == [
        (PCI_EXT_CAP_ID_DSN, 1, 0x10C),
        (VNDR, 1, 0x11C),
        (VNDR, 1, 0x200),
        (VNDR, 1, 0x258),
        (VNDR, 1, 0),
    ]


def test_extended_capabilities_are_not_in_the_standard_list(five):
    assert get_config_space(five)[PCI_CAPABILITY_LIST] == 0
    not_found(five, errno.ENOENT, PCI_EXT_CAP_ID_DSN)


def test_find(five):
    assert find(five, PCI_EXT_CAP_ID_DSN, extended=True) == 0x100
    seen = [find(five, VNDR, extended=True)]
    for _ in range(3):
        seen.append(find(five, VNDR, after=seen[-1], extended=True))
    assert seen == [0x10C, 0x11C, 0x200, 0x258]


@pytest.mark.defect("D50")
def test_find_ends_after_the_last(five):
    """Even if vendor and device id look like a capability."""
    lib.vfu_pci_set_id(five, VNDR, 0x0001, 0, 0)
    not_found(five, errno.ENOENT, VNDR, after=0x258, extended=True)


def test_find_without_any(express):
    not_found(express, errno.ENOENT, PCI_EXT_CAP_ID_DSN, extended=True)


@pytest.mark.parametrize("pos", [4092, 4096, 8192, WRAPS])
def test_find_next_past_the_end(five, pos):
    not_found(five, errno.EINVAL, VNDR, after=pos, extended=True)


@pytest.mark.parametrize("pos", [0x300, 0x800])
def test_find_next_from_where_nothing_is(five, pos):
    not_found(five, errno.ENOENT, VNDR, after=pos, extended=True)


@pytest.mark.parametrize(
    "pos", [pytest.param(0, marks=pytest.mark.defect("D50")), 0x80]
)
def test_find_on_a_conventional_device(ctx, pos):
    pci_init(ctx)
    set_errno(0)
    function = lib.vfu_pci_find_next_capability
    assert function(ctx, True, pos, PCI_EXT_CAP_ID_DSN) == 0
    assert get_errno() in (errno.EINVAL, errno.ENOENT)


@pytest.mark.defect("D50")
def test_list_that_the_device_made_a_circle(five):
    space = get_config_space(five, PCI_CFG_SPACE_EXP_SIZE)
    space[0x25A], space[0x25B] = 0x01, 0x10  # next: 0x100
    set_errno(0)
    assert lib.vfu_pci_find_capability(five, True, 0x77) == 0
    assert get_errno() != 0


@pytest.mark.extension  # upstream follows whatever the list says
@pytest.mark.parametrize("target", [0x04, 0xFC, 0xFFD, 0x100])
def test_adding_to_a_list_that_the_device_broke(five, target):
    space = get_config_space(five, PCI_CFG_SPACE_EXP_SIZE)
    space[0x25A], space[0x25B] = target << 4 & 0xF0 | 1, target >> 4
    before = bytes(space)
    refuse(five, errno.EINVAL, DSN, flags=EXT)
    refuse(five, errno.EINVAL, DSN, pos=0x800, flags=EXT)
    assert bytes(space) == before


@pytest.mark.extension
@pytest.mark.parametrize("target", [0x301, 0x302, 0x303])
def test_list_that_the_device_leads_to_an_odd_place(five, target):
    space = get_config_space(five, PCI_CFG_SPACE_EXP_SIZE)
    space[0x25A], space[0x25B] = target << 4 & 0xF0 | 1, target >> 4
    space[target] = VNDR
    space[target + 7] = 0x10 >> 4  # of its length
    assert find(five, VNDR, after=0x258, extended=True) == target
    at = add(five, DSN, flags=EXT)
    assert at == 0x314
    assert find(five, PCI_EXT_CAP_ID_DSN, after=target, extended=True) == at


@pytest.mark.extension
@pytest.mark.parametrize("target", [0x04, 0xFC])
def test_finding_in_a_list_that_leaves_its_space(five, target):
    space = get_config_space(five, PCI_CFG_SPACE_EXP_SIZE)
    space[0x25A], space[0x25B] = target << 4 & 0xF0 | 1, target >> 4
    not_found(five, errno.EINVAL, 0x77, extended=True)


@pytest.mark.extension
def test_more_capabilities_than_the_library_keeps(express):
    for _ in range(128):
        add(express, vendor(b""), flags=EXT)
    refuse(express, errno.ENOSPC, vendor(b""), flags=EXT)


@pytest.mark.defect("D88")
@pytest.mark.parametrize("size", [64, 256])
def test_config_region_smaller_than_the_device_type_promises(ctx, size):
    """Adding and finding fail, or work; they do not end the process."""
    pci_init(ctx, VFU_PCI_TYPE_EXPRESS)
    args = (CFG, size, t.vfu_region_access_cb_t(), 3, None, 0, -1, 0)
    lib.vfu_setup_region(ctx, *args)
    lib.vfu_pci_add_capability(ctx, 0, EXT, DSN)
    lib.vfu_pci_find_capability(ctx, True, PCI_EXT_CAP_ID_DSN)
    lib.vfu_pci_find_next_capability(ctx, True, 0x80, PCI_EXT_CAP_ID_DSN)
    sock = serve(ctx)
    cfg_read(ctx, sock, 0, 64)


@pytest.mark.parametrize(("pos", "size"), [(0x100, 4), (0x10C, 4), (0x10C, 8)])
def test_headers_cannot_be_written(five, pos, size):
    before = cfg_read(five, five.sock, pos, 16)
    cfg_write(five, five.sock, pos, b"\xff" * size, expect=errno.EPERM)
    assert cfg_read(five, five.sock, pos, 16) == before


def test_serial_number_cannot_be_written(five):
    for offset, size in ((4, 4), (8, 4), (4, 8), (11, 1)):
        data = b"\xff" * size
        cfg_write(five, five.sock, 0x100 + offset, data, expect=errno.EPERM)
    assert cfg_read(five, five.sock, 0x104, 8) == DSN_CONTENT


def test_read_only_capability(five):
    cfg_write(five, five.sock, 0x11C + 8, b"y", expect=errno.EPERM)
    assert cfg_read(five, five.sock, 0x11C + 8, 12) == b"x" * 12


def test_capability_of_the_callback(five):
    cfg_write(five, five.sock, 0x208, b"data")
    assert cfg_read(five, five.sock, 0x208, 4) == b"data"
    assert five.space.calls == [Access(0x208, 4, b"data"), Access(0x208, 4, None)]


def test_vendor_capability_is_stored(five):
    cfg_write(five, five.sock, 0x260, b"LAST")
    assert cfg_read(five, five.sock, 0x258, 12) == vendor(b"LAST", 4)


def test_vendor_capability_header_fields(five):
    assert cfg_read(five, five.sock, 0x10C, 13) == (
        bytes([VNDR, 0, 0xC1, 0x11]) + vendor(b"abcde")[4:]
    )


@pytest.mark.defect("D13")
def test_write_does_not_run_into_the_next_capability(express):
    """The second begins where the first ends, and is read-only."""
    add(express, vendor(b"abcd"), flags=EXT)
    add(express, vendor(b"keep"), flags=EXT | VFU_CAP_FLAG_READONLY)
    sock = serve(express)
    cfg_write(express, sock, 0x108, b"!" * 12, expect=errno.EPERM)
    assert cfg_read(express, sock, 0x114, 4) == b"keep"


def test_standard_and_extended_side_by_side(express):
    assert add(express, bytes([PCI_CAP_ID_PM]) + bytes(7)) == 0x40
    assert add(express, DSN, flags=EXT) == 0x100
    assert find(express, PCI_CAP_ID_PM) == 0x40
    assert find(express, PCI_EXT_CAP_ID_DSN, extended=True) == 0x100
