"""REGION_READ and REGION_WRITE: bounds, callbacks, and what replies carry."""

import ctypes
import errno

import pytest

from .commands import *
from .harness import *

BAR0 = VFU_PCI_DEV_BAR0_REGION_IDX
BAR1 = VFU_PCI_DEV_BAR1_REGION_IDX
CFG = VFU_PCI_DEV_CFG_REGION_IDX
SIZE = 0x4000


@pytest.fixture
def bar0(ctx):
    region = RegionMemory(SIZE)
    setup_region(ctx, BAR0, SIZE, region)
    return region


@pytest.fixture
def sock(ctx, bar0):
    setup_region(ctx, BAR1, SIZE)
    return serve(ctx)


@pytest.mark.parametrize(
    ("offset", "count"), [(0, 1), (0, 4), (3, 7), (0x1000, 0x1000), (SIZE - 1, 1)]
)
def test_write_then_read(ctx, sock, bar0, offset, count):
    data = bytes(i * 7 & 0xFF for i in range(count))
    region_write(ctx, sock, BAR0, offset, data)
    assert region_read(ctx, sock, BAR0, offset, count) == data
    assert bar0.calls == [Access(offset, count, data), Access(offset, count, None)]


def test_callback_gets_the_context(ctx, sock, bar0):
    region_read(ctx, sock, BAR0, 0, 1)
    assert bar0.contexts == [ctx.value]


@pytest.mark.parametrize(
    ("offset", "count"),
    [(SIZE, 1), (SIZE - 1, 2), (0, SIZE + 1), (UINT64_MAX, 256), (UINT64_MAX - 3, 4)],
)
def test_out_of_bounds(ctx, sock, bar0, offset, count):
    assert region_read(ctx, sock, BAR0, offset, count, expect=errno.EINVAL) == b""
    data = bytes(min(count, SIZE + 1))
    region_write(ctx, sock, BAR0, offset, data, expect=errno.EINVAL)
    assert bar0.count == 0
    assert ctx.logged(LOG_ERR)


def test_no_bytes_are_no_access(ctx, sock, bar0):
    assert region_read(ctx, sock, BAR0, 0, 0) == b""
    assert region_write(ctx, sock, BAR0, 0, b"") == b""
    assert bar0.count == 0


@pytest.mark.parametrize("count", [SERVER_MAX_DATA_XFER_SIZE + 1, UINT32_MAX])
def test_more_than_a_transfer_may_have(ctx, sock, count):
    assert region_read(ctx, sock, BAR0, 0, count, expect=errno.EINVAL) == b""


@pytest.mark.parametrize("cmd", [VFIO_USER_REGION_READ, VFIO_USER_REGION_WRITE])
@pytest.mark.parametrize("length", [1, 8, 15])
def test_request_too_short(ctx, sock, cmd, length):
    request = region_payload(BAR0, 0, 4, b"data")[:length]
    msg(ctx, sock, cmd, request, expect=errno.EINVAL)


@pytest.mark.parametrize("count", [0, 3, 5, 1 << 20])
def test_written_data_must_have_the_announced_length(ctx, sock, bar0, count):
    request = region_payload(BAR0, 0, count, b"data")
    msg(ctx, sock, VFIO_USER_REGION_WRITE, request, expect=errno.EINVAL)
    assert bar0.count == 0


@pytest.mark.parametrize("region", [VFU_PCI_DEV_NUM_REGIONS, 255, UINT32_MAX])
def test_no_such_region(ctx, sock, region):
    region_read(ctx, sock, region, 0, 4, expect=errno.EINVAL)
    region_write(ctx, sock, region, 0, b"data", expect=errno.EINVAL)


def test_region_never_set_up(ctx, sock):
    region_read(ctx, sock, VFU_PCI_DEV_ROM_REGION_IDX, 0, 4, expect=errno.EINVAL)


def test_region_without_callback(ctx, sock):
    region_read(ctx, sock, BAR1, 0, 4, expect=errno.EINVAL)
    region_write(ctx, sock, BAR1, 0, b"data", expect=errno.EINVAL)


