"""``--clib-coverage``: which lines are reached, in builds of each kind, and by which tests."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = """\
int classify(int n) {
    if (n > 10)
        return 1;
    if (n < 0)
        return -1;
    if (n == 7)
        return 7;
    return 0;
}
"""
SUITE = """
import ctypes as c, os
lib = c.CDLL({library!r})

def test_big():
    assert lib.classify(11) == 1

def test_zero():
    assert lib.classify(0) == 0

def test_fork():
    child = os.fork()
    if not child:
        lib.classify(-4)
        os._exit(0)
    os.waitpid(child, 0)
"""
BUILDS = {
    "gcov": ("gcc", "--coverage"),
    "gcov-clang": ("clang", "--coverage"),
    "llvm": ("clang", "-fprofile-instr-generate", "-fcoverage-mapping"),
}


def run(folder, library, *args, suite=SUITE):
    (folder / "test_it.py").write_text(suite.format(library=str(library)))
    (folder / "pytest.ini").write_text("[pytest]\n")
    report = folder / "report.json"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])}
    environ.pop("PYTEST_ADDOPTS", None)
    environ.pop("PYTEST_XDIST_WORKER", None)  # these sessions have no controller
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
            *(f"--clib={library}", "--clib-coverage=out", f"--clib-report={report}"),
            *args,
        ],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    return done, json.loads(report.read_text())["coverage"] if report.exists() else None


def compile_to(folder, compiler, *flags, source=SOURCE, name="it"):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}: apt-get install {compiler}")
    (folder / f"{name}.c").write_text(source)
    library = folder / f"lib{name}.so"
    command = [compiler, "-g", "-O0", "-fPIC", "-shared", *flags, "-o", library]
    subprocess.run([*command, f"{name}.c"], cwd=folder, check=True)
    return library


def reaching(data, line):
    """The names of the tests that reach a line of the only file."""
    (entry,) = data["files"]
    who = data["sets"][entry["reached"][str(line)]]
    return [data["tests"][number].partition("::")[2] for number in who]


@pytest.mark.parametrize("kind", BUILDS)
def test_lines_and_their_tests(kind, tmp_path):
    library = compile_to(tmp_path, *BUILDS[kind])
    done, data = run(tmp_path, library, "--clib-coverage-tests")
    assert data, done.stdout + done.stderr
    (entry,) = data["files"]
    missing = [int(line) for line, count in entry["hits"].items() if not count]
    assert missing == [7]
    assert reaching(data, 3) == ["test_big"]
    assert reaching(data, 5) == ["test_fork"]
    assert reaching(data, 8) == ["test_zero"]
    assert "% of lines" in done.stdout
    assert (tmp_path / "out" / "index.html").exists()
    assert f"SF:{tmp_path / 'it.c'}" in (tmp_path / "out" / "coverage.lcov").read_text()


ERROR_PATHS = """\
#include <stdlib.h>
#include <unistd.h>
static inline int nobody_calls_this(int n) {
    return n + 1;
}
int copy(void) {
    int fd = dup(0);
    if (fd < 0)
        return -1;
    void *block = malloc(100);
    if (!block) {
        close(fd);
        return -2;
    }
    free(block);
    close(fd);
    return 0;
}
"""
ERROR_SUITE = """
import ctypes as c
lib = c.CDLL({library!r})

def test_copy():
    assert lib.copy() == 0
