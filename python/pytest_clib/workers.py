"""The workers of pytest-xdist under a tool: each has a process of the tool to itself.

The controller runs as it is, and starts its workers with the tool before the interpreter. A worker
that dies is replaced by pytest-xdist, which tells in which test; its successor works in the same
directory, and adds what the tool said.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import roles, supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .findings import Finding


class UnderTool:
    """Starts the workers under the tool; in the controller.

    Raises:
        pytest.UsageError: the tool cannot be used.
    """

    def __init__(self, tool: supervisor.Tool) -> None:
        self._tool = tool
        self._shared = Path(tempfile.mkdtemp(prefix="pytest-clib-"))
        try:
            self._words(self._shared)
        except BaseException:
            self.pytest_unconfigure()
            raise

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, specs: Sequence[Any]) -> None:
        """Put the tool before the interpreter of each worker."""
        for number, spec in enumerate(specs):
            if not spec.popen:
                raise pytest.UsageError(
                    f"--tx {spec}: a tool can only be put before workers on this machine; "
                    "use -n, or run pytest there"
                )
            folder = self._shared / str(number)
            folder.mkdir()
            python = spec.python or shlex.quote(supervisor.interpreter())
            spec.python = f"{shlex.join(self._words(folder))} {python}"

    def pytest_unconfigure(self) -> None:
        """Remove what was shared."""
        shutil.rmtree(self._shared, ignore_errors=True)

    def _words(self, folder: Path) -> list[str]:
        environ = {**self._tool.environ(folder), roles.FOLDER: str(folder)}
        variables = [f"{name}={value}" for name, value in environ.items()]
        return ["env", *variables, *self._tool.command(folder)]


class Predecessors:
    """What workers said that died before this one; a check of ``Run``."""

    def __init__(
        self, folder: Path, explain: Callable[[str, int], list[Finding]]
    ) -> None:
        self._explain = explain
        self._running = folder / "running"
        self._died = folder / "died"
        if self._running.exists():
            with self._died.open("a", encoding="utf-8") as file:
                file.write(self._running.read_text(encoding="utf-8") + "\n")
            self._running.unlink()

    def start_test(self, test: str) -> None:
        """A test begins."""
        self._running.write_text(json.dumps([test, os.getpid()]), encoding="utf-8")

    def end_test(self, test: str) -> list[Finding]:  # noqa: ARG002
        """It is over."""
        self._running.unlink(missing_ok=True)
        return []

    def finish(self) -> list[Finding]:
        """Explain every death before."""
        if not self._died.exists():
            return []
        found: list[Finding] = []
        for line in self._died.read_text(encoding="utf-8").splitlines():
            found += self._explain(*json.loads(line))
        return found
