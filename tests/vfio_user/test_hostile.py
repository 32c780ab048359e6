"""Clients that mean harm: nothing they send may hurt the server or stay behind."""

import errno
import os
import random
import resource
import signal
import socket
import struct

import pytest

from .commands import *
from .harness import *

BAR0 = VFU_PCI_DEV_BAR0_REGION_IDX
INFO = bytes(t.vfio_user_device_info(argsz=16))


@pytest.fixture
def device(ctx):
    pci_init(ctx, VFU_PCI_TYPE_EXPRESS)
    ctx.bar = RegionMemory(4096)
    setup_region(ctx, BAR0, 4096, ctx.bar)
    setup_irqs(ctx, VFU_DEV_MSIX_IRQ, 64)
    ctx.dma = setup_dma(ctx)
    setup_migration(ctx)
    ctx.reset = setup_reset(ctx)
    realize(ctx)
    return ctx


def still_serves(ctx):
    """The next client finds everything in order."""
    sock = connect_client(ctx)
    get_device_info(ctx, sock)
    disconnect(ctx, sock)


def run_to_the_end(ctx, limit=1000):
    """Run until the connection is gone or nothing is left to do."""
    idle = 0
    for _ in range(limit):
        result = lib.vfu_run_ctx(ctx)
        if result == -1:
            assert get_errno() == errno.ENOTCONN
            return
        idle = idle + 1 if result == 0 else 0
        if idle > 30:  # a rejected header counts as nothing done
            return


@pytest.mark.parametrize("count", [1, 5, 50])
@pytest.mark.parametrize("length", [1, 15])
@pytest.mark.defect("D9")
def test_descriptors_with_a_broken_header(device, fds, length, count):
    event = fds.eventfd()
    before = len(open_fds())
    for _ in range(3):
        sock = connect_client(device)
        header = frame(VFIO_USER_DEVICE_SET_IRQS, size=20)[:length]
        send_bytes(sock, header, [event] * count)
        run_to_the_end(device)
        hang_up(sock)
        run_to_the_end(device)
    assert len(open_fds()) == before
    still_serves(device)


