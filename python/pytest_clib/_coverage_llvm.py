"""LLVM's source-based coverage: counters of the runtime in the library, files of its tools.

The runtime's only function that every library has is the one that writes; it is hidden, and is called
by its address from the symbol table. The name of the file was chosen when the library was loaded, so
each file is renamed at once; the counters are set to zero where they lie. The tools must not be older than the compiler, so the newest is taken.

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
    from . import elf_symbols

_WRITE = "__llvm_profile_write_file"
_COUNTERS = "__llvm_prf_cnts"
PATTERN = "now-%p-%m.profraw"  # %m: one for each library, and what is there is added to
Lines = dict[str, dict[int, int]]


class Counters:
    """The counters of one loaded library."""

    def __init__(self, bias: int, names: elf_symbols.Names, raw: Path) -> None:
        self._raw = raw
        self._write = ctypes.CFUNCTYPE(ctypes.c_int)(bias + names.defined[_WRITE])
        address, self._size = names.sections[_COUNTERS]
        self._address = bias + address
        self._loaded_in = os.getpid()  # the runtime puts it into the name once

    def write(self, name: str, *, add: bool = False) -> None:
        """Write to a file, or add to it, and begin again at zero."""
        # A forked child writes to the same name, which may be renamed under its hands.
        with (self._raw / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            file = self._raw / f"{name}.profraw"
            before = set(self._raw.glob(f"now-{self._loaded_in}-*.profraw"))
            if add and file.exists() and self._name is not None:
                file.rename(self._name)
            self._write()
            after = set(self._raw.glob(f"now-{self._loaded_in}-*.profraw"))
            for written in after - before:
                self._name = written
                written.rename(file)
        self.reset()

    _name: Path | None = None

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
    path: str, raw: Path, *, by_test: bool
) -> tuple[Lines, Lines, dict[str, Lines]]:
    """Lines of the library, those of functions that are not in it, and those of each test.

    Raises:
        ValueError: the tools are missing, or do not understand the files.
    """
    everything = sorted(map(str, raw.glob("*.profraw")))
    if not everything:
        raise ValueError(f"{path} wrote no counters")
    profdata, cov = _fitting(_tools(), path, everything[0], raw)
    groups: dict[str, list[str]] = {}
    for mark in raw.glob("*.test") if by_test else ():
        test = mark.read_text(encoding="utf-8")
        files = map(str, raw.glob(f"{mark.stem}-[0-9]*.profraw"))
        groups.setdefault(test, []).extend(files)
    data = raw / "all.profdata"
    whole = _lines(profdata, cov, path, everything, data)
    absent = _absent(profdata, cov, path, data)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        done = {
            test: pool.submit(
                _lines, profdata, cov, path, files, raw / f"test-{number}.profdata"
            )
            for number, (test, files) in enumerate(groups.items())
            if test and files
        }
        tests = {test: future.result() for test, future in done.items()}
    return *_split(whole, absent), tests


def _lines(profdata: str, cov: str, path: str, files: list[str], out: Path) -> Lines:
    from .coverage import read_lcov  # noqa: PLC0415 (the other way round, too)

    listed = out.with_suffix(".files")
    listed.write_text("\n".join(files), encoding="utf-8")
    merge = [profdata, "merge", "--failure-mode=all", "-f", str(listed)]
    _run([*merge, "-o", str(out)], path)
    export = [cov, "export", "-format=lcov"]
    return read_lcov(_run([*export, f"-instr-profile={out}", path], path))


def _absent(profdata: str, cov: str, path: str, data: Path) -> dict[str, set[int]]:
    """Lines of functions that have no counters in the library, and of no others, by file."""
    shown = _run([profdata, "show", "--all-functions", str(data)], path)
    counted = set(re.findall(r"^  (\S.*):$", shown, re.MULTILINE))
    export = [cov, "export", "-format=text", "-skip-expansions"]
    described = json.loads(_run([*export, f"-instr-profile={data}", path], path))
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
