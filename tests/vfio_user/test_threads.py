"""Use from several threads, as devices with I/O threads of their own do."""

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
import threading

import pytest

from .commands import *
from .harness import *

ADDR = 0x10_0000
DIRECT = VFU_SGL_DIRECT_ACCESS


def in_threads(*functions):
    """Run functions at the same time; raise what the first failing one raised."""
    failures = []

    def guarded(function):
        try:
            function()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=guarded, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_contexts_on_threads_of_their_own(new_ctx, fds):
    """Contexts have nothing in common."""
    devices = []
    for i in range(4):
        ctx = new_ctx(log_level=LOG_ERR)
        setup_dma(ctx)
        devices.append((ctx, serve(ctx), fds.memfd(PAGE_SIZE, bytes([i]) * 8)))

    def work(ctx, sock, fd):
        content = os.pread(fd, 8, 0)
        for _ in range(100):
            dma_map(ctx, sock, ADDR, PAGE_SIZE, fd)
            sgl = addr_to_sgl(ctx, ADDR, 8)
            assert mapped_bytes(sgl_get(ctx, sgl)[0])[:] == content
            dma_unmap(ctx, sock, ADDR, PAGE_SIZE)
            assert not is_mapped(ctx, ADDR)

    in_threads(*[lambda d=d: work(*d) for d in devices])


@pytest.fixture
def device(new_ctx, fds):
    ctx = new_ctx(log_level=LOG_ERR)
    ctx.dma = setup_dma(ctx)
    setup_migration(ctx)
    setup_irqs(ctx, VFU_DEV_MSIX_IRQ, 4)
    ctx.sock = serve(ctx)
    ctx.memory = fds.memfd(4 * PAGE_SIZE, b"steady!!")
    dma_map(ctx, ctx.sock, ADDR, PAGE_SIZE, ctx.memory)
    return ctx


def test_interrupts_from_several_threads(device, fds):
    event = fds.eventfd()
    payload = set_irqs_payload(VFU_DEV_MSIX_IRQ, SET_EVENTFDS, 0, 1)
    msg(device, device.sock, VFIO_USER_DEVICE_SET_IRQS, payload, fds=[event])

    def trigger():
        for _ in range(500):
            assert lib.vfu_irq_trigger(device, 0) == 0

    in_threads(*[trigger] * 4)
    assert eventfd_value(event) == 2000


def test_translation_from_several_threads(device):
    def translate():
        for _ in range(500):
            sgl, iov = sgl_array(1), (t.iovec * 1)()
            args = (device, ADDR, 8, sgl, 1, PROT_READ | PROT_WRITE)
            assert lib.vfu_addr_to_sgl(*args) == 1
            assert lib.vfu_sgl_get(device, sgl, iov, 1, 0) == 0
            assert mapped_bytes(iov[0])[:] == b"steady!!"
            lib.vfu_sgl_put(device, sgl, iov, 1)
            lib.vfu_log(device, LOG_DEBUG, b"not shown")
            assert lib.vfu_get_private(device) is None

    in_threads(*[translate] * 4)


@pytest.mark.extension  # upstream wants the device quiesced for this
def test_threads_under_map_and_unmap_churn(device, fds):
    """Translation and direct access go on while the client maps and unmaps.

    A transfer of the steady region always works. One of the region that comes and goes
    gets its content, or is refused: never anything else.
    """
    other = fds.memfd(PAGE_SIZE, b"fleeting")
    moving = ADDR + (1 << 20)
    stop = threading.Event()
    outcomes = set()

    def use():
        sgl, iov = sgl_array(1), (t.iovec * 1)()
        buffer = ctypes.create_string_buffer(8)
        while not stop.is_set():
            assert lib.vfu_addr_to_sgl(device, ADDR, 8, sgl, 1, PROT_READ) == 1
            assert lib.vfu_sgl_read(device, sgl, 1, buffer, DIRECT) == 0
            assert buffer.raw == b"steady!!"
            if lib.vfu_addr_to_sgl(device, moving, 8, sgl, 1, PROT_READ) != 1:
                assert get_errno() == errno.ENOENT
                outcomes.add("unmapped")
                continue
            lib.vfu_sg_is_mappable(device, sgl)
            if lib.vfu_sgl_read(device, sgl, 1, buffer, DIRECT) == 0:
                assert buffer.raw == b"fleeting"
                outcomes.add("read")
            else:
                outcomes.add("stale")
            lib.vfu_sgl_mark_dirty(device, sgl, 1)
            lib.vfu_sgl_get(device, sgl, iov, 1, 0)
            assert lib.vfu_irq_trigger(device, 0) == -1

    def churn():
        try:
            dirty_start(device, device.sock)
            for _ in range(2000):
                dma_map(device, device.sock, moving, PAGE_SIZE, other)
                dma_unmap(device, device.sock, moving, PAGE_SIZE)
                if {"unmapped", "read"} <= outcomes and _ > 300:
                    break
        finally:
            stop.set()

    in_threads(churn, *[use] * 4)
    assert device.dma.register.count == device.dma.unregister.count + 1
    assert outcomes


