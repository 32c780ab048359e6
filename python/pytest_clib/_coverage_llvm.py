"""LLVM's source-based coverage: counters of the runtime in the library, files of its tools.

The runtime's only function that every library has is the one that writes; it is hidden, and is called
by its address from the symbol table. The name of the file was chosen when the library was loaded, so each file is renamed
at once (what is there under the old name was written when a process ended, and is kept); the counters are set to zero where they
lie. The tools must not be older than the compiler, so the newest is taken.

The compiler describes all functions of its sources, also those that the linker left out of the library because
nothing there calls them (the rest of a Rust crate, inline functions of headers). They have no counters. Their
lines are told apart: no test of the library can reach them.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import fcntl
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

_WRITE = "__llvm_profile_write_file"
_COUNTERS = "__llvm_prf_cnts"
PATTERN = "now-%p-%m.profraw"  # %m: one for each library, and what is there is added to
Lines = dict[str, dict[int, int]]


class Counters:
    """The counters of one loaded library.

    Attributes:
        flush: address of the function that writes them to the name chosen at loading.
    """

    def __init__(self, bias: int, names: elf_symbols.Names, raw: Path) -> None:
        self._raw = raw
        self.flush = bias + names.defined[_WRITE]
        self._write = ctypes.CFUNCTYPE(ctypes.c_int)(self.flush)
        address, self._size = names.sections[_COUNTERS]
        self._address = bias + address
        self._loaded_in = os.getpid()  # the runtime puts it into the name once
        self._name: Path | None = None
        self._left = 0

    def write(self, name: str) -> None:
        """Add to a file, and begin again at zero."""
        # A forked child writes to the same name, which may be renamed under its hands.
        with (self._raw / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            file = self._raw / f"{name}.profraw"
            self._put_aside(name)
            if file.exists() and self._name is not None:
                file.rename(self._name)
            self._write()
            for written in self._written():
                self._name = written
                if file.exists():  # it was not known what to add to
                    self._put_aside(name)
                else:
                    written.rename(file)
        self.reset()

    leave = write

    def _written(self) -> list[Path]:
        """What the runtime wrote, and is under its own name yet."""
        if self._name is None:
            return sorted(self._raw.glob(f"now-{self._loaded_in}-*.profraw"))
        return [self._name] if self._name.exists() else []

    def _put_aside(self, name: str) -> None:
        """Keep what was written when a process ended, as a forked child that crashed."""
        for old in self._written():
            self._left += 1
            stem = f"{name}-left-{os.getpid()}-{self._left}"
            old.rename(self._raw / f"{stem}.profraw")

    def reset(self) -> None:
        """Begin again at zero."""
        ctypes.memset(self._address, 0, self._size)


def open_counters(
    path: str, bias: int, names: elf_symbols.Names, raw: Path
) -> Counters | None:
    """The counters of the library at ``path``; ``None`` if its symbols are stripped."""
    del path
    if _WRITE not in names.defined or _COUNTERS not in names.sections:
        return None
    return Counters(bias, names, raw)


def collect(
    paths: Sequence[str], raw: Path, *, by_test: bool
) -> tuple[Lines, Lines, dict[str, Lines]]:
    """Lines of the libraries, those of functions that are not in them, and those of each test.

    Raises:
        ValueError: the tools are missing, or do not understand the files.
    """
    everything = sorted(map(str, raw.glob("*.profraw")))
    if not everything:
        raise ValueError(f"{' and '.join(paths)} wrote no counters")
    tools = _fitting(_tools(), paths[0], everything[0], raw)
    groups: dict[str, list[str]] = {}
    for mark in raw.glob("*.test") if by_test else ():
        test = mark.read_text(encoding="utf-8")
        files = map(str, raw.glob(f"{mark.stem}-[0-9]*.profraw"))
        groups.setdefault(test, []).extend(files)
    data = raw / "all.profdata"
    whole = _lines(tools, paths, everything, data)
    absent = _absent(tools, paths, data)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        done = {
            test: pool.submit(
                _lines, tools, paths, files, raw / f"test-{number}.profdata"
            )
            for number, (test, files) in enumerate(groups.items())
            if test and files
        }
        tests = {test: future.result() for test, future in done.items()}
    return *_split(whole, absent), tests


def _lines(
    tools: tuple[str, str], paths: Sequence[str], files: list[str], out: Path
) -> Lines:
    from .coverage import read_lcov  # noqa: PLC0415 (the other way round, too)

    profdata, cov = tools
    listed = out.with_suffix(".files")
    listed.write_text("\n".join(files), encoding="utf-8")
    merge = [profdata, "merge", "--failure-mode=all", "-f", str(listed)]
    _run([*merge, "-o", str(out)], paths[0])
    export = [cov, "export", "-format=lcov", f"-instr-profile={out}"]
    return read_lcov(_run([*export, *_objects(paths)], paths[0]))


def _objects(paths: Sequence[str]) -> list[str]:
    return [paths[0], *(f"-object={path}" for path in paths[1:])]


def _absent(
    tools: tuple[str, str], paths: Sequence[str], data: Path
) -> dict[str, set[int]]:
    """Lines of functions that have no counters in the libraries, and of no others, by file."""
    profdata, cov = tools
    shown = _run([profdata, "show", "--all-functions", str(data)], paths[0])
    counted = set(re.findall(r"^  (\S.*):$", shown, re.MULTILINE))
    export = [cov, "export", "-format=text", "-skip-expansions"]
    described = json.loads(
        _run([*export, f"-instr-profile={data}", *_objects(paths)], paths[0])
    )
    present: dict[str, set[int]] = {}
    absent: dict[str, set[int]] = {}
    for function in described["data"][0]["functions"]:
        lines = present if function["name"] in counted else absent
        for first, _, last, _, _, file, *_ in function["regions"]:
            place = lines.setdefault(function["filenames"][file], set())
            place.update(range(first, last + 1))
    return {file: lines - present.get(file, set()) for file, lines in absent.items()}


def _split(lines: Lines, absent: dict[str, set[int]]) -> tuple[Lines, Lines]:
    """Lines that are in the library, and others."""
    inside: Lines = {}
    outside: Lines = {}
    for file, hits in lines.items():
        left_out = absent.get(file, set())
        for line, count in hits.items():
            place = outside if line in left_out and not count else inside
            place.setdefault(file, {})[line] = count
    return inside, outside


def _run(command: list[str], path: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        hint = (
            "; install the tools of the LLVM version that the compiler has "
            "(rustc -vV, clang --version)"
            if "version" in said
            else ""
        )
        raise ValueError(f"{path}: {Path(command[0]).name}: {said}{hint}")
    return done.stdout


def _fitting(
    tools: list[tuple[str, str]], path: str, file: str, raw: Path
) -> tuple[str, str]:
    """The newest tools that understand a file: none reads all older formats."""
    reason: ValueError | None = None
    for profdata, cov in tools:
        try:
            merge = [
                profdata,
                "merge",
                "-sparse",
                file,
                "-o",
                str(raw / "try.profdata"),
            ]
            _run(merge, path)
        except ValueError as error:  # noqa: PERF203 (a few tools)
            reason = reason or error
        else:
            return profdata, cov
    raise reason or ValueError("no LLVM tools")


def _tools() -> list[tuple[str, str]]:
    """llvm-profdata and llvm-cov, always of one version; the newest first.

    Raises:
        ValueError: there are none.
    """
    folders = {
        *Path("/usr/lib").glob("llvm-*/bin"),
        *Path("/usr/local").glob("llvm*/bin"),
        *Path.home().glob(".rustup/toolchains/*/lib/rustlib/*/bin"),
    }
    plain = shutil.which("llvm-cov")
    if plain:
        folders.add(Path(plain).resolve().parent)
    found = [
        (_version(folder / "llvm-cov"), folder)
        for folder in folders
        if (folder / "llvm-cov").exists() and (folder / "llvm-profdata").exists()
    ]
    if not found:
        raise ValueError(
            "llvm-profdata and llvm-cov are not installed; on Debian: apt-get install llvm "
            "(llvm-22 for Rust), or: rustup component add llvm-tools"
        )
    return [
        (str(folder / "llvm-profdata"), str(folder / "llvm-cov"))
        for _, folder in sorted(found, reverse=True)
    ]


def _version(program: Path) -> tuple[int, ...]:
    done = subprocess.run(
        [str(program), "--version"], capture_output=True, text=True, check=False
    )
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, match.groups())) if match else (0,)