"""


def missing_lines(data):
    (entry,) = data["files"]
    return [int(line) for line, count in entry["hits"].items() if not count]


@pytest.mark.parametrize("kind", BUILDS)
def test_torture_reaches_the_error_paths(kind, tmp_path):
    library = compile_to(tmp_path, *BUILDS[kind], source=ERROR_PATHS)
    _, plain = run(tmp_path, library, suite=ERROR_SUITE)
    assert {9, 12, 13} <= {*missing_lines(plain)} <= {9, 12, 13, 14}
    done, data = run(tmp_path, library, "--clib-torture", suite=ERROR_SUITE)
    assert missing_lines(data) == []
    # What writes the counters is in the library, but its calls are not made to fail.
    calls = {"dup", "malloc", "close"}
    report = json.loads((tmp_path / "report.json").read_text())
    assert {cell["function"] for cell in report["torture"]["cells"]} <= calls
    (entry,) = report["tests"]
    assert (entry["calls"], entry["allocations"]) == (4, 1)
    assert "LLVM Profile" not in done.stdout + done.stderr
    # One file for all copies of a test: thousands of them must not fill the disk.
    raw = tmp_path / "out" / "raw"
    assert len({path.name.partition("-")[0] for path in raw.glob("[0-9]*")}) == 1


def test_lines_that_are_not_in_the_library_do_not_count(tmp_path):
    library = compile_to(tmp_path, *BUILDS["llvm"], source=ERROR_PATHS)
    done, data = run(tmp_path, library, suite=ERROR_SUITE)
    (entry,) = data["files"]
    assert not {"3", "4", "5"} & entry["hits"].keys()
    assert data["left_out"] == 3
    assert "; 3 lines do not count: no function in the library has them" in done.stdout


@pytest.mark.parametrize(
    ("globs", "counts"),
    [
        (["*/it.c"], True),
        (["*/other.c"], False),
        (["!*/other.c"], True),
        (["!*/it.c"], False),
        (["*.c", "!*/it.c"], False),
    ],
)
def test_files_that_count(globs, counts, tmp_path):
    library = compile_to(tmp_path, *BUILDS["gcov"])
    done, _ = run(
        tmp_path, library, *(f"--clib-coverage-source={glob}" for glob in globs)
    )
    assert ("% of lines" in done.stdout) == counts


def test_too_little_fails(tmp_path):
    library = compile_to(tmp_path, *BUILDS["gcov"])
    done, _ = run(tmp_path, library, "--clib-coverage-fail-under=99.5")
    assert done.returncode == 1
    assert "below --clib-coverage-fail-under=99.5" in done.stdout
    done, _ = run(tmp_path, library, "--clib-coverage-fail-under=50")
    assert done.returncode == 0


def test_a_library_without_counters_is_told_how_to_build(tmp_path):
    library = compile_to(tmp_path, "gcc")
    done, data = run(tmp_path, library)
    assert data is None
    assert done.returncode == 1
    assert "was not built for coverage; build it with --coverage" in done.stdout


@pytest.mark.parametrize("kind", BUILDS)
def test_a_stripped_library_is_told(kind, tmp_path):
    library = compile_to(tmp_path, *BUILDS[kind], "-s")
    done, _ = run(tmp_path, library)
    assert done.returncode == 1
    assert f"{library} is stripped" in done.stdout


CRASHES = """
import ctypes as c, os
lib = c.CDLL({library!r})

def test_zero():
    assert lib.classify(0) == 0

def test_the_process_dies():
    assert lib.classify(11) == 1
    c.string_at(0)

