"""gcov's coverage, as gcc and clang write it with ``--coverage``.

gcc keeps only what writes the counters at the end of the process, and that works once. So after
each test a forked child writes them, to a directory of its own, and a test's share is what has
grown since the files before. Where the library has the functions to write and reset at any time
(clang; gcc if the library uses them), the same way is taken: it is cheap, and one way is enough.

A forked child counts from zero, and what it writes is added to what other children have written.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import elf_symbols

_COUNTER = re.compile(r"__gcov\d+\.|__llvm_gcov_ctr(\.|$)")
_WRITERS = ("__gcov_dump", "__gcov_exit", "llvm_writeout_files")
_ROW = re.compile(r"\s*(?P<count>[-#=\d]+\*?):\s*(?P<line>\d+):(?P<text>.*)")
Lines = dict[str, dict[int, int]]


class Counters:
    """The counters of one loaded library."""

    def __init__(self, address: int, places: list[tuple[int, int]], raw: Path) -> None:
        self._write = ctypes.CFUNCTYPE(None)(address)
        self._places = places
        self._raw = raw
        self._is_child = False
        self._writing = False

    def reset(self) -> None:
        """Begin at zero, in a forked child."""
        if self._writing:
            return
        self._is_child = True
        for address, size in self._places:
            ctypes.memset(address, 0, size)

    def write(self, name: str, *, add: bool = False) -> None:  # noqa: ARG002 (gcov adds)
        """Write what has been counted since the process began."""
        if not self._is_child:
            shutil.rmtree(self._raw / name, ignore_errors=True)  # what is there is less
        self._writing = True
        child = os.fork()
        if child:
            self._writing = False
            os.waitpid(child, 0)
            return
        try:
            os.environ["GCOV_PREFIX"] = str(self._raw / name)
            self._write()
        finally:
            os.kill(os.getpid(), 9)  # nothing else of the process may run again


def open_counters(
    path: str, bias: int, names: elf_symbols.Names, raw: Path
) -> Counters | None:
    """The counters of the library at ``path``; ``None`` if its symbols are stripped."""
    del path
    for name in _WRITERS:
        if name in names.defined:
            places = [
                (bias + address, size)
                for symbol, address, size in names.variables
                if _COUNTER.match(symbol)
            ]
            return Counters(bias + names.defined[name], places, raw)
    return None


def collect(
    path: str,
    raw: Path,
    *,
    by_test: bool,  # noqa: ARG001 (it is known anyway)
) -> tuple[Lines, Lines, dict[str, Lines]]:
    """Lines of the library, none that are not in it, and those of each test.

    Raises:
        ValueError: the tool is missing, or the files of the build are.
    """
    from .coverage import tests_of  # noqa: PLC0415 (the other way round, too)

    whole: Lines = {}
    tests: dict[str, Lines] = {}
    before: dict[str, Lines] = {}  # by process
    marks = sorted(
        tests_of(raw), key=lambda mark: [int(n) for n in re.findall(r"\d+", mark[0])]
    )
    for stem, test in marks:
        process = stem.partition("-")[0]
        forked = stem.endswith("-fork")
        for folder in sorted(raw.glob(f"{stem}-[0-9]*")):
            if not folder.is_dir():
                continue
            now = _read(folder, path)
            last = {} if forked else before.get(process, {})
            into = tests.setdefault(test, {})
            for file, hits in now.items():
                known = last.get(file, {})
                for line, count in hits.items():
                    more = max(count - known.get(line, 0), 0)
                    for lines in (into, whole):
                        have = lines.setdefault(file, {})
                        have[line] = have.get(line, 0) + more
            if not forked:
                before[process] = now
    if not whole:
        raise ValueError(f"{path} wrote no counters")
    return whole, {}, tests


def _read(folder: Path, path: str) -> Lines:
    """What gcov says of the counters below a directory."""
    data = sorted(folder.rglob("*.gcda"))
    for file in data:
        notes = Path("/", file.relative_to(folder)).with_suffix(".gcno")
        if not notes.exists():
            raise ValueError(
                f"{path}: {notes} is missing; keep what the compiler wrote beside the objects"
            )
        link = file.with_suffix(".gcno")
        if not link.exists():
            link.symlink_to(notes)
    lines: Lines = {}
    for file in data:
        # Names are relative to where the compiler ran, as a rule that of the notes.
        notes = file.with_suffix(".gcno").resolve().parent
        command = _tool(file)
        done = subprocess.run(
            [*command, str(file)],
            cwd=notes,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            if done.returncode or not done.stdout:
                raise ValueError(  # noqa: TRY301
                    (done.stderr.strip().splitlines() or ["no reason given"])[0]
                )
            read = _parse_json if "--json-format" in command else _parse
            read(done.stdout, notes, lines)
        except ValueError as error:
            raise ValueError(f"{path}: {command[0]}: {error}") from None
    return lines


def _tool(file: Path) -> list[str]:
    """Gcov for files of gcc, ``llvm-cov gcov`` for those of clang."""
    with file.open("rb") as opened:
        version = opened.read(8)[4:][::-1]
    name = "llvm-cov" if version.startswith(b"40") else "gcov"
    program = shutil.which(name)
    if program is None:
        package = "llvm" if name == "llvm-cov" else "gcc"
        raise ValueError(
            f"{name} is not installed; on Debian: apt-get install {package}"
        )
    if name == "llvm-cov":
        return [program, "gcov", "-t"]
    return [program, "--json-format", "--stdout"]


def _parse(text: str, folder: Path, lines: Lines) -> None:
    current: dict[int, int] = {}
    for row in text.splitlines():
        match = _ROW.match(row)
        if match is None:
            continue
        number = int(match["line"])
        if number == 0:
            if match["text"].startswith("Source:"):
                name = os.path.normpath(folder / match["text"][len("Source:") :])
                current = lines.setdefault(name, {})
        elif match["count"] != "-":
            count = match["count"].rstrip("*")
            hits = int(count) if count.isdigit() else 0
            current[number] = current.get(number, 0) + hits


def _parse_json(text: str, folder: Path, lines: Lines) -> None:
    for unit in map(json.loads, text.splitlines()):
        where = Path(folder, unit.get("current_working_directory", ""))
        for entry in unit["files"]:
            current = lines.setdefault(os.path.normpath(where / entry["file"]), {})
            for line in entry["lines"]:
                number = line["line_number"]
                current[number] = current.get(number, 0) + line["count"]
