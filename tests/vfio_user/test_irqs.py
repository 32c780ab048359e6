"""DEVICE_SET_IRQS, vfu_irq_trigger and the mask callbacks."""

import errno
import os
import signal

import pytest

from .commands import *
from .harness import *

MSIX = VFU_DEV_MSIX_IRQ
ERR = VFU_DEV_ERR_IRQ
REQ = VFU_DEV_REQ_IRQ
NONE = VFIO_IRQ_SET_DATA_NONE
BOOL = VFIO_IRQ_SET_DATA_BOOL
EVENTFD = VFIO_IRQ_SET_DATA_EVENTFD
MASK = VFIO_IRQ_SET_ACTION_MASK
UNMASK = VFIO_IRQ_SET_ACTION_UNMASK
TRIGGER = VFIO_IRQ_SET_ACTION_TRIGGER


@pytest.fixture
def sock(ctx):
    setup_irqs(ctx, MSIX, 2048)
    setup_irqs(ctx, VFU_DEV_INTX_IRQ, 1)
    ctx.masked = ctx.keep(Recording(t.vfu_dev_irq_state_cb_t, default=None))
    ok(lib.vfu_setup_irq_state_callback, ctx, MSIX, ctx.masked.c)
    return serve(ctx)


@pytest.mark.parametrize(
    ("index", "flags", "start", "count", "data", "descriptors"),
    [
        pytest.param(5, TRIGGER | NONE, 0, 1, b"", 0, id="no such index"),
        pytest.param(MSIX, MASK | UNMASK | NONE, 0, 1, b"", 0, id="two actions"),
        pytest.param(MSIX, NONE, 0, 1, b"", 0, id="no action"),
        pytest.param(MSIX, TRIGGER | NONE | BOOL, 0, 1, b"\0", 0, id="two data types"),
        pytest.param(MSIX, TRIGGER, 0, 1, b"", 0, id="no data type"),
        pytest.param(MSIX, TRIGGER | NONE, 2047, 2, b"", 0, id="end past the last"),
        pytest.param(MSIX, TRIGGER | NONE, 2048, 1, b"", 0, id="start past the last"),
        pytest.param(MSIX, TRIGGER | NONE, 2049, 1, b"", 0, id="start further"),
        pytest.param(MSIX, TRIGGER | NONE, 1, UINT32_MAX, b"", 0, id="end wraps"),
        pytest.param(ERR, MASK | NONE, 0, 1, b"", 0, id="mask ERR"),
        pytest.param(REQ, MASK | NONE, 0, 1, b"", 0, id="mask REQ"),
        pytest.param(REQ, UNMASK | NONE, 0, 1, b"", 0, id="unmask REQ"),
        pytest.param(ERR, TRIGGER | NONE, 0, 2, b"", 0, id="two of ERR"),
        pytest.param(REQ, TRIGGER | NONE, 0, 2, b"", 0, id="two of REQ"),
        pytest.param(MSIX, TRIGGER | NONE, 1, 0, b"", 0, id="none from 1"),
        pytest.param(MSIX, MASK | NONE, 0, 0, b"", 0, id="mask none"),
        pytest.param(MSIX, TRIGGER | BOOL, 0, 0, b"", 0, id="bool of none"),
        pytest.param(MSIX, TRIGGER | EVENTFD, 0, 0, b"", 0, id="eventfd of none"),
        pytest.param(MSIX, TRIGGER | BOOL, 0, 1, b"\0", 1, id="bool with descriptor"),
        pytest.param(MSIX, TRIGGER | NONE, 0, 1, b"", 1, id="none with descriptor"),
        pytest.param(MSIX, TRIGGER | EVENTFD, 0, 2, b"", 1, id="descriptor missing"),
        pytest.param(MSIX, TRIGGER | EVENTFD, 0, 1, b"", 2, id="descriptor too many"),
        pytest.param(MSIX, TRIGGER | BOOL, 0, 2, b"\0", 0, id="bool missing"),
        pytest.param(MSIX, TRIGGER | BOOL, 0, 2, b"\0\0\0", 0, id="bool too many"),
        pytest.param(VFU_DEV_MSI_IRQ, TRIGGER | NONE, 0, 0, b"", 0, id="no vectors"),
    ],
)
def test_refused(ctx, sock, fds, index, flags, start, count, data, descriptors):
    sent = fds.eventfds(descriptors)
    before = open_fds()
    set_irqs(ctx, sock, index, flags, start, count, data, fds=sent, expect=errno.EINVAL)
    assert open_fds() == before
    assert ctx.masked.count == 0


