"""Standard capabilities: adding, finding, and the rules of each."""

import errno

import pytest

from .commands import *
from .harness import *

PM = bytes([PCI_CAP_ID_PM]) + bytes(7)
READONLY = VFU_CAP_FLAG_READONLY
CALLBACK = VFU_CAP_FLAG_CALLBACK
EXTENDED = VFU_CAP_FLAG_EXTENDED
CFG = VFU_PCI_DEV_CFG_REGION_IDX

# A position that is past the end of everything, and wraps if something is added.
WRAPS = pytest.param(
    UINT64_MAX, marks=pytest.mark.defect("unlisted: wrapping position")
)


def vendor(content):
    return bytes([PCI_CAP_ID_VNDR, 0, 3 + len(content)]) + content


def add(ctx, data, pos=0, flags=0):
    return ok(lib.vfu_pci_add_capability, ctx, pos, flags, data)


def refuse(ctx, number, data, pos=0, flags=0):
    fails(number, lib.vfu_pci_add_capability, ctx, pos, flags, data)


def find(ctx, capability, after=0, extended=False):
    if after:
        function = lib.vfu_pci_find_next_capability
        return ok(function, ctx, extended, after, capability)
    return ok(lib.vfu_pci_find_capability, ctx, extended, capability)


def not_found(ctx, number, capability, after=None, extended=False):
    if after is None:
        function = lib.vfu_pci_find_capability
        fails(number, function, ctx, extended, capability, result=0)
    else:
        function = lib.vfu_pci_find_next_capability
        fails(number, function, ctx, extended, after, capability, result=0)


@pytest.fixture
def pci(ctx):
    pci_init(ctx)
    return ctx


@pytest.fixture
def cfg(pci):
    """A device whose free config space is its own."""
    space = RegionMemory(256)
    setup_region(pci, CFG, 256, space)
    return space


# Adding


@pytest.mark.parametrize("flags", [8, 999, 1 << 31])
def test_unknown_flags(pci, flags):
    refuse(pci, errno.EINVAL, PM, flags=flags - (1 << 32) if flags >> 31 else flags)


def test_callback_flag_needs_a_callback(pci):
    refuse(pci, errno.EINVAL, vendor(b"x"), flags=CALLBACK)
    setup_region(pci, CFG, 256, RegionMemory(256))
    add(pci, vendor(b"x"), flags=CALLBACK)


@pytest.mark.parametrize("capability", [0x02, 0x12, 0x81, 0xFF, 0x00])
def test_unknown_capability(pci, capability):
    refuse(pci, errno.ENOTSUP, bytes([capability]) + bytes(60))
    assert pci.logged(LOG_ERR)


@pytest.mark.parametrize("pos", [256, 252, 1 << 20, WRAPS])
def test_position_past_the_end(pci, pos):
    refuse(pci, errno.EINVAL, PM, pos=pos)


@pytest.mark.parametrize("pos", [1, 0x20, 0x3F])
def test_position_in_the_header(pci, pos):
    refuse(pci, errno.EINVAL, PM, pos=pos)


def test_positions_that_are_chosen(pci):
    assert add(pci, PM) == 0x40
    assert add(pci, vendor(b"abc")) == 0x48
    assert add(pci, vendor(b"x" * 12)) == 0x50
    assert add(pci, PM) == 0x60


def test_positions_that_are_given(pci):
    add(pci, PM)
    assert add(pci, vendor(b"abc"), pos=0x80) == 0x80
    assert add(pci, vendor(b"abc"), pos=0x90) == 0x90
    assert add(pci, vendor(b"abc")) == 0x98


def test_list_in_config_space(pci):
    add(pci, PM)
    add(pci, vendor(b"abc"), pos=0x80)
    space = get_config_space(pci)
    assert space[PCI_CAPABILITY_LIST] == 0x40
    assert bytes(space[0x40:0x48]) == bytes([PCI_CAP_ID_PM, 0x80]) + bytes(6)
    assert bytes(space[0x80:0x86]) == bytes([PCI_CAP_ID_VNDR, 0, 6]) + b"abc"


def test_next_pointer_of_the_data_is_ignored(pci):
    add(pci, bytes([PCI_CAP_ID_PM, 0x99]) + bytes(6))
    assert get_config_space(pci)[0x41] == 0


