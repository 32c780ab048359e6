"""Every planted bug is found by a failed call, a guard or a single fault; no twin is flagged.

A file in ``torture_pairs/MODE/`` is compiled twice, with and without ``BUG``. The comment at its
top says what the bug is, what must be found (kind, and parts of the message), and the
test that meets it. All tests of one mode and variant run in one session.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from planted_pairs import Pair

FOLDER = Path(__file__).with_name("torture_pairs")
OPTIONS = {
    "sweep": ("--clib-torture", "--clib-timeout=3"),
    "each": ("--clib-torture=each", "--clib-timeout=3"),
    "later": ("--clib-torture", "--clib-torture-later", "--clib-timeout=3"),
    "unnoticed": ("--clib-torture", "--clib-unnoticed"),
    "guard": ("--clib-guard",),
    "under": ("--clib-guard=under",),
    "guarded-sweep": ("--clib-guard", "--clib-torture"),
    "fail": (),
}
PRELUDE = "import ctypes as c, errno\nlib = c.CDLL({library!r}, use_errno=True)\n"


PAIRS = [Pair(path) for path in sorted(FOLDER.glob("*/*.c*"))]


@dataclass
class Session:
    """The results of one session: findings by file, and files with a failed test."""

    output: str
    findings: dict[str, list[dict]]
    failed: set[str]


class Sessions:
    """Runs the sessions, each once."""

    def __init__(self, build, factory) -> None:
        self._build = build
        self._factory = factory
        self._done: dict[tuple[str, bool], Session] = {}

    def __call__(self, mode: str, *, bug: bool) -> Session:
        if (mode, bug) not in self._done:
            self._done[mode, bug] = self._run(mode, bug=bug)
        return self._done[mode, bug]

    def _run(self, mode: str, *, bug: bool) -> Session:
        folder = self._factory.mktemp(f"{mode}-{'bugs' if bug else 'twins'}")
        pairs = [pair for pair in PAIRS if pair.folder == mode]
        flags = ("-DBUG",) if bug else ()
        with ThreadPoolExecutor() as pool:
            built = list(
                pool.map(
                    lambda pair: self._build(pair.path, "-fno-builtin", *flags), pairs
                )
            )
        for pair, library in zip(pairs, built, strict=True):
            (folder / pair.file).write_text(
                PRELUDE.format(library=str(library)) + pair.test
            )
        report = folder / "report.json"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", str(folder), f"--rootdir={folder}"),
                *("-rA", "--tb=short", "-p", "no:cacheprovider", *OPTIONS[mode]),
                *(f"--clib={library}" for library in built),
                f"--clib-report={report}",
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout + done.stderr
        assert report.exists(), output
        found = json.loads(report.read_text())["findings"]
        return Session(
            output=output,
            findings={
                pair.file: [f for f in found if f["test"].startswith(f"{pair.file}::")]
                for pair in pairs
            },
            failed={
                pair.file
                for pair in pairs
                if f"FAILED {pair.file}" in output or f"ERROR {pair.file}" in output
            },
        )


@pytest.fixture(scope="module")
def sessions(build, tmp_path_factory) -> Sessions:
    return Sessions(build, tmp_path_factory)


def name(pair: Pair) -> str:
    return f"{pair.folder}-{pair.path.stem}"


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_bug_is_found(pair, sessions):
    session = sessions(pair.folder, bug=True)
    kind, message = pair.finds

    if kind == "failed":
        assert pair.file in session.failed, session.output
        return
    found = session.findings[pair.file]
    assert {f["kind"] for f in found} == {kind}, session.output
    assert any(
        all(part in f["message"] for part in message.split(" lost in ")) for f in found
    ), [f["message"] for f in found]


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_twin_is_not_flagged(pair, sessions):
    session = sessions(pair.folder, bug=False)

    assert session.findings[pair.file] == [], session.output
    assert pair.file not in session.failed, session.output


def test_there_are_enough():
    assert len(PAIRS) >= 40