@pytest.fixture
def few_descriptors():
    """Room for so many more descriptors, until the test is over."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit(more):
        highest = max(open_fds()) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + more, limits[1]))
        filled = []
        while True:  # no free number below either
            fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            if fd >= highest:
                os.close(fd)
                return filled
            filled.append(fd)

    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("room", [1, 3, 9])
@pytest.mark.defect("D9")
def test_more_descriptors_than_there_is_room_for(device, fds, few_descriptors, room):
    """The kernel cuts them off: those that came are closed, the next client served."""
    event = fds.eventfd()
    before = len(open_fds())
    sock = connect_client(device)
    send(sock, VFIO_USER_DEVICE_GET_INFO, INFO, [event] * 10)
    for fd in few_descriptors(room):
        fds.add(fd)
    before += len(fds._open) - 1
    lib.vfu_run_ctx(device)
    hang_up(sock)
    for _ in range(5):
        lib.vfu_run_ctx(device)
    assert len(open_fds_quietly()) == before


def open_fds_quietly():
    """As open_fds, without a descriptor of its own to spare."""
    return [fd for fd in range(4096) if is_open(fd)]


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_descriptors_with_a_body_that_never_comes(device, fds):
    event = fds.eventfd()
    before = len(open_fds())
    sock = connect_client(device)
    send_bytes(sock, frame(VFIO_USER_DEVICE_GET_INFO, size=32), [event] * 10)
    hang_up(sock)
    run_to_the_end(device)
    assert len(open_fds()) == before
    still_serves(device)


def test_descriptors_attached_to_a_body(device, fds):
    """They belong to the header; elsewhere they are dropped, or taken, not lost."""
    event = fds.eventfd()
    sock = connect_client(device)
    before = len(open_fds())
    message = frame(VFIO_USER_DEVICE_GET_INFO, INFO)
    send_bytes(sock, message[:16])
    send_bytes(sock, message[16:], [event] * 4)
    run_until_idle(device)
    get_reply(sock)
    assert len(open_fds()) == before


@pytest.mark.parametrize("count", [1, 253])
def test_descriptors_that_nobody_wants(device, fds, count):
    event = fds.eventfd()
    sock = connect_client(device)
    before = len(open_fds())
    for cmd in range(1, VFIO_USER_MAX + 1):
        if cmd in (VFIO_USER_DEVICE_SET_IRQS, VFIO_USER_DMA_MAP):
            continue
        send(sock, cmd, INFO + bytes(8), [event] * count)
        run(device)
    assert len(open_fds()) == before


def test_unread_replies_with_descriptors_go_with_the_connection(device, fds):
    setup_region(device, 2, 4096, areas=[(0, 4096)], fd=fds.memfd(4096))
    before = len(open_fds())
    sock = connect_client(device)
    for _ in range(20):
        send(sock, VFIO_USER_DEVICE_GET_REGION_INFO, region_info_payload(2, 64))
        run(device)
    disconnect(device, sock)
    assert len(open_fds()) == before


@pytest.mark.parametrize("cut", range(1, 80, 6))
def test_client_that_vanishes_at_any_byte(device, fds, cut):
    """Between two requests, within a header, within a body."""
    before = len(open_fds())
    sock = connect_client(device)
    dma_map(device, sock, 0x10000, PAGE_SIZE, fds.memfd(PAGE_SIZE))
    stream = frame(VFIO_USER_DEVICE_GET_INFO, INFO) + frame(
        VFIO_USER_DMA_MAP, dma_map_payload(0x20000, PAGE_SIZE)
    )
    send_bytes(sock, stream[:cut])
    hang_up(sock)
    run_to_the_end(device)
    assert device.reset.calls == [VFU_RESET_LOST_CONN]
    assert device.dma.unregister.count == device.dma.register.count
    assert len(open_fds()) == before + 1
    still_serves(device)


@pytest.mark.parametrize("seed", range(8))
def test_random_bytes(device, seed):
    generator = random.Random(seed)
    for _ in range(20):
        sock = connect_client(device)
        send_bytes(sock, generator.randbytes(generator.randrange(1, 300)))
        sock.shutdown(socket.SHUT_WR)
        run_to_the_end(device)
        hang_up(sock)
        run_to_the_end(device)
    still_serves(device)


@pytest.mark.extension  # there are requests that upstream does not survive
@pytest.mark.parametrize("seed", range(8))
def test_random_requests(device, fds, seed):
    """Well-formed headers with bodies of any content, at any command."""
    generator = random.Random(seed)
    small = [0, 1, 2, 4, 8, 16, 24, 32, 64, 0x1000, UINT32_MAX, 1 << 31]
    large = [*small, 1 << 32, 1 << 63, UINT64_MAX, UINT64_MAX - 0xFFF]
    before = len(open_fds())
    for _ in range(10):
        sock = connect_client(device)
        for _ in range(60):
            cmd = generator.randrange(VFIO_USER_MAX + 1)
            body = b"".join(
                struct.pack("<I", generator.choice(small))
                if generator.random() < 0.6
                else struct.pack("<Q", generator.choice(large))
                for _ in range(generator.randrange(1, 9))
            )
            rights = [fds.eventfd()] if generator.random() < 0.1 else []
            try:
                send(sock, cmd, body, rights)
            except (BrokenPipeError, ConnectionResetError):
                break
            fds.close(*rights)
            run_to_the_end(device, 3)
            drain(sock)
        hang_up(sock)
        run_to_the_end(device)
    assert len(open_fds()) == before
    still_serves(device)


def drain(sock):
    """Read and close whatever the server sent."""
    try:
        data, ancillary, _, _ = sock.recvmsg(1 << 20, 4096)
    except (BlockingIOError, ConnectionResetError):
        return b""
    for _, _, content in ancillary:
        for at in range(0, len(content), 4):
            os.close(int.from_bytes(content[at : at + 4], "little"))
    return data


COMMANDS = {
    "map": (VFIO_USER_DMA_MAP, dma_map_payload(0x20000, PAGE_SIZE)),
    "unmap": (VFIO_USER_DMA_UNMAP, bytes(t.vfio_user_dma_unmap(24, 0, 0x10000, 4096))),
    "info": (VFIO_USER_DEVICE_GET_INFO, INFO),
    "region info": (VFIO_USER_DEVICE_GET_REGION_INFO, region_info_payload(0)),
    "irq info": (VFIO_USER_DEVICE_GET_IRQ_INFO, bytes(t.vfio_irq_info(16, 0, 2))),
    "irqs": (VFIO_USER_DEVICE_SET_IRQS, set_irqs_payload(2, TRIGGER_NONE, 0, 1)),
    "read": (VFIO_USER_REGION_READ, region_payload(0, 0, 8)),
    "write": (VFIO_USER_REGION_WRITE, region_payload(0, 0, 8, b"12345678")),
    "feature": (VFIO_USER_DEVICE_FEATURE, feature_payload(1 << 16 | 1, argsz=16)),
}


@pytest.mark.parametrize(("cmd", "payload"), COMMANDS.values(), ids=COMMANDS)
def test_every_truncation_of_a_request(device, cmd, payload):
    """A body one byte shorter than it should be is refused, down to one byte."""
    sock = connect_client(device)
    for length in range(1, len(payload)):
        send(sock, cmd, payload[:length])
        run(device)
        header = t.vfio_user_header.from_buffer_copy(drain(sock))
        assert header.error_no == errno.EINVAL, length
    msg(device, sock, VFIO_USER_DEVICE_RESET)


@pytest.mark.parametrize(("cmd", "payload"), COMMANDS.values(), ids=COMMANDS)
def test_surplus_after_a_request(device, cmd, payload):
    """It may be refused or ignored; the next request is answered as such."""
    sock = connect_client(device)
    dma_map(device, sock, 0x10000, PAGE_SIZE)
    send(sock, cmd, payload + bytes(100))
    run(device)
    assert len(split_one(drain(sock))) == 0
    msg(device, sock, VFIO_USER_DEVICE_RESET)


def split_one(data):
    """What follows the first message in some bytes."""
    return data[t.vfio_user_header.from_buffer_copy(data).msg_size :]


@pytest.mark.parametrize(("cmd", "payload"), COMMANDS.values(), ids=COMMANDS)
def test_client_that_is_gone_before_the_reply(device, cmd, payload):
    sock = connect_client(device)
    dma_map(device, sock, 0x10000, PAGE_SIZE)
    send(sock, cmd, payload)
    hang_up(sock)
    run_to_the_end(device)
    run(device, errno.ENOTCONN)
    assert device.reset.calls == [VFU_RESET_LOST_CONN]
    still_serves(device)


def test_reply_to_a_dead_client_raises_no_signal(device):
    """SIGPIPE would end programs that do not expect it."""
    previous = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        sock = connect_client(device)
        send(sock, VFIO_USER_DEVICE_GET_INFO, INFO)
        hang_up(sock)
        run_to_the_end(device)
    finally:
        signal.signal(signal.SIGPIPE, previous)


def test_many_connections_one_after_the_other(device):
    before = len(open_fds())
    for _ in range(100):
        open_client(device).close()
        assert lib.vfu_attach_ctx(device) == -1
    for _ in range(100):
        still_serves(device)
    assert len(open_fds()) == before


def test_memory_is_not_kept_after_large_messages(device):
    """A thousand bad 64 KiB messages leave the process as large as it was."""
    sock = connect_client(device)
    message = frame(VFIO_USER_MAX, bytes(64 << 10), flags=VFIO_USER_F_NO_REPLY)

    def rounds(count):
        for _ in range(count):
            pump(device, sock, message)
            run_until_idle(device)

    rounds(50)
    before = resident_kib()
    rounds(1000)
    assert resident_kib() - before < 16 << 10


def resident_kib():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE_SIZE >> 10


def test_unlimited_regions_of_one_file(new_ctx, fds):
    """A client may map as often as the device allows, at no more than its share."""
    ctx = new_ctx(log_level=LOG_ERR)
    setup_dma(ctx, max_regions=2000)
    sock = serve(ctx)
    fd = fds.memfd(PAGE_SIZE)
    before = len(open_fds())
    for i in range(2000):
        dma_map(ctx, sock, i << 20, PAGE_SIZE, fd)
    assert is_mapped(ctx, 1999 << 20)
    disconnect(ctx, sock)
    assert len(open_fds()) == before - 2


def test_regions_of_many_opens_of_one_file(new_ctx, fds, tmp_path):
    """Each is a file of its own; all of them are closed in the end."""
    ctx = new_ctx(log_level=LOG_ERR)
    setup_dma(ctx, max_regions=300)
    sock = serve(ctx)
    path = tmp_path / "memory"
    path.write_bytes(bytes(PAGE_SIZE))
    before = len(open_fds())
    for i in range(300):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            dma_map(ctx, sock, i << 20, PAGE_SIZE, fd)
        finally:
            os.set_blocking(fd, i % 2 == 0)
            os.close(fd)
    dma_unmap(ctx, sock, 0, 0, flags=VFIO_DMA_UNMAP_FLAG_ALL)
    assert len(open_fds()) == before


@pytest.mark.extension
def test_more_descriptors_than_a_message_may_bring(device, fds):
    """They come with the pieces of one message: most are refused, none stays."""
    event = fds.eventfd()
    before = len(open_fds())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        sock = connect_client(device)
        send_bytes(sock, frame(VFIO_USER_DEVICE_GET_INFO, INFO + bytes(16))[:32])
        for _ in range(6):
            send_bytes(sock, b"\0", [event] * 253)
            run(device)
        assert len(open_fds()) <= before + 1030
        send_bytes(sock, bytes(10))
        run(device)
        receive(sock, VFIO_USER_DEVICE_GET_INFO, expect=errno.EFAULT)
        assert len(open_fds()) == before + 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
