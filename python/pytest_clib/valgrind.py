"""``--clib-valgrind``: the session under memcheck or helgrind.

The library's calls stay redirected under valgrind: it knows the functions behind them by
their addresses, and the thunk has unwind information. An error counts if it is the
library's: going outwards from where it happened, a frame of a library under test comes
before any of the interpreter. So CPython's own reads of undefined bytes, also those in a
callback that the library called, are no findings, and no suppression file is needed. An
access of the interpreter to memory that the library has freed is one.

Leaks: the ledger knows which blocks Python still holds by number, and valgrind does not, so
what the library itself allocated is judged by the ledger. Valgrind's leak check adds what
others allocated on its behalf. It reads all memory, which takes long here, and so is asked
after a test only when the ledger had to search, and at the end.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ._valgrind_xml import Error, Reader
from .findings import Finding, Kind, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .run import Run

# Enough for a library that is called by a library; each allocation pays for it. Who wants more
# says so in VALGRIND_OPTS, as for valgrind itself.
CALLERS = "--num-callers=16"
# When asked only; and what interior pointers hold is no leak: CPython has thousands.
LEAKS = (
    "--leak-check=no",
    "--show-leak-kinds=definite",
    "--errors-for-leak-kinds=definite",
)
# Frames of these mean that the interpreter, and not the library, did it.
INTERPRETER = re.compile(
    r"^(python[\d.]*|libpython[\d.]+so.*|libffi\.so.*|.*\.cpython-.*\.so|.*\.abi3\.so)$"
)
OURS = re.compile(r"^_native\.abi3.*\.so$")


class Tool:
    """How the child is started."""

    def __init__(self, tool: str, suppressions: Sequence[Path]) -> None:
        self.name = tool
        self._suppressions = suppressions

    def command(self, folder: Path) -> list[str]:
        """Valgrind and its options."""
        program = shutil.which("valgrind")
        if program is None:
            raise pytest.UsageError(
                "--clib-valgrind: valgrind is not installed; "
                "on Debian: apt-get install valgrind"
            )
        return [
            program,
            f"--tool={self.name}",
            "--xml=yes",
            f"--xml-file={folder}/valgrind.%p.xml",
            "--error-limit=no",
            *(
                []
                if "--num-callers" in os.environ.get("VALGRIND_OPTS", "")
                else [CALLERS]
            ),
            "--vgdb=no",
            "--fair-sched=try",  # else a thread that polls keeps the others from running
            *(LEAKS if self.name == "memcheck" else ()),
            *(f"--suppressions={path}" for path in self._suppressions),
        ]

    def environ(self, folder: Path) -> dict[str, str]:  # noqa: ARG002
        """Small blocks of Python must be seen one by one, too."""
        return {"PYTHONMALLOC": "malloc"}


class Valgrind:
    """What valgrind says, as findings; in the child (a check of ``Run``)."""

    def __init__(self, run: Run, folder: Path, tool: str) -> None:
        self._run = run
        self._folder = folder
        self._tool = tool
        self._own = folder / f"valgrind.{os.getpid()}.xml"
        self._told = folder / f"told.{os.getpid()}"
        # What earlier processes left is told by ``explain``.
        self._left_out = set(os.listdir(folder)) - {self._own.name}  # noqa: PTH208
        self._readers: dict[str, Reader] = {}
        self._known = 0
        self._paths: set[str] = set()
        self._unchecked: str | None = None  # the first test since the last leak check
        # The search for what is lost reads all memory, defined or not.
        for name in ("end_test", "finish", "now"):
            setattr(run.leaks, name, self._quietly(getattr(run.leaks, name)))

    def _quietly(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def quiet(*args: Any, **kwargs: Any) -> Any:
            self._run.native.valgrind_report(False)
            try:
                return function(*args, **kwargs)
            finally:
                self._run.native.valgrind_report(True)

        return quiet

    def start_test(self, test: str) -> None:
        """A test begins."""
        self._unchecked = self._unchecked or test

    def end_test(self, test: str) -> list[Finding]:
        """What was wrong in the test that ends now."""
        found = self._findings(self._new(), test)
        if self._tool == "memcheck" and self._run.leaks.searched:
            found += self._leaks(test)
        return found

    def finish(self) -> list[Finding]:
        """What is lost by now, and was not told yet."""
        found = self._findings(self._new(), "")
        if self._tool == "memcheck":
            found += self._leaks("")
        return found

    def _leaks(self, test: str) -> list[Finding]:
        """What has been lost since the last leak check."""
        self._run.native.valgrind_leak_check()
        found = self._findings(self._new(), test)
        since, self._unchecked = self._unchecked, None
        if since in (None, test):
            return found
        note = f"lost in this test, or in one before it, from {since} on"
        return [
            one._replace(details="\n".join(filter(None, (one.details, note))))
            if one.size and test
            else one
            for one in found
        ]

    def explain(self, test: str, process: int) -> list[Finding]:
        """What process ``process`` said in ``test`` before it died."""
        told = self._folder / f"told.{process}"
        known = int(told.read_text()) if told.exists() else 0
        reader = Reader(self._folder / f"valgrind.{process}.xml")
        return self._findings(reader.new(self._under_test(), skip=known), test)

    def _new(self) -> list[Error]:
        """What this process and its forked children have said since the last look."""
        errors = []
        for name in sorted(os.listdir(self._folder)):  # noqa: PTH208 (asked often)
            if name in self._left_out or not name.startswith("valgrind."):
                continue
            reader = self._readers.get(name)
            if reader is None:
                reader = self._readers[name] = Reader(self._folder / name)
            before = reader.seen
            errors += reader.new(self._under_test())
            if name == self._own.name and reader.seen != before:
                self._told.write_text(str(reader.seen))
        return errors

    def _under_test(self) -> set[str]:
        """The libraries' paths; there are only ever more of them."""
        if len(self._run.libraries) != self._known:
            self._known = len(self._run.libraries)
            paths = {library.path for library in self._run.libraries}
            self._paths = paths | {os.path.realpath(path) for path in paths}
        return self._paths

    def _findings(self, errors: list[Error], test: str) -> list[Finding]:
        if not errors:
            return []
        under_test = self._under_test()
        found = []
        for error in errors:
            site = self._site(error, under_test)
            if site is not None:
                found.append(self._finding(error, site, test, under_test))
        return found

    def _site(
        self, error: Error, under_test: set[str]
    ) -> tuple[Place, tuple[Place, ...]] | None:
        """The library's own frame, and the frames of it around; ``None``: not its."""
        if error.leaked and _is_in_ledger(error.stack):
            return None
        for number, stack in enumerate(error.stacks):
            inner = [Path(place.module).name for place in stack]
            if inner and OURS.match(inner[0]):
                return None
            for index, place in enumerate(stack):
                if place.module in under_test:
                    rest = stack[index + 1 :]
                    callers = [p for p in rest if p.module in under_test]
                    return place, tuple(callers)
                if INTERPRETER.match(inner[index]) and not OURS.match(inner[index]):
                    break
            # What else is said counts where the interpreter touched the library's memory, or
            # where the other side of a race is the library.
            if number == 0 and not error.kind.startswith(
                ("Invalid", "Race", "Mismatched")
            ):
                return None
        return None

    def _finding(
        self,
        error: Error,
        found: tuple[Place, tuple[Place, ...]],
        test: str,
        under_test: set[str],
    ) -> Finding:
        site, callers = found
        details = []
        for title, stack in error.others:
            if title:
                details.append(title)
            details.extend(
                f"  by {place}" for place in stack if place.module in under_test
            )
        innermost = error.stack[0].function if error.stack else ""
        by = f" in {site.function}" if site.function else ""
        option = "" if self._tool == "memcheck" else f"={self._tool}"
        return Finding(
            kind=Kind.VALGRIND,
            message=f"{error.what}{by}, {Path(site.module).name}",
            test=test,
            library=site.module,
            function=innermost,
            site=site,
            backtrace=callers,
            details="\n".join(details),
            command=self._run.command(test, f"--clib-valgrind{option}"),
            size=error.leaked,
        )


def _is_in_ledger(stack: tuple[Place, ...]) -> bool:
    """Whether the library itself allocated it: our thunk called the allocator."""
    return any(OURS.match(Path(place.module).name) for place in stack[:3])
