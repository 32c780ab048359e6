"""REGION_WRITE_MULTI: several small writes in one message.

A request is a 64-bit count and that many 24-byte writes: offset, region, length, and up
to 8 bytes of data. The reply tells how many were done.
"""

import errno
import json
import struct

import pytest

from .commands import *
from .harness import *

BAR0 = VFU_PCI_DEV_BAR0_REGION_IDX
BAR1 = VFU_PCI_DEV_BAR1_REGION_IDX
MULTI = VFIO_USER_REGION_WRITE_MULTI

pytestmark = pytest.mark.extension


def multi(*writes, count=None):
    """The payload for (region, offset, data) writes."""
    payload = struct.pack("<Q", len(writes) if count is None else count)
    for region, offset, data in writes:
        payload += struct.pack("<QII8s", offset, region, len(data), data)
    return payload


@pytest.fixture
def device(ctx):
    ctx.bar0, ctx.bar1 = RegionMemory(64), RegionMemory(64)
    setup_region(ctx, BAR0, 64, ctx.bar0)
    setup_region(ctx, BAR1, 64, ctx.bar1)
    ctx.sock = serve(ctx, write_multiple=True)
    return ctx


def write_multi(ctx, *writes, **how):
    """How many writes the reply says were done."""
    payload = msg(ctx, ctx.sock, MULTI, multi(*writes), **how)
    return struct.unpack("<Q", payload)[0]


@pytest.mark.parametrize("offered", [True, False, None])
def test_offered_to_clients_that_offer_it(ctx, offered):
    realize(ctx)
    extra = {} if offered is None else {"write_multiple": offered}
    sock = open_client(ctx)
    reply = attach(ctx, sock, version_payload({**DEFAULT_CAPABILITIES, **extra}))
    capabilities = json.loads(reply.payload[4:-1])["capabilities"]
    assert capabilities.get("write_multiple", False) is (offered is True)


def test_writes_in_order(device):
    writes = [(BAR0, 0, b"one"), (BAR1, 8, b"two-two!"), (BAR0, 1, b"X")]
    assert write_multi(device, *writes) == 3
    assert device.bar0.memory[:3] == b"oXe"
    assert device.bar1.memory[8:16] == b"two-two!"
    assert device.bar0.calls == [Access(0, 3, b"one"), Access(1, 1, b"X")]


def test_as_many_as_clients_send(device):
    """200 is what a real client collects."""
    writes = [(BAR0, i % 64, bytes([i & 0xFF])) for i in range(200)]
    assert write_multi(device, *writes) == 200
    assert device.bar0.count == 200


def test_config_space_is_a_region_too(device):
    write_multi(device, (VFU_PCI_DEV_CFG_REGION_IDX, PCI_CACHE_LINE_SIZE, b"\x20"))
    assert get_pci_header(device).cls == 0x20


def test_no_writes(device):
    assert write_multi(device) == 0


def test_no_reply_is_kept_to(device):
    payload = multi((BAR0, 0, b"posted"))
    send(device.sock, MULTI, payload, flags=VFIO_USER_F_NO_REPLY)
    run(device)
    no_reply(device.sock)
    assert device.bar0.memory[:6] == b"posted"


def test_failing_write_stops_the_rest(device):
    device.bar0.fail(0, errno.EIO)
    writes = [(BAR0, 0, b"1"), (BAR0, 1, b"2"), (BAR0, 2, b"3")]
    msg(device, device.sock, MULTI, multi(*writes), expect=errno.EIO)
    assert device.bar0.calls[-1].offset == 1


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\1", id="no count"),
        pytest.param(multi((BAR0, 0, b"x"))[:-1], id="cut"),
        pytest.param(multi((BAR0, 0, b"x"), count=2), id="count too large"),
        pytest.param(multi(count=1 << 62), id="count wraps"),
        pytest.param(multi((BAR0, 0, b"x"), count=UINT64_MAX), id="count huge"),
        pytest.param(
            struct.pack("<QQII8s", 1, 0, BAR0, 9, b"x" * 8), id="more than 8 bytes"
        ),
        pytest.param(
            struct.pack("<QQII8s", 1, 0, BAR0, UINT32_MAX, b"x"), id="length huge"
        ),
    ],
)
def test_malformed(device, payload):
    msg(device, device.sock, MULTI, payload, expect=errno.EINVAL)
    assert device.bar0.count == 0
    msg(device, device.sock, VFIO_USER_DEVICE_RESET)


@pytest.mark.parametrize(
    "write", [(BAR0, 64, b"x"), (BAR0, 60, b"12345"), (9, 0, b"x"), (2, 0, b"x")]
)
def test_write_out_of_bounds(device, write):
    msg(device, device.sock, MULTI, multi(write), expect=errno.EINVAL)
    assert device.bar0.count == 0


def test_write_of_no_bytes_counts_as_done(device):
    assert write_multi(device, (BAR0, 0, b""), (BAR0, 2, b"x")) == 2
    assert [access.count for access in device.bar0.calls] == [1]