@pytest.mark.parametrize("pos", [0x80, 0x7C, 0x84, 0x79])
def test_overlap(pci, pos):
    add(pci, PM, pos=0x80)
    refuse(pci, errno.EINVAL, PM, pos=pos)


def test_no_more_room(pci):
    for _ in range(6):
        add(pci, vendor(b"x" * 28))
    refuse(pci, errno.ENOSPC, vendor(b"x" * 28))


def test_capabilities_may_come_after_realize(pci):
    sock = serve(pci)
    add(pci, PM)
    assert cfg_read(pci, sock, 0x40, 2) == bytes([PCI_CAP_ID_PM, 0])


@pytest.mark.defect("D17")
def test_neighbours_do_not_overlap(pci):
    add(pci, PM, pos=0x50)
    assert add(pci, PM, pos=0x48) == 0x48
    assert add(pci, PM, pos=0x58) == 0x58


@pytest.mark.defect("D17")
def test_capability_up_to_the_last_byte(pci):
    assert add(pci, PM, pos=0xF8) == 0xF8


@pytest.mark.defect("D51")
def test_chosen_position_is_free(pci):
    add(pci, PM, pos=0x80)
    add(pci, PM, pos=0x74)
    pos = add(pci, PM)
    assert pos + 8 <= 0x74 or pos >= 0x88


@pytest.mark.defect("D86")
def test_chosen_position_is_below_256(ctx):
    """Next pointers have 8 bits, however large the config space is."""
    pci_init(ctx, VFU_PCI_TYPE_EXPRESS)
    express = bytes([PCI_CAP_ID_EXP]) + bytes(VFIO_USER_PCI_CAP_EXP_SIZEOF - 1)
    for _ in range(3):
        add(ctx, express)
    msi = bytes([PCI_CAP_ID_MSI]) + bytes(VFIO_USER_PCI_CAP_MSI_SIZEOF - 1)
    refuse(ctx, errno.ENOSPC, msi)


# Finding


def test_find(pci):
    not_found(pci, errno.ENOENT, PCI_CAP_ID_PM)
    add(pci, PM)
    add(pci, vendor(b"one"))
    add(pci, vendor(b"two"))
    assert find(pci, PCI_CAP_ID_PM) == 0x40
    assert find(pci, PCI_CAP_ID_VNDR) == 0x48
    assert find(pci, PCI_CAP_ID_VNDR, after=0x40) == 0x48
    assert find(pci, PCI_CAP_ID_VNDR, after=0x48) == 0x50
    not_found(pci, errno.ENOENT, PCI_CAP_ID_VNDR, after=0x50)
    not_found(pci, errno.ENOENT, PCI_CAP_ID_PM, after=0x40)
    not_found(pci, errno.ENOENT, PCI_CAP_ID_MSIX)


def test_find_next_from_0_is_find(pci):
    add(pci, PM)
    function = lib.vfu_pci_find_next_capability
    assert ok(function, pci, False, 0, PCI_CAP_ID_PM) == 0x40


@pytest.mark.parametrize("pos", [255, 256, 4096, WRAPS])
def test_find_next_past_the_end(pci, pos):
    add(pci, PM)
    not_found(pci, errno.EINVAL, PCI_CAP_ID_PM, after=pos)


def test_find_next_from_where_nothing_is(pci):
    add(pci, PM)
    not_found(pci, errno.ENOENT, PCI_CAP_ID_PM, after=0x80)


@pytest.mark.defect("D50")
@pytest.mark.parametrize("target", [0x40, 0x48])
def test_list_that_the_device_made_a_circle(pci, target):
    add(pci, PM)
    add(pci, vendor(b"abc"))
    get_config_space(pci)[0x49] = target
    set_errno(0)
    assert lib.vfu_pci_find_capability(pci, False, PCI_CAP_ID_MSIX) == 0
    assert get_errno() != 0


def test_list_that_the_device_broke(pci):
    add(pci, PM)
    get_config_space(pci)[0x41] = 0xFF
    not_found(pci, errno.EINVAL, PCI_CAP_ID_MSIX)


