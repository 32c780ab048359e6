"""DMA_MAP: which regions are taken, and what the device learns of them."""

import ctypes
import errno
import mmap
import os

import pytest

from .commands import *
from .harness import *

READ = VFIO_USER_F_DMA_REGION_READ
WRITE = VFIO_USER_F_DMA_REGION_WRITE
RW = VFIO_USER_F_DMA_REGION_RW
MMAP = VFIO_USER_F_DMA_REGION_MMAP
FILE_IO = VFIO_USER_F_DMA_REGION_FILE_IO
ADDR = 0x10_0000


@pytest.fixture
def dma(ctx):
    return setup_dma(ctx)


@pytest.fixture
def sock(ctx, dma):
    return serve(ctx)


def test_message_region(ctx, sock, dma):
    """Without a descriptor the device learns address, size and protection only."""
    dma_map(ctx, sock, ADDR, 0x3000)
    info = DmaInfo(
        addr=ADDR,
        size=0x3000,
        vaddr=None,
        mapping=(None, 0),
        page_size=PAGE_SIZE,
        prot=PROT_READ | PROT_WRITE,
    )
    assert dma.register.calls == [info]
    assert dma.register.contexts == [ctx.value]
    assert is_mapped(ctx, ADDR, 0x3000)


@pytest.mark.parametrize(
    ("flags", "prot"),
    [
        (0, PROT_NONE),
        (READ, PROT_READ),
        (WRITE, PROT_WRITE),
        (RW, PROT_READ | PROT_WRITE),
    ],
)
@pytest.mark.parametrize("mode", [0, MMAP, FILE_IO], ids=["implicit", "mmap", "file"])
def test_protection(ctx, sock, dma, fds, flags, prot, mode):
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fds.memfd(PAGE_SIZE), flags=flags | mode)
    assert dma.register.calls[0].prot == prot


@pytest.mark.parametrize("flags", [RW, RW | MMAP], ids=["implicit", "mmap"])
def test_mapped_region(ctx, sock, dma, fds, flags):
    fd = fds.memfd(4 * PAGE_SIZE, b"content")
    dma_map(ctx, sock, ADDR, 2 * PAGE_SIZE, fd, flags=flags)
    [info] = dma.register.calls
    assert info.vaddr == info.mapping[0]
    assert info.mapping[1] == 2 * PAGE_SIZE
    assert info.page_size >= PAGE_SIZE
    iov = t.iovec(info.vaddr, info.size)
    assert mapped_bytes(iov)[:7] == b"content"
    mapped_bytes(iov)[:7] = b"shared!"
    assert os.pread(fd, 7, 0) == b"shared!"


def test_offset_in_the_file(ctx, sock, dma, fds):
    fd = fds.memfd(4 * PAGE_SIZE)
    os.pwrite(fd, b"second page", PAGE_SIZE)
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fd, offset=PAGE_SIZE)
    [info] = dma.register.calls
    assert mapped_bytes(t.iovec(info.vaddr, 11))[:] == b"second page"


def test_offset_that_is_not_a_page(ctx, sock, dma, fds):
    fd = fds.memfd(4 * PAGE_SIZE)
    os.pwrite(fd, b"inside", 0x10)
    dma_map(ctx, sock, ADDR, 0x100, fd, offset=0x10)
    [info] = dma.register.calls
    assert info.vaddr == info.mapping[0] + 0x10
    assert mapped_bytes(t.iovec(info.vaddr, 6))[:] == b"inside"


@pytest.mark.defect("D12")
def test_mapping_covers_a_region_at_an_unaligned_offset(ctx, sock, dma, fds):
    half = PAGE_SIZE // 2
    fd = fds.memfd(2 * PAGE_SIZE)
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fd, offset=half)
    [info] = dma.register.calls
    start, length = info.mapping
    assert start <= info.vaddr
    assert info.vaddr + info.size <= start + length


def test_file_io_region_is_not_mapped(ctx, sock, dma, fds):
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fds.memfd(PAGE_SIZE), flags=RW | FILE_IO)
    [info] = dma.register.calls
    assert (info.vaddr, info.mapping) == (None, (None, 0))


def test_file_shorter_than_the_region_is_accepted(ctx, sock, dma, fds):
    dma_map(ctx, sock, ADDR, 32 * PAGE_SIZE, fds.memfd(16 * PAGE_SIZE))
    assert dma.register.calls[0].mapping[1] == 32 * PAGE_SIZE


