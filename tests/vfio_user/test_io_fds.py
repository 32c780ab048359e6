"""vfu_create_ioeventfd, shadow ioeventfds, and DEVICE_GET_REGION_IO_FDS."""

import errno
import os

import pytest

from .commands import *
from .harness import *

BAR0 = VFU_PCI_DEV_BAR0_REGION_IDX
BAR1 = VFU_PCI_DEV_BAR1_REGION_IDX
BAR2 = VFU_PCI_DEV_BAR2_REGION_IDX
BAR5 = VFU_PCI_DEV_BAR5_REGION_IDX
GET_IO_FDS = VFIO_USER_DEVICE_GET_REGION_IO_FDS
NO_FD = UINT32_MAX


def add_ioeventfd(
    ctx,
    fd,
    offset,
    *,
    region=BAR0,
    size=8,
    flags=0,
    datamatch=0,
    shadow_fd=-1,
    shadow_offset=0,
    expect=0,
):
    args = (region, fd, offset, size, flags, datamatch, shadow_fd, shadow_offset)
    if expect:
        fails(expect, lib.vfu_create_ioeventfd, ctx, *args)
    else:
        ok(lib.vfu_create_ioeventfd, ctx, *args)


def request(index=BAR0, argsz=16 + 48 * 8, flags=0, count=0):
    return bytes(t.vfio_user_region_io_fds_request(argsz, flags, index, count))


def get_io_fds(ctx, sock, fds, index=BAR0, argsz=16 + 48 * 8):
    """The header of the reply, its entries, and the descriptors."""
    reply = exchange(ctx, sock, GET_IO_FDS, request(index, argsz))
    for fd in reply.fds:
        fds.add(fd)
    header = t.vfio_user_region_io_fds_reply.from_buffer_copy(reply.payload)
    entries = [
        t.vfio_user_sub_region_ioeventfd.from_buffer_copy(reply.payload, at)
        for at in range(16, len(reply.payload), 48)
    ]
    return header, entries, reply.fds


@pytest.fixture
def sock(ctx, fds):
    setup_region(ctx, BAR0, 0x1000)
    setup_region(ctx, BAR1, 0x1000)
    setup_region(ctx, BAR2, 0x1000, fd=fds.memfd(0x1000))
    return serve(ctx)


@pytest.mark.parametrize(
    "bad",
    [
        {"flags": 1},
        {"count": 1},
        {"argsz": 15},
        {"argsz": 0},
        {"argsz": (1 << 20) + 1},
        {"index": VFU_PCI_DEV_NUM_REGIONS},
        {"index": 512},
        {"index": BAR5},
    ],
    ids=str,
)
def test_refused_requests(ctx, sock, bad):
    msg(ctx, sock, GET_IO_FDS, request(**bad), expect=errno.EINVAL)


@pytest.mark.parametrize("length", [1, 8, 15])
def test_request_too_short(ctx, sock, length):
    msg(ctx, sock, GET_IO_FDS, request()[:length], expect=errno.EINVAL)


@pytest.mark.parametrize("index", [BAR1, BAR2])
def test_region_without_sub_regions(ctx, sock, fds, index):
    header, entries, received = get_io_fds(ctx, sock, fds, index)
    assert (header.argsz, header.flags, header.index) == (16, 0, index)
    assert header.count == 0
    assert (entries, received) == ([], [])


def test_entries_come_in_reverse_order(ctx, sock, fds):
    made = fds.eventfds(6)
    for i, fd in enumerate(made):
        add_ioeventfd(ctx, fd, i * 8, datamatch=i, flags=i & 1)
    header, entries, received = get_io_fds(ctx, sock, fds)
    assert (header.argsz, header.count) == (16 + 6 * 48, 6)
    assert [e.gpa_offset for e in entries] == [40, 32, 24, 16, 8, 0]
    assert [e.datamatch for e in entries] == [5, 4, 3, 2, 1, 0]
    assert [e.flags for e in entries] == [1, 0, 1, 0, 1, 0]
    assert {(e.type, e.size, e.shadow_mem_fd_index) for e in entries} == {(0, 8, 0)}
    assert [e.fd_index for e in entries] == list(range(6))
    for fd, entry in zip(reversed(made), entries, strict=True):
        os.eventfd_write(received[entry.fd_index], 3)
        assert eventfd_value(fd) == 3


def test_argsz_that_fits_exactly(ctx, sock, fds):
    for i, fd in enumerate(fds.eventfds(2)):
        add_ioeventfd(ctx, fd, i * 8)
    _, entries, received = get_io_fds(ctx, sock, fds, argsz=16 + 2 * 48)
    assert (len(entries), len(received)) == (2, 2)


@pytest.mark.parametrize("argsz", [16, 16 + 48, 16 + 2 * 48 - 1])
def test_all_or_nothing(ctx, sock, fds, argsz):
    for i, fd in enumerate(fds.eventfds(2)):
        add_ioeventfd(ctx, fd, i * 8)
    header, entries, received = get_io_fds(ctx, sock, fds, argsz=argsz)
    assert (header.argsz, header.count) == (16 + 2 * 48, 2)
    assert (entries, received) == ([], [])


def test_one_descriptor_in_several_entries_is_sent_once(ctx, sock, fds):
    first, second = fds.eventfds(2)
    for i, fd in enumerate([first, second, first, first]):
        add_ioeventfd(ctx, fd, i * 8)
    _, entries, received = get_io_fds(ctx, sock, fds)
    assert [e.fd_index for e in entries] == [0, 0, 1, 0]
    assert len(received) == 2


def test_entry_without_descriptor(ctx, sock, fds):
    first, second = fds.eventfds(2)
    for i, fd in enumerate([first, -1, second, first, -1]):
        add_ioeventfd(ctx, fd, i * 8)
    _, entries, received = get_io_fds(ctx, sock, fds)
    assert [e.fd_index for e in entries] == [NO_FD, 0, 1, NO_FD, 0]
    assert len(received) == 2


def test_only_entries_without_descriptor(ctx, sock, fds):
    add_ioeventfd(ctx, -1, 0)
    _, entries, received = get_io_fds(ctx, sock, fds)
    assert ([e.fd_index for e in entries], received) == ([NO_FD], [])


@pytest.mark.parametrize(("offset", "size"), [(0x1000, 1), (0xFFC, 8), (0, 0x1001)])
def test_ioeventfd_past_the_end(ctx, sock, fds, offset, size):
    add_ioeventfd(ctx, fds.eventfd(), offset, size=size, expect=errno.EINVAL)


def test_ioeventfd_of_no_such_region(ctx, sock):
    add_ioeventfd(ctx, -1, 0, region=VFU_PCI_DEV_NUM_REGIONS, expect=errno.EINVAL)
    add_ioeventfd(ctx, -1, 0, region=BAR5, expect=errno.EINVAL)


@pytest.mark.defect("D31")
def test_ioeventfd_whose_end_wraps(ctx, sock):
    add_ioeventfd(ctx, -1, UINT64_MAX - 7, size=8, expect=errno.EINVAL)
    add_ioeventfd(ctx, -1, UINT64_MAX, size=UINT32_MAX, expect=errno.EINVAL)


@pytest.mark.defect("D32")
def test_negative_descriptor_other_than_none(ctx, sock):
    add_ioeventfd(ctx, -2, 0, expect=errno.EINVAL)
    msg(ctx, sock, GET_IO_FDS, request())


def test_descriptors_stay_the_callers(new_ctx, fds):
    ctx = new_ctx()
    setup_region(ctx, BAR0, 0x1000)
    fd = fds.eventfd()
    add_ioeventfd(ctx, fd, 0)
    sock = serve(ctx)
    get_io_fds(ctx, sock, fds)
    disconnect(ctx, sock)
    ctx.destroy()
    assert fd in open_fds()