@pytest.mark.extension  # upstream follows whatever the list says
@pytest.mark.parametrize("target", [0x04, 0x3F, 0xFF, 0x40])
def test_adding_to_a_list_that_the_device_broke(pci, target):
    """A link into the header, past the end, or back: nothing is added, nothing hangs."""
    add(pci, PM)
    space = get_config_space(pci)
    space[0x41] = target
    before = bytes(space)
    refuse(pci, errno.EINVAL, vendor(b"abc"))
    refuse(pci, errno.EINVAL, PM, pos=0x80)
    assert bytes(space) == before


@pytest.mark.extension
def test_capability_that_the_device_renamed_keeps_its_size(pci):
    """The next one is placed behind it, also when the library cannot tell what it is."""
    add(pci, vendor(b"0123456789"))
    get_config_space(pci)[0x40] = 0x7F
    assert add(pci, PM) == 0x50


@pytest.mark.extension
def test_capability_that_the_device_made_up(pci):
    space = get_config_space(pci)
    space[0x34], space[0x60], space[0x61] = 0x60, 0x7F, 0
    refuse(pci, errno.EINVAL, PM)
    assert "0x60" in pci.logged(LOG_ERR)
    assert find(pci, 0x7F) == 0x60


# Access, whatever the capability


@pytest.mark.extension
def test_callback_that_was_taken_away(pci, cfg):
    at = add(pci, vendor(b"abc"), flags=CALLBACK)
    sock = serve(pci)
    assert cfg_read(pci, sock, at + 3, 1)
    setup_region(pci, CFG, 256)
    cfg_read(pci, sock, at + 3, 1, expect=errno.EINVAL)
    cfg_write(pci, sock, at + 3, b"x", expect=errno.EINVAL)


@pytest.mark.extension
@pytest.mark.parametrize("at", [0x41, 0x42, 0x43])
def test_registers_at_odd_places(pci, at):
    """A device may put capabilities anywhere."""
    add(pci, bytes([PCI_CAP_ID_MSI, 0, 0x8A, 0]) + bytes(20), pos=at)
    sock = serve(pci)
    cfg_write(pci, sock, at + 4, 0x1234_5678, 4)
    cfg_write(pci, sock, at + 2, 0x0031, 2)  # eight vectors of the 32 that there are
    assert cfg_read_int(pci, sock, at + 4, 4) == 0x1234_5678
    assert cfg_read_int(pci, sock, at + 2, 2) & 0x71 == 0x31


@pytest.mark.extension
@pytest.mark.parametrize("at", [0x41, 0x42, 0x43])
def test_power_management_at_odd_places(pci, at):
    add(pci, PM, pos=at)
    sock = serve(pci)
    cfg_write(pci, sock, at + 4, 0x0003, 2)
    assert cfg_read_int(pci, sock, at + 4, 2) & 3 == 3


def test_header_of_a_capability_cannot_be_written(pci):
    add(pci, PM)
    add(pci, vendor(b"abc"))
    sock = serve(pci)
    for offset, size in ((0x40, 1), (0x41, 1), (0x40, 2), (0x48, 3), (0x4A, 1)):
        cfg_write(pci, sock, offset, bytes(size), expect=errno.EPERM)
    assert cfg_read(pci, sock, 0x40, 2) == bytes([PCI_CAP_ID_PM, 0x48])


def test_read_only_capability(pci):
    add(pci, vendor(b"fixed"), flags=READONLY)
    sock = serve(pci)
    for offset in range(0x40, 0x48):
        cfg_write(pci, sock, offset, b"\0", expect=errno.EPERM)
    assert cfg_read(pci, sock, 0x43, 5) == b"fixed"


def test_capability_of_the_callback(pci, cfg):
    add(pci, vendor(b"abc"), flags=CALLBACK)
    sock = serve(pci)
    cfg_write(pci, sock, 0x43, b"xyz")
    assert cfg.calls == [Access(0x43, 3, b"xyz")]
    assert cfg_read(pci, sock, 0x43, 3) == b"xyz"
    cfg_write(pci, sock, 0x40, b"\x01\x02")
    assert cfg.memory[0x40:0x42] == b"\x01\x02"
    assert bytes(get_config_space(pci)[0x40:0x42]) == bytes([PCI_CAP_ID_VNDR, 0])


def test_read_only_callback_capability(pci, cfg):
    add(pci, vendor(b"abc"), flags=CALLBACK | READONLY)
    sock = serve(pci)
    cfg_write(pci, sock, 0x43, b"x", expect=errno.EPERM)
    cfg.memory[0x43:0x46] = b"dev"
    assert cfg_read(pci, sock, 0x43, 3) == b"dev"