@pytest.mark.parametrize("argsz", [0, 3, 19])
def test_argsz_too_small(ctx, sock, argsz):
    set_irqs(ctx, sock, REQ, TRIGGER_NONE, 0, 0, argsz=argsz, expect=errno.EINVAL)


@pytest.mark.parametrize("length", [1, 8, 19])
def test_request_too_short(ctx, sock, length):
    request = set_irqs_payload(REQ, TRIGGER_NONE, 0, 0)[:length]
    msg(ctx, sock, VFIO_USER_DEVICE_SET_IRQS, request, expect=errno.EINVAL)


@pytest.mark.parametrize("index", [MSIX, ERR, REQ])
def test_install_replace_and_remove(ctx, sock, fds, index):
    before = len(open_fds())
    first, second = fds.eventfds(2)
    set_irqs(ctx, sock, index, SET_EVENTFDS, 0, 1, fds=[first])
    set_irqs(ctx, sock, index, SET_EVENTFDS, 0, 1, fds=[second])
    assert len(open_fds()) == before + 2 + 1
    set_irqs(ctx, sock, index, TRIGGER_NONE, 0, 1)
    assert (eventfd_value(first), eventfd_value(second)) == (0, 1)
    set_irqs(ctx, sock, index, TRIGGER_NONE, 0, 0)
    assert len(open_fds()) == before + 2
    set_irqs(ctx, sock, index, TRIGGER_NONE, 0, 1)
    assert eventfd_value(second) == 0


def test_disable_without_descriptors(ctx, sock, fds):
    before = len(open_fds())
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 0, 3, fds=fds.eventfds(3))
    assert len(open_fds()) == before + 6
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 0, 2)
    assert len(open_fds()) == before + 4
    for vector, expect in ((0, errno.ENOENT), (1, errno.ENOENT), (2, 0)):
        if expect:
            fails(expect, lib.vfu_irq_trigger, ctx, vector)
        else:
            ok(lib.vfu_irq_trigger, ctx, vector)


@pytest.mark.defect("D20")
def test_disable_a_range_that_does_not_start_at_0(ctx, sock, fds):
    events = fds.eventfds(4)
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 0, 4, fds=events)
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 1, 2)
    for vector, there in enumerate([True, False, False, True]):
        result = lib.vfu_irq_trigger(ctx, vector)
        assert (result == 0) == there


def test_trigger(ctx, sock, fds):
    event = fds.eventfd(4)
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 8, 1, fds=[event])
    ok(lib.vfu_irq_trigger, ctx, 8)
    assert eventfd_value(event) == 5


@pytest.mark.parametrize("vector", [2048, 2049, UINT32_MAX])
def test_trigger_of_no_such_vector(ctx, sock, vector):
    fails(errno.EINVAL, lib.vfu_irq_trigger, ctx, vector)
    assert ctx.logged(LOG_ERR)


def test_trigger_of_a_vector_that_nobody_listens_to(ctx, sock):
    fails(errno.ENOENT, lib.vfu_irq_trigger, ctx, 7)
    assert ctx.logged(LOG_ERR)


def test_trigger_of_a_full_eventfd(ctx, sock, fds):
    event = fds.eventfd()
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 0, 1, fds=[event])
    os.eventfd_write(event, UINT64_MAX - 1)
    fails(errno.EAGAIN, lib.vfu_irq_trigger, ctx, 0)
    set_irqs(ctx, sock, MSIX, TRIGGER_NONE, 0, 1, expect=errno.EAGAIN)


