"""Translation, scatter entries, and direct access to client memory."""

import ctypes
import errno
import os

import pytest

from .commands import *
from .harness import *

ADDR = 0x10_0000
RW = PROT_READ | PROT_WRITE
DIRECT = VFU_SGL_DIRECT_ACCESS
FILE_IO = VFIO_USER_F_DMA_REGION_RW | VFIO_USER_F_DMA_REGION_FILE_IO


@pytest.fixture
def dma(ctx):
    return setup_dma(ctx)


@pytest.fixture
def sock(ctx, dma, fds):
    """Three regions in a row with memory, and one apart without."""
    sock = serve(ctx)
    ctx.memory = fds.memfd(4 * PAGE_SIZE)
    for i in range(3):
        at = i * PAGE_SIZE
        dma_map(ctx, sock, ADDR + at, PAGE_SIZE, ctx.memory, offset=at)
    dma_map(ctx, sock, 4 * ADDR, PAGE_SIZE)
    return sock


def transfer(function, ctx, sgl, data, flags=DIRECT, expect=0, count=None):
    """vfu_sgl_read or vfu_sgl_write; what is in the buffer afterwards."""
    buffer = ctypes.create_string_buffer(bytes(data), len(data))
    args = (ctx, sgl, len(sgl) if count is None else count, buffer, flags)
    if expect:
        fails(expect, function, *args)
    else:
        ok(function, *args)
    return buffer.raw


def test_size_of_an_entry():
    assert lib.dma_sg_size() == ctypes.sizeof(t.dma_sg_t) == 40


def test_entry_of_one_region(ctx, sock):
    [entry] = addr_to_sgl(ctx, ADDR + PAGE_SIZE + 0x10, 0x20)
    assert entry.dma_addr == ADDR + PAGE_SIZE
    assert (entry.offset, entry.length) == (0x10, 0x20)
    assert entry.writeable
    assert entry.region & UINT32_MAX


def test_entry_for_reading_only(ctx, sock):
    [entry] = addr_to_sgl(ctx, ADDR, 1, prot=PROT_READ)
    assert not entry.writeable


def test_entries_across_regions(ctx, sock):
    sgl = addr_to_sgl(ctx, ADDR, 3 * PAGE_SIZE, 3)
    assert [e.dma_addr for e in sgl] == [ADDR + i * PAGE_SIZE for i in range(3)]
    assert [(e.offset, e.length) for e in sgl] == [(0, PAGE_SIZE)] * 3


def test_entries_begin_and_end_inside_regions(ctx, sock):
    sgl = addr_to_sgl(ctx, ADDR + 0xFF0, PAGE_SIZE + 0x20, 3)
    assert [(e.offset, e.length) for e in sgl] == [
        (0xFF0, 0x10),
        (0, PAGE_SIZE),
        (0, 0x10),
    ]


@pytest.mark.parametrize(
    ("addr", "length"),
    [
        (0, 1),
        (ADDR - 1, 1),
        (ADDR - 1, 2),
        (ADDR + 3 * PAGE_SIZE, 1),
        (ADDR + 3 * PAGE_SIZE - 1, 2),
        (UINT64_MAX, 1),
        (4 * ADDR + PAGE_SIZE, 1),
    ],
)
def test_not_covered(ctx, sock, addr, length):
    addr_to_sgl(ctx, addr, length, expect=errno.ENOENT)


def test_gap_between_regions(ctx, sock):
    addr_to_sgl(ctx, ADDR, 4 * ADDR, 8, expect=errno.ENOENT)


@pytest.mark.parametrize("addr", [0, ADDR, UINT64_MAX])
def test_no_bytes_are_no_entries(ctx, sock, addr):
    sgl = sgl_array(1)
    assert lib.vfu_addr_to_sgl(ctx, addr, 0, sgl, 1, RW) == 0


