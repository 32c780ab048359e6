"""Quiescing: who asks for it, and what happens while and after."""

import errno

import pytest

from .commands import *
from .harness import *

ADDR = 0x10_0000
CFG = VFU_PCI_DEV_CFG_REGION_IDX
EXP = 0x40  # where the PCI Express capability lands


def express_capability(flr=True):
    data = bytearray(VFIO_USER_PCI_CAP_EXP_SIZEOF)
    data[0] = PCI_CAP_ID_EXP
    if flr:
        data[4:8] = PCI_EXP_DEVCAP_FLR.to_bytes(4, "little")
    return bytes(data)


@pytest.fixture
def device(ctx, fds):
    pci_init(ctx, VFU_PCI_TYPE_EXPRESS)
    assert ok(lib.vfu_pci_add_capability, ctx, 0, 0, express_capability()) == EXP
    ctx.quiesce = setup_quiesce(ctx)
    ctx.reset = setup_reset(ctx)
    ctx.dma = setup_dma(ctx)
    ctx.migration = setup_migration(ctx)
    ctx.bar = RegionMemory(64)
    setup_region(ctx, VFU_PCI_DEV_BAR0_REGION_IDX, 64, ctx.bar)
    ctx.sock = serve(ctx)
    dma_map(ctx, ctx.sock, ADDR, PAGE_SIZE, fds.memfd(PAGE_SIZE))
    ctx.quiesce.calls.clear()
    ctx.dma.register.calls.clear()
    return ctx


FLR = PCI_EXP_DEVCTL_BCR_FLR.to_bytes(2, "little")
STATE = bytes(
    t.vfio_user_device_feature_mig_state(device_state=VFIO_USER_DEVICE_STATE_STOP)
)
SET_STATE = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE
SET_START = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START
SET_STOP = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP
CONTROL = PAGE_SIZE.to_bytes(8, "little") + bytes(8)

# Everything that needs a quiesced device: the message, and whether it was carried out.
QUIESCING = {
    "map": (
        VFIO_USER_DMA_MAP,
        dma_map_payload(2 * ADDR, PAGE_SIZE),
        lambda ctx: ctx.dma.register.count == 1,
    ),
    "unmap": (
        VFIO_USER_DMA_UNMAP,
        bytes(t.vfio_user_dma_unmap(24, 0, ADDR, PAGE_SIZE)),
        lambda ctx: ctx.dma.unregister.count == 1,
    ),
    "unmap all": (
        VFIO_USER_DMA_UNMAP,
        bytes(t.vfio_user_dma_unmap(24, 2, 0, 0)),
        lambda ctx: ctx.dma.unregister.count == 1,
    ),
    "reset": (
        VFIO_USER_DEVICE_RESET,
        b"",
        lambda ctx: ctx.reset.calls == [VFU_RESET_DEVICE],
    ),
    "function level reset": (
        VFIO_USER_REGION_WRITE,
        region_payload(CFG, EXP + PCI_EXP_DEVCTL, 2, FLR),
        lambda ctx: ctx.reset.calls == [VFU_RESET_PCI_FLR],
    ),
    "migration state": (
        VFIO_USER_DEVICE_FEATURE,
        feature_payload(SET_STATE, STATE),
        lambda ctx: ctx.migration.transition.calls == [VFU_MIGR_STATE_STOP],
    ),
    "logging start": (
        VFIO_USER_DEVICE_FEATURE,
        feature_payload(SET_START, CONTROL),
        None,
    ),
    "logging stop": (
        VFIO_USER_DEVICE_FEATURE,
        feature_payload(SET_STOP),
        None,
    ),
}


@pytest.fixture(params=QUIESCING)
def operation(request):
    return QUIESCING[request.param]


def test_quiesce_comes_first(device, operation):
    cmd, payload, done = operation
    at_quiesce = []
    device.quiesce.action = lambda: at_quiesce.append(done and done(device))
    msg(device, device.sock, cmd, payload)
    assert at_quiesce == [False if done else None]
    assert done is None or done(device)
    assert device.quiesce.contexts[-1] == device.value


def test_device_that_cannot_quiesce(device, operation):
    cmd, payload, done = operation
    device.quiesce.fail(errno.ENOTTY)
    msg(device, device.sock, cmd, payload, expect=errno.ENOTTY)
    assert done is None or not done(device)
    msg(device, device.sock, cmd, payload)
    assert device.quiesce.count == 2


def test_device_that_quiesces_later(device, operation):
    cmd, payload, done = operation
    device.quiesce.fail(errno.EBUSY)
    msg(device, device.sock, cmd, payload, busy=True)
    for _ in range(3):
        run(device, errno.EBUSY)
    assert done is None or not done(device)
    assert device.quiesce.count == 1
    ok(lib.vfu_device_quiesced, device, 0)
    assert done is None or done(device)
    receive(device.sock, cmd)
    assert run(device) == 0
    assert device.quiesce.count == 1