@pytest.mark.parametrize("number", [errno.EIO, errno.EPERM, 0xBEEF])
def test_failing_callback(ctx, sock, bar0, number):
    """The reply is as long as that of a success: some clients count on it."""
    bar0.fail(number, number)
    assert len(region_read(ctx, sock, BAR0, 0, 4, expect=number)) == 16 + 4
    assert get_errno() == number
    assert len(region_write(ctx, sock, BAR0, 0, b"data", expect=number)) == 16
    assert get_errno() == number


@pytest.mark.parametrize("answer", [0, 1, 3, 5, 100])
def test_callback_that_does_less_or_more(ctx, sock, bar0, answer):
    bar0.action = lambda *_: answer
    region_read(ctx, sock, BAR0, 0, 4, expect=errno.EINVAL)
    region_write(ctx, sock, BAR0, 0, b"data", expect=errno.EINVAL)


def test_other_requests_after_a_failure(ctx, sock, bar0):
    bar0.fail(errno.EIO)
    region_read(ctx, sock, BAR0, 0, 4, expect=errno.EIO)
    region_write(ctx, sock, BAR0, 0, b"data")
    assert region_read(ctx, sock, BAR0, 0, 4) == b"data"


def test_read_data_is_zero_where_the_callback_wrote_nothing(ctx, sock, bar0):
    """No leftovers of earlier messages may reach the client."""
    region_write(ctx, sock, BAR0, 0, b"\xff" * 256)
    bar0.action = lambda _buf, count, *_: count
    assert region_read(ctx, sock, BAR0, 0, 256) == bytes(256)


def test_reply_of_a_failed_read_has_no_leftovers(ctx, sock, bar0):
    region_write(ctx, sock, BAR0, 0, b"\xff" * 256)
    bar0.fail(errno.EIO)
    bar0.action = lambda *_: 0
    payload = region_read(ctx, sock, BAR0, 0, 256, expect=errno.EIO)
    assert payload[16:] == bytes(256)


def test_always_cb_takes_config_accesses(ctx):
    space = RegionMemory(256)
    space.memory[:4] = b"\x01\x02\x03\x04"
    flags = VFU_REGION_FLAG_RW | VFU_REGION_FLAG_ALWAYS_CB
    setup_region(ctx, CFG, 256, space, flags)
    sock = serve(ctx)
    assert cfg_read(ctx, sock, 0, 4) == b"\x01\x02\x03\x04"
    cfg_write(ctx, sock, 0, b"abcd")
    assert space.memory[:4] == b"abcd"
    assert bytes(get_config_space(ctx)[:4]) == bytes(4)


def test_region_without_bar_can_be_accessed(ctx):
    vga = RegionMemory(0x3001)
    setup_region(ctx, VFU_PCI_DEV_VGA_REGION_IDX, 0x3001, vga)
    sock = serve(ctx)
    region_write(ctx, sock, VFU_PCI_DEV_VGA_REGION_IDX, 0x3000, b"!")
    assert vga.memory[-1:] == b"!"


def test_callback_may_use_the_library(ctx, sock, bar0, fds):
    """Region callbacks may set up regions and look at the device they belong to."""
    seen = []

    def reenter(_buf, count, *_):
        seen.append(lib.vfu_get_poll_fd(ctx))
        ok(lib.vfu_create_ioeventfd, ctx, BAR0, -1, 0, 4, 0, 0, -1, 0)
        setup_region(ctx, VFU_PCI_DEV_BAR5_REGION_IDX, 64)
        lib.vfu_log(ctx, LOG_INFO, b"from the callback")
        return count

    bar0.action = reenter
    region_write(ctx, sock, BAR0, 0, b"data")
    assert seen == [lib.vfu_get_poll_fd(ctx)]
    assert get_region_info(ctx, sock, VFU_PCI_DEV_BAR5_REGION_IDX).size == 64
    assert "from the callback" in ctx.logged(LOG_INFO)


