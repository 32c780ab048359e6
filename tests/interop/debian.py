"""QEMU, a kernel and a shell from Debian's packages, unpacked into a cache folder.

Nothing is installed: apt resolves and fetches into a state of its own, dpkg-deb unpacks,
and programs run through the unpacked dynamic loader. Neither root nor chroot is needed.
The mirror and the keyring are those that the machine's own apt uses.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

RELEASE = "trixie"
BACKPORTS = f"{RELEASE}-backports"  # vfio-user-pci came with QEMU 10.1
PACKAGES = ("qemu-system-x86", f"linux-image-amd64/{RELEASE}", "busybox-static")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TOOLS = ("apt-get", "dpkg-deb", "gcc", "xz")
ARCHITECTURE = "x86_64"

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


def root() -> Root:
    """The root, made now if it is not there yet: some 160 MB are downloaded.

    Raises:
        Unavailable: the machine lacks a tool, or the mirror the packages.
    """
    if os.uname().machine != ARCHITECTURE:
        raise Unavailable(f"guests are {ARCHITECTURE}, this is {os.uname().machine}")
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    missing += [] if KEYRING.exists() else [str(KEYRING)]
    if missing:
        raise Unavailable(f"missing here: {', '.join(missing)}")
    folder = cache_folder()
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch, "root")
            _make(made, Path(scratch, "apt"))
            try:
                made.rename(folder)  # whole or not at all
            except OSError:
                if not folder.exists():  # else another run was faster
                    raise
    return Root(folder)


def _mirror() -> str:
    """Where this machine's apt gets Debian from."""
    wanted = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    lines = _run(["apt-get", "indextargets", "--format", wanted]).splitlines()
    for line in lines:
        origin, label, uri = line.split("|", 2)
        if origin == label == "Debian":
            return uri
    raise Unavailable("apt knows no Debian mirror here")


def _make(made: Path, apt: Path) -> None:
    for part in ("state/lists/partial", "cache/archives/partial"):
        (apt / part).mkdir(parents=True)
    (apt / "status").touch()
    mirror = _mirror()
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
    }
    command = ["apt-get", "--quiet", "--quiet", "--yes"]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    install = ["install", "--download-only", "--no-install-recommends"]
    _run([*command, "update"])
    _run([*command, "--target-release", BACKPORTS, *install, *PACKAGES])
    made.mkdir()
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(made)])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout
