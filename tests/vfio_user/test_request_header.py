"""Message headers: what is refused before a command is looked at, and how."""

import errno

import pytest

from .commands import *
from .harness import *


@pytest.fixture
def sock(ctx):
    setup_dma(ctx)
    return serve(ctx)


@pytest.mark.parametrize("size", [0, 1, 15])
def test_size_below_a_header(ctx, sock, size):
    msg(ctx, sock, VFIO_USER_DEVICE_RESET, size=size, expect=errno.EINVAL)


@pytest.mark.parametrize("size", [SERVER_MAX_MSG_SIZE + 1, 1 << 31, UINT32_MAX])
def test_size_above_the_limit(ctx, sock, size):
    msg(ctx, sock, VFIO_USER_REGION_WRITE, size=size, expect=errno.EINVAL)


@pytest.mark.parametrize("kind", [1, 2, 7, 15])
def test_only_commands_are_taken(ctx, sock, kind):
    msg(ctx, sock, VFIO_USER_DEVICE_RESET, flags=kind, expect=errno.EINVAL)


@pytest.mark.parametrize(
    "cmd",
    sorted(set(range(VFIO_USER_MAX + 1)) - {VFIO_USER_DEVICE_RESET}),
)
def test_only_reset_may_come_without_payload(ctx, sock, cmd):
    msg(ctx, sock, cmd, expect=errno.EINVAL)


@pytest.mark.parametrize(
    "cmd",
    [
        0,
        VFIO_USER_DMA_READ,
        VFIO_USER_DMA_WRITE,
        VFIO_USER_DIRTY_PAGES,
        VFIO_USER_MAX,
        0xFF,
        0xFFFF,
    ],
)
def test_unknown_commands(ctx, sock, cmd):
    assert msg(ctx, sock, cmd, b"body", expect=errno.EINVAL) == b""
    msg(ctx, sock, VFIO_USER_DEVICE_RESET)


@pytest.mark.parametrize("flags", [VFIO_USER_F_ERROR, 0x40, 0xFFFFFFC0])
def test_other_header_flags_are_ignored(ctx, sock, flags):
    msg(ctx, sock, VFIO_USER_DEVICE_RESET, flags=flags)


def test_error_number_of_a_request_is_ignored(ctx, sock):
    msg(ctx, sock, VFIO_USER_DEVICE_RESET, error_no=errno.EIO)


@pytest.mark.parametrize("msg_id", [0, 1, 0x8000, 0xFFFF])
def test_id_is_echoed(ctx, sock, msg_id):
    send(sock, VFIO_USER_DEVICE_RESET, msg_id=msg_id)
    run(ctx)
    assert receive(sock).header.msg_id == msg_id


def test_ids_need_not_differ(ctx, sock):
    for _ in range(3):
        msg(ctx, sock, VFIO_USER_DEVICE_RESET, msg_id=7)


def test_error_reply_echoes_id_and_command(ctx, sock):
    send(sock, 0x1234, b"body", msg_id=0xABCD)
    run(ctx)
    receive(sock, 0x1234, 0xABCD, errno.EINVAL)


@pytest.mark.parametrize(
    ("cmd", "payload"),
    [
        (VFIO_USER_DEVICE_RESET, b""),
        (VFIO_USER_DEVICE_GET_INFO, bytes(t.vfio_user_device_info(argsz=16))),
        (VFIO_USER_DEVICE_GET_INFO, b"too short"),
        (VFIO_USER_DMA_MAP, dma_map_payload(0x10000, 0x1000)),
        (VFIO_USER_MAX, b"unknown"),
    ],
    ids=["reset", "info", "failing", "map", "unknown"],
)
def test_no_reply_is_kept_to(ctx, sock, cmd, payload):
    send(sock, cmd, payload, flags=VFIO_USER_F_NO_REPLY)
    run(ctx)
    no_reply(sock)
    msg(ctx, sock, VFIO_USER_DEVICE_RESET)