def test_one_table_for_intx_msi_and_msix(ctx, sock, fds):
    event = fds.eventfd()
    set_irqs(ctx, sock, VFU_DEV_INTX_IRQ, SET_EVENTFDS, 0, 1, fds=[event])
    set_irqs(ctx, sock, MSIX, TRIGGER_NONE, 0, 1)
    assert eventfd_value(event) == 1


def test_loop_back_of_a_range(ctx, sock, fds):
    events = fds.eventfds(3)
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 0, 3, fds=events)
    set_irqs(ctx, sock, MSIX, TRIGGER_NONE, 1, 2)
    assert [eventfd_value(fd) for fd in events] == [0, 1, 1]


def test_loop_back_skips_vectors_without_eventfd(ctx, sock, fds):
    event = fds.eventfd()
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 5, 1, fds=[event])
    set_irqs(ctx, sock, MSIX, TRIGGER_NONE, 0, 2048)
    assert eventfd_value(event) == 1


def test_loop_back_by_booleans(ctx, sock, fds):
    events = fds.eventfds(4)
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 0, 4, fds=events)
    set_irqs(ctx, sock, MSIX, TRIGGER_BOOL, 0, 4, b"\0\1\0\1")
    assert [eventfd_value(fd) for fd in events] == [0, 1, 0, 1]


def test_forty_descriptors_at_once(ctx, sock, fds):
    """More than the server's max_msg_fds, as a real client sends them."""
    events = fds.eventfds(40)
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 0, 40, fds=events)
    for vector in range(40):
        ok(lib.vfu_irq_trigger, ctx, vector)
    assert [eventfd_value(fd) for fd in events] == [1] * 40


def test_as_many_descriptors_as_the_kernel_carries(ctx, sock, fds):
    event = fds.eventfd()
    before = len(open_fds())
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 100, 253, fds=[event] * 253)
    assert len(open_fds()) == before + 253
    set_irqs(ctx, sock, MSIX, TRIGGER_NONE, 0, 0)
    assert len(open_fds()) == before


@pytest.mark.parametrize(("action", "masked"), [(MASK, True), (UNMASK, False)])
def test_mask_callback(ctx, sock, action, masked):
    set_irqs(ctx, sock, MSIX, action | NONE, 0, 1)
    set_irqs(ctx, sock, MSIX, action | NONE, 10, 200)
    assert ctx.masked.calls == [(0, 1, masked), (10, 200, masked)]
    assert ctx.masked.contexts == [ctx.value] * 2


def test_mask_without_callback_succeeds(ctx, sock):
    ok(
        lib.vfu_setup_irq_state_callback,
        ctx,
        MSIX,
        t.vfu_dev_irq_state_cb_t(),
    )
    set_irqs(ctx, sock, MSIX, MASK | NONE, 0, 1)
    set_irqs(ctx, sock, VFU_DEV_INTX_IRQ, UNMASK | NONE, 0, 1)
    assert ctx.masked.count == 0


def test_masked_vector_can_still_be_triggered(ctx, sock, fds):
    event = fds.eventfd()
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 0, 1, fds=[event])
    set_irqs(ctx, sock, MSIX, MASK | NONE, 0, 1)
    ok(lib.vfu_irq_trigger, ctx, 0)
    assert eventfd_value(event) == 1


@pytest.mark.parametrize("index", [-1, VFU_DEV_NUM_IRQS])
def test_mask_callback_of_no_such_type(ctx, index):
    callback = t.vfu_dev_irq_state_cb_t()
    fails(errno.EINVAL, lib.vfu_setup_irq_state_callback, ctx, index, callback)


@pytest.mark.defect("D21")
def test_mask_by_booleans_leaves_the_others_alone(ctx, sock):
    set_irqs(ctx, sock, MSIX, MASK | BOOL, 4, 5, b"\1\0\0\1\1")
    touched = {
        vector
        for start, count, _ in ctx.masked.calls
        for vector in range(start, start + count)
    }
    assert touched == {4, 7, 8}
    assert all(mask for _, _, mask in ctx.masked.calls)