def test_marks_from_several_threads_are_all_kept(device, fds):
    """One byte of the bitmap has eight pages, each marked by another thread."""
    size = 8 * PAGE_SIZE
    at = ADDR + (1 << 20)
    dma_map(device, device.sock, at, size, fds.memfd(size))
    dirty_start(device, device.sock)

    def mark(page):
        sgl = addr_to_sgl(device, at + page * PAGE_SIZE, 1)
        for _ in range(100):
            lib.vfu_sgl_mark_dirty(device, sgl, 1)

    for _ in range(20):
        in_threads(*[lambda page=page: mark(page) for page in range(8)])
        assert dirty_report(device, device.sock, at, size) == set(range(8))


# A write that is caught in the middle

NR_USERFAULTFD = 323
UFFD_USER_MODE_ONLY = 1
UFFDIO_API = 0xC018AA3F
UFFDIO_REGISTER = 0xC020AA00
UFFDIO_ZEROPAGE = 0xC020AA04


class PageFaults:
    """Stops whoever touches a page for the first time, until ``resolve``."""

    def __init__(self, start: int, length: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        flags = os.O_CLOEXEC | os.O_NONBLOCK | UFFD_USER_MODE_ONLY
        self.fd = libc.syscall(NR_USERFAULTFD, flags)
        if self.fd < 0:
            pytest.skip(f"no userfaultfd here: {os.strerror(ctypes.get_errno())}")
        fcntl.ioctl(self.fd, UFFDIO_API, bytearray(struct.pack("<QQQ", 0xAA, 0, 0)))
        arguments = bytearray(struct.pack("<QQQQ", start, length, 1, 0))
        fcntl.ioctl(self.fd, UFFDIO_REGISTER, arguments)

    def wait(self, thread: threading.Thread) -> int:
        """Wait until ``thread`` is stopped; the page."""
        while thread.is_alive():
            with contextlib.suppress(BlockingIOError):
                message = os.read(self.fd, 32)
                return struct.unpack_from("<Q", message, 16)[0] & ~(PAGE_SIZE - 1)
            os.sched_yield()
        raise AssertionError("the thread ended without touching the page")

    def resolve(self, page: int) -> None:
        arguments = bytearray(struct.pack("<QQQq", page, PAGE_SIZE, 0, 0))
        fcntl.ioctl(self.fd, UFFDIO_ZEROPAGE, arguments)


@pytest.mark.defect("D44")
def test_page_is_dirty_after_a_write_that_a_report_overtakes(device, fds):
    """The report comes in the middle of the copy: the next one must tell the page."""
    at = ADDR + (1 << 20)
    dma_map(device, device.sock, at, PAGE_SIZE, fds.memfd(PAGE_SIZE))
    dirty_start(device, device.sock)
    faults = PageFaults(device.dma.register.calls[-1].mapping[0], PAGE_SIZE)
    fds.add(faults.fd)
    sgl = addr_to_sgl(device, at, 4)
    data = ctypes.create_string_buffer(b"late", 4)
    results = []
    writer = threading.Thread(
        target=lambda: results.append(lib.vfu_sgl_write(device, sgl, 1, data, DIRECT))
    )
    writer.start()
    page = faults.wait(writer)
    try:
        dirty_report(device, device.sock, at, PAGE_SIZE)
    finally:
        faults.resolve(page)
        writer.join()
    assert results == [0]
    assert dirty_report(device, device.sock, at, PAGE_SIZE) == {0}
