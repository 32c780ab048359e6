"""DMA_UNMAP: one region, all of them, and with the dirty bitmap."""

import errno

import pytest

from .commands import *
from .harness import *

ADDR = 0x10_0000
ALL = VFIO_DMA_UNMAP_FLAG_ALL
DIRTY = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP
SIZE = 16 * PAGE_SIZE


@pytest.fixture
def dma(ctx):
    setup_migration(ctx)
    return setup_dma(ctx)


@pytest.fixture
def sock(ctx, dma, fds):
    sock = serve(ctx)
    dma_map(ctx, sock, ADDR, SIZE, fds.memfd(SIZE))
    dma_map(ctx, sock, ADDR + SIZE, SIZE)
    return sock


def test_unmap(ctx, sock, dma):
    request = t.vfio_user_dma_unmap(argsz=24, addr=ADDR, size=SIZE)
    payload = msg(ctx, sock, VFIO_USER_DMA_UNMAP, bytes(request))
    assert payload == bytes(request)
    assert dma.unregister.calls == dma.register.calls[:1]
    assert not is_mapped(ctx, ADDR)
    assert is_mapped(ctx, ADDR + SIZE)


@pytest.mark.parametrize(
    ("addr", "size"),
    [
        (0, SIZE),
        (ADDR, SIZE // 2),
        (ADDR, 2 * SIZE),
        (ADDR + PAGE_SIZE, SIZE),
        (ADDR - PAGE_SIZE, SIZE),
        (ADDR, 0),
        (UINT64_MAX, UINT64_MAX),
    ],
)
def test_only_whole_regions(ctx, sock, dma, addr, size):
    dma_unmap(ctx, sock, addr, size, expect=errno.ENOENT)
    assert dma.unregister.count == 0
    assert is_mapped(ctx, ADDR, SIZE)


def test_unmap_twice(ctx, sock, dma):
    dma_unmap(ctx, sock, ADDR, SIZE)
    dma_unmap(ctx, sock, ADDR, SIZE, expect=errno.ENOENT)
    assert dma.unregister.count == 1


@pytest.mark.parametrize("length", [1, 8, 23])
def test_request_too_short(ctx, sock, length):
    request = bytes(t.vfio_user_dma_unmap(argsz=24, addr=ADDR, size=SIZE))
    cmd = VFIO_USER_DMA_UNMAP
    msg(ctx, sock, cmd, request[:length], expect=errno.EINVAL)


@pytest.mark.defect("D68")
def test_what_is_missing_of_a_request_is_not_looked_at(ctx, sock):
    """Neither flags nor size come from what an earlier request left in memory."""
    msg(ctx, sock, VFIO_USER_MAX, b"\xff" * 24, expect=errno.EINVAL)
    ctx.log.clear()
    msg(ctx, sock, VFIO_USER_DMA_UNMAP, b"\x18", expect=errno.EINVAL)
    assert "flags" not in ctx.logged()


@pytest.mark.parametrize("argsz", [0, 8, 23, (1 << 20) + 1, UINT32_MAX])
def test_argsz_out_of_range(ctx, sock, argsz):
    dma_unmap(ctx, sock, ADDR, SIZE, argsz=argsz, expect=errno.EINVAL)


@pytest.mark.parametrize("flags", [4, 8, 1 << 31, DIRTY | ALL])
def test_flags_that_are_refused(ctx, sock, flags):
    tail = bytes(t.vfio_user_bitmap(pgsize=PAGE_SIZE, size=8))
    dma_unmap(ctx, sock, 0, 0, flags=flags, argsz=48, tail=tail, expect=errno.EINVAL)


def test_unmap_all(ctx, sock, dma):
    for i in range(60):
        dma_map(ctx, sock, i * PAGE_SIZE, PAGE_SIZE)
    dma_unmap(ctx, sock, 0, 0, flags=ALL)
    seen = [info.addr for info in dma.unregister.calls]
    assert len(seen) == 62
    assert seen == sorted(seen)
    assert not is_mapped(ctx, ADDR)


def test_unmap_all_of_none(ctx, sock, dma):
    dma_unmap(ctx, sock, 0, 0, flags=ALL)
    dma_unmap(ctx, sock, 0, 0, flags=ALL)
    assert dma.unregister.count == 2


@pytest.mark.parametrize(("addr", "size"), [(ADDR, 0), (0, SIZE), (ADDR, SIZE)])
def test_unmap_all_takes_no_range(ctx, sock, dma, addr, size):
    dma_unmap(ctx, sock, addr, size, flags=ALL, expect=errno.EINVAL)
    assert dma.unregister.count == 0


def test_region_is_still_mapped_in_its_unregister_callback(ctx, sock, dma):
    """The memory may be used a last time."""
    contents = []

    def look(info):
        if vaddr := info.contents.vaddr:
            contents.append(mapped_bytes(t.iovec(vaddr, 4))[:])

    dma.unregister.action = look
    dma_unmap(ctx, sock, ADDR, SIZE)
    assert contents == [bytes(4)]


@pytest.mark.defect("D22")
def test_region_is_still_found_in_its_unregister_callback(ctx, sock, dma):
    found = []

    def translate(info):
        if not info.contents.vaddr:
            return
        sgl = addr_to_sgl(ctx, info.contents.iova.iov_base, PAGE_SIZE)
        iov = sgl_get(ctx, sgl)
        found.append(iov[0].iov_base)
        lib.vfu_sgl_put(ctx, sgl, iov, 1)

    dma.unregister.action = translate
    dma_unmap(ctx, sock, ADDR, SIZE)
    assert found == [dma.register.calls[0].vaddr]
    assert not is_mapped(ctx, ADDR)


def test_without_dma_support_there_is_nothing_to_unmap(ctx):
    sock = serve(ctx)
    assert dma_unmap(ctx, sock, ADDR, SIZE) == b""


def test_unmap_closes_the_file(ctx, sock, dma, fds):
    before = len(open_fds())
    for flags in (VFIO_USER_F_DMA_REGION_MMAP, VFIO_USER_F_DMA_REGION_FILE_IO):
        fd = fds.memfd(PAGE_SIZE)
        dma_map(ctx, sock, 0, PAGE_SIZE, fd, flags=VFIO_USER_F_DMA_REGION_RW | flags)
        dma_unmap(ctx, sock, 0, PAGE_SIZE)
        fds.close(fd)
    assert len(open_fds()) == before


# With the dirty bitmap


def test_dirty_bitmap_comes_with_the_unmap(ctx, sock, dma):
    dirty_start(ctx, sock)
    touch(ctx, ADDR + 3 * PAGE_SIZE)
    touch(ctx, ADDR + 10 * PAGE_SIZE, 2 * PAGE_SIZE)
    bitmap = dma_unmap_dirty(ctx, sock, ADDR, SIZE, PAGE_SIZE, 8)
    assert bits(bitmap) == {3, 10, 11}
    assert dma.unregister.count == 1
    assert not is_mapped(ctx, ADDR)


def test_dirty_bitmap_without_logging(ctx, sock, dma):
    dma_unmap_dirty(ctx, sock, ADDR, SIZE, PAGE_SIZE, 8, expect=errno.EINVAL)
    assert dma.unregister.count == 0
    assert is_mapped(ctx, ADDR, SIZE)


@pytest.mark.parametrize("size", [0, 7, 9, 16, 1 << 19])
def test_dirty_bitmap_of_another_size(ctx, sock, dma, size):
    dirty_start(ctx, sock)
    dma_unmap_dirty(ctx, sock, ADDR, SIZE, PAGE_SIZE, size, expect=errno.EINVAL)
    assert is_mapped(ctx, ADDR, SIZE)


@pytest.mark.parametrize("page_size", [0, 3, PAGE_SIZE + 1, 2 * SIZE])
def test_dirty_bitmap_of_pages_that_cannot_be(ctx, sock, dma, page_size):
    dirty_start(ctx, sock)
    dma_unmap_dirty(ctx, sock, ADDR, SIZE, page_size, 8, expect=errno.EINVAL)
    assert is_mapped(ctx, ADDR, SIZE)


@pytest.mark.parametrize("size", [UINT64_MAX, UINT64_MAX - 39, 1 << 32])
def test_dirty_bitmap_size_that_wraps(ctx, sock, dma, size):
    dirty_start(ctx, sock)
    tail = bytes(t.vfio_user_bitmap(pgsize=PAGE_SIZE, size=size))
    for argsz in (24, 40, 4096):
        dma_unmap(
            ctx,
            sock,
            ADDR,
            SIZE,
            flags=DIRTY,
            argsz=argsz,
            tail=tail,
            expect=errno.EINVAL,
        )
    assert is_mapped(ctx, ADDR, SIZE)


@pytest.mark.parametrize("length", [24, 25, 39])
def test_dirty_request_too_short(ctx, sock, length):
    dirty_start(ctx, sock)
    tail = bytes(t.vfio_user_bitmap(pgsize=PAGE_SIZE, size=8))[: length - 24]
    dma_unmap(
        ctx, sock, ADDR, SIZE, flags=DIRTY, argsz=48, tail=tail, expect=errno.EINVAL
    )


def test_dirty_argsz_must_have_room_for_the_bitmap(ctx, sock, dma):
    dirty_start(ctx, sock)
    tail = bytes(t.vfio_user_bitmap(pgsize=PAGE_SIZE, size=8))
    dma_unmap(
        ctx, sock, ADDR, SIZE, flags=DIRTY, argsz=47, tail=tail, expect=errno.EINVAL
    )
    assert dma.unregister.count == 0


def test_room_for_the_bitmap_may_be_sent_along(ctx, sock, dma):
    dirty_start(ctx, sock)
    touch(ctx, ADDR)
    tail = bytes(t.vfio_user_bitmap(pgsize=PAGE_SIZE, size=8)) + bytes(8)
    payload = dma_unmap(ctx, sock, ADDR, SIZE, flags=DIRTY, argsz=48, tail=tail)
    assert bits(payload[40:]) == {0}


def test_dirty_bitmap_of_an_unknown_range(ctx, sock, dma):
    dirty_start(ctx, sock)
    dma_unmap_dirty(ctx, sock, 0, SIZE, PAGE_SIZE, 8, expect=errno.ENOENT)


def test_dirty_bitmap_of_a_message_region(ctx, sock, dma):
    dirty_start(ctx, sock)
    args = (ctx, sock, ADDR + SIZE, SIZE, PAGE_SIZE, 8)
    dma_unmap_dirty(*args, expect=errno.EINVAL)
    assert is_mapped(ctx, ADDR + SIZE, SIZE)


@pytest.mark.defect("D57")
@pytest.mark.parametrize("factor", [0.5, 2])
def test_dirty_bitmap_shows_no_leftovers(ctx, sock, dma, factor):
    """A clean region is clean in pages of any size, whatever memory held before."""
    dirty_start(ctx, sock)
    page_size = int(PAGE_SIZE * factor)
    leave_leftovers(24 + 16 + 8)
    bitmap = dma_unmap_dirty(ctx, sock, ADDR, SIZE, page_size, 8)
    assert bits(bitmap) == set()


@pytest.mark.defect("D5")
def test_dirty_unmap_of_two_regions_is_no_success(ctx, dma, fds):
    sock = serve(ctx)
    for i in range(2):
        dma_map(ctx, sock, ADDR + i * SIZE, SIZE, fds.memfd(SIZE))
    dirty_start(ctx, sock)
    tail = bytes(t.vfio_user_bitmap(pgsize=PAGE_SIZE, size=8))
    request = t.vfio_user_dma_unmap(argsz=48, flags=DIRTY, addr=ADDR, size=2 * SIZE)
    send(sock, VFIO_USER_DMA_UNMAP, bytes(request) + tail)
    run(ctx)
    header = t.vfio_user_header.from_buffer_copy(sock.recv(4096))
    assert header.flags & VFIO_USER_F_ERROR
    assert header.error_no != 0
    assert is_mapped(ctx, ADDR, SIZE)