@pytest.mark.defect("D21")
@pytest.mark.parametrize("action", [MASK, UNMASK])
def test_mask_by_eventfd_is_refused(ctx, sock, fds, action):
    sent = fds.eventfds(1)
    set_irqs(ctx, sock, MSIX, action | EVENTFD, 0, 1, fds=sent, expect=errno.EINVAL)
    assert ctx.masked.count == 0


@pytest.mark.parametrize("way", ["disconnect", "destroy"])
def test_eventfds_go_with_the_connection(ctx, sock, fds, way):
    before = len(open_fds())
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 0, 5, fds=fds.eventfds(5))
    set_irqs(ctx, sock, ERR, SET_EVENTFDS, 0, 1, fds=fds.eventfds(1))
    set_irqs(ctx, sock, REQ, SET_EVENTFDS, 0, 1, fds=fds.eventfds(1))
    assert len(open_fds()) == before + 14
    if way == "destroy":
        ctx.destroy()
        assert len(open_fds()) == before + 7 - 2  # listening and connected socket
    else:
        disconnect(ctx, sock)
        assert len(open_fds()) == before + 7 - 2  # both ends of the connection
        fails(errno.ENOENT, lib.vfu_irq_trigger, ctx, 0)


def test_device_reset_keeps_the_eventfds(ctx, sock, fds):
    event = fds.eventfd()
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 0, 1, fds=[event])
    msg(ctx, sock, VFIO_USER_DEVICE_RESET)
    ok(lib.vfu_irq_trigger, ctx, 0)
    assert eventfd_value(event) == 1


@pytest.mark.defect("D11")
def test_vectors_added_after_realize_exist_or_are_refused(ctx, fds):
    setup_irqs(ctx, MSIX, 1)
    sock = serve(ctx)
    if lib.vfu_setup_device_nr_irqs(ctx, MSIX, 64) == -1:
        assert get_errno() in (errno.EINVAL, errno.EBUSY)
        return
    event = fds.eventfd()
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 63, 1, fds=[event])
    ok(lib.vfu_irq_trigger, ctx, 63)
    assert eventfd_value(event) == 1


@pytest.fixture
def default_sigpipe():
    """Python ignores SIGPIPE; the programs that use the library do not."""
    previous = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGPIPE, previous)


@pytest.mark.defect("D59")
def test_descriptor_that_is_a_broken_pipe(ctx, sock, fds, default_sigpipe):
    read_end, write_end = fds.pipe()
    send(
        sock,
        VFIO_USER_DEVICE_SET_IRQS,
        set_irqs_payload(MSIX, SET_EVENTFDS, 0, 1),
        [write_end],
    )
    run(ctx)
    assert sock.recv(4096)
    fds.close(read_end)
    fails_somehow(lib.vfu_irq_trigger, ctx, 0)
    send(sock, VFIO_USER_DEVICE_SET_IRQS, set_irqs_payload(MSIX, TRIGGER_NONE, 0, 1))
    run(ctx)
    assert sock.recv(4096)


@pytest.mark.defect("D59")
def test_descriptor_that_would_block(ctx, sock, fds):
    _, write_end = fds.pipe(os.O_CLOEXEC | os.O_NONBLOCK)
    while True:
        try:
            os.write(write_end, bytes(4096))
        except BlockingIOError:
            break
    os.set_blocking(write_end, True)
    send(
        sock,
        VFIO_USER_DEVICE_SET_IRQS,
        set_irqs_payload(MSIX, SET_EVENTFDS, 0, 1),
        [write_end],
    )
    run(ctx)
    assert sock.recv(4096)
    fails_somehow(lib.vfu_irq_trigger, ctx, 0)


@pytest.mark.defect("D59")
def test_full_eventfd_that_would_block(ctx, sock, fds):
    event = fds.add(os.eventfd(0, os.EFD_CLOEXEC))
    os.eventfd_write(event, UINT64_MAX - 1)
    set_irqs(ctx, sock, MSIX, SET_EVENTFDS, 0, 1, fds=[event])
    fails_somehow(lib.vfu_irq_trigger, ctx, 0)


def fails_somehow(function, *args):
    assert function(*args) == -1
    assert get_errno() != 0
