"""``--clib-asan`` and ``--clib-valgrind`` on planted bugs, each with a correct twin.

One session per tool runs all pairs: the bugs in one library, the twins in another.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAIRS = Path(__file__).parent / "pairs" / "tools"
SUITE = """
import ctypes as c, pathlib, pytest
bad = c.CDLL({bad!r})
good = c.CDLL({good!r})

@pytest.mark.parametrize("name", {names!r})
@pytest.mark.parametrize("lib", [good, bad], ids=["good", "bad"])
def test_pair(lib, name):
    function = getattr(lib, name)
    function.restype = None
    function()
"""
# What each bug is called by each tool; None where a tool cannot see it, and why.
BUGS = {
    #  name             memcheck                    asan
    "uninitialised_branch": (
        "depends on uninitialised",
        None,
    ),  # ASAN does not track values
    "uninitialised_array": ("depends on uninitialised", None),
    "uninitialised_write": ("uninitialised byte", None),
    "heap_overflow_read": ("Invalid read of size 1", "heap-buffer-overflow"),
    "heap_overflow_write": ("Invalid write of size 1", "heap-buffer-overflow"),
    "heap_underflow": ("Invalid read", "heap-buffer-overflow"),
    "memset_overflow": ("Invalid write", "heap-buffer-overflow"),
    "string_overflow": ("Invalid write", "heap-buffer-overflow"),
    "use_after_free_read": ("Invalid read", "heap-use-after-free"),
    "use_after_free_write": ("Invalid write", "heap-use-after-free"),
    "use_after_realloc": ("Invalid read", "heap-use-after-free"),
    "invalid_free_inner": ("Invalid free", "attempting free"),
    "double_free": ("Invalid free", "double-free"),
    "unaddressable_syscall": ("unaddressable byte", "heap-buffer-overflow"),
    # memcheck: the hooks call what glibc chose, one routine for memcpy and memmove.
    "overlap": (None, "param-overlap"),
    "stack_overflow_read": (
        None,
        "stack-buffer-overflow",
    ),  # memcheck: any stack is fine
    "stack_overflow_write": (None, "stack-buffer-overflow"),
    "stack_after_scope": (None, "stack-use-after-scope"),
    "stack_after_return": (None, "stack-use-after-return"),
    "global_overflow": (None, "global-buffer-overflow"),
    "global_underflow": (None, "global-buffer-overflow"),
    "integer_overflow": (None, "signed integer overflow"),
    "shift_too_far": (None, "shift exponent"),
    "null_member": (None, "null pointer"),
    "misaligned": (None, "misaligned address"),
    "index_out_of_bounds": (None, "out of bounds"),
    "bad_bool": (None, "not a valid value for type"),
}
RACES = {
    "race_on_counter": "data race",
    "race_on_flag": "data race",
    "lock_order": "lock order",
    "unlock_unlocked": "unlocked a not-locked",
}


def run(
    folder: Path,
    bad: Path,
    good: Path,
    names: list[str],
    *args: str,
    suite: str = SUITE,
):
    """Run one suite on both libraries; output and report."""
    source = suite.format(bad=str(bad), good=str(good), names=names)
    (folder / "test_it.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\n")
    report = folder / "report.json"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])}
    environ.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
            *(f"--clib={bad}", f"--clib={good}", f"--clib-report={report}", *args),
        ],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    data = json.loads(report.read_text()) if report.exists() else {}
    return done, data


def messages(data: dict, name: str, variant: str) -> list[str]:
    """What was found in one test."""
    test = f"test_it.py::test_pair[{variant}-{name}]"
    assert any(entry["test"] == test for entry in data["tests"]), test
    return [
        f"{finding['kind']}: {finding['message']}"
        for finding in data["findings"]
        if finding["test"] == test
    ]


@pytest.fixture(scope="module")
def libraries(build):
    """Builds the two libraries of a source, with more flags."""

    def both(source: str, *flags: str) -> tuple[Path, Path]:
        text = (PAIRS / source).read_text()
        stem = Path(source).stem
        bad = build(text, "-DBAD=1", *flags, name=f"{stem}_bad")
        return bad, build(text, "-DBAD=0", *flags, name=f"{stem}_good")

    return both


def needs_valgrind():
    if shutil.which("valgrind") is None:
        pytest.skip("no valgrind: apt-get install valgrind")


@pytest.fixture(scope="module")
def memcheck(libraries, tmp_path_factory):
    needs_valgrind()
    names = [name for name, (what, _) in BUGS.items() if what]
    return run(
        tmp_path_factory.mktemp("memcheck"),
        *libraries("memory.c"),
        names,
        "--clib-valgrind",
    )


@pytest.fixture(scope="module")
def helgrind(libraries, tmp_path_factory):
    needs_valgrind()
    folder = tmp_path_factory.mktemp("helgrind")
    return run(folder, *libraries("races.c"), list(RACES), "--clib-valgrind=helgrind")


@pytest.fixture(scope="module")
def asan(libraries, tmp_path_factory):
    names = [name for name, (_, what) in BUGS.items() if what]
    flags = ("-fsanitize=address,undefined", "-fsanitize-recover=address", "-w")
    folder = tmp_path_factory.mktemp("asan")
    return run(folder, *libraries("memory.c", *flags), names, "--clib-asan")


@pytest.mark.parametrize("name", [name for name, bug in BUGS.items() if bug[0]])
def test_memcheck(memcheck, name):
    done, data = memcheck
    assert data, done.stdout + done.stderr
    found = messages(data, name, "bad")
    assert any(BUGS[name][0] in text for text in found), found
    assert messages(data, name, "good") == []


@pytest.mark.parametrize("name", [name for name, bug in BUGS.items() if bug[1]])
def test_asan(asan, name):
    done, data = asan
    assert data, done.stdout + done.stderr
    found = messages(data, name, "bad")
    assert any(BUGS[name][1] in text for text in found), found
    assert messages(data, name, "good") == []


@pytest.mark.parametrize("name", list(RACES))
def test_helgrind(helgrind, name):
    done, data = helgrind
    assert data, done.stdout + done.stderr
    found = messages(data, name, "bad")
    assert any(RACES[name] in text for text in found), found
    assert messages(data, name, "good") == []


def test_nothing_of_the_interpreter_is_blamed(memcheck, helgrind):
    for _, data in (memcheck, helgrind):
        assert {finding["test"] for finding in data["findings"]} <= {
            entry["test"] for entry in data["tests"] if "[bad-" in entry["test"]
        }


def test_a_build_that_halts_goes_on_in_a_new_process(libraries, tmp_path):
    names = ["heap_overflow_read", "stack_overflow_read", "use_after_free_read"]
    bad, good = libraries("memory.c", "-fsanitize=address", "-w")
    done, data = run(tmp_path, bad, good, names, "--clib-asan")
    assert done.stdout.count("the process died in") == 3
    for name in names:
        assert any(BUGS[name][1] in text for text in messages(data, name, "bad"))
        assert messages(data, name, "good") == []
    assert data["summary"]["outcomes"] == {"passed": 3, "crashed": 3}


NESTED = """
import ctypes as c, os, pathlib, subprocess, sys
bad, good = c.CDLL({bad!r}), c.CDLL({good!r})