@pytest.mark.parametrize(
    ("length", "room", "answer"),
    [
        (1, 0, -2),
        (PAGE_SIZE + 1, 1, -3),
        (3 * PAGE_SIZE, 0, -4),
        (3 * PAGE_SIZE, 2, -4),
    ],
)
def test_too_little_room_says_how_much_is_needed(ctx, sock, length, room, answer):
    sgl = sgl_array(3)
    set_errno(77)
    assert lib.vfu_addr_to_sgl(ctx, ADDR, length, sgl, room, RW) == answer
    assert get_errno() == 0
    assert [bool(e.length) for e in sgl] == [i < room for i in range(3)]


@pytest.mark.parametrize("flags", [VFIO_USER_F_DMA_REGION_READ, 0])
def test_write_to_a_region_that_forbids_it(ctx, sock, flags):
    dma_map(ctx, sock, 8 * ADDR, PAGE_SIZE, flags=flags)
    addr_to_sgl(ctx, 8 * ADDR, 1, expect=errno.EACCES)
    addr_to_sgl(ctx, 8 * ADDR, 1, prot=PROT_READ)


@pytest.mark.extension  # upstream checks it in its debug build only
def test_without_dma_support(ctx):
    serve(ctx)
    addr_to_sgl(ctx, ADDR, 1, expect=errno.EINVAL)


@pytest.mark.defect("D3")
@pytest.mark.parametrize(
    ("addr", "length"),
    [
        (ADDR, UINT64_MAX - 0xFF),
        (ADDR + 0x10, UINT64_MAX - ADDR),
        (ADDR, UINT64_MAX),
    ],
)
def test_length_that_wraps_after_a_lookup(ctx, sock, addr, length):
    """Whatever was looked up before must not make a difference."""
    addr_to_sgl(ctx, ADDR, 1)
    addr_to_sgl(ctx, addr, length, expect=errno.ENOENT)


@pytest.mark.parametrize("length", [UINT64_MAX, UINT64_MAX - ADDR + 1])
def test_length_that_wraps(ctx, sock, length):
    addr_to_sgl(ctx, ADDR, length, expect=errno.ENOENT)


def test_get_and_put(ctx, sock, dma):
    sgl = addr_to_sgl(ctx, ADDR, 3 * PAGE_SIZE, 3)
    iov = sgl_get(ctx, sgl)
    assert [v.iov_base for v in iov] == [i.vaddr for i in dma.register.calls[:3]]
    assert [v.iov_len for v in iov] == [PAGE_SIZE] * 3
    mapped_bytes(iov[1])[:6] = b"second"
    assert os.pread(ctx.memory, 6, PAGE_SIZE) == b"second"
    for _ in range(3):
        lib.vfu_sgl_put(ctx, sgl, iov, 3)


def test_get_of_a_part(ctx, sock, dma):
    iov = sgl_get(ctx, addr_to_sgl(ctx, ADDR + 0x123, 0x45))
    assert iov[0].iov_base == dma.register.calls[0].vaddr + 0x123
    assert iov[0].iov_len == 0x45


def test_get_of_an_empty_entry(ctx, sock):
    sgl, iov = sgl_array(1), (t.iovec * 1)()
    fails(errno.EINVAL, lib.vfu_sgl_get, ctx, sgl, iov, 1, 0)


def test_get_of_memory_that_is_not_there(ctx, sock):
    sgl, iov = addr_to_sgl(ctx, 4 * ADDR, 1), (t.iovec * 1)()
    fails(errno.EFAULT, lib.vfu_sgl_get, ctx, sgl, iov, 1, 0)


def test_get_of_a_file_io_region(ctx, sock):
    dma_map(ctx, sock, 8 * ADDR, PAGE_SIZE, ctx.memory, flags=FILE_IO)
    sgl, iov = addr_to_sgl(ctx, 8 * ADDR, 1), (t.iovec * 1)()
    fails(errno.EFAULT, lib.vfu_sgl_get, ctx, sgl, iov, 1, 0)


@pytest.mark.extension  # upstream checks it in its debug build only
def test_get_with_flags(ctx, sock):
    sgl, iov = addr_to_sgl(ctx, ADDR, 1), (t.iovec * 1)()
    fails(errno.EINVAL, lib.vfu_sgl_get, ctx, sgl, iov, 1, 1)


