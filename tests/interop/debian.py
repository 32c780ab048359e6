"""QEMU, a kernel and a shell from Debian's packages, unpacked into a cache folder.

Nothing is installed: apt resolves and fetches into a state of its own, dpkg-deb unpacks,
and programs run through the unpacked dynamic loader. Neither root nor chroot is needed.
The mirror and the keyring are those that the machine's own apt uses.

Whatever this machine lacks (a tool, the network, room, time) is `Unavailable`, which says
nothing about the library.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

RELEASE = "trixie"
BACKPORTS = f"{RELEASE}-backports"  # vfio-user-pci came with QEMU 10.1
PACKAGES = ("qemu-system-x86", f"linux-image-amd64/{RELEASE}", "busybox-static")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TOOLS = ("apt-get", "dpkg-deb", "gcc", "xz")
ARCHITECTURE = "x86_64"
GUEST_MEMORY = "256M"
# What apt's lists, the packages and the unpacked root take while it is made.
ROOM = 1 << 30

# Changes with what is in the folder, so that an old one is not taken for a new one.
LAYOUT = 1


class Unavailable(Exception):
    """Why there can be no guests here."""


@dataclass(frozen=True)
class Root:
    """The unpacked packages."""

    folder: Path

    @property
    def kernel(self) -> Path:
        """The kernel's image."""
        return next(self.folder.glob("boot/vmlinuz-*"))

    @property
    def busybox(self) -> Path:
        """A static busybox."""
        return self.folder / "usr/bin/busybox"

    def module(self, name: str) -> Path:
        """A kernel module's compressed file."""
        return next(self.folder.glob(f"usr/lib/modules/*/kernel/**/{name}.ko.xz"))

    def qemu(self) -> list[str]:
        """The command that runs QEMU."""
        lib = self.folder / f"usr/lib/{ARCHITECTURE}-linux-gnu"
        command = [str(lib / "ld-linux-x86-64.so.2"), "--library-path", str(lib)]
        command += [str(self.folder / "usr/bin/qemu-system-x86_64")]
        for data in ("share/qemu", "share/seabios", "lib/ipxe/qemu"):
            command += ["-L", str(self.folder / "usr" / data)]
        return command


def cache_folder() -> Path:
    """Where it is kept, for as long as nobody deletes it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pytest-clib" / f"qemu-{RELEASE}-{LAYOUT}"


def root(deadline: float) -> Root:
    """The root, made now if it is not there yet: some 160 MB are downloaded.

    Args:
        deadline: Of `time.monotonic`; inf for none.

    Raises:
        Unavailable: the machine lacks a tool, room or time, or the mirror the packages.
    """
    if os.uname().machine != ARCHITECTURE:
        raise Unavailable(f"guests are {ARCHITECTURE}, this is {os.uname().machine}")
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    missing += [] if KEYRING.exists() else [str(KEYRING)]
    if missing:
        raise Unavailable(f"missing here: {', '.join(missing)}")
    folder = cache_folder()
    try:
        if not folder.exists():
            _make_once(folder, deadline)
    except OSError as error:
        raise Unavailable(f"{folder} cannot be made: {error}") from error
    made = Root(folder)
    _check(made, deadline)
    return made


def _make_once(folder: Path, deadline: float) -> None:
    """Makes it whole or not at all; a second process waits for the first one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Path(folder.parent, "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return
        free = shutil.disk_usage(folder.parent).free
        if free < ROOM:
            raise Unavailable(
                f"{folder.parent} has {free >> 20} MiB of room: {ROOM >> 20} are needed"
            )
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch, "root")
            _make(made, Path(scratch, "apt"), deadline)
            made.rename(folder)


def _check(root: Root, deadline: float) -> None:
    """What can go wrong on this machine without any guest or device of ours."""
    # Guests have this much memory, and the device is of QEMU 10.1.
    devices = [*root.qemu(), "-device", "vfio-user-pci,help"]
    _run(devices, deadline)
    backend = f"memory-backend-memfd,id=ram,size={GUEST_MEMORY},share=on"
    command = [*root.qemu(), "-machine", "q35,accel=tcg,memory-backend=ram"]
    command += ["-object", backend, "-m", GUEST_MEMORY, "-nodefaults"]
    command += ["-display", "none", "-S", "-monitor", "stdio"]
    _run(command, deadline, stdin="quit\n")
    compiler = ["gcc", "-static", "-xc", "-", "-o", "/dev/null"]
    _run(compiler, deadline, stdin="int main(void) { return 0; }\n")


def _mirror(deadline: float) -> str:
    """Where this machine's apt gets Debian from."""
    wanted = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    command = ["apt-get", "indextargets", "--format", wanted]
    for line in _run(command, deadline).splitlines():
        origin, label, uri = line.split("|", 2)
        if origin == label == "Debian":
            return uri
    raise Unavailable("apt knows no Debian mirror here")


def _make(made: Path, apt: Path, deadline: float) -> None:
    for part in ("state/lists/partial", "cache/archives/partial"):
        (apt / part).mkdir(parents=True)
    (apt / "status").touch()
    mirror = _mirror(deadline)
    sources = apt / "sources.list"
    sources.write_text(
        "".join(
            f"deb [signed-by={KEYRING}] {mirror} {suite} main\n"
            for suite in (RELEASE, BACKPORTS)
        )
    )
    options = {
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "",  # the folder is ours alone
        "Acquire::Languages": "none",
        "Acquire::http::Timeout": "20",
        "Acquire::https::Timeout": "20",
        "APT::Update::Error-Mode": "any",  # no network is no success
    }
    command = ["apt-get", "--quiet", "--quiet", "--yes"]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    install = ["install", "--download-only", "--no-install-recommends"]
    _run([*command, "update"], deadline)
    _run([*command, "--target-release", BACKPORTS, *install, *PACKAGES], deadline)
    made.mkdir()
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(made)], deadline)


def _run(command: list[str], deadline: float, stdin: str = "") -> str:
    left = deadline - time.monotonic()
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=max(0.0, left) if left != float("inf") else None,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"no time is left: {' '.join(command)}") from None
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout
