"""``--clib-coverage=DIR``: which lines of the library the tests reach.

Two kinds of builds, told apart by their symbols: gcov's (``--coverage`` of gcc and clang) and
LLVM's (``-fprofile-instr-generate -fcoverage-mapping`` of clang, ``-C instrument-coverage`` of
rustc). After each test the counters are written and set to zero; with
``--clib-coverage-tests`` to a file of their own, so that it is known which tests reach a line.
Forked children (torture, the tests' own) write theirs when they end, and any process when a
signal or a time limit ends it (native: ``flush_at_end``); only what is killed from outside
loses some. At the end the tools of the compiler read the files; what they say becomes
``DIR/index.html``, ``DIR/coverage.lcov`` and one number.

Collection is where tests are executed, evaluation where the terminal is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from . import _coverage_gcov, _coverage_llvm, elf_symbols
from .report import read_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .findings import Finding
    from .run import Run

HOW = (
    "build it with --coverage (gcc, clang), with -fprofile-instr-generate -fcoverage-mapping "
    "(clang), or with RUSTFLAGS='-C instrument-coverage' (rustc)"
)
_KNOWN = "libraries."  # and a process: a file with the paths that it knows of
Lines = dict[str, dict[int, int]]  # file, line, how often it ran


class Counters(Protocol):
    """The counters of one loaded library.

    Attributes:
        flush: address of a function that writes them when a process dies.
    """

    flush: int

    def write(self, name: str) -> None:
        """Add to a file or directory that ``name`` marks, and begin again at zero."""

    def leave(self, name: str) -> None:
        """The same, in a process that ends at once."""

    def reset(self) -> None:
        """Begin again at zero."""


class Coverage:
    """Collects; a check of ``Run``."""

    def __init__(self, run: Run, folder: Path, *, by_test: bool) -> None:
        self._run = run
        self._by_test = by_test
        self._raw = folder / "raw"
        self._counters: dict[str, Counters | None] = {}
        self._number = 0
        self._test = ""
        self._pid = os.getpid()
        self._leave = os._exit
        os.register_at_fork(after_in_child=self._forked)
        os._exit = self._exit  # type: ignore[assignment]

    def start_test(self, test: str) -> None:
        """A test begins: what ran since the last was import or fixtures of wider scope."""
        if os.getpid() != self._pid:
            return
        self._find()
        self._write("")
        self._test = test
        if self._by_test:  # whose the counters are that a crash leaves
            self._mark(f"now-{self._pid}", test)

    def end_test(self, test: str) -> list[Finding]:
        """A test has ended; in a copy of the process, that is written when it ends, too."""
        if os.getpid() != self._pid:
            return []
        self._find()
        self._write(test)
        self._test = ""
        if self._by_test:
            self._mark(f"now-{self._pid}", "")
        return []

    def finish(self) -> list[Finding]:
        """The session has ended."""
        self._find()
        self._write("")
        os._exit = self._leave
        if self._open():
            self._run.native.crash_uninstall()
        return []

    def _exit(self, status: int) -> None:
        """A forked child ends without exit handlers: write what it counted."""
        if os.getpid() != self._pid:
            # All children of a test add to one file: torture has thousands.
            stem = f"{self._pid}-{self._number}-fork"
            with self._unseen():
                for index, counters in enumerate(self._open()):
                    counters.leave(f"{stem}-{index}")
            if self._by_test:
                self._mark(stem, self._test)
        self._leave(status)

    def _open(self) -> list[Counters]:
        return [counters for counters in self._counters.values() if counters]

    def _find(self) -> None:
        before = len(self._counters)
        for library in self._run.libraries:
            if library.path not in self._counters:
                names = elf_symbols.read(library.path)
                self._counters[library.path] = _open(
                    kind_of(names), library.path, library.bias, names, self._raw
                )
        if len(self._counters) > before:
            # For who evaluates it, should this process die.
            known = self._raw / f"{_KNOWN}{os.getpid()}"
            known.write_text("\n".join(self._counters), encoding="utf-8")
        if len(self._counters) > before and self._open():
            native = self._run.native
            native.flush_at_end([counters.flush for counters in self._open()])
            native.crash_install()

    def _write(self, test: str) -> None:
        self._number += self._by_test
        stem = f"{os.getpid()}-{self._number}"
        with self._unseen():
            for index, counters in enumerate(self._open()):
                counters.write(f"{stem}-{index}")
        if self._by_test:
            self._mark(stem, test)

    @contextlib.contextmanager
    def _unseen(self) -> Iterator[None]:
        """What the compiler's runtime calls is not the library's to count, or to make fail."""
        native = self._run.native
        before = native.set_enabled(False)
        try:
            yield
        finally:
            native.set_enabled(before)

    def _mark(self, stem: str, test: str) -> None:
        """Note whose counters are in the files whose names begin so."""
        (self._raw / f"{stem}.test").write_text(test, encoding="utf-8")

    def _forked(self) -> None:
        """A child's counters are its own from here on: the parent writes what was before."""
        for counters in self._open():
            counters.reset()


