"""Blocking contexts: vfu_attach_ctx and vfu_run_ctx wait, signals interrupt them."""

import contextlib
import ctypes
import errno
import os
import resource
import signal
import socket
import threading

import pytest

from .commands import *
from .harness import *

BAR0 = VFU_PCI_DEV_BAR0_REGION_IDX
INFO = bytes(t.vfio_user_device_info(argsz=16))
SPLIT = pytest.mark.defect("D39")
NR_SENDMSG, NR_RECVMSG = 46, 47  # x86-64


class Call(threading.Thread):
    """A call into the library on a thread of its own, with its result and errno."""

    def __init__(self, function, ctx) -> None:
        super().__init__(daemon=True)
        self.function, self.ctx = function, ctx
        self.result: int | None = None
        self.errno = 0
        ctx.calls.append(self)
        self.start()

    def run(self) -> None:
        set_errno(0)
        self.result = self.function(self.ctx)
        self.errno = get_errno()

    def wait(self) -> tuple[int | None, int]:
        self.join()
        return self.result, self.errno


@pytest.fixture
def usr1():
    """SIGUSR1 that does nothing but interrupt."""
    previous = signal.signal(signal.SIGUSR1, lambda *_: None)
    yield signal.SIGUSR1
    signal.signal(signal.SIGUSR1, previous)


@pytest.fixture
def ctx(new_ctx, usr1):
    """A blocking context. A test that fails leaves no call in it, for it is destroyed."""
    ctx = new_ctx(flags=0)
    ctx.calls = []
    ctx.bar = RegionMemory(4096)
    ctx.reset = setup_reset(ctx)
    setup_region(ctx, BAR0, 4096, ctx.bar)
    realize(ctx)
    yield ctx
    for sock in ctx.sockets:
        sock.close()
    for call in ctx.calls:
        interrupt(call, usr1)


def interrupt(call, number):
    """Send signals until the call returns: one of them finds it waiting."""
    while call.is_alive():
        with contextlib.suppress(ProcessLookupError):
            signal.pthread_kill(call.ident, number)
        os.sched_yield()
    return call.wait()


def test_one_thread_serves_what_has_been_sent(ctx):
    """The requests are there, and then the end of the connection."""
    sock = connect_client(ctx)
    for _ in range(5):
        send(sock, VFIO_USER_DEVICE_RESET)
    sock.shutdown(socket.SHUT_WR)
    run(ctx, errno.ENOTCONN)
    assert ctx.reset.calls == [VFU_RESET_DEVICE] * 5 + [VFU_RESET_LOST_CONN]
    assert len(sock.recv(4096)) == 5 * 16


def test_attach_waits_for_a_client(ctx):
    call = Call(lib.vfu_attach_ctx, ctx)
    sock = open_client(ctx)
    sock.setblocking(True)
    send(sock, VFIO_USER_VERSION, version_payload())
    receive(sock, VFIO_USER_VERSION)
    assert call.wait()[0] == 0


@pytest.mark.parametrize(
    "first", [pytest.param(1, marks=SPLIT), pytest.param(15, marks=SPLIT), 16, 19]
)
def test_attach_waits_for_the_whole_version(ctx, first):
    sock = open_client(ctx)
    sock.setblocking(True)
    message = frame(VFIO_USER_VERSION, version_payload())
    sock.sendall(message[:first])
    call = Call(lib.vfu_attach_ctx, ctx)
    until(waits_or_ended, call)
    for byte in message[first:]:
        sock.sendall(bytes([byte]))
    receive(sock, VFIO_USER_VERSION)
    assert call.wait()[0] == 0


def test_attach_again_after_a_refused_client(ctx):
    sock = open_client(ctx)
    send(sock, VFIO_USER_VERSION, version_payload(major=9))
    fails(errno.EINVAL, lib.vfu_attach_ctx, ctx)
    connect_client(ctx)


def test_run_serves_until_the_client_leaves(ctx):
    sock = connect_client(ctx)
    sock.setblocking(True)
    call = Call(lib.vfu_run_ctx, ctx)
    for i in range(20):
        data = bytes([i] * 8)
        send(sock, VFIO_USER_REGION_WRITE, region_payload(BAR0, 8, 8, data))
        get_reply(sock)
        send(sock, VFIO_USER_REGION_READ, region_payload(BAR0, 8, 8))
        assert get_reply(sock)[16:] == data
    hang_up(sock)
    assert call.wait() == (-1, errno.ENOTCONN)


def test_run_survives_failed_requests(ctx):
    sock = connect_client(ctx)
    send(sock, VFIO_USER_MAX, b"unknown")
    send(sock, VFIO_USER_DEVICE_GET_INFO, INFO)
    sock.shutdown(socket.SHUT_WR)
    run(ctx, errno.ENOTCONN)
    data = sock.recv(4096)
    check_reply(data[:16], expect=errno.EINVAL)
    check_reply(data[16:], VFIO_USER_DEVICE_GET_INFO)