def test_starts_another_pytest(tmp_path):
    assert "CLIB_TOOL_FOLDER" not in os.environ
    pathlib.Path(tmp_path, "pytest.ini").write_text("[pytest]")
    pathlib.Path(tmp_path, "test_inner.py").write_text(
        "import ctypes\\ndef test(): ctypes.CDLL({good!r}).heap_overflow_read()"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)]
    for more in [], ["--clib={good}", "--clib-asan"]:
        done = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True)
        assert b"1 passed" in done.stdout, done.stdout + done.stderr

def test_dies():
    bad.heap_overflow_read()

def test_after():
    good.heap_overflow_read()
"""


def test_a_session_inside_has_nothing_to_do_with_the_tool(libraries, tmp_path):
    both = libraries("memory.c", "-fsanitize=address", "-w")
    done, data = run(tmp_path, *both, [], "--clib-asan", suite=NESTED)
    assert [(entry["test"], entry["outcome"]) for entry in data["tests"]] == [
        ("test_it.py::test_starts_another_pytest", "passed"),
        ("test_it.py::test_dies", "crashed"),
        ("test_it.py::test_after", "passed"),
    ], done.stdout + done.stderr
    assert done.stdout.count("the process died in") == 1


def test_asan_with_workers(libraries, tmp_path):
    """Also where a worker dies: its successor tells what the report said."""
    names = ["heap_overflow_read", "stack_overflow_read", "use_after_free_read"]
    both = libraries("memory.c", "-fsanitize=address", "-w")
    done, data = run(tmp_path, *both, names, "--clib-asan", "-n2")
    for name in names:
        found = messages(data, name, "bad")
        assert len(found) == 1, done.stdout + done.stderr
        assert BUGS[name][1] in found[0]
        assert messages(data, name, "good") == []
    assert data["summary"]["outcomes"] == {"passed": 3, "crashed": 3}


def test_memcheck_with_workers(libraries, tmp_path):
    needs_valgrind()
    names = ["heap_overflow_read", "use_after_free_read"]
    both = libraries("memory.c")
    done, data = run(tmp_path, *both, names, "--clib-valgrind", "-n2")
    for name in names:
        found = messages(data, name, "bad")
        assert len(found) == 1, done.stdout + done.stderr
        assert BUGS[name][0] in found[0]
        assert messages(data, name, "good") == []
    assert len(data["findings"]) == 2


def test_workers_elsewhere_are_refused(libraries, tmp_path):
    both = libraries("memory.c", "-fsanitize=address", "-w")
    remote = ("--dist=load", "--tx=ssh=nowhere.invalid")
    done, _ = run(tmp_path, *both, [], "--clib-asan", *remote)
    assert done.returncode == 4
    assert "a tool can only be put before workers on this machine" in done.stderr


def test_stops_at_the_first_with_x(libraries, tmp_path):
    bad, good = libraries("memory.c", "-fsanitize=address", "-w")
    names = ["heap_overflow_read", "stack_overflow_read"]
    done, data = run(tmp_path, bad, good, names, "--clib-asan", "-x", "-k", "bad")
    assert [entry["outcome"] for entry in data["tests"]] == ["crashed"]
    assert done.returncode == 1


def test_a_library_without_asan_is_told_how_to_build(libraries, tmp_path):
    done, _ = run(tmp_path, *libraries("memory.c"), [], "--clib-asan")
    assert done.returncode == 4
    (line,) = filter(None, done.stderr.splitlines())
    assert "was not built with ASAN" in line
    assert "-fsanitize=address" in line


def test_a_missing_tool_is_told_how_to_install(libraries, tmp_path, monkeypatch):
    both = libraries("races.c")
    monkeypatch.setenv("PATH", str(tmp_path))
    done, _ = run(tmp_path, *both, [], "--clib-valgrind")
    assert done.returncode == 4
    assert "apt-get install valgrind" in done.stderr


LAST = """
import atexit, ctypes as c, pathlib, pytest, threading
bad, good = c.CDLL({bad!r}), c.CDLL({good!r})
here = pathlib.Path(__file__).parent

def lasts_longest():
    threading.main_thread().join()
    (here / "thread").touch()

threading.Thread(target=lasts_longest).start()
atexit.register((here / "atexit").touch)

def test_fails():
    pytest.fail("for the exit status")
"""
DESTRUCTOR = """
#include <fcntl.h>
#include <unistd.h>
__attribute__((destructor)) static void last(void) { close(creat("destructor", 0600)); }
"""


@pytest.mark.parametrize(
    ("option", "flags", "done_at_the_end"),
    [
        # Under valgrind nothing of C runs any more.
        ("--clib-valgrind", (), {"atexit", "thread"}),
        ("--clib-asan", ("-fsanitize=address",), {"atexit", "thread", "destructor"}),
    ],
)
def test_the_end_of_a_session_under_a_tool(
    build, tmp_path, option, flags, done_at_the_end
):
    library = build(DESTRUCTOR, *flags, name="last")
    done, data = run(tmp_path, library, library, [], option, suite=LAST)
    assert done.returncode == 1, done.stdout + done.stderr
    assert data["summary"]["outcomes"] == {"failed": 1}
    made = {path.name for path in tmp_path.iterdir()}
    assert done_at_the_end <= made
    assert "for the exit status" in done.stdout
