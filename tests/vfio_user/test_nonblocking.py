"""Non-blocking contexts: nothing a client does, or fails to do, stops the server."""

import contextlib
import errno
import select

import pytest

from .commands import *
from .harness import *

BAR0 = VFU_PCI_DEV_BAR0_REGION_IDX
INFO = bytes(t.vfio_user_device_info(argsz=16))


@pytest.fixture
def sock(ctx):
    ctx.bar = RegionMemory(4096)
    ctx.reset = setup_reset(ctx)
    setup_region(ctx, BAR0, 4096, ctx.bar)
    return serve(ctx)


def readable(ctx):
    """Whether the poll descriptor says that there is something to do."""
    poll = select.poll()
    poll.register(lib.vfu_get_poll_fd(ctx), select.POLLIN)
    return bool(poll.poll(0))


def test_poll_descriptor_tells_when_to_attach(ctx):
    realize(ctx)
    assert not readable(ctx)
    sock = open_client(ctx)
    assert readable(ctx)
    attach(ctx, sock)
    assert not readable(ctx)


def test_poll_descriptor_tells_when_to_run(ctx, sock):
    assert not readable(ctx)
    send(sock, VFIO_USER_DEVICE_RESET)
    assert readable(ctx)
    run_until_idle(ctx)
    assert not readable(ctx)
    hang_up(sock)
    assert readable(ctx)


@pytest.mark.parametrize("count", [2, 5, 50])
def test_burst(ctx, sock, count):
    """All that came is served, in order, though no new bytes announce it."""
    ids = [send(sock, VFIO_USER_DEVICE_RESET) for _ in range(count)]
    run_until_idle(ctx)
    assert ctx.reset.count == count
    replies = split(sock.recv(1 << 16))
    assert [header.msg_id for header, _ in replies] == ids


def split(data):
    """The messages in a run of bytes."""
    messages = []
    while data:
        header = t.vfio_user_header.from_buffer_copy(data)
        messages.append((header, data[16 : header.msg_size]))
        data = data[header.msg_size :]
    return messages


def test_burst_is_served_while_the_poll_descriptor_is_readable(ctx, sock):
    """A program that only runs when it is told must not miss anything."""
    for _ in range(10):
        send(sock, VFIO_USER_DEVICE_RESET)
    runs = 0
    while readable(ctx):
        run(ctx)
        runs += 1
        assert runs <= 10
    assert ctx.reset.count == 10


def test_burst_of_messages_of_many_sizes(ctx, sock):
    for size in (1, 200, 3, 4096, 17):
        payload = region_payload(BAR0, 0, size, bytes([size & 0xFF]) * size)
        send(sock, VFIO_USER_REGION_WRITE, payload)
    run_until_idle(ctx)
    assert [access.count for access in ctx.bar.calls] == [1, 200, 3, 4096, 17]
    assert len(split(sock.recv(1 << 16))) == 5


def test_bad_message_within_a_burst(ctx, sock):
    send(sock, VFIO_USER_DEVICE_RESET)
    send(sock, VFIO_USER_DEVICE_GET_INFO, b"short")
    send(sock, VFIO_USER_DEVICE_RESET)
    run_until_idle(ctx)
    errors = [h.error_no for h, _ in split(sock.recv(1 << 16))]
    assert errors == [0, errno.EINVAL, 0]


def test_descriptors_within_a_burst_belong_to_their_messages(ctx, fds):
    """With and without descriptors by turns."""
    setup_irqs(ctx, VFU_DEV_MSIX_IRQ, 8)
    sock = serve(ctx)
    events = fds.eventfds(4)
    before = len(open_fds())
    for vector, event in enumerate(events):
        send(sock, VFIO_USER_DEVICE_GET_INFO, INFO)
        payload = set_irqs_payload(VFU_DEV_MSIX_IRQ, SET_EVENTFDS, vector, 1)
        send(sock, VFIO_USER_DEVICE_SET_IRQS, payload, [event])
    run_until_idle(ctx)
    assert len(split(sock.recv(1 << 16))) == 8
    assert len(open_fds()) == before + 4
    for vector, event in enumerate(events):
        ok(lib.vfu_irq_trigger, ctx, vector)
        assert [eventfd_value(fd) for fd in events] == [fd == event for fd in events]


def test_pipelined_maps_with_descriptors(ctx, fds):
    """As a real client starts: several DMA_MAPs before any reply."""
    dma = setup_dma(ctx)
    sock = serve(ctx)
    for i in range(5):
        payload = dma_map_payload(i << 20, PAGE_SIZE)
        content = bytes([i]) * 4
        rights = [fds.memfd(PAGE_SIZE, content)] if i % 2 else []
        send(sock, VFIO_USER_DMA_MAP, payload, rights)
    run_until_idle(ctx)
    assert [bool(info.vaddr) for info in dma.register.calls] == [
        False,
        True,
        False,
        True,
        False,
    ]
    for i in (1, 3):
        vaddr = dma.register.calls[i].vaddr
        assert mapped_bytes(t.iovec(vaddr, 4))[:] == bytes([i]) * 4


def test_quiescing_within_a_burst(ctx):
    quiesce = setup_quiesce(ctx, errno.EBUSY)
    reset = setup_reset(ctx)
    sock = serve(ctx)
    for _ in range(3):
        send(sock, VFIO_USER_DEVICE_RESET)
    send(sock, VFIO_USER_DEVICE_GET_INFO, INFO)
    run(ctx, errno.EBUSY)
    ok(lib.vfu_device_quiesced, ctx, 0)
    run_until_idle(ctx)
    assert (quiesce.count, reset.count) == (3, 3)
    assert len(split(sock.recv(1 << 16))) == 4


