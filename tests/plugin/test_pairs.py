"""Every planted bug is found, and no correct twin is flagged.

A file in ``pairs/`` is compiled twice, with and without ``BUG``. The comment at its top
says what the bug is, what must be found (kind, and a part of the message), and the test
that meets it. All tests of one variant run in one session, as in a real suite, so that
a finding on the wrong test would be seen.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from planted_pairs import Pair

FOLDER = Path(__file__).with_name("pairs")
PRELUDE = """\
import ctypes as c, errno, os, socket, unittest
import cffi, pytest, pytest_clib
lib = c.CDLL({library!r}, use_errno=True)
"""


KINDS = ("callback", "fd", "leak", "mapping")  # other folders have tests of their own
PAIRS = [Pair(path) for kind in KINDS for path in sorted(FOLDER.glob(f"{kind}/*.c*"))]


@dataclass
class Session:
    """The results of one session: by name of the pair, outcomes and findings."""

    output: str
    failed: set[str]
    findings: dict[str, list[dict]]
    of_session: list[dict]


def run_all(build, folder: Path, *flags: str) -> Session:
    with ThreadPoolExecutor() as pool:
        libraries = list(pool.map(lambda pair: build(pair.path, *flags), PAIRS))
    for pair, library in zip(PAIRS, libraries, strict=True):
        name = f"test_{pair.name.replace('-', '_')}.py"
        (folder / name).write_text(PRELUDE.format(library=str(library)) + pair.test)
    report = folder / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(folder), f"--rootdir={folder}"),
            *("-v", "-rA", "--tb=short", "-p", "no:cacheprovider"),
            *(f"--clib={library}" for library in libraries),
            f"--clib-report={report}",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    findings = json.loads(report.read_text())["findings"]
    by_file = {pair.name: f"test_{pair.name.replace('-', '_')}.py" for pair in PAIRS}
    return Session(
        output=done.stdout + done.stderr,
        failed={
            name
            for name, file in by_file.items()
            if re.search(
                rf"^(FAILED|ERROR|[A-Z-]*LEAK) {file}", done.stdout, re.MULTILINE
            )
        },
        findings={
            name: [f for f in findings if f["test"].startswith(f"{file}::")]
            for name, file in by_file.items()
        },
        # These suites declare no types; that is for the tests of declarations.
        of_session=[f for f in findings if not f["test"] and f["kind"] != "abi"],
    )


@pytest.fixture(scope="module")
def with_bugs(build, tmp_path_factory) -> Session:
    return run_all(build, tmp_path_factory.mktemp("bugs"), "-DBUG")


@pytest.fixture(scope="module")
def twins(build, tmp_path_factory) -> Session:
    return run_all(build, tmp_path_factory.mktemp("twins"))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_bug_is_found_at_its_place(pair, with_bugs):
    kind, message = pair.finds

    found = with_bugs.findings[pair.name]

    assert [f["kind"] for f in found] == [kind], with_bugs.findings
    assert message in found[0]["message"]
    assert pair.name in with_bugs.failed


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_twin_is_not_flagged(pair, twins):
    assert twins.findings[pair.name] == []
    assert pair.name not in twins.failed


def test_nothing_is_found_outside_of_the_tests(with_bugs, twins):
    assert with_bugs.of_session == twins.of_session == []
    assert sum(map(len, with_bugs.findings.values())) == len(PAIRS)