@pytest.mark.parametrize("more", [0, 1])
def test_pipelined_requests_are_answered_in_order(ctx, more):
    """More than a receive takes, so that messages are cut, also behind a refused one."""
    sock = connect_client(ctx)
    no_command = {"flags": VFIO_USER_F_TYPE_REPLY}
    requests = [frame(VFIO_USER_DEVICE_RESET, msg_id=0)]
    for number in range(1, 600):
        refused = no_command if (number + more) % 2 else {}
        requests.append(
            frame(VFIO_USER_DEVICE_GET_INFO, INFO, msg_id=number, **refused)
        )
    send_bytes(sock, b"".join(requests))
    sock.shutdown(socket.SHUT_WR)
    run(ctx, errno.ENOTCONN)

    data = bytearray()
    while piece := sock.recv(1 << 16):
        data += piece
    answers = []
    while data:
        header = t.vfio_user_header.from_buffer_copy(data)
        answers.append((header.msg_id, header.error_no))
        del data[: header.msg_size]
    assert answers == [(0, 0)] + [
        (number, errno.EINVAL if (number + more) % 2 else 0) for number in range(1, 600)
    ]


def test_run_stops_while_the_device_quiesces(ctx):
    setup_quiesce(ctx, errno.EBUSY)
    sock = connect_client(ctx)
    send(sock, VFIO_USER_DEVICE_RESET)
    send(sock, VFIO_USER_DEVICE_RESET)
    run(ctx, errno.EBUSY)
    run(ctx, errno.EBUSY)
    ok(lib.vfu_device_quiesced, ctx, 0)
    sock.shutdown(socket.SHUT_WR)
    run(ctx, errno.ENOTCONN)
    assert ctx.reset.calls == [VFU_RESET_DEVICE] * 2 + [VFU_RESET_LOST_CONN]


def test_run_before_attach(ctx):
    run(ctx, errno.ENOTCONN)


