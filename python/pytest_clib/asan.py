"""``--clib-asan``: the session with the ASAN runtime that the library was built for.

The runtime has to be in the process before anything else, so the session runs again with
it preloaded. Which one: the one that the library names as needed (gcc; clang with
``-shared-libasan``), else clang's newest that has every symbol that the library asks for
(clang, rustc). UBSan's reports come through the same files. Where the build continues after
a report (``-fsanitize-recover=address``) the session does, too; else it goes on in a new
process (``supervisor``).

Leaks are found by the ledger, which knows what Python holds; LSan adds what others allocated
on the library's behalf, and looks only where the ledger had to search, and at the end.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import _asan_report, elf_symbols, places
from .findings import Finding, Kind, Place
from .valgrind import INTERPRETER, OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._asan_report import Report
    from .run import Run

EXIT = 86  # of a process that ASAN ended
RUNTIMES = (
    "/usr/lib/llvm-*/lib/clang/*/lib/*/libclang_rt.asan*.so",
    "/usr/lib*/clang/*/lib/*/libclang_rt.asan*.so",
    "/usr/local/lib/clang/*/lib/*/libclang_rt.asan*.so",
)
HOW = (
    "build it with -g -fsanitize=address -fsanitize-recover=address (gcc, clang), or with "
    'RUSTFLAGS="-Zsanitizer=address" cargo +nightly build --target x86_64-unknown-linux-gnu'
)


class Tool:
    """How the child is started."""

    name = "asan"

    def __init__(self, libraries: Sequence[str], suppressions: Sequence[Path]) -> None:
        self._libraries = libraries
        self._suppressions = suppressions

    def command(self, folder: Path) -> list[str]:  # noqa: ARG002
        """Nothing stands before the interpreter."""
        return []

    def environ(self, folder: Path) -> dict[str, str]:
        """The runtime, and how it reports."""
        runtimes = []
        for path in self._files():
            runtime = runtime_of(path)
            if runtime and runtime not in runtimes:
                runtimes.append(runtime)
        if len(runtimes) > 1:
            raise pytest.UsageError(
                "--clib-asan: the libraries need different runtimes, which cannot be in one "
                f"process: {' and '.join(runtimes)}; build all with one compiler"
            )
        before = os.environ.get("LD_PRELOAD", "")
        common = f"log_path={folder}/sanitizer:color=never:stack_trace_format='{_asan_report.FRAMES}'"
        asan = (
            f"{common}:halt_on_error=0:exitcode={EXIT}:detect_leaks=1:leak_check_at_exit=0"
            ":detect_stack_use_after_return=1:allocator_may_return_null=1:log_exe_name=0"
        )
        environ = {
            "PYTHONMALLOC": "malloc",
            "ASAN_OPTIONS": _join(os.environ.get("ASAN_OPTIONS"), asan),
            "UBSAN_OPTIONS": _join(
                os.environ.get("UBSAN_OPTIONS"), f"{common}:print_stacktrace=1"
            ),
            "LSAN_OPTIONS": _join(
                os.environ.get("LSAN_OPTIONS"),
                *(f"suppressions={path}" for path in self._suppressions),
                "print_suppressions=0",
            ),
        }
        if runtimes:
            environ["LD_PRELOAD"] = " ".join(filter(None, [runtimes[0], before]))
        return environ

    def _files(self) -> Iterator[str]:
        for spec in self._libraries:
            found = _glob(spec) if "/" in spec else []
            if not found:
                raise pytest.UsageError(
                    f"--clib-asan needs the path of the library, not --clib={spec}: "
                    "which runtime suits it stands in the file"
                )
            yield from found


def runtime_of(path: str) -> str:
    """The runtime for a library; ``""`` if it needs none (UBSan alone).

    Raises:
        pytest.UsageError: it is not instrumented, or there is no runtime for it.
    """
    names = elf_symbols.read(path)
    if not names.has("__asan_init|__asan_report_"):
        if names.has("__ubsan_handle_"):
            return ""
        raise pytest.UsageError(f"--clib-asan: {path} was not built with ASAN; {HOW}")
    if "__asan_init" in names.defined:
        raise pytest.UsageError(
            f"--clib-asan: {path} has ASAN's runtime linked in, which works in programs "
            "only; leave -static-libasan out"
        )
    wanted = {name for name in names.undefined if name.startswith("__asan_")}
    for needed in names.needed:
        if re.match(r"libasan\.so|libclang_rt\.asan", needed):
            for candidate in _candidates(needed):
                return candidate
            raise pytest.UsageError(
                f"--clib-asan: {path} needs {needed}, which is not here; install the "
                "compiler that it was built with"
            )
    found = [
        (runtime, elf_symbols.read(runtime))
        for runtime in _candidates("libclang_rt.asan")
    ]
    for runtime, has in found:
        if wanted <= set(has.defined):
            return runtime
    here = ", ".join(runtime for runtime, _ in found) or "none"
    raise pytest.UsageError(
        f"--clib-asan: no ASAN runtime of clang suits {path} (there is {here}); "
        "on Debian: apt-get install libclang-rt-dev, or libclang-rt-22-dev for Rust"
    )


def _candidates(name: str) -> Iterator[str]:
    """Files of a runtime, the best first."""
    if name.startswith("libasan"):
        for compiler in ("gcc", "cc", "g++"):
            if shutil.which(compiler):
                done = subprocess.run(
                    [compiler, f"-print-file-name={name}"],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                found = Path(done.stdout.strip())
                if found.is_absolute() and found.exists():
                    yield str(found.resolve())
        yield from _glob(f"/usr/lib/*/{name}") + _glob(f"/usr/lib*/{name}")
        return
    paths = {path for pattern in RUNTIMES for path in _glob(pattern)}
    fitting = [path for path in paths if "i386" not in path and "aarch64" not in path]
    yield from sorted(fitting, key=_version, reverse=True)


def _glob(pattern: str) -> list[str]:
    path = Path(pattern)
    return sorted(map(str, Path(path.anchor).glob(str(path.relative_to(path.anchor)))))


def _version(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.split("clang")[-2])]


def _join(*options: str | None) -> str:
    return ":".join(filter(None, options))


class Asan:
    """What the runtime says, as findings; in the child (a check of ``Run``)."""

    def __init__(self, run: Run, folder: Path) -> None:
        self._run = run
        self._folder = folder
        self._redirected: set[str] = set()
        self._offsets: dict[Path, int] = {}
        self._leaks: set[tuple[object, ...]] = set()
        self._own = folder / f"sanitizer.{os.getpid()}"
        self._told = folder / f"told.{os.getpid()}"
        # What earlier processes left is told by ``explain``.
        for path in folder.glob("sanitizer*"):
            self._offsets[path] = path.stat().st_size
        self._program = ctypes.CDLL(None)
        if "LD_PRELOAD" in os.environ:
            self._verify()

    def _verify(self) -> None:
        """Make sure that the runtime is in charge of memory."""
        try:
            poisoned = self._program["__asan_address_is_poisoned"]
        except AttributeError:
            raise pytest.UsageError(
                "--clib-asan: the runtime was not loaded; is the interpreter static, or setuid?"
            ) from None
        poisoned.argtypes, poisoned.restype = [ctypes.c_void_p], ctypes.c_int
        malloc, free = self._program.malloc, self._program.free
        malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
        free.argtypes, free.restype = [ctypes.c_void_p], None
        block = malloc(8)
        is_on = bool(poisoned(block + 8)) and not poisoned(block)
        free(block)
        if not is_on:
            raise pytest.UsageError(
                "--clib-asan: the runtime is loaded, but does not watch memory; is another "
                "allocator preloaded (LD_PRELOAD)?"
            )

    def start_test(self, test: str) -> None:  # noqa: ARG002
        """A test begins."""
        for library in self._run.libraries:
            if library.path not in self._redirected:
                self._redirected.add(library.path)
                self._redirect(library.path)

    def _redirect(self, path: str) -> None:
        """Have gcc's UBSan, which is a runtime of its own, write to a file."""
        for needed in elf_symbols.read(path).needed:
            if needed.startswith("libubsan"):
                report_to = ctypes.CDLL(needed)["__sanitizer_set_report_path"]
                report_to.argtypes, report_to.restype = [ctypes.c_char_p], None
                report_to(os.fsencode(self._folder / "sanitizer-ubsan"))

    def end_test(self, test: str) -> list[Finding]:
        """What was wrong in the test that ends now."""
        if self._run.leaks.searched:
            self._look_for_leaks()
        return self._findings(self._new(), test)

    def finish(self) -> list[Finding]:
        """What is lost by now, and was not told yet."""
        self._look_for_leaks()
        return self._findings(self._new(), "")

    def explain(self, test: str, process: int) -> list[Finding]:
        """What process ``process`` said in ``test`` before it died."""
        told = self._folder / f"told.{process}"
        offset = int(told.read_text()) if told.exists() else 0
        path = self._folder / f"sanitizer.{process}"
        data = path.read_bytes()[offset:] if path.exists() else b""
        return self._findings(data.decode(errors="replace"), test)

    def _look_for_leaks(self) -> None:
        try:
            check = self._program["__lsan_do_recoverable_leak_check"]
        except AttributeError:  # UBSan alone
            return
        check()

    def _new(self) -> str:
        """What has been written since the last look, by this process and its children."""
        text = ""
        for name in sorted(os.listdir(self._folder)):  # noqa: PTH208 (asked often)
            if not name.startswith("sanitizer"):
                continue
            path = self._folder / name
            offset = self._offsets.get(path, 0)
            if path.stat().st_size > offset:
                data = path.read_bytes()
                self._offsets[path] = len(data)
                if path == self._own:  # for who explains it, should this process die
                    self._told.write_text(str(len(data)))
                text += data[offset:].decode(errors="replace")
        return text

    def _findings(self, text: str, test: str) -> list[Finding]:
        if not text:
            return []
        found = []
        for report in _asan_report.parse(text):
            finding = self._finding(report, test)
            if finding is not None:
                found.append(finding)
        return found

    def _finding(self, report: Report, test: str) -> Finding | None:
        under_test = {library.path for library in self._run.libraries}
        under_test |= {os.path.realpath(path) for path in under_test}
        stacks = [
            (title, [self._symbolized(place, under_test) for place in stack])
            for title, stack in report.stacks
        ]
        if report.tool == "lsan" and self._is_known(report, stacks):
            return None
        site: Place | None = None
        callers: tuple[Place, ...] = ()
        for _, stack in stacks:
            at = _first(stack, under_test)
            if at is not None:
                site = stack[at]
                callers = tuple(p for p in stack[at + 1 :] if p.module in under_test)
                break
            if report.tool == "lsan":
                break
        if site is None:
            if report.tool != "ubsan" or not report.place:
                return None
            site = report.place
        details = []
        for title, stack in stacks:
            if title:
                details.append(title)
                details.extend(f"  by {p}" for p in stack if p.module in under_test)
        innermost = stacks[0][1][0].function if stacks and stacks[0][1] else ""
        by = f" in {site.function}" if site.function else ""
        name = f", {Path(site.module).name}" if site.module else ""
        return Finding(
            kind=Kind.UBSAN if report.tool == "ubsan" else Kind.ASAN,
            message=f"{report.what}{by}{name}",
            test=test,
            library=site.module,
            function=innermost,
            site=site,
            backtrace=callers,
            details="\n".join(details),
            command=self._run.command(test, "--clib-asan"),
            count=report.count,
            size=report.leaked,
        )

    def _is_known(self, report: Report, stacks: list[tuple[str, list[Place]]]) -> bool:
        """Whether a leak is the ledger's to judge, or was told before."""
        frames = stacks[0][1] if stacks else []
        if any(OURS.match(Path(place.module).name) for place in frames[:3]):
            return True
        key = (report.leaked, *((p.module, p.offset) for p in frames))
        known = key in self._leaks
        self._leaks.add(key)
        return known

    def _symbolized(self, place: Place, under_test: set[str]) -> Place:
        """A place with function and line, which a runtime may not know."""
        if place.file or place.module not in under_test:
            return place
        for library in self._run.libraries:
            if place.module in {library.path, os.path.realpath(library.path)}:
                found = places.of_return(
                    self._run.native, library.bias + place.offset + 1
                )
                if found and found[0].function:
                    return found[0]._replace(offset=place.offset)
        return place


def _first(stack: list[Place], under_test: set[str]) -> int | None:
    """The innermost frame of the library, if the interpreter is not inside of it."""
    for index, place in enumerate(stack):
        if place.module in under_test:
            return index
        name = Path(place.module).name
        if INTERPRETER.match(name) and not OURS.match(name):
            return None
    return None
