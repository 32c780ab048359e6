"""Guests and the servers of their devices, as processes whose output is kept in files."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from .debian import GUEST_MEMORY

if TYPE_CHECKING:
    from .debian import Root

GUEST = Path(__file__).parent / "guest"
MODULES = (
    "gpio-regmap",
    "gpio-idio-16",
    "gpio-pci-idio-16",
    "uio",
    "uio_pci_generic",
)
# A guest boots in ten seconds; only one that hangs takes this long.
HANGS = 300


# When all of it has to be over, of `time.monotonic`. What is not decided by then is skipped:
# a machine that is too slow says nothing about the library.
DEADLINE = time.monotonic() + float(os.environ.get("INTEROP_SECONDS") or "inf")


class GuestFailed(AssertionError):
    """The guest's verdict, or why there is none, with its log."""


def out_of_time() -> NoReturn:
    """Skips the test."""
    pytest.skip(f"the {os.environ['INTEROP_SECONDS']} seconds for all guests are over")


def initramfs(root: Root, folder: Path) -> Path:
    """Busybox, the modules, and the guest's checks, which are compiled here."""
    tree = folder / "initramfs"
    (tree / "bin").mkdir(parents=True)
    (tree / "modules").mkdir()
    shutil.copy(root.busybox, tree / "bin/busybox")
    shutil.copy(GUEST / "init", tree / "init")
    (tree / "init").chmod(0o755)
    for source in GUEST.glob("*.c"):
        program = tree / "bin" / f"check-{source.stem}"
        command = ["gcc", "-static", "-O1", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([*command, "-o", str(program), str(source)], check=True)
    for number, name in enumerate(MODULES):  # init loads them in this order
        unpacked = subprocess.run(
            ["xz", "-dc", str(root.module(name))], check=True, capture_output=True
        ).stdout
        (tree / "modules" / f"{number}-{name}.ko").write_bytes(unpacked)
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    archive = folder / "initramfs.cpio"
    with archive.open("wb") as out:
        subprocess.run(
            [str(root.busybox), "cpio", "-o", "-H", "newc"],
            input="".join(f"{name}\n" for name in names).encode(),
            stdout=out,
            stderr=subprocess.DEVNULL,
            cwd=tree,
            check=True,
        )
    return archive


class Server:
    """A device's server, an example of crate vfu."""

    def __init__(self, program: Path, socket: Path, logs: Path) -> None:
        self.socket = socket
        self._program = program
        self._log = logs / f"{program.name}.log"
        self._start()

    def _start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._program), str(self.socket)], stderr=log
            )
        end = time.monotonic() + HANGS
        while not self.socket.exists():
            assert self._process.poll() is None, f"it ended: {self.log}"
            assert time.monotonic() < end, "it does not listen"
            if time.monotonic() > DEADLINE:
                out_of_time()
            os.sched_yield()

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    def wait_for(self, line: str, count: int) -> None:
        """Waits until it has written a line so many times in all.

        A guest's end is over before the server has seen it.
        """
        end = time.monotonic() + HANGS
        while (seen := self.log.count(line)) < count:
            ended = f"{seen} times {line!r}, not {count}, in\n{self.log}"
            assert self.is_running(), f"the server ended: {ended}"
            assert time.monotonic() < end, ended
            if time.monotonic() > DEADLINE:
                out_of_time()
            # Nothing tells of a file that grows; the wait ends early if the server does.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.1)

    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Ends it as a crash would: its socket's file stays."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """After `kill`: what is left of the socket has to go first."""
        self.socket.unlink()
        self._start()


class Guest:
    """A machine with one vfio-user device, without KVM."""

    def __init__(
        self,
        root: Root,
        archive: Path,
        server: Server,
        log: Path,
        *,
        machine: str = "q35",
        check: str,
        shared: bool = True,
        then: str = "poweroff",
    ) -> None:
        """Starts it.

        Args:
            root: Where QEMU and the kernel are.
            archive: The initramfs.
            server: The device's.
            log: Where the guest's console goes.
            machine: Type of machine.
            check: What the guest checks: a program of its initramfs.
            shared: Whether the guest's memory has a descriptor, or is reached by
                messages only.
            then: What the guest does afterwards: poweroff, reboot, or wait.
        """
        self.log_path = log
        log.touch()  # QEMU opens it later
        device = {
            "driver": "vfio-user-pci",
            "socket": {"type": "unix", "path": str(server.socket)},
        }
        kind = f"{machine},accel=tcg"
        command = root.qemu()
        if shared:
            kind += ",memory-backend=ram"
            backend = f"memory-backend-memfd,id=ram,size={GUEST_MEMORY},share=on"
            command += ["-object", backend]
        # Whether timers keep time is not asked: on a busy machine emulated ones do not.
        words = "console=ttyS0 quiet panic=-1 no_timer_check nowatchdog hugepages=8"
        words += f" check={check} then={then}"
        command += [
            "-machine",
            kind,
            "-m",
            GUEST_MEMORY,
            "-nodefaults",
            "-display",
            "none",
        ]
        command += ["-serial", f"file:{log}", "-kernel", str(root.kernel)]
        command += ["-initrd", str(archive), "-append", words]
        command += ["-device", json.dumps(device)]
        command += [] if then == "reboot" else ["-no-reboot"]
        self.errors_path = log.with_suffix(".qemu")
        with self.errors_path.open("wb") as errors:
            self.process = subprocess.Popen(command, stderr=errors, stdout=errors)

    @property
    def log(self) -> str:
        """What is on the console."""
        return self.log_path.read_text(errors="replace")

    @property
    def errors(self) -> str:
        """What QEMU itself said."""
        return self.errors_path.read_text(errors="replace")

    def verdict(self, number: int = 1) -> None:
        """Waits for the guest's verdict, that of its nth boot.

        Raises:
            GuestFailed: it is not PASS, or there is none.
        """
        end = time.monotonic() + HANGS
        while True:
            ended = self.process.poll() is not None
            verdicts = re.findall(r"^VERDICT (.*?)\s*$", self.log, re.MULTILINE)
            if len(verdicts) >= number:
                break
            if ended or "Kernel panic" in self.log:
                raise self._failed("the guest ended without a verdict")
            if time.monotonic() > end:
                raise self._failed("the guest hangs")
            if time.monotonic() > DEADLINE:
                out_of_time()
            # Nothing tells of a file that grows; the wait ends early if QEMU does.
            try:
                self.process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
        if verdicts[number - 1] != "PASS":
            raise self._failed(verdicts[number - 1])

    def _failed(self, why: str) -> GuestFailed:
        return GuestFailed(f"{why}\nQEMU: {self.errors}\nconsole:\n{self.log}")

    def wait(self) -> int:
        """Waits for the end of QEMU and says how it ended."""
        left = DEADLINE - time.monotonic()
        try:
            return self.process.wait(timeout=max(0.0, min(HANGS, left)))
        except subprocess.TimeoutExpired:
            if left < HANGS:
                out_of_time()
            raise self._failed("QEMU does not end") from None

    def stop(self) -> None:
        """Switches it off."""
        self.process.kill()
        self.process.wait()