def test_no_reply_requests_are_executed(ctx, sock):
    payload = dma_map_payload(0x10000, 0x1000)
    send(sock, VFIO_USER_DMA_MAP, payload, flags=VFIO_USER_F_NO_REPLY)
    assert run(ctx) == 1
    assert is_mapped(ctx, 0x10000)


def test_rejected_header_with_no_reply_is_silent(ctx, sock):
    send(sock, VFIO_USER_DEVICE_RESET, size=15, flags=VFIO_USER_F_NO_REPLY)
    run(ctx)
    no_reply(sock)


@pytest.mark.parametrize("count", [1, 8, 9, 253])
def test_descriptors_of_a_rejected_request_are_closed(ctx, sock, fds, count):
    made = fds.eventfds(min(count, 20))
    sent = [made[i % len(made)] for i in range(count)]
    before = open_fds()
    msg(ctx, sock, VFIO_USER_DEVICE_GET_INFO, b"x", fds=sent, expect=errno.EINVAL)
    msg(ctx, sock, VFIO_USER_MAX, b"x", fds=sent, expect=errno.EINVAL)
    assert open_fds() == before


def test_descriptors_of_a_bad_header_are_closed(ctx, sock, fds):
    sent = fds.eventfds(5)
    before = open_fds()
    msg(ctx, sock, VFIO_USER_DEVICE_GET_INFO, size=15, fds=sent, expect=errno.EINVAL)
    assert open_fds() == before


def test_descriptors_that_a_command_does_not_want_are_closed(ctx, sock, fds):
    sent = fds.eventfds(3)
    before = open_fds()
    msg(ctx, sock, VFIO_USER_DEVICE_RESET, fds=sent)
    msg(
        ctx,
        sock,
        VFIO_USER_DEVICE_GET_INFO,
        bytes(t.vfio_user_device_info(argsz=16)),
        fds=sent,
    )
    assert open_fds() == before


def test_no_descriptor_is_opened_lazily(ctx, sock, fds):
    """What the server opens, it opens before the first request."""
    before = open_fds()
    get_device_info(ctx, sock)
    region_read(ctx, sock, VFU_PCI_DEV_CFG_REGION_IDX, 0, 4)
    dma_map(ctx, sock, 0x10000, 0x1000)
    set_irqs(ctx, sock, VFU_DEV_ERR_IRQ, TRIGGER_NONE, 0, 0)
    assert open_fds() == before


def test_reset_with_a_body_is_a_reset(ctx, sock):
    assert msg(ctx, sock, VFIO_USER_DEVICE_RESET, b"unexpected") == b""
    msg(ctx, sock, VFIO_USER_DEVICE_RESET)


def test_largest_message_is_taken(ctx, sock):
    """A header that announces the most there can be is no error in itself."""
    send(sock, VFIO_USER_DEVICE_RESET, bytes(1000))
    run(ctx)
    get_reply(sock)


@pytest.mark.defect("D38")
@pytest.mark.parametrize(
    ("flags", "size"),
    [(VFIO_USER_F_TYPE_REPLY, None), (0, SERVER_MAX_MSG_SIZE + 1)],
    ids=["a reply", "too large"],
)
def test_body_of_a_rejected_message_is_not_a_request(ctx, sock, flags, size):
    """The body looks like a request; it must not be answered as one."""
    reset = setup_reset(ctx)
    smuggled = frame(VFIO_USER_DEVICE_RESET, msg_id=0x6666)
    send(sock, VFIO_USER_REGION_WRITE, smuggled, flags=flags, size=size)
    run(ctx)
    receive(sock, VFIO_USER_REGION_WRITE, expect=errno.EINVAL)
    assert lib.vfu_run_ctx(ctx) in (0, -1)
    assert VFU_RESET_DEVICE not in reset.calls
    if not is_closed(sock):
        no_reply(sock)