def kind_of(names: elf_symbols.Names) -> str:
    """``llvm``, ``gcov``, or ``""``."""
    # Functions named __llvm_profile_.. are in clang's builds with gcov's counters, too.
    if "__llvm_prf_cnts" in names.sections:
        return "llvm"
    if names.has("__gcov|llvm_gcov_|__llvm_gcov_"):
        return "gcov"
    return ""


def _open(
    kind: str, path: str, bias: int, names: elf_symbols.Names, raw: Path
) -> Counters | None:
    if kind == "llvm":
        return _coverage_llvm.open_counters(path, bias, names, raw)
    if kind == "gcov":
        return _coverage_gcov.open_counters(path, bias, names, raw)
    return None


def prepare(folder: Path, *, fresh: bool) -> None:
    """Make the directory ready, before a library is loaded.

    Args:
        folder: the directory of ``--clib-coverage``.
        fresh: a session begins, so that what is there is of an earlier one.

    Raises:
        pytest.UsageError: it cannot be written.
    """
    raw = folder / "raw"
    try:
        if fresh:
            shutil.rmtree(raw, ignore_errors=True)
        raw.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise pytest.UsageError(
            f"--clib-coverage={folder}: {error.strerror or error}"
        ) from None
    # Where counters go that are written when a process ends, also one that is no pytest.
    os.environ["LLVM_PROFILE_FILE"] = str(raw / _coverage_llvm.PATTERN)
    os.environ["GCOV_PREFIX"] = str(raw / _coverage_gcov.left(os.getpid()))
    os.environ.pop("GCOV_PREFIX_STRIP", None)


@dataclasses.dataclass
class Result:
    """What was reached.

    Attributes:
        data: as in the report.
        note: the line for the terminal.
        percent: of lines.
    """

    data: dict[str, Any]
    note: str
    percent: float


def evaluate(
    folder: Path,
    libraries: Sequence[str],
    patterns: Sequence[str],
    *,
    by_test: bool = False,
) -> Result:
    """Read what was collected, and write page and lcov file.

    Args:
        folder: the directory of ``--clib-coverage``.
        libraries: paths of the libraries under test; those that processes knew of which died
            are added.
        patterns: source files that count, as globs; without any, all that are below a
            directory that someone may edit. Those of a glob behind ``!`` never count.
        by_test: tell which tests reach a line, too.

    Raises:
        ValueError: it cannot be read; the message says what to do.
    """
    raw = folder / "raw"
    tests: dict[str, Lines] = {}
    whole: Lines = {}
    outside: Lines = {}
    kinds: dict[str, list[str]] = {}
    for path in dict.fromkeys([*libraries, *_known(raw)]):
        names = elf_symbols.read(path)
        kind = kind_of(names)
        if not kind:
            raise ValueError(f"{path} was not built for coverage; {HOW}")
        if _open(kind, path, 0, names, raw) is None:
            raise ValueError(
                f"{path} is stripped, so that its counters cannot be found; leave out "
                "-s and strip"
            )
        kinds.setdefault(kind, []).append(path)
    for kind, paths in kinds.items():
        module = {"llvm": _coverage_llvm, "gcov": _coverage_gcov}[kind]
        inside, others, of_tests = module.collect(paths, raw, by_test=by_test)
        _add(whole, inside)
        _add(outside, others)
        for test, lines in of_tests.items():
            _add(tests.setdefault(test, {}), lines)
    chosen = {file: lines for file, lines in whole.items() if _counts(file, patterns)}
    if not chosen:
        raise ValueError("nothing was reached; was the library loaded in a test?")
    data = _data(chosen, tests)
    data["left_out"] = sum(
        len(hits.keys() - whole.get(file, {}).keys())
        for file, hits in outside.items()
        if _counts(file, patterns)
    )
    _write_lcov(folder / "coverage.lcov", chosen)
    percent = 100 * data["covered"] / max(data["lines"], 1)
    # Rounded down: 100 % means every line.
    shown = int(percent * 100) / 100
    note = (
        f"coverage: {shown:.2f} % of lines ({data['covered']} of {data['lines']}), "
        f"see {folder / 'index.html'}"
    )
    if data["left_out"]:
        note += f"; {data['left_out']} lines do not count: no function in the library has them"
    return Result(data, note, percent)