def test_a_child_dies():
    child = os.fork()
    if not child:
        lib.classify(-4)
        c.string_at(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 11

def test_after():
    assert lib.classify(0) == 0
"""


@pytest.mark.parametrize("kind", BUILDS)
def test_counters_of_what_crashes_are_kept(kind, tmp_path):
    library = compile_to(tmp_path, *BUILDS[kind])
    done, data = run(tmp_path, library, "--clib-coverage-tests", suite=CRASHES)
    assert data, done.stdout + done.stderr
    assert "the process died in test_it.py::test_the_process_dies" in done.stdout
    assert "1 failed, 3 passed" in done.stdout
    (entry,) = data["files"]
    missing = [int(line) for line, count in entry["hits"].items() if not count]
    assert missing == [7]
    assert reaching(data, 3) == ["test_the_process_dies"]
    assert reaching(data, 5) == ["test_a_child_dies"]
    assert reaching(data, 8) == ["test_after", "test_zero"]


TORTURED = """
#include <stdlib.h>
int lib(void) {
    char *block = malloc(8);
    if (!block)
        return *(volatile int *)block;
    free(block);
    block = malloc(8);
    while (!block)
        ;
    free(block);
    block = malloc(8);
    if (!block)
        abort();
    free(block);
    return 0;
}
"""


@pytest.mark.parametrize("kind", BUILDS)
def test_error_paths_under_torture_that_end_badly(kind, tmp_path):
    library = compile_to(tmp_path, *BUILDS[kind], source=TORTURED)
    suite = "import ctypes as c\nlib = c.CDLL({library!r})\ndef test(): lib.lib()\n"
    options = ("--clib-torture", "--clib-groups=memory", "--clib-timeout=1")
    done, data = run(tmp_path, library, *options, suite=suite)
    assert data, done.stdout + done.stderr
    (entry,) = data["files"]
    hits = {int(line): count for line, count in entry["hits"].items()}
    # The crash, the hang, and the abort; each once, and with it what was before.
    assert {line: hits[line] for line in (6, 14)} == {6: 1, 14: 1}
    assert hits[9] > 1
    assert hits[4] >= 4  # gcov derives some counts from those of later lines


@pytest.mark.parametrize("workers", ["-n1", "-n2"])
@pytest.mark.parametrize("kind", BUILDS)
def test_two_libraries_with_workers(kind, workers, tmp_path):
    first = compile_to(tmp_path, *BUILDS[kind])
    source = "int other(int n) {\n    return n + 1; }\n"
    second = compile_to(tmp_path, *BUILDS[kind], source=source, name="other")
    suite = (
        SUITE + f"\ndef test_other():\n    c.CDLL({str(second)!r}).other(7)\n"
        "def test_crash():\n    lib.classify(7)\n    c.string_at(0)\n"
    )
    done, data = run(tmp_path, first, f"--clib={second}", workers, suite=suite)
    assert data, done.stdout + done.stderr
    reached = {
        Path(entry["file"]).name: [
            int(line)
            for line, count in entry["hits"].items()
            if count and line != "9"  # not of all compilers
        ]
        for entry in data["files"]
    }
    assert reached == {"it.c": [1, 2, 3, 4, 5, 6, 7, 8], "other.c": [1, 2]}


@pytest.mark.parametrize("kind", BUILDS)
def test_runs_add_up_if_they_are_to(kind, tmp_path):
    library = compile_to(tmp_path, *BUILDS[kind])
    runs = [("test_big",), ("test_zero", "--clib-coverage-append"), ("test_fork",)]
    missing = []
    for name, *more in runs:
        _, data = run(tmp_path, library, f"-k{name}", *more)
        missing.append([line for line in missing_lines(data) if line < 9])
    assert missing == [[4, 5, 6, 7, 8], [5, 7], [3, 6, 7, 8]]


def test_the_session_inside_has_the_terminal(tmp_path):
    """What it says is seen at once, in colour, and it is told what the user types."""
    library = compile_to(tmp_path, *BUILDS["gcov"])
    os.mkfifo(tmp_path / "seen")
    suite = SUITE + (
        "\ndef test_waits():\n"
        "    with open('seen') as seen:\n"
        "        assert seen.read() == 'zero'\n"
        "\ndef test_asks(pytestconfig):\n"
        "    capture = pytestconfig.pluginmanager.getplugin('capturemanager')\n"
        "    capture.suspend(in_=True)  # as pdb does\n"
        "    answer = input('name? ')\n"
        "    capture.resume()\n"
        "    assert answer == 'clib'\n"
    )
    (tmp_path / "test_it.py").write_text(suite.format(library=str(library)))
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path[1:]),
        "TERM": "xterm",
    }
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "NO_COLOR", "CI"):
        environ.pop(name, None)
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"]
    ours, its = pty.openpty()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(OSError))  # at the end of a terminal
        session = subprocess.Popen(
            [*command, f"--clib={library}", "--clib-coverage=out"],
            cwd=tmp_path,
            env=environ,
            stdin=its,
            stdout=its,
            stderr=its,
        )
        stack.callback(session.wait)
        os.close(its)
        text = ""
        terminal = stack.enter_context(os.fdopen(ours, "r+b", buffering=0))
        while data := terminal.read(4096):
            text += data.decode()
            if "PASSED" in text.partition("test_zero")[2]:
                answer(tmp_path / "seen")
            if text.endswith("name? "):
                terminal.write(b"clib\n")
    assert session.returncode == 0, text
    assert "\x1b[32m" in text


def answer(fifo: Path) -> None:
    """Tell the session, once, that its words were seen."""
    if fifo.exists():
        with fifo.open("w") as seen:
            fifo.unlink()
            seen.write("zero")