def test_failing_callback_of_a_capability(pci, cfg):
    add(pci, vendor(b"abc"), flags=CALLBACK)
    sock = serve(pci)
    cfg.fail(errno.ENOSYS)
    cfg_write(pci, sock, 0x43, b"xyz", expect=errno.ENOSYS)


def test_read_over_capabilities_and_free_space(pci, cfg):
    cfg.memory[:] = b"." * 256
    add(pci, PM)
    add(pci, vendor(b"abc"), pos=0x50)
    sock = serve(pci)
    data = cfg_read(pci, sock, 0x3C, 0x20)
    assert data[4:12] == bytes([PCI_CAP_ID_PM, 0x50]) + bytes(6)
    assert data[12:20] == b"." * 8
    assert data[20:26] == bytes([PCI_CAP_ID_VNDR, 0, 6]) + b"abc"
    assert data[26:] == b"." * 6


def test_vendor_capability_is_stored(pci):
    add(pci, vendor(b"abcdef"))
    sock = serve(pci)
    cfg_write(pci, sock, 0x44, b"XY")
    assert cfg_read(pci, sock, 0x43, 6) == b"aXYdef"


@pytest.mark.defect("D13")
def test_write_does_not_run_into_the_next_capability(pci):
    add(pci, vendor(b"12345"))
    add(pci, vendor(b"fixed"), flags=READONLY)
    sock = serve(pci)
    cfg_write(pci, sock, 0x47, b"!" * 8, expect=errno.EPERM)
    assert cfg_read(pci, sock, 0x48, 8) == vendor(b"fixed")


@pytest.mark.defect("D16")
def test_capability_that_lies_lower_but_came_later_is_protected(pci, cfg):
    add(pci, PM, pos=0x80)
    add(pci, vendor(b"fixed"), pos=0x50, flags=READONLY)
    sock = serve(pci)
    cfg_write(pci, sock, 0x4C, b"!" * 0x3C, expect=errno.EPERM)
    assert cfg.calls == [Access(0x4C, 4, b"!!!!")]
    assert cfg_read(pci, sock, 0x53, 5) == b"fixed"


# Power management


@pytest.fixture
def pm(pci):
    assert add(pci, PM) == 0x40
    return serve(pci)


def test_pm_control_is_stored(pci, pm):
    cfg_write(pci, pm, 0x44, b"\x01\x02")
    assert cfg_read(pci, pm, 0x44, 2) == b"\x01\x02"


@pytest.mark.parametrize(
    ("offset", "size", "number"),
    [
        (2, 2, errno.ENOTSUP),
        (2, 1, errno.EINVAL),
        (3, 1, errno.EINVAL),
        (4, 4, errno.EINVAL),
        (5, 1, errno.EINVAL),
        (6, 1, errno.ENOTSUP),
        (6, 2, errno.EINVAL),
        (7, 1, errno.ENOTSUP),
    ],
)
def test_pm_writes_that_are_refused(pci, pm, offset, size, number):
    cfg_write(pci, pm, 0x40 + offset, b"\x01" * size, expect=number)
    assert cfg_read(pci, pm, 0x42, 6) == bytes(6)


@pytest.mark.defect("D78")
def test_pm_status_is_cleared_by_writing_a_one(pci, pm):
    get_config_space(pci)[0x45] = 0x80
    cfg_write(pci, pm, 0x44, 0x0000, 2)
    assert cfg_read_int(pci, pm, 0x44, 2) & 0x8000
    cfg_write(pci, pm, 0x44, 0x8000, 2)
    assert cfg_read_int(pci, pm, 0x44, 2) & 0x8000 == 0


# MSI

MSI_64 = 0x80
MSI_MASK = 0x100


@pytest.fixture
def msi(pci):
    """A device with 64-bit addresses, masking, and up to 8 vectors."""
    data = bytearray(VFIO_USER_PCI_CAP_MSI_SIZEOF)
    data[0] = PCI_CAP_ID_MSI
    data[2:4] = (MSI_64 | MSI_MASK | 3 << 1).to_bytes(2, "little")
    assert add(pci, bytes(data)) == 0x40
    return serve(pci)


