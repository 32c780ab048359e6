"""Migration: the state machine, and the data that leaves and enters the device."""

import ctypes
import errno

import pytest

from .commands import *
from .harness import *
from .migration import *

NAMES = {number: name for name, number in STATES.items()}


@pytest.fixture
def device(ctx):
    ctx.calls = setup_migration(ctx)
    ctx.reset = setup_reset(ctx)
    ctx.bar = RegionMemory(64)
    setup_region(ctx, VFU_PCI_DEV_BAR0_REGION_IDX, 64, ctx.bar)
    ctx.sock = serve(ctx)
    return ctx


def go(ctx, state):
    """Bring the device into a state, then forget how it got there."""
    set_mig_state(ctx, ctx.sock, state)
    ctx.calls.transition.calls.clear()


@pytest.mark.parametrize("version", [0, 1, 3, -1])
def test_other_versions_of_the_callbacks_are_refused(ctx, version):
    table = ctx.keep(MigrationCalls()).c_struct(version)
    fails(
        errno.EINVAL,
        lib.vfu_setup_device_migration_callbacks,
        ctx,
        ctypes.byref(table),
    )


@pytest.mark.parametrize("missing", ["transition", "read_data", "write_data"])
def test_all_callbacks_are_needed(ctx, missing):
    table = ctx.keep(MigrationCalls()).c_struct(VFU_MIGR_CALLBACKS_VERS)
    setattr(table, missing, type(getattr(table, missing))())
    function = lib.vfu_setup_device_migration_callbacks
    fails(errno.EINVAL, function, ctx, ctypes.byref(table))


def test_callbacks_may_come_after_the_client(ctx):
    sock = serve(ctx)
    setup_migration(ctx)
    assert get_mig_state(ctx, sock) == RUNNING


# The state machine


def test_a_device_runs_at_first(device):
    assert get_mig_state(device, device.sock) == RUNNING
    assert device.calls.transition.count == 0


@pytest.mark.parametrize(
    ("source", "target"), STEPS, ids=[f"{NAMES[a]}-{NAMES[b]}" for a, b in STEPS]
)
def test_steps_between_states(device, source, target):
    go(device, source)
    steps = STEPS[source, target]
    if steps is None:
        set_mig_state(device, device.sock, target, expect=errno.EINVAL)
        assert device.calls.transition.calls == []
        assert get_mig_state(device, device.sock) == source
        return
    set_mig_state(device, device.sock, target)
    assert device.calls.transition.calls == [TO_CALLBACK[step] for step in steps]
    assert get_mig_state(device, device.sock) == target


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_the_same_state_again(device, state):
    go(device, state)
    set_mig_state(device, device.sock, state)
    assert device.calls.transition.calls == []


@pytest.mark.parametrize(
    "target",
    [
        VFIO_USER_DEVICE_STATE_ERROR,
        VFIO_USER_DEVICE_STATE_RUNNING_P2P,
        VFIO_USER_DEVICE_STATE_PRE_COPY_P2P,
        VFIO_USER_DEVICE_NUM_STATES,
        9,
        0xABCD,
        UINT32_MAX,
    ],
)
@pytest.mark.parametrize("source", STATES.values(), ids=STATES)
def test_states_that_cannot_be_entered(device, source, target):
    go(device, source)
    set_mig_state(device, device.sock, target, expect=errno.EINVAL)
    assert device.calls.transition.calls == []
    assert get_mig_state(device, device.sock) == source


@pytest.mark.parametrize("number", [errno.EIO, 0xBEEF])
def test_failing_transition(device, number):
    device.calls.transition.fail(number)
    set_mig_state(device, device.sock, PRE_COPY, expect=number)
    assert get_errno() == number
    assert get_mig_state(device, device.sock) == RUNNING


def test_failing_second_step_leaves_the_first_done(device):
    device.calls.transition.fail(0, errno.EIO)
    set_mig_state(device, device.sock, STOP_COPY, expect=errno.EIO)
    assert device.calls.transition.calls == [
        VFU_MIGR_STATE_STOP,
        VFU_MIGR_STATE_STOP_AND_COPY,
    ]
    assert get_mig_state(device, device.sock) == STOP