def test_callback_may_replace_its_own_region(ctx, sock, bar0):
    other = RegionMemory(64)

    def replace(_buf, count, *_):
        setup_region(ctx, BAR0, 64, other)
        return count

    bar0.action = replace
    region_write(ctx, sock, BAR0, 0, b"data")
    region_write(ctx, sock, BAR0, 0, b"more")
    assert other.memory[:4] == b"more"
    region_read(ctx, sock, BAR0, 64, 1, expect=errno.EINVAL)


def test_context_may_not_run_inside_its_callback_without_harm(ctx, sock, bar0):
    """A device that runs its context from a callback gets an answer, not a crash."""
    answers = []

    def rerun(_buf, count, *_):
        answers.append(lib.vfu_run_ctx(ctx))
        return count

    bar0.action = rerun
    region_write(ctx, sock, BAR0, 0, b"data")
    assert answers in ([0], [-1])


def read_1_mib(ctx, sock):
    """Ask for as much as a transfer may have, reading while the server runs."""
    count = SERVER_MAX_DATA_XFER_SIZE
    send(sock, VFIO_USER_REGION_READ, region_payload(BAR0, 0, count))
    received = bytearray()
    while len(received) < 32 + count:
        run(ctx)
        try:
            while chunk := sock.recv(1 << 20):
                received += chunk
        except BlockingIOError:
            continue
    return check_reply(bytes(received), VFIO_USER_REGION_READ).payload[16:]


@pytest.fixture
def big_region(ctx, bar0):
    bar0.memory = bytearray(range(256)) * (SERVER_MAX_DATA_XFER_SIZE // 256)
    setup_region(ctx, BAR0, SERVER_MAX_DATA_XFER_SIZE, bar0)
    return bar0


@pytest.mark.defect("D40")
def test_read_of_1_mib(ctx, sock, big_region):
    assert read_1_mib(ctx, sock) == big_region.memory
    assert big_region.count == 1


@pytest.mark.defect("D1")
def test_write_of_1_mib(ctx, sock, big_region):
    data = bytes(reversed(range(256))) * (SERVER_MAX_DATA_XFER_SIZE // 256)
    message = frame(VFIO_USER_REGION_WRITE, region_payload(BAR0, 0, len(data), data))
    assert len(message) == SERVER_MAX_MSG_SIZE
    pump(ctx, sock, message)
    run_until_idle(ctx)
    receive(sock, VFIO_USER_REGION_WRITE)
    assert big_region.memory == data
    assert big_region.count == 1


@pytest.mark.defect("D1")
@pytest.mark.parametrize("piece", [1, 7, 100])
def test_body_in_pieces(ctx, sock, bar0, piece):
    data = bytes(range(200))
    message = frame(VFIO_USER_REGION_WRITE, region_payload(BAR0, 0, len(data), data))
    send_bytes(sock, message[:16])
    for start in range(16, len(message), piece):
        assert run(ctx) == 0
        no_reply(sock)
        send_bytes(sock, message[start : start + piece])
    assert run(ctx) == 1
    get_reply(sock)
    assert bar0.memory[:200] == data


def test_callback_buffer_is_aligned_enough(ctx, sock, bar0):
    """Devices cast the buffer to integers."""
    addresses = []

    def note(buf, count, *_):
        addresses.append(ctypes.addressof(buf.contents))
        return count

    bar0.action = note
    region_read(ctx, sock, BAR0, 0, 8)
    region_write(ctx, sock, BAR0, 0, bytes(8))
    assert [address % 8 for address in addresses] == [0, 0]


def test_small_reads_after_large_ones(ctx):
    """Room that one large reply took is given back after many small ones."""
    region = RegionMemory(1 << 20)
    region.memory[:] = bytes(range(256)) * 4096
    setup_region(ctx, VFU_PCI_DEV_BAR2_REGION_IDX, 1 << 20, region)
    sock = serve(ctx)
    for _ in range(2):
        data = region_read(ctx, sock, VFU_PCI_DEV_BAR2_REGION_IDX, 0, 1 << 16)
        assert data == region.memory[: 1 << 16]
        for n in range(300):
            at = n * 4 + 1
            data = region_read(ctx, sock, VFU_PCI_DEV_BAR2_REGION_IDX, at, 4)
            assert data == region.memory[at : at + 4]