def test_device_that_fails_to_quiesce_later(device, operation):
    cmd, payload, done = operation
    device.quiesce.fail(errno.EBUSY)
    msg(device, device.sock, cmd, payload, busy=True)
    ok(lib.vfu_device_quiesced, device, errno.ENOTTY)
    assert done is None or not done(device)


@pytest.mark.defect("D4")
def test_client_hears_that_the_device_failed_to_quiesce(device, operation):
    cmd, payload, _ = operation
    device.quiesce.fail(errno.EBUSY)
    msg(device, device.sock, cmd, payload, busy=True)
    ok(lib.vfu_device_quiesced, device, errno.ENOTTY)
    receive(device.sock, cmd, expect=errno.ENOTTY)
    msg(device, device.sock, cmd, payload)


def test_other_requests_wait_for_the_device(device, operation):
    cmd, payload, _ = operation
    device.quiesce.fail(errno.EBUSY)
    msg(device, device.sock, cmd, payload, busy=True)
    send(device.sock, VFIO_USER_REGION_READ, region_payload(0, 0, 4))
    run(device, errno.EBUSY)
    no_reply(device.sock)
    assert device.bar.count == 0
    ok(lib.vfu_device_quiesced, device, 0)
    receive(device.sock, cmd)


def test_request_behind_a_quiesced_one_is_served(device):
    device.quiesce.fail(errno.EBUSY)
    msg(device, device.sock, VFIO_USER_DEVICE_RESET, busy=True)
    send(device.sock, VFIO_USER_REGION_READ, region_payload(0, 0, 4))
    ok(lib.vfu_device_quiesced, device, 0)
    receive(device.sock, VFIO_USER_DEVICE_RESET)
    run_until_idle(device)
    receive(device.sock, VFIO_USER_REGION_READ)


@pytest.mark.defect("D58")  # memory: seen by pytest-clib or valgrind
def test_destroy_while_the_device_quiesces(device, operation):
    cmd, payload, done = operation
    device.quiesce.fail(errno.EBUSY)
    msg(device, device.sock, cmd, payload, busy=True)
    device.reset.calls.clear()
    device.destroy()
    assert device.quiesce.count == 1
    assert device.reset.calls == [VFU_RESET_LOST_CONN]
    assert done is None or device.dma.register.count == 0


def test_client_that_leaves_while_the_device_quiesces(device, operation):
    """The operation is carried out, its reply fails, and the context is reset."""
    cmd, payload, _ = operation
    device.quiesce.fail(errno.EBUSY)
    msg(device, device.sock, cmd, payload, busy=True)
    device.reset.calls.clear()
    device.sock.close()
    run(device, errno.EBUSY)
    ok(lib.vfu_device_quiesced, device, 0)
    assert device.reset.calls[-1] == VFU_RESET_LOST_CONN
    assert device.reset.calls.count(VFU_RESET_LOST_CONN) == 1
    assert device.quiesce.count == 1
    run(device, errno.ENOTCONN)
    assert not is_mapped(device, ADDR)


def test_client_that_leaves_in_the_callback_of_a_parked_request(device):
    device.quiesce.fail(errno.EBUSY)
    cmd, payload, _ = QUIESCING["migration state"]
    msg(device, device.sock, cmd, payload, busy=True)
    device.migration.transition.action = lambda _state: device.sock.close()
    ok(lib.vfu_device_quiesced, device, 0)
    assert device.reset.calls == [VFU_RESET_LOST_CONN]
    assert device.quiesce.count == 1
    run(device, errno.ENOTCONN)


def test_attach_is_refused_while_the_device_quiesces(device):
    device.quiesce.fail(errno.EBUSY)
    msg(device, device.sock, VFIO_USER_DEVICE_RESET, busy=True)
    fails(errno.EINVAL, lib.vfu_attach_ctx, device)
    ok(lib.vfu_device_quiesced, device, 0)


def test_no_reply_is_kept_to_by_a_parked_request(device):
    device.quiesce.fail(errno.EBUSY)
    send(device.sock, VFIO_USER_DEVICE_RESET, flags=VFIO_USER_F_NO_REPLY)
    run(device, errno.EBUSY)
    ok(lib.vfu_device_quiesced, device, 0)
    assert device.reset.calls == [VFU_RESET_DEVICE]
    no_reply(device.sock)


@pytest.mark.parametrize("number", [0, errno.EIO])
def test_quiesced_that_nobody_asked_for(device, number):
    fails(errno.EINVAL, lib.vfu_device_quiesced, device, number)
    assert device.quiesce.count == 0


