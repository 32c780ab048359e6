"""A device that uses the guest's memory: the guest compares every byte."""

from __future__ import annotations

import pytest

# Said by the library once a connection, before its first message for memory.
BY_MESSAGE = "DMA messages share the connection"
ERRORS = (0x100, 0x200, 0x400, 0x800, 0x1000)


@pytest.mark.parametrize(
    ("kind", "shared"), [("q35", True), ("pc", False)], ids=["descriptors", "messages"]
)
def test_every_byte_that_moves(rig, kind, shared):
    server = rig.server("dma")
    guest = rig.guest(server, check="dma", machine=kind, shared=shared)
    guest.verdict()
    assert guest.wait() == 0
    assert (BY_MESSAGE in server.log) is not shared
    for error in ERRORS:  # the log says what the guest did
        assert f"the guest's mistake ({error:#x})" in server.log
    assert server.is_running()
