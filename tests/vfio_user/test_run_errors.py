"""What ends a connection, and what vfu_run_ctx says about it."""

import errno
import os
import socket

import pytest

from .commands import *
from .harness import *


@pytest.fixture
def device(ctx):
    ctx.quiesce = setup_quiesce(ctx)
    ctx.reset = setup_reset(ctx)
    ctx.dma = setup_dma(ctx)
    return ctx


def test_nothing_to_do(ctx):
    serve(ctx)
    assert run(ctx) == 0
    assert run(ctx) == 0


def test_one_request_counts_as_one(ctx):
    sock = serve(ctx)
    send(sock, VFIO_USER_DEVICE_RESET)
    assert run(ctx) == 1
    assert run(ctx) == 0
    get_reply(sock)


def test_failed_request_counts_and_its_errno_shows(ctx):
    sock = serve(ctx)
    send(sock, VFIO_USER_DEVICE_GET_INFO, b"x")
    assert run(ctx) == 1
    assert get_errno() == errno.EINVAL
    get_reply(sock, errno.EINVAL)


def test_request_rejected_before_dispatch_does_not_count(ctx):
    sock = serve(ctx)
    send(sock, VFIO_USER_DEVICE_GET_INFO, size=15)
    assert run(ctx) == 0
    get_reply(sock, errno.EINVAL)


def test_client_gone(device):
    sock = serve(device)
    disconnect(device, sock)
    assert device.quiesce.count == 1
    assert device.reset.calls == [VFU_RESET_LOST_CONN]
    run(device, errno.ENOTCONN)
    assert device.reset.count == 1


def test_order_of_a_lost_connection(device):
    """Regions go first, ascending, then the reset, then the connection itself."""
    events = []
    poll_fds = []
    device.dma.unregister.action = lambda info: events.append(
        info.contents.iova.iov_base
    )

    def on_reset(kind):
        events.append(("reset", kind))
        poll_fds.append(lib.vfu_get_poll_fd(device))

    device.reset.action = on_reset
    device.quiesce.action = lambda: events.append("quiesce")
    sock = serve(device)
    connection = lib.vfu_get_poll_fd(device)
    for addr in (0x30000, 0x10000, 0x20000):
        dma_map(device, sock, addr, 0x1000)
    events.clear()
    disconnect(device, sock)
    assert events == [
        "quiesce",
        0x10000,
        0x20000,
        0x30000,
        ("reset", VFU_RESET_LOST_CONN),
    ]
    assert poll_fds == [connection]
    assert lib.vfu_get_poll_fd(device) != connection


def test_client_gone_while_the_device_cannot_quiesce(device):
    sock = serve(device)
    device.quiesce.fail(errno.EBUSY)
    sock.close()
    for _ in range(3):
        run(device, errno.EBUSY)
    assert device.quiesce.count == 1
    assert device.reset.count == 0
    ok(lib.vfu_device_quiesced, device, 0)
    assert device.reset.calls == [VFU_RESET_LOST_CONN]
    run(device, errno.ENOTCONN)
    assert device.quiesce.count == 1


def test_failing_quiesce_keeps_the_dead_connection_for_the_next_run(device):
    sock = serve(device)
    device.quiesce.fail(errno.ENOTTY)
    sock.close()
    run(device, errno.ENOTTY)
    assert device.reset.count == 0
    run(device, errno.ENOTCONN)
    assert device.reset.calls == [VFU_RESET_LOST_CONN]
    assert device.quiesce.count == 2


def test_refused_quiesce_of_a_dead_connection_is_asked_again(device):
    sock = serve(device)
    device.quiesce.fail(errno.EBUSY)
    sock.close()
    run(device, errno.EBUSY)
    ok(lib.vfu_device_quiesced, device, errno.EIO)
    assert device.reset.count == 0
    run(device, errno.ENOTCONN)
    assert device.quiesce.count == 2
    assert device.reset.count == 1


def test_failing_reset_callback_does_not_keep_the_connection(device):
    sock = serve(device)
    device.reset.fail(errno.EIO)
    disconnect(device, sock)
    connect_client(device)