@pytest.mark.parametrize("flags", [RW | MMAP, RW | FILE_IO])
def test_access_by_descriptor_needs_one(ctx, sock, dma, flags):
    dma_map(ctx, sock, ADDR, PAGE_SIZE, flags=flags, expect=errno.EINVAL)
    assert dma.register.count == 0


@pytest.mark.parametrize("flags", [RW | MMAP | FILE_IO, 0x10, 0x80000003])
def test_flags_that_are_refused(ctx, sock, dma, fds, flags):
    fd = fds.memfd(PAGE_SIZE)
    before = open_fds()
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fd, flags=flags, expect=errno.EINVAL)
    assert dma.register.count == 0
    assert open_fds() == before


@pytest.mark.parametrize("length", [1, 16, 31])
def test_request_too_short(ctx, sock, length):
    payload = dma_map_payload(ADDR, PAGE_SIZE)[:length]
    msg(ctx, sock, VFIO_USER_DMA_MAP, payload, expect=errno.EINVAL)


@pytest.mark.parametrize("argsz", [0, 31])
def test_argsz_too_small(ctx, sock, argsz):
    payload = dma_map_payload(ADDR, PAGE_SIZE, argsz=argsz)
    msg(ctx, sock, VFIO_USER_DMA_MAP, payload, expect=errno.EINVAL)


@pytest.mark.parametrize("size", [SERVER_MAX_DMA_REGION_SIZE + PAGE_SIZE, 1 << 60])
def test_region_bigger_than_the_limit(ctx, sock, dma, size):
    """Refused, and the log says why."""
    dma_map(ctx, sock, ADDR, size, expect=errno.ENOSPC)
    assert dma.register.count == 0
    said = ctx.logged(LOG_ERR)
    assert "DMA" in said
    assert f"{size:#x}" in said or str(size) in said


def test_region_of_the_largest_size(ctx, sock, dma):
    dma_map(ctx, sock, 0, SERVER_MAX_DMA_REGION_SIZE)
    assert dma.register.calls[0].size == SERVER_MAX_DMA_REGION_SIZE


def test_more_regions_than_the_device_takes(ctx, sock, dma):
    for i in range(64):
        dma_map(ctx, sock, ADDR + i * PAGE_SIZE, PAGE_SIZE)
    above = ADDR + 64 * PAGE_SIZE
    dma_map(ctx, sock, above, PAGE_SIZE, expect=errno.EINVAL)
    assert dma.register.count == 64
    dma_unmap(ctx, sock, ADDR, PAGE_SIZE)
    dma_map(ctx, sock, above, PAGE_SIZE)


def test_device_that_takes_no_regions(ctx):
    setup_dma(ctx, max_regions=0)
    sock = serve(ctx)
    dma_map(ctx, sock, ADDR, PAGE_SIZE, expect=errno.EINVAL)


@pytest.mark.defect("D33")
@pytest.mark.parametrize("max_regions", [1 << 32, (1 << 63) + 1])
def test_device_that_takes_any_number_of_regions(ctx, max_regions):
    setup_dma(ctx, max_regions)
    sock = serve(ctx)
    for i in range(3):
        dma_map(ctx, sock, i << 20, PAGE_SIZE)


@pytest.mark.defect("D34")
def test_dma_support_set_up_twice(new_ctx, fds):
    """Refused, or the regions of before are released with the rest."""
    ctx = new_ctx()
    first = setup_dma(ctx)
    sock = serve(ctx)
    before = len(open_fds())
    fd = fds.memfd(PAGE_SIZE)
    flags = RW | FILE_IO
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fd, flags=flags)
    calls = ctx.keep(dma_calls())
    args = (64, calls.register.c, calls.unregister.c)
    if lib.vfu_setup_device_dma(ctx, *args) == 0:
        assert not is_mapped(ctx, ADDR) or first.unregister.count == 0
    ctx.destroy()
    fds.close(fd)
    assert len(open_fds()) == before - 2


@pytest.mark.parametrize(
    ("addr", "size"),
    [
        (ADDR, 2 * PAGE_SIZE),
        (ADDR - PAGE_SIZE, 2 * PAGE_SIZE),
        (ADDR - PAGE_SIZE, 9 * PAGE_SIZE),
        (ADDR + PAGE_SIZE, PAGE_SIZE),
        (ADDR + 3 * PAGE_SIZE, PAGE_SIZE + 1),
        (ADDR + 4 * PAGE_SIZE - 1, 1),
    ],
)
def test_overlap(ctx, sock, dma, addr, size):
    dma_map(ctx, sock, ADDR, 4 * PAGE_SIZE)
    dma_map(ctx, sock, addr, size, expect=errno.EINVAL)
    assert dma.register.count == 1