def test_client_that_leaves_after_a_burst(ctx, sock):
    """What it asked for before is still done."""
    for _ in range(3):
        send(sock, VFIO_USER_DEVICE_RESET, flags=VFIO_USER_F_NO_REPLY)
    hang_up(sock)
    for _ in range(10):
        if lib.vfu_run_ctx(ctx) == -1:
            break
    assert get_errno() == errno.ENOTCONN
    assert ctx.reset.calls == [VFU_RESET_DEVICE] * 3 + [VFU_RESET_LOST_CONN]


@pytest.mark.defect("D39")
@pytest.mark.parametrize("cut", [1, 8, 15, 16, 17, 31])
def test_message_in_two_pieces(ctx, sock, cut):
    message = frame(VFIO_USER_DEVICE_GET_INFO, INFO)
    send_bytes(sock, message[:cut])
    for _ in range(3):
        assert run(ctx) == 0
    send_bytes(sock, message[cut:])
    assert run(ctx) == 1
    assert len(get_reply(sock)) == 16


@pytest.mark.defect("D39")
def test_message_byte_by_byte(ctx, sock):
    for byte in frame(VFIO_USER_DEVICE_GET_INFO, INFO):
        run(ctx)
        no_reply(sock)
        send_bytes(sock, bytes([byte]))
    assert run(ctx) == 1
    get_reply(sock)


@pytest.mark.defect("D39")
def test_descriptors_come_with_the_first_piece(ctx, fds):
    dma = setup_dma(ctx)
    sock = serve(ctx)
    message = frame(VFIO_USER_DMA_MAP, dma_map_payload(0x10000, PAGE_SIZE))
    send_bytes(sock, message[:5], [fds.memfd(PAGE_SIZE, b"whole")])
    run(ctx)
    send_bytes(sock, message[5:20])
    run(ctx)
    send_bytes(sock, message[20:])
    assert run(ctx) == 1
    get_reply(sock)
    vaddr = dma.register.calls[0].vaddr
    assert mapped_bytes(t.iovec(vaddr, 5))[:] == b"whole"


@pytest.mark.defect("D39", "D1")
def test_two_messages_cut_in_the_middle_of_the_second(ctx, sock):
    both = frame(VFIO_USER_DEVICE_RESET) + frame(VFIO_USER_DEVICE_GET_INFO, INFO)
    send_bytes(sock, both[:40])
    run_until_idle(ctx)
    assert len(split(sock.recv(1 << 16))) == 1
    send_bytes(sock, both[40:])
    run_until_idle(ctx)
    assert len(split(sock.recv(1 << 16))) == 1


@pytest.mark.defect("D40")
@pytest.mark.parametrize("cut", [1, 15, 16, 20])
def test_negotiation_in_two_pieces(ctx, cut):
    realize(ctx)
    sock = open_client(ctx)
    message = frame(VFIO_USER_VERSION, version_payload())
    send_bytes(sock, message[:cut])
    fails(errno.EAGAIN, lib.vfu_attach_ctx, ctx)
    fails(errno.EAGAIN, lib.vfu_attach_ctx, ctx)
    send_bytes(sock, message[cut:])
    ok(lib.vfu_attach_ctx, ctx)
    receive(sock, VFIO_USER_VERSION)
    msg(ctx, sock, VFIO_USER_DEVICE_RESET)


@pytest.mark.defect("D40")
def test_client_that_connects_and_is_silent(ctx):
    realize(ctx)
    sock = open_client(ctx)
    fails(errno.EAGAIN, lib.vfu_attach_ctx, ctx)
    run(ctx, errno.ENOTCONN)
    hang_up(sock)
    assert lib.vfu_attach_ctx(ctx) == -1
    connect_client(ctx)


@pytest.mark.defect("D40")
def test_client_that_does_not_read_its_replies(ctx, sock):
    """The server stops taking requests, not running; later all is answered."""
    count = 0
    request = frame(VFIO_USER_REGION_READ, region_payload(BAR0, 0, 4096))
    try:
        while count < 2000:
            send_bytes(sock, request)
            count += 1
            run(ctx)
    except BlockingIOError:
        pass
    assert count > 10
    received = bytearray()
    for _ in range(10 * count):
        run(ctx)
        try:
            while chunk := sock.recv(1 << 20):
                received += chunk
        except BlockingIOError:
            pass
        if len(received) == count * (32 + 4096):
            break
    assert len(received) == count * (32 + 4096)
    assert len(split(bytes(received))) == count


@pytest.mark.defect("D40")
def test_client_that_leaves_without_reading_its_replies(ctx, sock):
    request = frame(VFIO_USER_REGION_READ, region_payload(BAR0, 0, 4096))
    for _ in range(200):
        try:
            send_bytes(sock, request)
        except BlockingIOError:
            break
        run(ctx)
    hang_up(sock)
    for _ in range(300):
        if lib.vfu_run_ctx(ctx) == -1:
            break
    assert get_errno() == errno.ENOTCONN
    assert ctx.reset.calls == [VFU_RESET_LOST_CONN]
    connect_client(ctx)


def test_only_the_listening_socket_waits_for_nobody(ctx):
    realize(ctx)
    fails(errno.EAGAIN, lib.vfu_attach_ctx, ctx)
    run(ctx, errno.ENOTCONN)


@pytest.mark.defect("D40")
def test_client_leaves_while_half_a_reply_waits(ctx, sock):
    """The next run finds out when it sends the rest."""
    request = frame(VFIO_USER_REGION_READ, region_payload(BAR0, 0, 4096))
    with contextlib.suppress(BlockingIOError):
        while True:
            send_bytes(sock, request)
            run(ctx)
    hang_up(sock)
    run(ctx, errno.ENOTCONN)
    assert ctx.reset.calls == [VFU_RESET_LOST_CONN]
    connect_client(ctx)