def test_quiesced_without_callback(ctx):
    serve(ctx)
    fails(errno.EINVAL, lib.vfu_device_quiesced, ctx, 0)


def test_quiesced_twice(device):
    device.quiesce.fail(errno.EBUSY)
    msg(device, device.sock, VFIO_USER_DEVICE_RESET, busy=True)
    ok(lib.vfu_device_quiesced, device, 0)
    fails(errno.EINVAL, lib.vfu_device_quiesced, device, 0)
    assert device.reset.count == 1


def test_quiesced_from_inside_the_quiesce_callback(device):
    answers = []
    device.quiesce.action = lambda: answers.append(lib.vfu_device_quiesced(device, 0))
    msg(device, device.sock, VFIO_USER_DEVICE_RESET)
    assert answers == [-1]
    assert device.reset.count == 1


def test_failed_operation_after_a_quiesce(device):
    """The device learns of the failure by nothing; the client by the reply."""
    device.quiesce.fail(errno.EBUSY)
    request = dma_map_payload(ADDR, 2 * PAGE_SIZE)
    msg(device, device.sock, VFIO_USER_DMA_MAP, request, busy=True)
    ok(lib.vfu_device_quiesced, device, 0)
    receive(device.sock, VFIO_USER_DMA_MAP, expect=errno.EINVAL)
    assert device.dma.register.count == 0


def test_descriptor_of_a_parked_map(device, fds):
    """It is kept while the request waits, and used afterwards."""
    device.quiesce.fail(errno.EBUSY)
    fd = fds.memfd(PAGE_SIZE, b"kept")
    dma_map(device, device.sock, 2 * ADDR, PAGE_SIZE, fd, busy=True)
    ok(lib.vfu_device_quiesced, device, 0)
    get_reply(device.sock)
    vaddr = device.dma.register.calls[0].vaddr
    assert mapped_bytes(t.iovec(vaddr, 4))[:] == b"kept"


def test_descriptor_of_a_dropped_map_is_closed(device, fds):
    fd = fds.memfd(PAGE_SIZE)
    before = len(open_fds())
    device.quiesce.fail(errno.EBUSY)
    dma_map(device, device.sock, 2 * ADDR, PAGE_SIZE, fd, busy=True)
    assert len(open_fds()) == before + 1
    ok(lib.vfu_device_quiesced, device, errno.EIO)
    assert len(open_fds()) == before


@pytest.mark.defect("D58")
def test_descriptor_of_a_parked_map_is_closed_by_destroy(device, fds):
    fd = fds.memfd(PAGE_SIZE)
    device.quiesce.fail(errno.EBUSY)
    dma_map(device, device.sock, 2 * ADDR, PAGE_SIZE, fd, busy=True)
    device.destroy()
    left = [name for name in open_fds().values() if "client-memory" in name]
    assert len(left) == 2  # the test's own


# What does not quiesce


@pytest.mark.parametrize(
    ("cmd", "payload"),
    [
        (VFIO_USER_DEVICE_GET_INFO, bytes(t.vfio_user_device_info(argsz=16))),
        (VFIO_USER_DEVICE_GET_REGION_INFO, region_info_payload(0)),
        (VFIO_USER_REGION_READ, region_payload(CFG, EXP + PCI_EXP_DEVCTL, 2)),
        (VFIO_USER_REGION_READ, region_payload(0, 0, 4)),
        (VFIO_USER_REGION_WRITE, region_payload(0, 0, 4, b"data")),
        (VFIO_USER_REGION_WRITE, region_payload(CFG, 0x0C, 1, b"\1")),
        (VFIO_USER_DEVICE_SET_IRQS, set_irqs_payload(4, TRIGGER_NONE, 0, 1)),
        (
            VFIO_USER_DEVICE_FEATURE,
            feature_payload(
                VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_DMA_LOGGING_START
            ),
        ),
        (
            VFIO_USER_DEVICE_FEATURE,
            feature_payload(VFIO_DEVICE_FEATURE_GET | 1, argsz=16),
        ),
    ],
    ids=str,
)
def test_requests_that_need_no_quiescing(device, cmd, payload):
    device.quiesce.fail(errno.EBUSY)
    msg(device, device.sock, cmd, payload)
    assert device.quiesce.count == 0


def test_rejected_header_does_not_quiesce(device):
    msg(
        device,
        device.sock,
        VFIO_USER_DMA_MAP,
        size=SERVER_MAX_MSG_SIZE + 1,
        expect=errno.EINVAL,
    )
    assert device.quiesce.count == 0