def test_neighbours_do_not_overlap(ctx, sock, dma):
    dma_map(ctx, sock, ADDR, PAGE_SIZE)
    dma_map(ctx, sock, ADDR + PAGE_SIZE, PAGE_SIZE)
    dma_map(ctx, sock, ADDR - PAGE_SIZE, PAGE_SIZE)
    assert dma.register.count == 3


@pytest.mark.parametrize(("addr", "size"), [(1, 1), (0x123, 0x45), (0, 3)])
def test_no_alignment_is_asked_for(ctx, sock, dma, addr, size):
    dma_map(ctx, sock, addr, size)
    assert is_mapped(ctx, addr, size)
    assert not is_mapped(ctx, addr + size)


@pytest.mark.defect("D25")
@pytest.mark.parametrize(
    ("addr", "size"), [(UINT64_MAX, 2), (UINT64_MAX - 0xFFE, PAGE_SIZE)]
)
def test_region_whose_end_wraps(ctx, sock, dma, addr, size):
    dma_map(ctx, sock, addr, size, expect=errno.EINVAL)
    assert dma.register.count == 0


@pytest.mark.defect("D26")
def test_empty_region(ctx, sock, dma):
    dma_map(ctx, sock, ADDR, 0, expect=errno.EINVAL)
    assert dma.register.count == 0


def test_same_region_again_succeeds_and_keeps_one(ctx, sock, dma, fds):
    fd = fds.memfd(PAGE_SIZE)
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fd)
    before = open_fds()
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fd)
    assert open_fds() == before
    dma_unmap(ctx, sock, ADDR, PAGE_SIZE)
    assert dma.unregister.count == 1
    dma_unmap(ctx, sock, ADDR, PAGE_SIZE, expect=errno.ENOENT)


def test_same_message_region_again_succeeds(ctx, sock, dma):
    dma_map(ctx, sock, ADDR, PAGE_SIZE)
    dma_map(ctx, sock, ADDR, PAGE_SIZE)
    dma_unmap(ctx, sock, ADDR, PAGE_SIZE)
    assert not is_mapped(ctx, ADDR)


@pytest.mark.defect("D76")
def test_same_region_again_is_not_registered_twice(ctx, sock, dma):
    dma_map(ctx, sock, ADDR, PAGE_SIZE)
    dma_map(ctx, sock, ADDR, PAGE_SIZE)
    assert dma.register.count == 1


@pytest.mark.parametrize("change", ["flags", "offset", "other file", "no file"])
def test_same_range_but_another_region(ctx, sock, dma, fds, change):
    fd = fds.memfd(4 * PAGE_SIZE)
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fd)
    changed = {
        "flags": {"fd": fd, "flags": READ},
        "offset": {"fd": fd, "offset": PAGE_SIZE},
        "other file": {"fd": fds.memfd(4 * PAGE_SIZE)},
        "no file": {},
    }[change]
    before = open_fds()
    dma_map(ctx, sock, ADDR, PAGE_SIZE, expect=errno.EINVAL, **changed)
    assert open_fds() == before
    assert dma.register.count == 1


def test_file_that_cannot_be_mapped(ctx, sock, dma, fds):
    """mmap's own errno comes through, and the descriptor is closed."""
    event = fds.eventfd()
    before = open_fds()
    dma_map(ctx, sock, ADDR, PAGE_SIZE, event, expect=errno.ENODEV)
    assert open_fds() == before
    assert not is_mapped(ctx, ADDR)


def test_file_that_must_not_be_written(ctx, sock, dma, fds, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(PAGE_SIZE))
    fd = fds.add(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fd, expect=errno.EACCES)
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fd, flags=READ)


def test_only_the_first_descriptor_is_kept(ctx, sock, dma, fds):
    first, *others = [fds.memfd(PAGE_SIZE) for _ in range(4)]
    os.pwrite(first, b"first", 0)
    payload = dma_map_payload(ADDR, PAGE_SIZE)
    before = len(open_fds())
    msg(ctx, sock, VFIO_USER_DMA_MAP, payload, fds=[first, *others])
    assert len(open_fds()) <= before + 1
    vaddr = dma.register.calls[0].vaddr
    assert mapped_bytes(t.iovec(vaddr, 5))[:] == b"first"


