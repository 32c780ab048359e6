"""Real guests on real QEMU, against the examples of crate vfu.

`make interop` runs this. Everything that was said, by guests, by
QEMU and by servers, is kept under INTEROP_LOGS.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from . import debian, machine


@pytest.fixture(scope="session")
def root() -> debian.Root:
    if "INTEROP_SERVERS" not in os.environ:
        pytest.skip("no servers to test: run `make interop`")
    try:
        return debian.root(machine.DEADLINE)
    except debian.Unavailable as why:
        pytest.skip(f"no QEMU: {why}")


@pytest.fixture(scope="session")
def archive(root, tmp_path_factory) -> Path:
    try:
        return machine.initramfs(root, tmp_path_factory.mktemp("guest"))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            pytest.skip(f"no room for a guest: {error}")
        raise


class Rig:
    """Starts servers and guests, and ends those that are still there afterwards."""

    def __init__(self, root: debian.Root, archive: Path, sockets: Path, logs: Path):
        self._root, self._archive = root, archive
        self._sockets, self._logs = sockets, logs
        self._guests: list[machine.Guest] = []
        self._servers: list[machine.Server] = []

    def server(self, name: str) -> machine.Server:
        program = Path(os.environ["INTEROP_SERVERS"], name)
        server = machine.Server(program, self._sockets / name, self._logs)
        self._servers.append(server)
        return server

    def guest(self, server: machine.Server, **options: Any) -> machine.Guest:
        log = self._logs / f"guest-{len(self._guests) + 1}.log"
        guest = machine.Guest(self._root, self._archive, server, log, **options)
        self._guests.append(guest)
        return guest

    def stop(self) -> None:
        for guest in self._guests:
            guest.stop()
        for server in self._servers:
            server.kill()


@pytest.fixture
def rig(root, archive, tmp_path, request):
    if time.monotonic() > machine.DEADLINE:
        machine.out_of_time()
    logs = Path(os.environ.get("INTEROP_LOGS", tmp_path), request.node.name)
    logs.mkdir(parents=True, exist_ok=True)
    for old in logs.iterdir():
        old.unlink()
    rig = Rig(root, archive, tmp_path, logs)
    yield rig
    rig.stop()