@pytest.mark.defect("D1")
def test_write_of_1_mib(ctx):
    size = SERVER_MAX_DATA_XFER_SIZE
    ctx.bar.memory = bytearray(size)
    setup_region(ctx, BAR0, size, ctx.bar)
    sock = connect_client(ctx)
    sock.setblocking(True)
    data = bytes(range(256)) * (size // 256)
    call = Call(lib.vfu_run_ctx, ctx)
    sock.sendall(frame(VFIO_USER_REGION_WRITE, region_payload(BAR0, 0, size, data)))
    get_reply(sock)
    hang_up(sock)
    call.wait()
    assert ctx.bar.memory == data


def test_read_of_1_mib(ctx):
    size = SERVER_MAX_DATA_XFER_SIZE
    ctx.bar.memory = bytearray(range(256)) * (size // 256)
    setup_region(ctx, BAR0, size, ctx.bar)
    sock = connect_client(ctx)
    sock.setblocking(True)
    call = Call(lib.vfu_run_ctx, ctx)
    send(sock, VFIO_USER_REGION_READ, region_payload(BAR0, 0, size))
    received = bytearray()
    while len(received) < 32 + size:
        received += sock.recv(1 << 20)
    assert check_reply(bytes(received)).payload[16:] == ctx.bar.memory
    hang_up(sock)
    assert call.wait() == (-1, errno.ENOTCONN)


@pytest.mark.defect("D1", "D39")
@pytest.mark.parametrize("first", [1, 15, 17, 31])
def test_message_in_pieces(ctx, first):
    sock = connect_client(ctx)
    sock.setblocking(True)
    message = frame(VFIO_USER_DEVICE_GET_INFO, INFO)
    sock.sendall(message[:first])
    call = Call(lib.vfu_run_ctx, ctx)
    until(waits_or_ended, call)
    for byte in message[first:]:
        sock.sendall(bytes([byte]))
    assert len(get_reply(sock)) == 16
    hang_up(sock)
    assert call.wait() == (-1, errno.ENOTCONN)


# Signals


def test_signal_interrupts_attach(ctx, usr1):
    call = Call(lib.vfu_attach_ctx, ctx)
    assert interrupt(call, usr1) == (-1, errno.EINTR)
    connect_client(ctx)


def test_signal_interrupts_run(ctx, usr1):
    sock = connect_client(ctx)
    call = Call(lib.vfu_run_ctx, ctx)
    assert interrupt(call, usr1) == (-1, errno.EINTR)
    send(sock, VFIO_USER_DEVICE_RESET)
    call = Call(lib.vfu_run_ctx, ctx)
    sock.setblocking(True)
    get_reply(sock)
    assert interrupt(call, usr1) == (-1, errno.EINTR)
    assert ctx.reset.calls == [VFU_RESET_DEVICE]


def in_system_call(thread, *numbers):
    """Whether a thread waits in one of these system calls, as /proc tells."""
    with open(f"/proc/self/task/{thread.native_id}/syscall") as call:
        return call.read().split()[0] in map(str, numbers)


def until(condition, *args):
    while not condition(*args):
        os.sched_yield()


@pytest.mark.defect("D70")
def test_signal_while_a_reply_waits_for_room(ctx, usr1):
    """The request has been carried out: its reply must not be lost."""
    sock = connect_client(ctx)
    call = Call(lib.vfu_run_ctx, ctx)
    request = frame(VFIO_USER_DEVICE_RESET)
    sent = 0
    while not in_system_call(call, NR_SENDMSG):
        with contextlib.suppress(BlockingIOError):
            send_bytes(sock, request)
            sent += 1
        os.sched_yield()
    for _ in range(100):
        signal.pthread_kill(call.ident, usr1)
        os.sched_yield()
    sock.setblocking(True)
    received = 0
    while received < 16 * sent:
        received += len(sock.recv(1 << 16))
    assert ctx.reset.count == sent
    hang_up(sock)
    assert call.wait() == (-1, errno.ENOTCONN)


@pytest.mark.defect("D38")
def test_signal_within_a_message(ctx, usr1):
    """The half that came is not lost: EINTR may be told, the message is served."""
    sock = connect_client(ctx)
    sock.setblocking(True)
    message = frame(VFIO_USER_DEVICE_GET_INFO, INFO)
    sock.sendall(message[:20])
    call = Call(lib.vfu_run_ctx, ctx)
    until(waits_or_ended, call)
    for _ in range(100):
        with contextlib.suppress(ProcessLookupError):
            signal.pthread_kill(call.ident, usr1)
        os.sched_yield()
        if not call.is_alive():
            assert call.wait() == (-1, errno.EINTR)
            break
    sock.sendall(message[20:])
    second = call if call.is_alive() else Call(lib.vfu_run_ctx, ctx)
    assert len(get_reply(sock)) == 16
    hang_up(sock)
    assert second.wait() == (-1, errno.ENOTCONN)


def waits_or_ended(call):
    try:
        return in_system_call(call, NR_RECVMSG, 45)  # or recvfrom
    except FileNotFoundError:
        return True


def test_client_that_leaves_in_a_callback(ctx):
    """The reply finds nobody: the device is reset, and the run ends."""
    sock = connect_client(ctx)
    ctx.bar.action = lambda _buf, count, *_: hang_up(sock) or count
    send(sock, VFIO_USER_REGION_READ, region_payload(BAR0, 0, 8))
    run(ctx, errno.ENOTCONN)
    assert ctx.reset.calls == [VFU_RESET_LOST_CONN]


@pytest.fixture
def with_dma(new_ctx):
    ctx = new_ctx(flags=0)
    ctx.dma = setup_dma(ctx)
    realize(ctx)
    return ctx


@pytest.mark.parametrize("surplus", [0, 1, 252])
def test_descriptors_arrive(with_dma, fds, surplus):
    """The first is for the request, and the others are closed."""
    sock = connect_client(with_dma)
    before = len(open_fds())
    event = fds.eventfd()
    rights = [fds.memfd(PAGE_SIZE, b"memory")] + [event] * surplus
    seen = []
    with_dma.dma.register.action = lambda info: seen.append(
        ctypes.string_at(info.contents.vaddr, 6)
    )
    payload = dma_map_payload(0x10000, PAGE_SIZE)
    send(sock, VFIO_USER_DMA_MAP, payload, rights)
    sock.shutdown(socket.SHUT_WR)
    run(with_dma, errno.ENOTCONN)
    assert seen == [b"memory"]
    get_reply(sock)
    assert len(open_fds()) == before + 2 - 1  # without the connection


@without_valgrind
@pytest.mark.extension
def test_descriptors_that_do_not_fit(with_dma, fds):
    """The kernel cuts them off, and the request fails as a whole."""
    sock = connect_client(with_dma)
    memory, event = fds.memfd(PAGE_SIZE), fds.eventfd()
    payload = dma_map_payload(0x10000, PAGE_SIZE)
    send(sock, VFIO_USER_DMA_MAP, payload, [memory] + [event] * 9)
    sock.shutdown(socket.SHUT_WR)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers = fill_up_to(max(open_fds()) + 4)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(fillers) + 1, limits[1]))
    for fd in fillers[:3]:
        os.close(fd)
    try:
        run(with_dma, errno.ENOTCONN)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in fillers[3:]:
            os.close(fd)
    assert with_dma.dma.register.calls == []
    receive(sock, VFIO_USER_DMA_MAP, expect=errno.EFAULT)


def fill_up_to(highest):
    """Take all numbers of descriptors that are free, the last of them ``highest``."""
    taken = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)]
    while taken[-1] < highest:
        taken.append(os.dup(taken[0]))
    return taken