@pytest.mark.extension  # upstream checks it in its debug build only
def test_get_needs_an_unregister_callback(ctx, fds):
    """Without one the device could not know when memory goes away."""
    setup_dma(ctx, unregister=False)
    sock = serve(ctx)
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fds.memfd(PAGE_SIZE))
    sgl, iov = addr_to_sgl(ctx, ADDR, 1), (t.iovec * 1)()
    fails(errno.EINVAL, lib.vfu_sgl_get, ctx, sgl, iov, 1, 0)


def test_is_mappable(ctx, sock):
    dma_map(ctx, sock, 8 * ADDR, PAGE_SIZE, ctx.memory, flags=FILE_IO)
    for addr, answer in ((ADDR, True), (4 * ADDR, False), (8 * ADDR, False)):
        assert lib.vfu_sg_is_mappable(ctx, addr_to_sgl(ctx, addr, 1)) is answer


# Direct transfers


@pytest.fixture(params=["mapped", "file"])
def direct(request, ctx, dma, fds):
    """A region whose memory the server reaches without the client."""
    sock = serve(ctx)
    ctx.memory = fds.memfd(4 * PAGE_SIZE)
    flags = VFIO_USER_F_DMA_REGION_RW if request.param == "mapped" else FILE_IO
    dma_map(ctx, sock, ADDR, 2 * PAGE_SIZE, ctx.memory, flags=flags, offset=PAGE_SIZE)
    return sock


def test_direct_write_and_read(ctx, direct):
    data = bytes(range(64))
    sgl = addr_to_sgl(ctx, ADDR + 0x30, 64)
    transfer(lib.vfu_sgl_write, ctx, sgl, data)
    assert os.pread(ctx.memory, 64, PAGE_SIZE + 0x30) == data
    assert transfer(lib.vfu_sgl_read, ctx, sgl, bytes(64)) == data
    no_reply(direct)


def test_direct_transfer_of_a_whole_region(ctx, direct):
    data = os.urandom(2 * PAGE_SIZE)
    sgl = addr_to_sgl(ctx, ADDR, 2 * PAGE_SIZE)
    transfer(lib.vfu_sgl_write, ctx, sgl, data)
    assert transfer(lib.vfu_sgl_read, ctx, sgl, bytes(len(data))) == data


def test_direct_transfer_past_the_end_of_a_file(ctx, sock):
    dma_map(ctx, sock, 8 * ADDR, 8 * PAGE_SIZE, ctx.memory, flags=FILE_IO)
    sgl = addr_to_sgl(ctx, 8 * ADDR + 3 * PAGE_SIZE, 2 * PAGE_SIZE)
    transfer(lib.vfu_sgl_read, ctx, sgl, bytes(2 * PAGE_SIZE), expect=errno.EIO)