def test_one_file_in_many_regions(ctx, sock, dma, fds):
    """However often a file is sent, its regions share one descriptor at most."""
    fd = fds.memfd(16 * PAGE_SIZE)
    before = len(open_fds())
    for i in range(16):
        dma_map(ctx, sock, ADDR + i * PAGE_SIZE, PAGE_SIZE, fd, offset=i * PAGE_SIZE)
    dma_unmap(ctx, sock, 0, 0, flags=VFIO_DMA_UNMAP_FLAG_ALL)
    assert len(open_fds()) == before
    assert dma.unregister.count == 16


def test_without_dma_support_regions_are_ignored(ctx, fds):
    sock = serve(ctx)
    fd = fds.memfd(PAGE_SIZE)
    before = open_fds()
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fd)
    msg(ctx, sock, VFIO_USER_DMA_MAP, b"not looked at", fds=[fd])
    assert open_fds() == before


def test_callbacks_are_optional(ctx):
    setup_dma(ctx, register=False, unregister=False)
    sock = serve(ctx)
    dma_map(ctx, sock, ADDR, PAGE_SIZE)
    assert is_mapped(ctx, ADDR)
    dma_unmap(ctx, sock, ADDR, PAGE_SIZE)


def test_register_comes_before_the_reply(ctx, sock, dma):
    dma.register.action = lambda _info: no_reply(sock)
    dma_map(ctx, sock, ADDR, PAGE_SIZE)


def test_region_is_usable_in_its_register_callback(ctx, sock, dma, fds):
    seen = []

    def use(info):
        sgl = addr_to_sgl(ctx, info.contents.iova.iov_base, PAGE_SIZE)
        iov = sgl_get(ctx, sgl)
        seen.append(iov[0].iov_base == info.contents.vaddr)
        lib.vfu_sgl_put(ctx, sgl, iov, 1)

    dma.register.action = use
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fds.memfd(PAGE_SIZE))
    assert seen == [True]


@pytest.mark.defect("D64")  # upstream's, if built without kcmp
def test_client_that_changes_its_file_after_mapping(ctx, sock, dma, fds):
    """Status flags belong to the shared description: the client may change them."""
    fd = fds.memfd(PAGE_SIZE)
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fd)
    os.set_blocking(fd, False)
    dma_unmap(ctx, sock, ADDR, PAGE_SIZE)
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fd)
    assert dma.unregister.count == 1


def test_two_opens_of_one_file_are_two_files(ctx, sock, dma, fds, tmp_path):
    """Closing one must not take the other away."""
    path = tmp_path / "memory"
    path.write_bytes(b"m" * 2 * PAGE_SIZE)
    flags = os.O_RDWR | os.O_CLOEXEC
    for i in range(2):
        fd = fds.add(os.open(path, flags))
        dma_map(ctx, sock, ADDR + i * PAGE_SIZE, PAGE_SIZE, fd, flags=RW | FILE_IO)
        fds.close(fd)
    dma_unmap(ctx, sock, ADDR, PAGE_SIZE)
    sgl = addr_to_sgl(ctx, ADDR + PAGE_SIZE, 4)
    data = bytearray(4)
    buffer = (ctypes.c_char * 4).from_buffer(data)
    ok(lib.vfu_sgl_read, ctx, sgl, 1, buffer, VFU_SGL_DIRECT_ACCESS)
    assert data == b"mmmm"


def test_guest_memory_is_kept_out_of_core_dumps(ctx, sock, dma, fds):
    dma_map(ctx, sock, ADDR, 4 * PAGE_SIZE, fds.memfd(4 * PAGE_SIZE))
    flags = vm_flags(dma.register.calls[0].mapping[0])
    assert {"sh", "dd"} <= flags


def vm_flags(address):
    """The flags of the mapping that starts at an address, from smaps."""
    found = False
    with open("/proc/self/smaps") as smaps:
        for line in smaps:
            if line.startswith(f"{address:x}-"):
                found = True
            elif found and line.startswith("VmFlags:"):
                return set(line.split()[1:])
    raise AssertionError(f"no mapping at {address:#x}")


@without_valgrind
def test_mapping_is_gone_after_unmap(ctx, sock, dma, fds):
    dma_map(ctx, sock, ADDR, mmap.PAGESIZE, fds.memfd(mmap.PAGESIZE))
    start = dma.register.calls[0].mapping[0]
    vm_flags(start)
    dma_unmap(ctx, sock, ADDR, mmap.PAGESIZE)
    with pytest.raises(AssertionError, match="no mapping"):
        vm_flags(start)