def test_msi_fields(pci, msi):
    cfg_write(pci, msi, 0x42, 1 | 2 << 4, 2)
    cfg_write(pci, msi, 0x44, 0xFEE00003, 4)
    cfg_write(pci, msi, 0x48, 0x12345678, 4)
    cfg_write(pci, msi, 0x4C, 0x4041, 2)
    cfg_write(pci, msi, 0x50, 0xFF, 4)
    fields = cfg_read(pci, msi, 0x42, 22)
    assert fields[:2] == (MSI_64 | MSI_MASK | 3 << 1 | 1 | 2 << 4).to_bytes(2, "little")
    assert fields[2:6] == (0xFEE00000).to_bytes(4, "little")
    assert fields[6:10] == (0x12345678).to_bytes(4, "little")
    assert fields[10:12] == b"\x41\x40"
    assert fields[14:18] == (0xFF).to_bytes(4, "little")


def test_msi_in_one_write(pci, msi):
    cfg_write(pci, msi, 0x42, bytes(22))
    assert cfg_read_int(pci, msi, 0x42, 2) == MSI_64 | MSI_MASK | 3 << 1


@pytest.mark.parametrize("vectors", [4, 6, 7])
def test_msi_more_vectors_than_there_are(pci, msi, vectors):
    cfg_write(pci, msi, 0x42, vectors << 4, 2, expect=errno.EINVAL)
    assert cfg_read_int(pci, msi, 0x42, 2) & 0x70 == 0


def test_msi_pending_bits_are_the_devices(pci, msi):
    get_config_space(pci)[0x54] = 5
    cfg_write(pci, msi, 0x54, bytes(4))
    assert cfg_read_int(pci, msi, 0x54, 4) == 5


@pytest.mark.defect("D75")
def test_msi_with_32_bit_addresses_has_its_mask_elsewhere(pci):
    """Mask and pending bits come 4 bytes earlier, and pending bits are read-only."""
    control = (MSI_MASK | 3 << 1).to_bytes(2, "little")
    add(pci, bytes([PCI_CAP_ID_MSI, 0]) + control + bytes(20))
    sock = serve(pci)
    cfg_write(pci, sock, 0x44, 0xFEE00000, 4)
    cfg_write(pci, sock, 0x48, 0x4041, 2)
    cfg_write(pci, sock, 0x4C, 0x03, 4)
    assert cfg_read_int(pci, sock, 0x48, 2) == 0x4041
    assert cfg_read_int(pci, sock, 0x4C, 4) == 0x03
    get_config_space(pci)[0x50] = 5
    cfg_write(pci, sock, 0x50, bytes(4))
    assert cfg_read_int(pci, sock, 0x50, 4) == 5


@pytest.mark.defect("D13")
def test_msi_write_past_its_end(pci, msi):
    """Twenty bytes too many must not reach anything."""
    cfg_write(pci, msi, 0x40 + 20, b"\xff" * 24, expect=errno.EINVAL)
    assert cfg_read(pci, msi, 0x58, 16) == bytes(16)


# MSI-X


@pytest.fixture
def msix(pci):
    data = bytearray(PCI_CAP_MSIX_SIZEOF)
    data[0] = PCI_CAP_ID_MSIX
    data[2:4] = (31).to_bytes(2, "little")
    data[4:8] = (0x1000 | 4).to_bytes(4, "little")
    data[8:12] = (0x2000 | 5).to_bytes(4, "little")
    assert add(pci, bytes(data)) == 0x40
    return serve(pci)


@pytest.mark.parametrize("value", [0x8000, 0x4000, 0xC000, 0x0000])
def test_msix_enable_and_mask(pci, msix, value):
    cfg_write(pci, msix, 0x42, value | 0x3FFF, 2)
    assert cfg_read_int(pci, msix, 0x42, 2) == value | 31


def test_msix_the_rest_is_fixed(pci, msix):
    before = cfg_read(pci, msix, 0x44, 8)
    cfg_write(pci, msix, 0x44, b"\xff" * 8)
    assert cfg_read(pci, msix, 0x44, 8) == before


def test_msix_odd_write(pci, msix):
    """Some clients write two bytes at the odd half of the control register."""
    cfg_write(pci, msix, 0x43, b"\x80\xff")
    assert cfg_read_int(pci, msix, 0x42, 2) == 0x8000 | 31
    assert cfg_read_int(pci, msix, 0x44, 4) == 0x1000 | 4


