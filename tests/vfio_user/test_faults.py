"""System calls of the library that fail, or are slow, at a moment that no client chooses.

Needs pytest-clib with the library under test (``--clib=LIB``), and is skipped without.
Torture lets each call fail once; here it matters what has gone before.
"""

import ctypes
import errno
import os
import socket
import threading

import pytest

from .commands import *
from .harness import *

ADDR = 0x10_0000
BAR0 = VFU_PCI_DEV_BAR0_REGION_IDX
DIRECT = VFU_SGL_DIRECT_ACCESS
FILE_IO = VFIO_USER_F_DMA_REGION_RW | VFIO_USER_F_DMA_REGION_FILE_IO
LARGE = 1 << 19
PREAD = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64
)

pytestmark = pytest.mark.extension


@pytest.fixture
def faults(request):
    if request.config.pluginmanager.get_plugin("clib-execution") is None:
        pytest.skip("needs pytest-clib with the library: --clib=LIB")
    return request.getfixturevalue("clib")


@pytest.fixture
def device(ctx):
    ctx.bar = RegionMemory(LARGE)
    ctx.bar.memory[:] = os.urandom(LARGE)
    setup_region(ctx, BAR0, LARGE, ctx.bar)
    ctx.dma = setup_dma(ctx)
    ctx.reset = setup_reset(ctx)
    setup_migration(ctx)
    ctx.sock = serve(ctx)
    return ctx


def ask(device, count):
    for _ in range(count):
        request = region_payload(BAR0, 0, LARGE - 64)
        send(device.sock, VFIO_USER_REGION_READ, request)


def replies(device, count):
    """All that the server still has to send; every reply must be whole."""
    size = 32 + LARGE - 64
    received = bytearray()
    for _ in range(100 * count):
        try:
            received += device.sock.recv(1 << 20)
        except BlockingIOError:
            run(device)
        if len(received) >= count * size:
            break
    assert len(received) == count * size
    for at in range(0, len(received), size):
        reply = check_reply(bytes(received[at : at + size]), VFIO_USER_REGION_READ)
        assert reply.payload[16:] == device.bar.memory[: LARGE - 64]
    no_reply(device.sock)


@pytest.fixture
def cut(device, faults):
    """Makes the next reply stop in the middle, and sendmsg fail ``count`` times then."""

    def cut(number, count):
        ask(device, 1)
        faults.fail("sendmsg", short=1000)
        faults.fail("sendmsg", number, nth=2, count=count)

    return cut


def test_rest_of_a_reply_cannot_be_sent_for_now(device, cut):
    """The client has the beginning: what comes next must be the rest."""
    cut(errno.ENOBUFS, 3)
    run(device, errno.ENOBUFS)
    run(device, errno.ENOBUFS)
    replies(device, 1)


def test_nothing_is_sent_into_the_middle_of_a_reply(device, cut):
    cut(errno.ENOBUFS, 1)
    assert run(device) == 1
    ask(device, 2)
    replies(device, 3)


def test_reply_that_cannot_be_sent_becomes_an_error(device, faults):
    with faults.fail("sendmsg", errno.ENOBUFS):
        msg(device, device.sock, VFIO_USER_DEVICE_RESET, expect=errno.ENOBUFS)
    msg(device, device.sock, VFIO_USER_DEVICE_RESET)


def test_eventfd_whose_flags_cannot_be_read_may_block(ctx, faults, fds):
    setup_irqs(ctx, VFU_DEV_MSIX_IRQ, 1)
    sock = serve(ctx)
    event = fds.add(os.eventfd(0, os.EFD_CLOEXEC))
    os.eventfd_write(event, 2**64 - 2)
    with faults.fail("fcntl", errno.EINVAL):
        set_irqs(ctx, sock, VFU_DEV_MSIX_IRQ, SET_EVENTFDS, 0, 1, fds=[event])
    fails(errno.EAGAIN, lib.vfu_irq_trigger, ctx, 0)


def transfer(device, function=lib.vfu_sgl_read, expect=errno.ETIMEDOUT):
    sgl = addr_to_sgl(device, ADDR, 8)
    buffer = ctypes.create_string_buffer(8)
    fails(expect, function, device, sgl, 1, buffer, 0)


def lost(device):
    """The stream has lost its order: it is given up."""
    assert device.reset.count == 0
    while lib.vfu_run_ctx(device) != -1:
        pass
    assert get_errno() == errno.ENOTCONN
    assert device.reset.calls == [VFU_RESET_LOST_CONN]
    connect_client(device)


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.ENOBUFS], ids=error_name)
@pytest.mark.parametrize("call", ["sendmsg", "recvmsg"])
def test_command_that_is_not_answered(device, faults, call, number):
    dma_map(device, device.sock, ADDR, PAGE_SIZE)
    injected = errno.EAGAIN if number == errno.ETIMEDOUT else number
    with faults.fail(call, injected):
        transfer(device, expect=number)
    lost(device)


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.ENOBUFS], ids=error_name)
def test_command_that_is_not_answered_after_a_request(device, faults, number):
    dma_map(device, device.sock, ADDR, PAGE_SIZE)
    send(device.sock, VFIO_USER_DEVICE_RESET)
    injected = errno.EAGAIN if number == errno.ETIMEDOUT else number
    with faults.fail("recvmsg", injected, nth=2):
        transfer(device, expect=number)
    assert run(device) == 1
    assert device.reset.calls == [VFU_RESET_DEVICE]
    device.reset.calls.clear()
    lost(device)