@pytest.mark.defect("D5")
def test_transition_that_fails_without_errno_is_no_success(device):
    def fail(_state):
        set_errno(0)
        return -1

    device.calls.transition.action = fail
    data = bytes(t.vfio_user_device_feature_mig_state(device_state=PRE_COPY))
    flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE
    send(device.sock, VFIO_USER_DEVICE_FEATURE, feature_payload(flags, data))
    run(device)
    header = t.vfio_user_header.from_buffer_copy(device.sock.recv(4096))
    assert header.flags & VFIO_USER_F_ERROR
    assert header.error_no != 0


@pytest.mark.defect("D6")
@pytest.mark.parametrize("length", [12, 15])
def test_state_request_too_short(device, length):
    flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE
    data = bytes(t.vfio_user_device_feature_mig_state(device_state=PRE_COPY))
    request = feature_payload(flags, data)[:length]
    cmd = VFIO_USER_DEVICE_FEATURE
    msg(device, device.sock, cmd, request, expect=errno.EINVAL)
    assert get_mig_state(device, device.sock) == RUNNING


def test_device_reset_keeps_the_state(device):
    go(device, PRE_COPY)
    msg(device, device.sock, VFIO_USER_DEVICE_RESET)
    assert get_mig_state(device, device.sock) == PRE_COPY


@pytest.mark.defect("D36")
@pytest.mark.parametrize("state", [STOP, STOP_COPY, RESUMING, PRE_COPY])
def test_a_new_client_finds_a_running_device(device, state):
    go(device, state)
    disconnect(device, device.sock)
    sock = connect_client(device)
    assert get_mig_state(device, sock) == RUNNING


# What a stopped device still does


@pytest.mark.parametrize("state", [STOP, STOP_COPY])
@pytest.mark.parametrize(
    ("cmd", "payload"),
    [
        (VFIO_USER_DMA_MAP, dma_map_payload(0x10000, 0x1000)),
        (VFIO_USER_DEVICE_SET_IRQS, set_irqs_payload(4, TRIGGER_NONE, 0, 1)),
        (VFIO_USER_MIG_DATA_WRITE, bytes(16)),
    ],
    ids=["map", "irqs", "write"],
)
def test_refused_while_stopped(device, state, cmd, payload):
    go(device, state)
    msg(device, device.sock, cmd, payload, expect=errno.EINVAL)


@pytest.mark.defect("D36")
@pytest.mark.parametrize("state", [STOP, STOP_COPY])
@pytest.mark.parametrize(
    ("cmd", "payload"),
    [
        (VFIO_USER_DEVICE_RESET, b""),
        (VFIO_USER_DEVICE_GET_INFO, bytes(t.vfio_user_device_info(argsz=16))),
        (VFIO_USER_DMA_UNMAP, bytes(t.vfio_user_dma_unmap(argsz=24, flags=2))),
    ],
    ids=["reset", "info", "unmap"],
)
def test_allowed_while_stopped(device, state, cmd, payload):
    go(device, state)
    msg(device, device.sock, cmd, payload)


def test_regions_of_a_stopped_device(device):
    go(device, STOP)
    region_write(device, device.sock, VFU_PCI_DEV_BAR0_REGION_IDX, 0, b"late")
    assert region_read(device, device.sock, 0, 0, 4) == b"late"


def test_regions_while_the_state_is_copied(device):
    go(device, STOP_COPY)
    region_write(device, device.sock, 0, 0, b"late", expect=errno.EINVAL)
    region_read(device, device.sock, 0, 0, 4, expect=errno.EINVAL)
    assert device.bar.count == 0


@pytest.mark.parametrize("state", [RUNNING, PRE_COPY, RESUMING])
def test_other_states_refuse_nothing(device, state):
    go(device, state)
    region_write(device, device.sock, 0, 0, b"data")
    msg(device, device.sock, VFIO_USER_DEVICE_RESET)
    get_device_info(device, device.sock)
    set_irqs(device, device.sock, VFU_DEV_REQ_IRQ, TRIGGER_NONE, 0, 0)


# Data out


@pytest.mark.parametrize("state", [PRE_COPY, STOP_COPY])
def test_read_until_there_is_no_more(device, state):
    device.calls.outgoing += b"the state of the device"
    go(device, state)
    assert mig_data_read(device, device.sock, 16) == b"the state of the"
    assert mig_data_read(device, device.sock, 16) == b" device"
    assert mig_data_read(device, device.sock, 16) == b""
    assert device.calls.read_data.calls == [16] * 3


@pytest.mark.parametrize("state", [RUNNING, STOP, RESUMING])
def test_read_in_another_state(device, state):
    go(device, state)
    mig_data_read(device, device.sock, 4, expect=errno.EINVAL)
    assert device.calls.read_data.count == 0


@pytest.mark.parametrize("number", [errno.EIO, 0xBEEF])
def test_failing_read(device, number):
    go(device, PRE_COPY)
    device.calls.read_data.fail(number)
    mig_data_read(device, device.sock, 4, expect=number)
    assert get_errno() == number


@pytest.mark.parametrize("limit", [4, 64])
def test_read_of_more_than_the_client_takes(ctx, limit):
    ctx.calls = setup_migration(ctx)
    ctx.sock = serve(ctx, max_data_xfer_size=limit)
    go(ctx, PRE_COPY)
    mig_data_read(ctx, ctx.sock, limit)
    mig_data_read(ctx, ctx.sock, limit + 1, expect=errno.EINVAL)
    assert ctx.calls.read_data.calls == [limit]


@pytest.mark.parametrize("argsz", [0, 8, 11])
def test_read_argsz_too_small(device, argsz):
    go(device, PRE_COPY)
    mig_data_read(device, device.sock, 4, argsz, expect=errno.EINVAL)


@pytest.mark.parametrize("length", [1, 7])
def test_read_request_too_short(device, length):
    go(device, PRE_COPY)
    request = bytes(t.vfio_user_mig_data(argsz=12, size=4))[:length]
    cmd = VFIO_USER_MIG_DATA_READ
    msg(device, device.sock, cmd, request, expect=errno.EINVAL)


def test_read_without_migration(ctx):
    sock = serve(ctx)
    mig_data_read(ctx, sock, 4, expect=errno.EINVAL)
    mig_data_write(ctx, sock, b"data", expect=errno.EINVAL)


def test_read_shows_no_leftovers(device):
    go(device, PRE_COPY)
    leave_leftovers(8 + 100)
    leave_leftovers(16 + 100)
    assert mig_data_read(device, device.sock, 100) == b""


@pytest.mark.defect("D63")
def test_read_with_a_longer_request(device):
    device.calls.outgoing += b"data"
    go(device, PRE_COPY)
    request = bytes(t.vfio_user_mig_data(argsz=12, size=4)) + bytes(40)
    payload = msg(device, device.sock, VFIO_USER_MIG_DATA_READ, request)
    assert payload[8:] == b"data"


@pytest.mark.defect("D63")
@pytest.mark.parametrize("answer", [5, 1 << 20, (1 << 31) - 1])
def test_read_callback_that_claims_too_much(device, answer):
    go(device, PRE_COPY)
    device.calls.read_data.action = lambda *_: answer
    mig_data_read(device, device.sock, 4, expect=errno.EINVAL)


@pytest.mark.defect("D63")
def test_read_of_more_than_the_server_takes(ctx):
    ctx.calls = setup_migration(ctx)
    ctx.sock = serve(ctx, max_data_xfer_size=(1 << 31) - 1)
    go(ctx, PRE_COPY)
    size = SERVER_MAX_DATA_XFER_SIZE + 1
    request = bytes(t.vfio_user_mig_data(argsz=8 + size, size=size))
    send(ctx.sock, VFIO_USER_MIG_DATA_READ, request)
    run(ctx)
    receive(ctx.sock, expect=errno.EINVAL)
    assert ctx.calls.read_data.count == 0


# Data in


def test_write(device):
    go(device, RESUMING)
    for piece in (b"the state ", b"of the ", b"device"):
        mig_data_write(device, device.sock, piece)
    assert device.calls.incoming == b"the state of the device"
    set_mig_state(device, device.sock, RUNNING)
    assert device.calls.transition.calls == [
        VFU_MIGR_STATE_STOP,
        VFU_MIGR_STATE_RUNNING,
    ]


@pytest.mark.parametrize("state", [RUNNING, STOP, STOP_COPY, PRE_COPY])
def test_write_in_another_state(device, state):
    go(device, state)
    mig_data_write(device, device.sock, b"data", expect=errno.EINVAL)
    assert device.calls.write_data.count == 0


@pytest.mark.parametrize("number", [errno.EIO, 0xBEEF])
def test_failing_write(device, number):
    go(device, RESUMING)
    device.calls.write_data.fail(number)
    mig_data_write(device, device.sock, b"data", expect=number)
    assert get_errno() == number


@pytest.mark.parametrize("answer", [0, 3, 5])
def test_write_callback_that_takes_less_or_more(device, answer):
    go(device, RESUMING)
    device.calls.write_data.action = lambda *_: answer
    mig_data_write(device, device.sock, b"data", expect=errno.EINVAL)


def test_write_of_more_than_the_client_said(ctx):
    ctx.calls = setup_migration(ctx)
    ctx.sock = serve(ctx, max_data_xfer_size=4)
    go(ctx, RESUMING)
    mig_data_write(ctx, ctx.sock, b"data!", expect=errno.EINVAL)
    assert ctx.calls.write_data.count == 0


@pytest.mark.parametrize("data", [b"", b"dat"])
def test_write_without_all_of_its_data(device, data):
    go(device, RESUMING)
    mig_data_write(device, device.sock, data, size=4, expect=errno.EINVAL)
    assert device.calls.write_data.count == 0


def test_write_argsz_too_small(device):
    go(device, RESUMING)
    request = bytes(t.vfio_user_mig_data(argsz=11, size=4)) + b"data"
    cmd = VFIO_USER_MIG_DATA_WRITE
    msg(device, device.sock, cmd, request, expect=errno.EINVAL)


@pytest.mark.parametrize("length", [1, 7])
def test_write_request_too_short(device, length):
    go(device, RESUMING)
    request = bytes(t.vfio_user_mig_data(argsz=12, size=4))[:length]
    cmd = VFIO_USER_MIG_DATA_WRITE
    msg(device, device.sock, cmd, request, expect=errno.EINVAL)


def test_from_one_device_to_another(new_ctx):
    """A whole migration, between two contexts, in pieces of 7 bytes."""
    source, target = new_ctx(), new_ctx()
    out, back = setup_migration(source), setup_migration(target)
    source_sock, target_sock = serve(source), serve(target)
    state = bytes(range(100))
    out.outgoing += state[:30]
    set_mig_state(source, source_sock, PRE_COPY)
    set_mig_state(target, target_sock, RESUMING)
    for last in (False, True):
        while piece := mig_data_read(source, source_sock, 7):
            mig_data_write(target, target_sock, piece)
        if not last:
            out.outgoing += state[30:]
            set_mig_state(source, source_sock, STOP_COPY)
    set_mig_state(source, source_sock, STOP)
    set_mig_state(target, target_sock, RUNNING)
    assert back.incoming == state
    assert out.transition.calls == [
        VFU_MIGR_STATE_PRE_COPY,
        VFU_MIGR_STATE_STOP_AND_COPY,
        VFU_MIGR_STATE_STOP,
    ]
    assert back.transition.calls == [
        VFU_MIGR_STATE_STOP,
        VFU_MIGR_STATE_RESUME,
        VFU_MIGR_STATE_STOP,
        VFU_MIGR_STATE_RUNNING,
    ]
