"""A thousand clients that connect and die at random points, and what is left of them.

The points are drawn from a seed: in the middle of VERSION or of any other message, between a
request and its reply, with replies unread, while the device is not quiet yet. What
the process holds afterwards, descriptors, mappings and bytes of the heap, must be
what it held after the first clients.
"""

import ctypes
import errno
import os
import random

import pytest

from .commands import *
from .harness import *

CLIENTS = 1000
WARM_UP = 50
SEED = 20261122
REGIONS = 4


class mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


_libc = ctypes.CDLL(None)
_libc.mallinfo2.restype = mallinfo2


def shared_mappings() -> list[str]:
    """The client memory that is mapped into this process."""
    with open("/proc/self/maps") as maps:
        return [line for line in maps if "client-memory" in line]


def requests(rng, memory, event):
    """What a client does in its life, as (command, payload, descriptors)."""
    for slot in range(REGIONS):
        addr, fds = slot << 20, [memory] if slot % 2 else []
        yield VFIO_USER_DMA_MAP, dma_map_payload(addr, 16 * PAGE_SIZE), fds
    vectors = set_irqs_payload(VFU_DEV_MSIX_IRQ, SET_EVENTFDS, 0, 4)
    yield VFIO_USER_DEVICE_SET_IRQS, vectors, [event] * 4
    control = bytes(t.vfio_user_device_feature_dma_logging_control(page_size=PAGE_SIZE))
    flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START
    yield VFIO_USER_DEVICE_FEATURE, feature_payload(flags, control), []
    for state in (VFIO_USER_DEVICE_STATE_PRE_COPY, VFIO_USER_DEVICE_STATE_RUNNING):
        data = bytes(t.vfio_user_device_feature_mig_state(device_state=state))
        flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE
        yield VFIO_USER_DEVICE_FEATURE, feature_payload(flags, data), []
    while True:
        data = rng.randbytes(rng.choice([1, 4, 200]))
        yield VFIO_USER_REGION_WRITE, region_payload(0, 0, len(data), data), []
        yield VFIO_USER_REGION_READ, region_payload(0, 0, 256), []
        yield rng.randrange(20), rng.randbytes(rng.randrange(64)), [event]
        yield VFIO_USER_DEVICE_RESET, b"", []


def run_once(ctx):
    """One run, whatever comes of it; true while a client is there."""
    if lib.vfu_run_ctx(ctx) == -1:
        number = get_errno()
        assert number in (errno.ENOTCONN, errno.EBUSY), error_name(number)
        return number == errno.EBUSY
    return True


def live_and_die(ctx, rng, quiesce, memory, event):
    """One client: connects, does some of its requests, and dies where the seed says."""
    sock = open_client(ctx)
    text = frame(VFIO_USER_VERSION, version_payload())
    if rng.random() < 0.2:  # in the middle of VERSION
        send_bytes(sock, text[: rng.randrange(len(text))], [event])
        sock.close()
        assert lib.vfu_attach_ctx(ctx) == -1
        return False
    send_bytes(sock, text)
    ok(lib.vfu_attach_ctx, ctx)
    steps = rng.randrange(30)
    for step, (cmd, payload, fds) in enumerate(requests(rng, memory, event)):
        data = frame(cmd, payload)
        last = step == steps
        if last:
            data = data[: rng.randrange(len(data) + 1)]
        if rng.random() < 0.05:
            quiesce.fail(errno.EBUSY)
        if data:
            send_bytes(sock, data, fds)
        if last:
            break
        run_once(ctx)
        if lib.vfu_device_quiesced(ctx, 0) == 0 or rng.random() < 0.9:
            drain(sock)
    if rng.random() < 0.5:
        sock.shutdown(socket.SHUT_RD)
        run_once(ctx)
    sock.close()
    return True


def drain(sock):
    """Take all replies and close what came with them."""
    try:
        while socket.recv_fds(sock, 1 << 16, 16)[0]:
            pass
    except BlockingIOError:
        pass


def bury(ctx):
    """Let the server notice that its client is dead."""
    for _ in range(20):
        if not run_once(ctx):
            return
        lib.vfu_device_quiesced(ctx, 0)
    raise AssertionError("the server does not notice that its client is dead")


@pytest.mark.defect("D9", "D38", "D39")
def test_a_thousand_clients_leave_nothing(new_ctx, fds):
    ctx = new_ctx(log_level=LOG_EMERG)
    pci_init(ctx, VFU_PCI_TYPE_CONVENTIONAL)
    bar = RegionMemory(4096)
    setup_region(ctx, 0, 4096, bar, VFU_REGION_FLAG_RW | VFU_REGION_FLAG_MEM)
    dma = setup_dma(ctx, REGIONS)
    quiesce = setup_quiesce(ctx)
    reset = setup_reset(ctx)
    migration = setup_migration(ctx)
    setup_irqs(ctx, VFU_DEV_MSIX_IRQ, 4)
    realize(ctx)
    memory, event = fds.memfd(1 << 20), fds.eventfd()
    rng = random.Random(SEED)
    recordings = [bar, *dma, quiesce, reset, migration.transition]
    held = None
    served = lost = 0
    for number in range(CLIENTS + WARM_UP):
        attached = live_and_die(ctx, rng, quiesce, memory, event)
        bury(ctx)
        served += attached
        lost += reset.calls.count(VFU_RESET_LOST_CONN)
        assert dma.register.count == dma.unregister.count
        assert lost == served, "one reset for each client that has gone"
        for recording in recordings:
            recording.calls.clear()
            recording.contexts.clear()
        ctx.sockets.clear()
        assert shared_mappings() == []
        if number == WARM_UP:
            held = (open_fds(), _libc.mallinfo2().uordblks)
    assert served > CLIENTS // 2
    assert open_fds() == held[0]
    # What Python itself still caches; a client's smallest loss, 16 bytes, is more.
    assert _libc.mallinfo2().uordblks - held[1] < 16 * CLIENTS
    assert os.pread(memory, 1, 0) == b"\0"
