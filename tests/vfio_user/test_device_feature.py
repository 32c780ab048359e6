"""DEVICE_FEATURE as such: probing, sizes, and which operation a feature has."""

import errno

import pytest

from .commands import *
from .harness import *

GET = VFIO_DEVICE_FEATURE_GET
SET = VFIO_DEVICE_FEATURE_SET
PROBE = VFIO_DEVICE_FEATURE_PROBE
MIGRATION = VFIO_DEVICE_FEATURE_MIGRATION
STATE = VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE
START = VFIO_DEVICE_FEATURE_DMA_LOGGING_START
STOP = VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP
REPORT = VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT
OPERATIONS = {
    MIGRATION: GET,
    STATE: GET | SET,
    START: SET,
    STOP: SET,
    REPORT: GET,
}


@pytest.fixture
def sock(ctx):
    ctx.calls = setup_migration(ctx)
    ctx.dma = setup_dma(ctx)
    return serve(ctx)


def test_migration_feature(ctx, sock):
    flags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY
    payload = msg(
        ctx,
        sock,
        VFIO_USER_DEVICE_FEATURE,
        feature_payload(GET | MIGRATION, argsz=16),
    )
    assert payload == feature_payload(
        GET | MIGRATION, flags.to_bytes(8, "little"), argsz=16
    )


@pytest.mark.parametrize(("feature", "operations"), OPERATIONS.items())
def test_probe_of_what_is_there(ctx, sock, feature, operations):
    for operation in (0, GET, SET):
        if operation & ~operations:
            continue
        for extra in (b"", b"anything"):
            request = feature_payload(PROBE | operation | feature, extra)
            cmd = VFIO_USER_DEVICE_FEATURE
            assert msg(ctx, sock, cmd, request) == request
    assert ctx.calls.transition.count == 0


@pytest.mark.parametrize("feature", [MIGRATION, START, STOP, REPORT])
def test_probe_of_an_operation_that_is_not_there(ctx, sock, feature):
    flags = PROBE | (GET | SET) | feature
    device_feature(ctx, sock, flags, bytes(16), expect=errno.EINVAL)


@pytest.mark.parametrize("feature", [0, 3, 4, 5, 9, 10, 0xFF, 0xFFFF])
@pytest.mark.parametrize("operation", [GET, SET, PROBE])
def test_features_that_are_not_there(ctx, sock, feature, operation):
    flags = operation | feature
    device_feature(ctx, sock, flags, bytes(24), argsz=64, expect=errno.EINVAL)


@pytest.mark.parametrize(
    "flags",
    [
        SET | MIGRATION,
        GET | START,
        GET | STOP,
        SET | REPORT,
        GET | SET | STATE,
        STATE,
        MIGRATION,
        1 << 19 | GET | MIGRATION,
        1 << 31 | PROBE | MIGRATION,
    ],
)
def test_operations_that_are_not_there(ctx, sock, flags):
    device_feature(ctx, sock, flags, bytes(24), argsz=64, expect=errno.EINVAL)


@pytest.mark.parametrize("length", [1, 4, 7])
def test_request_too_short(ctx, sock, length):
    request = feature_payload(GET | MIGRATION, argsz=16)[:length]
    msg(ctx, sock, VFIO_USER_DEVICE_FEATURE, request, expect=errno.EINVAL)


@pytest.mark.parametrize("feature", [MIGRATION, STATE])
@pytest.mark.parametrize("argsz", [0, 8, 15])
def test_get_argsz_too_small(ctx, sock, feature, argsz):
    device_feature(ctx, sock, GET | feature, argsz=argsz, expect=errno.EINVAL)


@pytest.mark.parametrize("feature", [MIGRATION, STATE])
def test_get_with_more_room(ctx, sock, feature):
    assert len(device_feature(ctx, sock, GET | feature, argsz=4096)) == 8


@pytest.mark.parametrize("argsz", [0, 2, 7])
def test_probe_argsz_too_small(ctx, sock, argsz):
    flags = PROBE | MIGRATION
    device_feature(ctx, sock, flags, argsz=argsz, expect=errno.EINVAL)


@pytest.mark.parametrize("argsz", [0, 8, 15])
def test_set_argsz_too_small(ctx, sock, argsz):
    data = bytes(t.vfio_user_device_feature_mig_state(device_state=1))
    device_feature(ctx, sock, SET | STATE, data, argsz, expect=errno.EINVAL)
    assert ctx.calls.transition.count == 0


@pytest.mark.parametrize("operation", [GET, SET, PROBE])
@pytest.mark.parametrize("feature", OPERATIONS)
def test_nothing_without_migration_callbacks(ctx, feature, operation):
    setup_dma(ctx)
    sock = serve(ctx)
    flags = operation | feature
    device_feature(ctx, sock, flags, bytes(24), argsz=64, expect=errno.EINVAL)


def test_failed_set_echoes_the_request(ctx, sock):
    """Some clients read it before they look at the error."""
    data = bytes(t.vfio_user_device_feature_mig_state(device_state=0xABCD))
    request = feature_payload(SET | STATE, data)
    cmd = VFIO_USER_DEVICE_FEATURE
    assert msg(ctx, sock, cmd, request, expect=errno.EINVAL) == request
