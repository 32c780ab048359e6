"""Compiles small C libraries, and runs small suites on them the way users do."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from handle_library import HANDLES

if TYPE_CHECKING:
    from collections.abc import Iterator

# A shell starts what runs in the background with SIGINT ignored, and children inherit that;
# the tests of Ctrl-C need what a terminal gives.
signal.signal(signal.SIGINT, signal.default_int_handler)

FLAGS = ("-g", "-O0", "-fPIC", "-shared", "-Wall", "-Wno-unused")


class Compiler:
    """Compiles sources to shared objects; what was compiled before is used again.

    A library's place is named after everything that it is made from, so that a stale
    one is never used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._commands = {
            ".c": shlex.split(os.environ.get("CC", "cc")),
            ".cpp": shlex.split(os.environ.get("CXX", "c++")),
        }
        self._versions: dict[str, bytes] = {}

    def __call__(
        self, source: str | Path, *flags: str, name: str = "planted", suffix: str = ".c"
    ) -> Path:
        """The path of the library; ``source`` is C text, or a file's path."""
        if isinstance(source, Path):
            suffix, name, source = source.suffix, source.stem, source.read_text()
        command = [*self._commands[suffix], *FLAGS, *flags]
        key = hashlib.sha256(
            b"\0".join([self._version(suffix), repr(command).encode(), source.encode()])
        ).hexdigest()[:16]
        library = self._folder / key / f"lib{name}.so"
        if library.exists():
            return library
        library.parent.mkdir(parents=True, exist_ok=True)
        file = library.with_name(f"{name}{suffix}")
        file.write_text(source)
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            made = Path(scratch, library.name)
            done = subprocess.run(
                [*command, "-o", str(made), str(file), "-lpthread"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            made.rename(library)  # whole or not at all, also for a parallel worker
        return library

    def _version(self, suffix: str) -> bytes:
        if suffix not in self._versions:
            self._versions[suffix] = subprocess.run(
                [*self._commands[suffix], "--version"], capture_output=True, check=True
            ).stdout
        return self._versions[suffix]


@pytest.fixture(scope="session", autouse=True)
def _few_plugins() -> Iterator[None]:
    """Sessions inside load what they need, and not all that is installed: most of their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        names = ["pytest_clib.plugin", "xdist.plugin", "pytest_rerunfailures"]
        here = [name for name in names if importlib.util.find_spec(name.split(".")[0])]
        patch.setenv("PYTEST_PLUGINS", ",".join(here))
        yield


@pytest.fixture(scope="session")
def build(pytestconfig: pytest.Config) -> Compiler:
    return Compiler(pytestconfig.cache.mkdir("clib-built"))


@dataclass
class Outcome:
    """How a small suite ended, with its report as data."""

    result: pytest.RunResult
    report: dict

    @property
    def findings(self) -> list[dict]:
        return self.report["findings"]

    @property
    def kinds(self) -> list[str]:
        return [finding["kind"] for finding in self.findings]

    @property
    def text(self) -> str:
        return self.result.stdout.str()


class Suite:
    """A small suite in a directory of its own, run by pytest in a process of its own."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester

    def run(self, source: str, library: Path, *args: str) -> Outcome:
        """Run ``source``, in which ``lib`` is the library, with ``--clib``."""
        self.write(source, library)
        return self.again(f"--clib={library}", *args)

    def write(self, source: str, library: Path, name: str = "test_it") -> None:
        prelude = (
            "import ctypes as c, errno, os, socket, sys, threading\n"
            "import pytest\n"
            f"lib = c.CDLL({str(library)!r}, use_errno=True)\n"
        )
        self.pytester.makepyfile(**{name: prelude + source})

    def again(self, *args: str) -> Outcome:
        """Run what is there."""
        report = self.pytester.path / "report.json"
        report.unlink(missing_ok=True)
        result = self.pytester.runpytest_subprocess(
            f"--clib-report={report}", "-p", "no:cacheprovider", *args
        )
        data = json.loads(report.read_text()) if report.exists() else {}
        return Outcome(result, data)


@pytest.fixture
def handles(build: Compiler) -> Path:
    """A library that makes handles, and declares nothing."""
    return build(HANDLES)


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    # What the environment asks of this session is not meant for the one inside it.
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path[1:]))
    return Suite(pytester)