def _known(raw: Path) -> list[str]:
    """Paths of the libraries that any process knew of."""
    files = sorted(raw.glob(f"{_KNOWN}*"))
    paths = [path for one in files for path in one.read_text("utf-8").splitlines()]
    return [path for path in paths if Path(path).exists()]


def _counts(file: str, patterns: Sequence[str]) -> bool:
    out = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    if any(fnmatch.fnmatch(file, pattern) for pattern in out):
        return False
    if len(out) < len(patterns):
        return any(fnmatch.fnmatch(file, pattern) for pattern in patterns)
    foreign = ("/rustc/", "/.cargo/", "/usr/include/", "/.rustup/", "/usr/lib/")
    return not any(part in file for part in foreign) and Path(file).exists()


def _add(into: Lines, lines: Mapping[str, Mapping[int, int]]) -> None:
    for file, hits in lines.items():
        known = into.setdefault(file, {})
        for line, count in hits.items():
            known[line] = known.get(line, 0) + count


def _data(whole: Lines, tests: dict[str, Lines]) -> dict[str, Any]:
    names = sorted(test for test in tests if test)
    sets: dict[tuple[int, ...], int] = {}
    reached: dict[str, dict[int, list[int]]] = {}
    for number, test in enumerate(names):
        for file, hits in tests[test].items():
            lines = reached.setdefault(file, {})
            for line, count in hits.items():
                if count:
                    lines.setdefault(line, []).append(number)
    files = []
    for file, hits in sorted(whole.items()):
        by_line = {
            str(line): sets.setdefault(tuple(who), len(sets))
            for line, who in sorted(reached.get(file, {}).items())
        }
        files.append(
            {
                "file": file,
                "lines": len(hits),
                "covered": sum(1 for count in hits.values() if count),
                "hits": {str(line): count for line, count in sorted(hits.items())},
                "reached": by_line or None,
                "source": read_lines(file) or None,
            }
        )
    return {
        "lines": sum(entry["lines"] for entry in files),
        "covered": sum(entry["covered"] for entry in files),
        "tests": names,
        "sets": [list(who) for who in sets],
        "files": files,
    }


def _write_lcov(path: Path, whole: Lines) -> None:
    out: list[str] = []
    for file, hits in sorted(whole.items()):
        out += ["TN:", f"SF:{file}"]
        out += [f"DA:{line},{count}" for line, count in sorted(hits.items())]
        out += [f"LF:{len(hits)}", f"LH:{sum(1 for c in hits.values() if c)}"]
        out.append("end_of_record")
    path.write_text("\n".join(out) + "\n", encoding="utf-8")


def read_lcov(text: str) -> Lines:
    """The lines of an lcov file."""
    lines: Lines = {}
    current: dict[int, int] = {}
    for row in text.splitlines():
        if row.startswith("SF:"):
            current = lines.setdefault(row[3:], {})
        elif row.startswith("DA:"):
            number, count, *_ = row[3:].split(",")
            current[int(number)] = current.get(int(number), 0) + int(count)
    return lines


def tests_of(raw: Path) -> Iterable[tuple[str, str]]:
    """(stem of raw files, test) of every time that counters were written."""
    for path in sorted(raw.glob("*.test")):
        yield path.stem, path.read_text(encoding="utf-8")