def test_msix_one_byte(pci, msix):
    cfg_write(pci, msix, 0x43, b"\xc0")
    assert cfg_read_int(pci, msix, 0x42, 2) == 0xC000 | 31
    cfg_write(pci, msix, 0x42, b"\0")
    assert cfg_read_int(pci, msix, 0x42, 2) == 0xC000 | 31


@pytest.mark.defect("D13")
def test_msix_write_past_its_end(pci, msix):
    cfg_write(pci, msix, 0x40 + 8, b"\xff" * 12, expect=errno.EINVAL)
    assert cfg_read(pci, msix, 0x4C, 8) == bytes(8)


# PCI Express


@pytest.fixture
def express(pci):
    data = bytes([PCI_CAP_ID_EXP]) + bytes(VFIO_USER_PCI_CAP_EXP_SIZEOF - 1)
    assert add(pci, data) == 0x40
    return serve(pci)


@pytest.mark.parametrize("register", [PCI_EXP_DEVCTL2, PCI_EXP_LNKCTL2])
@pytest.mark.parametrize("value", [0xFFFF, 0x1234, 0])
def test_express_registers_that_are_stored(pci, express, register, value):
    cfg_write(pci, express, 0x40 + register, value, 2)
    assert cfg_read_int(pci, express, 0x40 + register, 2) == value


@pytest.mark.parametrize(
    "register",
    [PCI_EXP_LNKCTL, PCI_EXP_SLTCTL, PCI_EXP_RTCTL, PCI_EXP_SLTCTL2],
)
def test_express_registers_that_are_accepted(pci, express, register):
    cfg_write(pci, express, 0x40 + register, 0, 2)


@pytest.mark.parametrize("register", [2, 4, 12, 20, 30, 36, 44, 52])
def test_express_registers_that_are_fixed(pci, express, register):
    cfg_write(pci, express, 0x40 + register, 0xFFFF, 2, expect=errno.EINVAL)
    assert cfg_read_int(pci, express, 0x40 + register, 2) == 0


@pytest.mark.defect("D55")
@pytest.mark.parametrize("register", [PCI_EXP_LNKCTL, PCI_EXP_SLTCTL, PCI_EXP_RTCTL])
def test_express_controls_are_stored(pci, express, register):
    cfg_write(pci, express, 0x40 + register, 1, 2)
    assert cfg_read_int(pci, express, 0x40 + register, 2) == 1


@pytest.mark.defect("D55")
def test_express_device_status_is_cleared_by_writing_ones(pci, express):
    get_config_space(pci)[0x40 + PCI_EXP_DEVSTA] = 0x0F
    cfg_write(pci, express, 0x40 + PCI_EXP_DEVSTA, 0x05, 2)
    assert cfg_read_int(pci, express, 0x40 + PCI_EXP_DEVSTA, 2) == 0x0A


@pytest.mark.defect("D55")
def test_express_four_byte_write(pci, express):
    get_config_space(pci)[0x40 + PCI_EXP_DEVSTA] = 0x0F
    cfg_write(pci, express, 0x40 + PCI_EXP_DEVCTL, 0x0001_2030, 4)
    assert cfg_read_int(pci, express, 0x40 + PCI_EXP_DEVCTL, 4) == 0x000E_2030


@pytest.mark.defect("D55")
def test_express_one_byte_write(pci, express):
    cfg_write(pci, express, 0x40 + PCI_EXP_DEVCTL, 0x2030, 2)
    cfg_write(pci, express, 0x40 + PCI_EXP_DEVCTL + 1, b"\x50")
    assert cfg_read_int(pci, express, 0x40 + PCI_EXP_DEVCTL, 2) == 0x5030


@pytest.mark.parametrize(
    ("offset", "data"), [(PCI_EXP_DEVCTL + 1, b"\0\0"), (0, b"\0" * 60)]
)
def test_express_writes_of_odd_shape_do_not_reset(pci, express, offset, data):
    reset = setup_reset(pci)
    request = region_payload(CFG, 0x40 + offset, len(data), data)
    send(pci_sock := express, VFIO_USER_REGION_WRITE, request)
    run(pci)
    assert pci_sock.recv(4096)
    assert reset.count == 0
