"""gcov's coverage, as gcc and clang write it with ``--coverage``.

The function that writes the counters works once in a process where it is gcc's, so after each test
a forked copy calls it, and the counters are set to zero where they lie: symbol tables have both, also
where they are hidden from other libraries. What is written to a directory is added to what is there.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from . import elf_symbols

_WRITERS = ("__gcov_dump", "__gcov_exit", "llvm_writeout_files")
_COUNTER = re.compile(r"__gcov\d+[._]|__llvm_gcov_ctr")
_ROW = re.compile(r"\s*(?P<count>[-#=\d]+\*?):\s*(?P<line>\d+):(?P<text>.*)")
_BATCH = 100  # files that gcov is given at once
Lines = dict[str, dict[int, int]]


class Counters:
    """The counters of one loaded library.

    Attributes:
        flush: address of the function that writes them to where ``GCOV_PREFIX`` says.
    """

    def __init__(
        self, address: int, counters: Sequence[tuple[int, int]], raw: Path
    ) -> None:
        self.flush = address
        self._write = ctypes.CFUNCTYPE(None)(address)
        self._counters = counters
        self._raw = raw
        self._writing = False
        self._left = raw / left(os.getpid())
        self._number = 0

    def write(self, name: str) -> None:
        """Add to a directory, and begin again at zero."""
        if self._left.exists():  # written when a forked child ended
            self._number += 1
            self._left.rename(f"{self._raw / name}-left-{os.getpid()}-{self._number}")
        self._writing = True
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            self._writing = False
            self.reset()
            return
        try:
            self.leave(name)
        finally:
            os.kill(os.getpid(), 9)  # nothing else of the process may run again

    def leave(self, name: str) -> None:
        """Add to a directory, for the last time in this process."""
        os.environ["GCOV_PREFIX"] = str(self._raw / name)
        self._write()

    def reset(self) -> None:
        """Begin again at zero."""
        if not self._writing:
            for address, size in self._counters:
                ctypes.memset(address, 0, size)


def left(process: int) -> str:
    """Where counters go that are written at the end of ``process``, whatever that is."""
    return f"now-{process}-0"


def open_counters(
    path: str, bias: int, names: elf_symbols.Names, raw: Path
) -> Counters | None:
    """The counters of the library at ``path``; ``None`` if its symbols are stripped."""
    del path
    for name in _WRITERS:
        if name in names.defined:
            counters = [
                (bias + address, size)
                for symbol, address, size in names.variables
                if _COUNTER.match(symbol)
            ]
            if not counters:
                return None
            return Counters(bias + names.defined[name], counters, raw)
    return None


def collect(
    paths: Sequence[str], raw: Path, *, by_test: bool
) -> tuple[Lines, Lines, dict[str, Lines]]:
    """Lines of the libraries, none that are not in them, and those of each test.

    Raises:
        ValueError: the tool is missing, or the files of the build are.
    """
    from .coverage import tests_of  # noqa: PLC0415 (the other way round, too)

    whole: Lines = {}
    tests: dict[str, Lines] = {}
    test_of = dict(tests_of(raw)) if by_test else {}
    files = {
        file: test_of.get(folder.name, test_of.get(_stem(folder.name), ""))
        for folder in sorted(raw.iterdir())
        if folder.is_dir()
        for file in sorted(folder.rglob("*.gcda"))
    }
    if not files:
        raise ValueError(f"{' and '.join(paths)} wrote no counters")
    for file, lines in _read(list(files), raw).items():
        for into in (whole, tests.setdefault(files[file], {})):
            for source, hits in lines.items():
                known = into.setdefault(source, {})
                for line, count in hits.items():
                    known[line] = known.get(line, 0) + count
    return whole, {}, tests


def _stem(name: str) -> str:
    """What marks the test, in ``PROCESS-NUMBER[-fork]-LIBRARY[-left-..]``."""
    found = re.match(r"(now-\d+|\d+-\d+(-fork)?)-\d", name)
    return found[1] if found else name


def _read(files: Sequence[Path], raw: Path) -> dict[Path, Lines]:
    """What gcov says of each file of counters."""
    # Names are relative to where the compiler ran, as a rule that of the notes.
    groups: dict[tuple[Path, tuple[str, ...]], list[Path]] = {}
    for file in files:
        below = file.relative_to(raw)
        notes = Path("/", *below.parts[1:]).with_suffix(".gcno")
        if not notes.exists():
            raise ValueError(
                f"{notes} is missing; keep what the compiler wrote beside the objects, "
                "where it wrote them"
            )
        link = file.with_suffix(".gcno")
        if not link.exists():
            link.symlink_to(notes)
        command = tuple(_tool(file))
        groups.setdefault((notes.resolve().parent, command), []).append(file)
    jobs = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for (folder, command), members in groups.items():
            size = 1 if "-t" in command else _BATCH
            jobs += [
                pool.submit(_run, command, members[at : at + size], folder)
                for at in range(0, len(members), size)
            ]
    read: dict[Path, Lines] = {}
    reason = ""
    for job in jobs:
        lines, said = job.result()
        read.update(lines)
        reason = reason or said
    if not read:
        raise ValueError(f"{reason}; is the tool of the compiler's version?")
    return read


def _run(
    command: Sequence[str], files: Sequence[Path], folder: Path
) -> tuple[dict[Path, Lines], str]:
    """The lines of each file that can be read, and why one cannot, if so."""
    done = subprocess.run(
        [*command, *map(str, files)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if (done.returncode or not done.stdout) and len(files) > 1:
        # A process may have been killed while it wrote one of them.
        parts = [_run(command, [file], folder) for file in files]
        lines = {file: found for part, _ in parts for file, found in part.items()}
        return lines, next((said for _, said in parts if said), "")
    if done.returncode or not done.stdout:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        return {}, f"{Path(command[0]).name}: {said}"
    if "-t" in command:
        return {files[0]: _parse(done.stdout, folder)}, ""
    return _parse_json(done.stdout, folder), ""


def _tool(file: Path) -> list[str]:
    """Gcov for files of gcc, ``llvm-cov gcov`` for those of clang, which say 4.x of gcc."""
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


def _parse(text: str, folder: Path) -> Lines:
    lines: Lines = {}
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
    return lines


def _parse_json(text: str, folder: Path) -> dict[Path, Lines]:
    read: dict[Path, Lines] = {}
    for unit in map(json.loads, text.splitlines()):
        where = Path(folder, unit.get("current_working_directory", ""))
        lines = read.setdefault(Path(unit["data_file"]), {})
        for entry in unit["files"]:
            current = lines.setdefault(os.path.normpath(where / entry["file"]), {})
            for line in entry["lines"]:
                number = line["line_number"]
                current[number] = current.get(number, 0) + line["count"]
    return read