def test_ioeventfds_survive_the_client(ctx, sock, fds):
    add_ioeventfd(ctx, fds.eventfd(), 0)
    disconnect(ctx, sock)
    sock = connect_client(ctx)
    assert len(get_io_fds(ctx, sock, fds)[1]) == 1


def test_server_keeps_no_descriptor_of_a_reply(ctx, sock, fds):
    for i, fd in enumerate(fds.eventfds(5)):
        add_ioeventfd(ctx, fd, i * 8)
    before = len(open_fds())
    _, _, received = get_io_fds(ctx, sock, fds)
    fds.close(*received)
    assert len(open_fds()) == before


@pytest.mark.extension
def test_shadow_ioeventfd(ctx, sock, fds):
    event, memory = fds.eventfd(), fds.memfd(PAGE_SIZE)
    add_ioeventfd(
        ctx, event, 16, size=4, flags=1, datamatch=9, shadow_fd=memory, shadow_offset=8
    )
    _, [entry], received = get_io_fds(ctx, sock, fds)
    assert entry.type == VFIO_USER_IO_FD_TYPE_IOEVENTFD_SHADOW
    assert (entry.gpa_offset, entry.size, entry.flags) == (16, 4, 1)
    assert (entry.datamatch, entry.shadow_offset) == (9, 8)
    assert (entry.fd_index, entry.shadow_mem_fd_index) == (0, 1)
    os.pwrite(received[1], b"shadow", 8)
    assert os.pread(memory, 6, 8) == b"shadow"
    os.eventfd_write(received[0], 1)
    assert eventfd_value(event) == 1


@pytest.mark.defect("D65")
def test_more_descriptors_than_a_message_can_carry(ctx, sock, fds):
    """253 is the kernel's limit: the client gets an error, and service goes on."""
    for i, fd in enumerate(fds.eventfds(254)):
        add_ioeventfd(ctx, fd, i * 8)
    send(sock, GET_IO_FDS, request(argsz=16 + 48 * 254))
    run(ctx)
    reply = check_reply_of_any_kind(sock, fds)
    assert reply.header.error_no or len(reply.fds) <= 253
    msg(ctx, sock, GET_IO_FDS, request(BAR1))


@pytest.mark.defect("D66")
def test_clients_limit_of_descriptors_is_kept(ctx, fds):
    setup_region(ctx, BAR0, 0x1000)
    sock = serve(ctx, max_msg_fds=2)
    for i, fd in enumerate(fds.eventfds(3)):
        add_ioeventfd(ctx, fd, i * 8)
    send(sock, GET_IO_FDS, request())
    run(ctx)
    assert len(check_reply_of_any_kind(sock, fds).fds) <= 2


def check_reply_of_any_kind(sock, fds):
    """A reply that may be an error; its descriptors are kept."""
    data, ancillary, _, _ = sock.recvmsg(1 << 17, 4096)
    numbers = [
        int.from_bytes(content[i : i + 4], "little")
        for _, _, content in ancillary
        for i in range(0, len(content), 4)
    ]
    for fd in numbers:
        fds.add(fd)
    header = t.vfio_user_header.from_buffer_copy(data)
    assert header.flags & VFIO_USER_F_TYPE_MASK == VFIO_USER_F_TYPE_REPLY
    return Reply(header, data[16:], numbers)


@pytest.mark.extension
def test_more_entries_than_fit_into_a_message(ctx, sock):
    for _ in range(SERVER_MAX_MSG_SIZE // 48):
        ok(lib.vfu_create_ioeventfd, ctx, BAR0, -1, 0, 8, 0, 0, -1, 0)
    msg(ctx, sock, GET_IO_FDS, request(), expect=errno.EINVAL)
    assert "do not fit into one message" in ctx.logged(LOG_ERR)