def test_without_dma_support_map_does_not_quiesce(ctx):
    quiesce = setup_quiesce(ctx)
    sock = serve(ctx)
    dma_map(ctx, sock, ADDR, PAGE_SIZE)
    dma_unmap(ctx, sock, ADDR, PAGE_SIZE)
    assert quiesce.count == 0


def test_without_callback_nothing_is_asked(device):
    lib.vfu_setup_device_quiesce_cb(device, t.vfu_device_quiesce_cb_t())
    for cmd, payload, done in QUIESCING.values():
        if cmd == VFIO_USER_DMA_MAP:
            msg(device, device.sock, cmd, payload)
            assert done(device)
    assert device.quiesce.count == 0


@pytest.mark.defect("D18")
def test_without_express_capability_no_write_quiesces(ctx):
    pci_init(ctx)
    quiesce = setup_quiesce(ctx)
    sock = serve(ctx)
    for offset in range(64):
        request = region_payload(CFG, offset, 1, b"\0")
        send(sock, VFIO_USER_REGION_WRITE, request, flags=VFIO_USER_F_NO_REPLY)
        run(ctx)
    assert quiesce.count == 0


@pytest.mark.defect("D19")
@pytest.mark.parametrize("feature", [2, 3, 10])
def test_get_does_not_quiesce(device, feature):
    request = feature_payload(VFIO_DEVICE_FEATURE_GET | feature, argsz=16)
    send(device.sock, VFIO_USER_DEVICE_FEATURE, request)
    run(device)
    assert device.quiesce.count == 0


# What a device may do while it is quiesced


def use_memory(ctx):
    """Translate, get, put: what callbacks may do with the client's memory."""
    sgl = addr_to_sgl(ctx, ADDR, PAGE_SIZE)
    iov = sgl_get(ctx, sgl)
    mapped_bytes(iov[0])[:4] = b"used"
    lib.vfu_sgl_mark_dirty(ctx, sgl, 1)
    lib.vfu_sgl_put(ctx, sgl, iov, 1)


@pytest.mark.parametrize("busy", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize(
    "name", ["map", "reset", "function level reset", "migration state"]
)
def test_memory_may_be_used_in_callbacks(device, name, busy):
    used = []

    def use(*_args):
        use_memory(device)
        used.append(True)

    device.dma.register.action = use
    device.reset.action = use
    device.migration.transition.action = use
    cmd, payload, done = QUIESCING[name]
    if busy:
        device.quiesce.fail(errno.EBUSY)
        msg(device, device.sock, cmd, payload, busy=True)
        ok(lib.vfu_device_quiesced, device, 0)
        receive(device.sock, cmd)
    else:
        msg(device, device.sock, cmd, payload)
    assert used == [True]
    assert done(device)
    device.reset.action = None  # at destroy the memory is gone


@pytest.mark.parametrize("busy", [False, True], ids=["at once", "later"])
@pytest.mark.defect("D22")
def test_memory_may_be_used_in_its_unregister_callback(device, busy):
    used = []

    def use(_info):
        use_memory(device)
        used.append(True)

    device.dma.unregister.action = use
    cmd, payload, _ = QUIESCING["unmap"]
    if busy:
        device.quiesce.fail(errno.EBUSY)
        msg(device, device.sock, cmd, payload, busy=True)
        ok(lib.vfu_device_quiesced, device, 0)
        receive(device.sock, cmd)
    else:
        msg(device, device.sock, cmd, payload)
    assert used == [True]


def test_memory_may_be_used_in_the_quiesce_callback(device):
    device.quiesce.action = lambda: use_memory(device)
    msg(device, device.sock, VFIO_USER_DEVICE_RESET)
    device.quiesce.action = None


@pytest.mark.defect("D74")
def test_memory_may_be_used_in_a_region_callback_while_quiesced(ctx, fds):
    """A config write that quiesces is served by the device's own callback."""
    pci_init(ctx, VFU_PCI_TYPE_EXPRESS)
    space = RegionMemory(PCI_CFG_SPACE_EXP_SIZE)
    setup_region(ctx, CFG, PCI_CFG_SPACE_EXP_SIZE, space)
    flags = VFU_CAP_FLAG_CALLBACK
    ok(lib.vfu_pci_add_capability, ctx, 0, flags, express_capability())
    quiesce = setup_quiesce(ctx)
    setup_dma(ctx)
    sock = serve(ctx)
    dma_map(ctx, sock, ADDR, PAGE_SIZE, fds.memfd(PAGE_SIZE))

    def use(_buf, count, *_):
        use_memory(ctx)
        return count

    space.action = use
    cfg_write(ctx, sock, EXP + PCI_EXP_DEVCTL, 0, 2)
    assert quiesce.count == 2