def test_client_leaves_behind_a_request(device):
    dma_map(device, device.sock, ADDR, PAGE_SIZE)
    send(device.sock, VFIO_USER_DEVICE_RESET)
    device.sock.shutdown(socket.SHUT_WR)
    transfer(device, expect=errno.ENOTCONN)


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.ENOBUFS], ids=error_name)
def test_command_behind_a_reply_that_cannot_be_sent(device, cut, number):
    dma_map(device, device.sock, ADDR, PAGE_SIZE)
    if number == errno.ETIMEDOUT:
        cut(errno.EAGAIN, 3)
        assert run(device) == 1
    else:
        cut(number, 3)
        run(device, number)
    transfer(device, expect=number)
    replies(device, 1)


def test_region_goes_while_it_is_read(device, faults, fds):
    """As if by another thread: what is under way is finished first."""
    memory = fds.memfd(PAGE_SIZE, b"contents")
    dma_map(device, device.sock, ADDR, PAGE_SIZE, memory, flags=FILE_IO)
    before = len(open_fds())
    sgl = addr_to_sgl(device, ADDR, 8)

    def slow(*args):
        dma_unmap(device, device.sock, ADDR, PAGE_SIZE)
        assert len(open_fds()) == before
        return mock.original(*args)

    buffer = ctypes.create_string_buffer(8)
    with faults.mock("pread", slow, prototype=PREAD) as mock:
        ok(lib.vfu_sgl_read, device, sgl, 1, buffer, DIRECT)
    assert buffer.raw == b"contents"
    assert len(open_fds()) == before - 1
    fails(errno.EINVAL, lib.vfu_sgl_read, device, sgl, 1, buffer, DIRECT)


def test_logging_stops_while_a_write_is_under_way(device, faults, fds):
    """What it would mark is freed after it."""
    memory = fds.memfd(PAGE_SIZE)
    dma_map(device, device.sock, ADDR, PAGE_SIZE, memory, flags=FILE_IO)
    dirty_start(device, device.sock)
    sgl = addr_to_sgl(device, ADDR, 8)

    def slow(*args):
        dirty_stop(device, device.sock)
        dirty_start(device, device.sock)
        return mock.original(*args)

    buffer = ctypes.create_string_buffer(b"contents", 8)
    with faults.mock("pwrite", slow, prototype=PREAD) as mock:
        ok(lib.vfu_sgl_write, device, sgl, 1, buffer, DIRECT)
    assert os.pread(memory, 8, 0) == b"contents"
    dirty_stop(device, device.sock)
    dirty_start(device, device.sock)
    assert dirty_report(device, device.sock, ADDR, PAGE_SIZE) == set()


def test_report_while_a_write_is_under_way(device, faults, fds):
    """Pages that were dirty before are told; what is being written is told later."""
    memory = fds.memfd(2 * PAGE_SIZE)
    dma_map(device, device.sock, ADDR, 2 * PAGE_SIZE, memory, flags=FILE_IO)
    dirty_start(device, device.sock)
    buffer = ctypes.create_string_buffer(b"contents", 8)
    first, second = (addr_to_sgl(device, ADDR + n * PAGE_SIZE, 8) for n in (0, 1))
    ok(lib.vfu_sgl_write, device, first, 1, buffer, DIRECT)
    seen = []

    def slow(*args):
        seen.append(dirty_report(device, device.sock, ADDR, 2 * PAGE_SIZE))
        return mock.original(*args)

    with faults.mock("pwrite", slow, prototype=PREAD) as mock:
        ok(lib.vfu_sgl_write, device, second, 1, buffer, DIRECT)
    seen.append(dirty_report(device, device.sock, ADDR, 2 * PAGE_SIZE))
    assert seen == [{0}, {1}]


def test_translation_at_full_speed_under_map_and_unmap(device, faults, fds):
    """Two threads without a pause in between, while the client changes its memory."""
    instance = pytest.importorskip("pytest_clib.script").instance
    pages = 50
    for n in range(pages):
        dma_map(device, device.sock, ADDR + 2 * n * PAGE_SIZE, PAGE_SIZE)
    entries = [sgl_array(1), sgl_array(1)]
    instances = [{"sgl": ctypes.addressof(entry)} for entry in entries]
    place = ADDR + 2 * (pages // 2) * PAGE_SIZE
    translate = faults.script("translate").call(
        lib.vfu_addr_to_sgl, device, place, 8, instance("sgl"), 1, PROT_READ, expect=1
    )
    done = threading.Event()

    def churn():
        while not done.is_set():
            for n in (0, pages // 2 - 1, pages // 2 + 1, pages - 1):
                at = ADDR + 2 * n * PAGE_SIZE
                dma_unmap(device, device.sock, at, PAGE_SIZE)
                dma_map(device, device.sock, at, PAGE_SIZE)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        result = translate.run(
            times=100_000, threads=2, instances=instances, batch=1000
        )
    finally:
        done.set()
        thread.join()
    assert result.operations == 200_000
    assert {entry[0].dma_addr for entry in entries} == {place}
