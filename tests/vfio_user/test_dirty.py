"""Dirty page logging: start, stop, mark, report."""

import ctypes
import errno
import os
import resource

import pytest

from .commands import *
from .harness import *

ADDR = 0x10_0000
PAGES = 32
SIZE = PAGES * PAGE_SIZE
MESSAGES = ADDR + SIZE  # the address of a region without memory
START = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START
REPORT = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT


@pytest.fixture
def device(ctx, fds):
    """One region with memory (more than its file has) and one without."""
    setup_quiesce(ctx)
    ctx.dma = setup_dma(ctx)
    ctx.sock = serve(ctx)
    setup_migration(ctx)
    ctx.memory = fds.memfd(SIZE // 2)
    dma_map(ctx, ctx.sock, ADDR, SIZE, ctx.memory)
    dma_map(ctx, ctx.sock, MESSAGES, SIZE)
    return ctx


@pytest.fixture
def logging(device):
    dirty_start(device, device.sock)
    return device


def page(number):
    return ADDR + number * PAGE_SIZE


def report(ctx, length=SIZE, page_size=PAGE_SIZE, addr=ADDR, **how):
    return dirty_report(ctx, ctx.sock, addr, length, page_size, **how)


# Start and stop


def test_start_is_idempotent(device):
    for _ in range(3):
        dirty_start(device, device.sock)
    assert report(device) == set()


@pytest.mark.parametrize("page_size", [PAGE_SIZE // 2, PAGE_SIZE * 2])
def test_start_again_with_other_pages(logging, page_size):
    dirty_start(logging, logging.sock, page_size, expect=errno.EINVAL)
    assert report(logging) == set()


def test_start_with_pages_of_0(device):
    dirty_start(device, device.sock, 0, expect=errno.EINVAL)


@pytest.mark.defect("D61")
@pytest.mark.parametrize("page_size", [1, 2, 3, 5, PAGE_SIZE - 1, PAGE_SIZE + 1, 6000])
def test_start_with_pages_that_cannot_be(device, page_size):
    dirty_start(device, device.sock, page_size, expect=errno.EINVAL)
    report(device, expect=errno.EINVAL)


@pytest.mark.parametrize("page_size", [PAGE_SIZE, 4 * PAGE_SIZE, SIZE])
def test_start_with_larger_pages(device, page_size):
    dirty_start(device, device.sock, page_size)
    touch(device, page(5))
    assert report(device, page_size=page_size) == {5 * PAGE_SIZE // page_size}


def test_start_with_pages_larger_than_a_region(device):
    dirty_start(device, device.sock, 2 * SIZE, expect=errno.EINVAL)
    report(device, expect=errno.EINVAL)


def test_start_echoes_the_request(device):
    payload = dirty_start(device, device.sock)
    assert payload == PAGE_SIZE.to_bytes(8, "little") + bytes(8)


def test_stop_always_succeeds(device):
    dirty_stop(device, device.sock)
    dirty_start(device, device.sock)
    dirty_stop(device, device.sock)
    dirty_stop(device, device.sock)
    report(device, expect=errno.EINVAL)


def test_other_pages_after_a_stop(logging):
    dirty_stop(logging, logging.sock)
    dirty_start(logging, logging.sock, 2 * PAGE_SIZE)
    touch(logging, page(3))
    assert report(logging, page_size=2 * PAGE_SIZE) == {1}


def test_nothing_is_remembered_over_a_stop(logging):
    touch(logging, page(3))
    dirty_stop(logging, logging.sock)
    touch(logging, page(4))
    dirty_start(logging, logging.sock)
    assert report(logging) == set()


@pytest.mark.defect("D6")
@pytest.mark.parametrize("length", [12, 15, 16, 20, 23])
def test_start_request_too_short(device, length):
    control = PAGE_SIZE.to_bytes(8, "little") + bytes(8)
    request = feature_payload(START, control, argsz=24)[:length]
    cmd = VFIO_USER_DEVICE_FEATURE
    msg(device, device.sock, cmd, request, expect=errno.EINVAL)
    report(device, expect=errno.EINVAL)


def test_start_request_without_content(device):
    flags = START
    device_feature(device, device.sock, flags, argsz=24, expect=errno.EINVAL)


def test_without_dma_support_and_migration(ctx):
    sock = serve(ctx)
    dirty_start(ctx, sock, expect=errno.EINVAL)
    dirty_report(ctx, sock, ADDR, SIZE, expect=errno.EINVAL)


@pytest.mark.defect("D7")
def test_without_dma_support(ctx):
    setup_migration(ctx)
    sock = serve(ctx)
    dirty_start(ctx, sock, expect=errno.EINVAL)


def test_report_without_dma_support(ctx):
    setup_migration(ctx)
    sock = serve(ctx)
    dirty_report(ctx, sock, ADDR, SIZE, expect=errno.EINVAL)


# What marks


def test_nothing_is_dirty_at_first(logging):
    assert report(logging) == set()


def test_put_marks_and_a_report_clears(logging):
    sgl = addr_to_sgl(logging, page(2), 1)
    iov = sgl_get(logging, sgl)
    assert report(logging) == set()
    lib.vfu_sgl_put(logging, sgl, iov, 1)
    assert report(logging) == {2}
    assert report(logging) == set()
    lib.vfu_sgl_put(logging, sgl, iov, 1)
    assert report(logging) == {2}


def test_mark_dirty_marks(logging):
    sgl = addr_to_sgl(logging, page(7), 3 * PAGE_SIZE)
    lib.vfu_sgl_mark_dirty(logging, sgl, 1)
    assert report(logging) == {7, 8, 9}


def test_reading_never_marks(logging):
    touch(logging, page(2), write=False)
    sgl = addr_to_sgl(logging, page(3), 1, prot=PROT_READ)
    lib.vfu_sgl_mark_dirty(logging, sgl, 1)
    buffer = ctypes.create_string_buffer(1)
    ok(lib.vfu_sgl_read, logging, sgl, 1, buffer, VFU_SGL_DIRECT_ACCESS)
    assert report(logging) == set()


@pytest.mark.parametrize(
    ("offset", "length", "dirty"),
    [
        (0, 1, {0}),
        (PAGE_SIZE - 1, 1, {0}),
        (PAGE_SIZE - 1, 2, {0, 1}),
        (0, PAGE_SIZE, {0}),
        (0, PAGE_SIZE + 1, {0, 1}),
        (5 * PAGE_SIZE + 7, 4 * PAGE_SIZE, {5, 6, 7, 8, 9}),
        (6 * PAGE_SIZE, 12 * PAGE_SIZE, set(range(6, 18))),
        (0, SIZE, set(range(PAGES))),
        (SIZE - 1, 1, {PAGES - 1}),
    ],
)
def test_pages_that_a_range_touches(logging, offset, length, dirty):
    touch(logging, ADDR + offset, length)
    assert report(logging) == dirty


def test_direct_write_marks(logging):
    sgl = addr_to_sgl(logging, page(1) + 100, PAGE_SIZE)
    data = ctypes.create_string_buffer(PAGE_SIZE)
    ok(lib.vfu_sgl_write, logging, sgl, 1, data, VFU_SGL_DIRECT_ACCESS)
    assert report(logging) == {1, 2}


def test_direct_write_to_a_file_marks(logging, fds):
    flags = VFIO_USER_F_DMA_REGION_RW | VFIO_USER_F_DMA_REGION_FILE_IO
    at = 4 * ADDR
    dma_map(logging, logging.sock, at, SIZE, fds.memfd(SIZE), flags=flags)
    sgl = addr_to_sgl(logging, at + 5 * PAGE_SIZE, 1)
    data = ctypes.create_string_buffer(1)
    ok(lib.vfu_sgl_write, logging, sgl, 1, data, VFU_SGL_DIRECT_ACCESS)
    assert report(logging, addr=at) == {5}


def test_several_entries_are_marked(logging, fds):
    at = ADDR - PAGE_SIZE
    dma_map(logging, logging.sock, at, PAGE_SIZE, fds.memfd(PAGE_SIZE))
    sgl = addr_to_sgl(logging, at, 2 * PAGE_SIZE, 2)
    lib.vfu_sgl_put(logging, sgl, sgl_get(logging, sgl), 2)
    assert report(logging) == {0}
    assert report(logging, PAGE_SIZE, addr=at) == {0}


def test_only_writeable_entries_are_marked(logging):
    sgl = sgl_array(2)
    sgl[0] = addr_to_sgl(logging, page(1), 1, prot=PROT_READ)[0]
    sgl[1] = addr_to_sgl(logging, page(2), 1)[0]
    lib.vfu_sgl_mark_dirty(logging, sgl, 2)
    assert report(logging) == {2}


def test_marks_without_logging_are_lost(device):
    touch(device, page(2))
    dirty_start(device, device.sock)
    assert report(device) == set()


def test_region_mapped_while_logging_is_logged(logging, fds):
    at = 4 * ADDR
    dma_map(logging, logging.sock, at, SIZE, fds.memfd(SIZE))
    touch(logging, at)
    assert report(logging, addr=at) == {0}


def test_region_smaller_than_a_logged_page_is_not_taken(device, fds):
    dirty_start(device, device.sock, 4 * PAGE_SIZE)
    fd = fds.memfd(PAGE_SIZE)
    before = open_fds()
    at = 4 * ADDR
    dma_map(device, device.sock, at, PAGE_SIZE, fd, expect=errno.EINVAL)
    assert open_fds() == before


@pytest.mark.defect("D8")
@pytest.mark.parametrize("function", ["vfu_sgl_put", "vfu_sgl_mark_dirty"])
def test_marking_a_message_region_is_harmless(logging, function):
    sgl = addr_to_sgl(logging, MESSAGES, 1)
    if function == "vfu_sgl_put":
        lib.vfu_sgl_put(logging, sgl, None, 1)
    else:
        lib.vfu_sgl_mark_dirty(logging, sgl, 1)
    assert report(logging) == set()


# Reports


def test_report_in_smaller_pages(logging):
    touch(logging, page(3), 2 * PAGE_SIZE)
    assert report(logging, page_size=PAGE_SIZE // 2) == {6, 7, 8, 9}
    assert report(logging) == set()


@pytest.mark.parametrize("factor", [2, 4, 16, PAGES])
def test_report_in_larger_pages(logging, factor):
    touch(logging, page(3), 2 * PAGE_SIZE)
    touch(logging, page(31))
    seen = report(logging, page_size=factor * PAGE_SIZE)
    assert seen == {n // factor for n in (3, 4, 31)}
    assert report(logging) == set()


def test_report_of_a_part_gives_whole_words(logging):
    """64 pages go at a time: those past the length are told and cleared too."""
    touch(logging, page(18), 6 * PAGE_SIZE)
    assert report(logging, SIZE // 2) == set(range(18, 24))
    assert report(logging) == set()


def test_report_keeps_what_it_does_not_tell(ctx, fds):
    setup_dma(ctx)
    setup_migration(ctx)
    ctx.sock = serve(ctx)
    size = 256 * PAGE_SIZE
    dma_map(ctx, ctx.sock, ADDR, size, fds.memfd(size))
    dirty_start(ctx, ctx.sock)
    for number in (0, 63, 64, 200):
        touch(ctx, page(number))
    assert report(ctx, 64 * PAGE_SIZE) == {0, 63}
    assert report(ctx, size) == {64, 200}


def test_report_of_an_unknown_range(logging):
    report(logging, addr=0, expect=errno.ENOENT)
    report(logging, addr=0x1000_0000, expect=errno.ENOENT)


def test_report_from_the_middle_of_a_page(logging):
    report(logging, SIZE - 1, addr=ADDR + 1, expect=errno.ENOTSUP)


def test_report_past_the_end_of_memory(logging):
    report(logging, 4 * SIZE, expect=errno.ENOENT)


@pytest.mark.parametrize(
    ("length", "page_size"),
    [
        (SIZE, 0),
        (SIZE, 3),
        (SIZE, PAGE_SIZE + 1),
        (SIZE, 2 * SIZE),
        (PAGE_SIZE // 2, PAGE_SIZE),
        (0, PAGE_SIZE),
    ],
)
def test_report_in_pages_that_cannot_be(logging, length, page_size):
    report(logging, length, page_size, argsz=4096, expect=errno.EINVAL)


def test_report_of_a_message_region(logging):
    report(logging, addr=MESSAGES, expect=errno.EINVAL)


@pytest.mark.parametrize("argsz", [0, 8, 31, 39])
def test_report_argsz_without_room(logging, argsz):
    report(logging, argsz=argsz, expect=errno.EINVAL)


def test_report_with_more_room_than_needed(logging):
    touch(logging, page(1))
    assert report(logging, argsz=4096) == {1}


@pytest.mark.parametrize(
    "length",
    [
        8,
        16,
        24,
        pytest.param(28, marks=pytest.mark.defect("D6")),
        pytest.param(31, marks=pytest.mark.defect("D6")),
    ],
)
def test_report_request_too_short(logging, length):
    """Otherwise what lies behind the request would be answered."""
    body = bytes(t.vfio_user_device_feature_dma_logging_report(ADDR, SIZE, PAGE_SIZE))
    request = feature_payload(REPORT, body, argsz=40)[:length]
    send(logging.sock, VFIO_USER_DEVICE_FEATURE, request)
    leave_leftovers(32, 0)
    run(logging)
    reply = receive(logging.sock, VFIO_USER_DEVICE_FEATURE, expect=errno.EINVAL)
    assert reply.payload == b""


def test_report_after_unmap(logging):
    touch(logging, page(1))
    dma_unmap(logging, logging.sock, ADDR, SIZE)
    report(logging, expect=errno.ENOENT)


def test_unmap_of_another_region_does_not_disturb(logging, fds):
    at = 4 * ADDR
    dma_map(logging, logging.sock, at, SIZE, fds.memfd(SIZE))
    touch(logging, at)
    touch(logging, page(9))
    dma_unmap(logging, logging.sock, ADDR, SIZE)
    assert report(logging, addr=at) == {0}


def test_destroy_while_logging(logging):
    touch(logging, page(1))
    logging.destroy()


@pytest.mark.defect("D2")
@pytest.mark.parametrize(
    ("size", "logged", "asked"),
    [
        (16 << 20, 64 << 10, 4 << 10),
        (64 << 10, 64 << 10, 2 << 10),
        (1 << 20, 1 << 20, 2 << 10),
    ],
)
def test_report_of_many_pages_in_smaller_ones(ctx, fds, size, logged, asked):
    setup_dma(ctx)
    setup_migration(ctx)
    sock = serve(ctx)
    dma_map(ctx, sock, ADDR, size, fds.memfd(size))
    dirty_start(ctx, sock, logged)
    assert dirty_report(ctx, sock, ADDR, size, asked) == set()
    touch(ctx, ADDR + size - 1)
    pages, factor = size // asked, logged // asked
    want = set(range(pages - factor, pages))
    assert dirty_report(ctx, sock, ADDR, size, asked) == want


@pytest.mark.defect("D2")
def test_report_of_many_pages_in_larger_ones(ctx, fds):
    size = 4096 * PAGE_SIZE
    setup_dma(ctx)
    setup_migration(ctx)
    sock = serve(ctx)
    dma_map(ctx, sock, ADDR, size, fds.memfd(size))
    dirty_start(ctx, sock)
    touch(ctx, page(4094))
    assert dirty_report(ctx, sock, ADDR, size, 2 * PAGE_SIZE) == {2047}


def test_report_of_many_pages(ctx, fds):
    size = 4096 * PAGE_SIZE
    setup_dma(ctx)
    setup_migration(ctx)
    sock = serve(ctx)
    dma_map(ctx, sock, ADDR, size, fds.memfd(size))
    dirty_start(ctx, sock)
    want = {0, 63, 64, 255, 256, 2047, 4095}
    for number in want:
        touch(ctx, page(number))
    assert dirty_report(ctx, sock, ADDR, size) == want


@pytest.mark.defect("D37")
def test_logging_ends_with_the_client(logging):
    disconnect(logging, logging.sock)
    logging.sock = connect_client(logging)
    dma_map(logging, logging.sock, ADDR, SIZE, logging.memory)
    report(logging, expect=errno.EINVAL)
    dirty_start(logging, logging.sock, 2 * PAGE_SIZE)


@pytest.fixture
def little_memory():
    """No room for one more block of a gigabyte."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * PAGE_SIZE

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), limits[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.defect("D62")
def test_report_of_a_huge_unknown_range_costs_no_memory(logging, little_memory):
    little_memory()
    data = bytes(t.vfio_user_device_feature_dma_logging_report(1 << 50, 1 << 46, 4096))
    send(
        logging.sock,
        VFIO_USER_DEVICE_FEATURE,
        feature_payload(REPORT, data, argsz=UINT32_MAX),
    )
    run(logging)
    header = t.vfio_user_header.from_buffer_copy(logging.sock.recv(4096))
    assert header.error_no in (errno.ENOENT, errno.EINVAL)


# What upstream lacks


@pytest.mark.extension
def test_report_from_inside_a_region(logging):
    touch(logging, page(10), 2 * PAGE_SIZE)
    seen = report(logging, 16 * PAGE_SIZE, addr=page(8))
    assert {n for n in seen if n < 16} == {2, 3}


@pytest.mark.extension
def test_report_over_two_regions(logging, fds):
    at = ADDR - SIZE
    dma_map(logging, logging.sock, at, SIZE, fds.memfd(SIZE))
    touch(logging, page(-1))
    touch(logging, page(0))
    assert report(logging, 2 * SIZE, addr=at) == {PAGES - 1, PAGES}


@pytest.mark.extension
def test_logging_of_some_ranges_only(device, fds):
    at = 4 * ADDR
    dma_map(device, device.sock, at, SIZE, fds.memfd(SIZE))
    dirty_start(device, device.sock, ranges=[(at, SIZE)])
    touch(device, page(1))
    touch(device, at + PAGE_SIZE)
    assert report(device, addr=at) == {1}
    assert not report_if_any(device, ADDR)


def report_if_any(ctx, addr, size=SIZE):
    """The dirty pages; none also if the range is not logged, which may be refused."""
    data = bytes(t.vfio_user_device_feature_dma_logging_report(addr, size, PAGE_SIZE))
    payload = feature_payload(REPORT, data, argsz=40)
    send(ctx.sock, VFIO_USER_DEVICE_FEATURE, payload)
    run(ctx)
    reply = ctx.sock.recv(4096)
    header = t.vfio_user_header.from_buffer_copy(reply)
    return set() if header.error_no else bits(reply[16 + 32 :])


@pytest.mark.defect("D5")
def test_report_over_two_regions_is_never_an_empty_success(logging, fds):
    at = ADDR - SIZE
    dma_map(logging, logging.sock, at, SIZE, fds.memfd(SIZE))
    data = bytes(t.vfio_user_device_feature_dma_logging_report(at, 2 * SIZE, PAGE_SIZE))
    send(
        logging.sock, VFIO_USER_DEVICE_FEATURE, feature_payload(REPORT, data, argsz=40)
    )
    run(logging)
    reply = logging.sock.recv(4096)
    header = t.vfio_user_header.from_buffer_copy(reply)
    assert header.error_no or len(reply) == 16 + 40


def test_descriptors_of_the_logging_device(logging, fds):
    before = len(open_fds())
    touch(logging, page(1))
    report(logging)
    dirty_stop(logging, logging.sock)
    assert len(open_fds()) == before
    assert os.fstat(logging.memory).st_size == SIZE // 2


@pytest.mark.extension
def test_ranges_that_touch_or_overlap(device, fds):
    """Also those that a second request adds."""
    at = 4 * ADDR
    for n in range(6):
        memory = fds.memfd(PAGE_SIZE)
        dma_map(device, device.sock, at + n * SIZE, PAGE_SIZE, memory)
    ranges = [(at + SIZE, SIZE), (at, SIZE), (at + SIZE // 2, SIZE)]
    dirty_start(device, device.sock, ranges=ranges)
    dirty_start(device, device.sock, ranges=[(at + 4 * SIZE, 1), (at + 2 * SIZE, 1)])
    for n in range(6):
        touch(device, at + n * SIZE)
    logged = [bool(report_if_any(device, at + n * SIZE, PAGE_SIZE)) for n in range(6)]
    assert logged == [True, True, True, False, True, False]


@pytest.mark.extension
@pytest.mark.parametrize("half", [0, 1])
def test_logged_page_that_is_only_partly_reported_stays_dirty(ctx, fds, half):
    setup_dma(ctx)
    setup_migration(ctx)
    ctx.sock = serve(ctx)
    dma_map(ctx, ctx.sock, ADDR, SIZE, fds.memfd(SIZE))
    dirty_start(ctx, ctx.sock, 2 * PAGE_SIZE)
    touch(ctx, page(4))
    if half:
        seen = report(ctx, 4 * PAGE_SIZE, addr=page(5))  # page 4 is before it
    else:
        seen = report(ctx, 4 * PAGE_SIZE, addr=page(1))  # page 5 is behind it
    assert seen == ({0} if half else {3})
    assert report(ctx) == {4, 5}


@pytest.mark.defect("D7")
def test_stop_without_dma_support(ctx):
    setup_migration(ctx)
    dirty_stop(ctx, serve(ctx))


@without_valgrind
@pytest.mark.extension
def test_more_memory_than_can_be_logged(ctx, fds):
    """A bit for each page of it would be more than a gigabyte."""
    setup_dma(ctx)
    setup_migration(ctx)
    ctx.sock = serve(ctx)
    size = 1 << 43
    for n in range(5):
        dma_map(ctx, ctx.sock, n * size, size, fds.memfd(size))
    dirty_start(ctx, ctx.sock, expect=errno.ENOMEM)
    dirty_start(ctx, ctx.sock, 16 * PAGE_SIZE)


@pytest.mark.extension
def test_logging_of_many_regions(new_ctx, fds):
    """Also of those that are not in memory, which have nothing to log."""
    ctx = new_ctx()
    setup_dma(ctx, max_regions=400)
    setup_migration(ctx)
    ctx.sock = serve(ctx)
    memory = fds.memfd(PAGE_SIZE)
    for n in range(300):
        fd = memory if n % 50 == 0 else None
        dma_map(ctx, ctx.sock, ADDR + n * PAGE_SIZE, PAGE_SIZE, fd)
    dirty_start(ctx, ctx.sock)
    for n in range(0, 300, 100):
        touch(ctx, ADDR + n * PAGE_SIZE)
    assert report(ctx, 300 * PAGE_SIZE) == {0, 100, 200}