@pytest.mark.parametrize("length", [1, 8, 15])
def test_client_gone_within_a_header(device, length):
    sock = serve(device)
    send_bytes(sock, frame(VFIO_USER_DEVICE_RESET)[:length])
    disconnect(device, sock)
    assert device.reset.calls == [VFU_RESET_LOST_CONN]
    connect_client(device)


@pytest.mark.parametrize("length", [16, 17, 31])
def test_client_gone_within_a_body(device, length):
    sock = serve(device)
    send_bytes(sock, frame(VFIO_USER_DEVICE_GET_INFO, bytes(16))[:length])
    sock.close()
    assert lib.vfu_run_ctx(device) in (0, -1)
    run(device, errno.ENOTCONN)
    assert device.reset.calls == [VFU_RESET_LOST_CONN]
    connect_client(device)


def test_client_that_only_stopped_sending_still_gets_its_reply(device):
    sock = serve(device)
    send(sock, VFIO_USER_DEVICE_RESET)
    sock.shutdown(socket.SHUT_WR)
    assert run(device) == 1
    get_reply(sock)
    run(device, errno.ENOTCONN)


def test_reply_to_a_client_that_left_in_a_callback(device):
    sock = serve(device)
    device.dma.register.action = lambda _info: sock.close()
    send(sock, VFIO_USER_DMA_MAP, dma_map_payload(0x10000, 0x1000))
    assert run(device) == 1
    assert device.dma.register.count == 1
    assert device.dma.unregister.count == 1
    assert device.reset.calls == [VFU_RESET_LOST_CONN]
    assert device.quiesce.count == 2
    run(device, errno.ENOTCONN)


@pytest.mark.parametrize(
    ("cmd", "payload"),
    [
        (VFIO_USER_DMA_UNMAP, bytes(t.vfio_user_dma_unmap(24, 2, 0, 0))),
        (VFIO_USER_DEVICE_RESET, b""),
    ],
    ids=["unmap", "reset"],
)
def test_client_that_left_before_any_reply(device, cmd, payload):
    sock = serve(device)
    dma_map(device, sock, 0x10000, 0x1000)
    leave = lambda *_: sock.close()  # noqa: E731
    device.dma.unregister.action = device.reset.action = leave
    send(sock, cmd, payload)
    assert run(device) == 1
    run(device, errno.ENOTCONN)
    assert device.reset.calls[-1] == VFU_RESET_LOST_CONN
    assert device.dma.unregister.count == 1


def test_a_reset_context_serves_the_next_client(device):
    for _ in range(5):
        sock = serve(device)
        dma_map(device, sock, 0x10000, 0x1000)
        disconnect(device, sock)
        assert not is_mapped(device, 0x10000)
    assert device.dma.register.count == device.dma.unregister.count == 5


def test_connections_leave_no_descriptor(device, fds):
    realize(device)
    memory = fds.memfd(PAGE_SIZE)
    before = len(open_fds())
    for _ in range(3):
        sock, twin = connect_twin(device)
        dma_map(device, sock, 0x10000, PAGE_SIZE, memory)
        disconnect(device, sock)
        twin.close()
    assert len(open_fds()) == before


def test_the_listening_socket_survives(device):
    sock = serve(device)
    disconnect(device, sock)
    assert os.path.exists(device.path)


def test_second_client_waits_for_the_first_to_leave(device):
    first = serve(device)
    second = open_client(device)
    send(second, VFIO_USER_VERSION, version_payload())
    msg(device, first, VFIO_USER_DEVICE_RESET)
    no_reply(second)
    disconnect(device, first)
    ok(lib.vfu_attach_ctx, device)
    receive(second, VFIO_USER_VERSION)


@pytest.mark.defect("D28")
def test_region_set_up_again_without_areas_forgets_them(ctx, fds):
    bar = VFU_PCI_DEV_BAR1_REGION_IDX
    setup_region(ctx, bar, 0x4000, areas=[(0, 0x1000)], fd=fds.memfd(0x4000))
    setup_region(ctx, bar, 0x4000)
    sock = serve(ctx)
    payload = region_info_payload(bar, argsz=128)
    reply = exchange(ctx, sock, VFIO_USER_DEVICE_GET_REGION_INFO, payload)
    info = t.vfio_region_info.from_buffer_copy(reply.payload)
    assert (info.flags, info.argsz, reply.fds) == (VFIO_REGION_INFO_FLAG_RW, 32, [])