@pytest.mark.parametrize("order", ["up", "down", "middle", "mixed"])
def test_many_regions(new_ctx, order):
    """More than one node of the library's index has, in every order."""
    ctx = new_ctx()
    dma = setup_dma(ctx, max_regions=2000)
    sock = serve(ctx)
    numbers = {
        "up": list(range(1500)),
        "down": list(range(1500))[::-1],
        "middle": sorted(range(1500), key=lambda n: abs(n - 750)),
        "mixed": [n * 677 % 1500 for n in range(1500)],
    }[order]
    for n in numbers:
        dma_map(ctx, sock, ADDR + n * PAGE_SIZE, PAGE_SIZE)
    assert is_mapped(ctx, ADDR + 1499 * PAGE_SIZE)
    sgl = addr_to_sgl(ctx, ADDR + 1, 1500 * PAGE_SIZE - 1, 1500)
    assert [s.dma_addr for s in sgl] == [ADDR + n * PAGE_SIZE for n in range(1500)]
    gone = [n for n in numbers if n % 100 >= 2]
    for n in gone:
        dma_unmap(ctx, sock, ADDR + n * PAGE_SIZE, PAGE_SIZE)
    for n in range(0, 1500, 50):
        assert is_mapped(ctx, ADDR + n * PAGE_SIZE) == (n not in gone)
    dma.unregister.calls.clear()
    disconnect(ctx, sock)
    left = sorted(set(numbers) - set(gone))
    addresses = [info.addr for info in dma.unregister.calls]
    assert addresses == [ADDR + n * PAGE_SIZE for n in left]


@pytest.mark.extension
def test_large_region_reaches_over_where_others_were(new_ctx):
    """What lies behind it in the index has gone."""
    ctx = new_ctx()
    setup_dma(ctx, max_regions=400)
    sock = serve(ctx)
    large = 1000 * PAGE_SIZE
    for n in range(300):
        dma_map(ctx, sock, ADDR + n * large, large - PAGE_SIZE)
    for first in range(0, 300, 3):
        for n in (first + 1, first + 2):
            dma_unmap(ctx, sock, ADDR + n * large, large - PAGE_SIZE)
    for n in range(300):
        assert is_mapped(ctx, ADDR + n * large + PAGE_SIZE) == (n % 3 == 0)
        assert not is_mapped(ctx, ADDR + (n + 1) * large - PAGE_SIZE)


@pytest.mark.extension
def test_region_of_a_file_again(ctx, sock, dma, fds, tmp_path):
    """The same through the same open file; another, if it was opened again."""
    path = tmp_path / "memory"
    path.write_bytes(bytes(PAGE_SIZE))
    first, again = (fds.add(os.open(path, os.O_RDWR | os.O_CLOEXEC)) for _ in "12")
    flags = RW | FILE_IO
    for _ in range(2):
        dma_map(ctx, sock, ADDR, PAGE_SIZE, first, flags=flags)
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fds.add(os.dup(first)), flags=flags)
    dma_map(ctx, sock, ADDR, PAGE_SIZE, again, flags=flags, expect=errno.EINVAL)
    assert dma.register.count == 1


@pytest.mark.extension
def test_memory_that_the_device_may_not_read(ctx, sock, fds):
    """A direct transfer is refused, and does not fault."""
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fds.memfd(PAGE_SIZE), flags=WRITE)
    sgl = addr_to_sgl(ctx, ADDR, 8, prot=PROT_WRITE)
    buffer = ctypes.create_string_buffer(8)
    direct = VFU_SGL_DIRECT_ACCESS
    ok(lib.vfu_sgl_write, ctx, sgl, 1, buffer, direct)
    fails(errno.EACCES, lib.vfu_sgl_read, ctx, sgl, 1, buffer, direct)


@pytest.mark.extension
def test_range_past_the_last_address(ctx, sock):
    last = (1 << 64) - PAGE_SIZE
    dma_map(ctx, sock, last, PAGE_SIZE)
    sgl = sgl_array(2)
    assert ok(lib.vfu_addr_to_sgl, ctx, last, PAGE_SIZE, sgl, 2, PROT_READ) == 1
    fails(errno.ENOENT, lib.vfu_addr_to_sgl, ctx, last, 2 * PAGE_SIZE, sgl, 2, 1)