def test_direct_write_that_the_file_refuses(ctx, sock, fds, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(PAGE_SIZE))
    fd = fds.add(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    dma_map(ctx, sock, 8 * ADDR, PAGE_SIZE, fd, flags=FILE_IO)
    sgl = addr_to_sgl(ctx, 8 * ADDR, 4)
    transfer(lib.vfu_sgl_write, ctx, sgl, b"data", expect=errno.EIO)


@pytest.mark.parametrize("function", [lib.vfu_sgl_read, lib.vfu_sgl_write])
@pytest.mark.parametrize("flags", [2, 0x42, -1])
def test_transfer_with_unknown_flags(ctx, direct, function, flags):
    sgl = addr_to_sgl(ctx, ADDR, 4)
    transfer(function, ctx, sgl, b"data", flags, expect=errno.EINVAL)


@pytest.mark.parametrize("function", [lib.vfu_sgl_read, lib.vfu_sgl_write])
def test_transfer_of_no_entries(ctx, direct, function):
    """Refused, or nothing done; in no case an entry looked at."""
    sgl = addr_to_sgl(ctx, ADDR, 4)
    buffer = ctypes.create_string_buffer(b"same", 4)
    assert function(ctx, sgl, 0, buffer, DIRECT) in (0, -1)
    assert buffer.raw == b"same"
    assert os.pread(ctx.memory, 4, PAGE_SIZE) == bytes(4)


def test_write_with_an_entry_for_reading(ctx, direct):
    sgl = addr_to_sgl(ctx, ADDR, 4, prot=PROT_READ)
    transfer(lib.vfu_sgl_write, ctx, sgl, b"data", expect=errno.EPERM)
    transfer(lib.vfu_sgl_write, ctx, sgl, b"data", flags=0, expect=errno.EPERM)
    transfer(lib.vfu_sgl_read, ctx, sgl, bytes(4))


@pytest.mark.extension
@pytest.mark.parametrize("count", [2, 3])
def test_direct_transfer_over_several_entries(ctx, sock, count):
    data = os.urandom(count * PAGE_SIZE - 0x30)
    sgl = addr_to_sgl(ctx, ADDR + 0x10, len(data), count)
    transfer(lib.vfu_sgl_write, ctx, sgl, data)
    assert os.pread(ctx.memory, len(data), 0x10) == data
    assert transfer(lib.vfu_sgl_read, ctx, sgl, bytes(len(data))) == data


@pytest.mark.extension
def test_several_entries_with_one_for_reading_write_nothing(ctx, sock):
    sgl = addr_to_sgl(ctx, ADDR, 2 * PAGE_SIZE, 2)
    sgl[1] = addr_to_sgl(ctx, ADDR + PAGE_SIZE, PAGE_SIZE, prot=PROT_READ)[0]
    data = b"x" * 2 * PAGE_SIZE
    transfer(lib.vfu_sgl_write, ctx, sgl, data, expect=errno.EPERM)
    assert os.pread(ctx.memory, 2 * PAGE_SIZE, 0) == bytes(2 * PAGE_SIZE)


# Entries that outlive their region


@pytest.mark.defect("D72")
@pytest.mark.parametrize("way", ["unmap", "remap", "disconnect"])
def test_entry_of_a_region_that_is_gone(ctx, sock, way):
    sgl = addr_to_sgl(ctx, ADDR, 4)
    if way == "disconnect":
        disconnect(ctx, sock)
    else:
        dma_unmap(ctx, sock, ADDR, PAGE_SIZE)
    if way == "remap":
        dma_map(ctx, sock, ADDR, PAGE_SIZE, ctx.memory)
    iov = (t.iovec * 1)()
    fails(errno.EINVAL, lib.vfu_sgl_get, ctx, sgl, iov, 1, 0)
    fails_to_transfer(ctx, sgl)


def fails_to_transfer(ctx, sgl):
    for function in (lib.vfu_sgl_read, lib.vfu_sgl_write):
        buffer = ctypes.create_string_buffer(4)
        assert function(ctx, sgl, 1, buffer, DIRECT) == -1


@pytest.mark.defect("D72")
def test_marking_an_entry_of_a_region_that_is_gone(ctx, sock):
    sgl = addr_to_sgl(ctx, ADDR, 4)
    dma_unmap(ctx, sock, ADDR, PAGE_SIZE)
    lib.vfu_sgl_mark_dirty(ctx, sgl, 1)
    lib.vfu_sgl_put(ctx, sgl, None, 1)
    assert not lib.vfu_sg_is_mappable(ctx, sgl)


@pytest.mark.parametrize("dead", [0, 1])
def test_lookups_follow_the_regions(new_ctx, fds, dead):
    """Two contexts with the same addresses do not see each other's memory."""
    made = []
    for content in (b"one", b"two"):
        ctx = new_ctx()
        setup_dma(ctx)
        sock = serve(ctx)
        dma_map(ctx, sock, ADDR, PAGE_SIZE, fds.memfd(PAGE_SIZE, content))
        made.append((ctx, sock, content))
    for ctx, _, content in made * 2:
        iov = sgl_get(ctx, addr_to_sgl(ctx, ADDR, 3))
        assert mapped_bytes(iov[0])[:] == content
    ctx, sock, _ = made[dead]
    dma_unmap(ctx, sock, ADDR, PAGE_SIZE)
    addr_to_sgl(ctx, ADDR, 1, expect=errno.ENOENT)
    assert is_mapped(made[1 - dead][0], ADDR)
