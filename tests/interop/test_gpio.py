"""A card that Linux has a driver for: the driver says whether it works."""

from __future__ import annotations


def test_two_guests_one_after_the_other(rig):
    server = rig.server("gpio")
    for number, kind in enumerate(("q35", "pc"), 1):
        guest = rig.guest(server, check="gpio", machine=kind)
        guest.verdict()
        assert guest.wait() == 0
        server.wait_for("the client closed the connection", number)
        assert server.is_running()
    assert server.log.count("the client closed the connection") == 2


def test_a_guest_that_reboots(rig):
    server = rig.server("gpio")
    guest = rig.guest(server, check="gpio", then="reboot")
    guest.verdict()
    guest.verdict(2)
    assert guest.log.count("GUEST") == 2
    assert server.log.count("the client closed the connection") == 0  # one connection


def test_a_server_that_is_killed_and_restarted(rig):
    server = rig.server("gpio")
    guest = rig.guest(server, check="gpio", then="wait")
    guest.verdict()
    server.kill()
    # The guest at work sees a card that no longer answers, and ends. How is QEMU's
    # affair: 11.1 aborts (an error is set twice) if it happens within an access.
    guest.wait()
    server.restart()
    guest = rig.guest(server, check="gpio")
    guest.verdict()
    assert guest.wait() == 0
