"""What the terminal, the exit code, JUnit XML and the report say."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

LEAKS = """\
#include <stdlib.h>

int make(void) { return malloc(10) != NULL; }
"""
LOSES = "def test_loses():\n    lib.make()\n"
CLEAN = "def test_clean():\n    pass\n"


@pytest.fixture
def leaks(build):
    return build(LEAKS)


def test_library_has_a_line_at_the_start(suite, leaks):
    outcome = suite.run(CLEAN, leaks)

    outcome.result.stdout.fnmatch_lines(
        [
            f"clib: {leaks}, build id *, 1 function hooked, debug information",
            "clib: nothing found in 1 test",
        ]
    )


def test_library_without_debug_information_is_said_to_have_none(suite, build):
    outcome = suite.run(CLEAN, build(LEAKS, "-g0", "-s", "-Wl,--build-id=none"))

    outcome.result.stdout.fnmatch_lines(
        ["clib: *, build id none, 1 function hooked, no debug information"]
    )


def test_library_loaded_later_is_shown_at_the_end(suite, leaks):
    suite.pytester.makepyfile(
        f"import ctypes\ndef test(): ctypes.CDLL({str(leaks)!r}).make()\n"
    )

    outcome = suite.again(f"--clib={leaks}")

    outcome.result.stdout.fnmatch_lines(["*= clib =*", f"clib: {leaks}, build id *"])
    assert outcome.kinds == ["leak"]


def test_leak_fails_the_test_at_teardown_with_its_own_word(suite, leaks):
    outcome = suite.run(LOSES + CLEAN, leaks, "-v")

    outcome.result.assert_outcomes(passed=2, errors=1)
    assert outcome.result.ret == pytest.ExitCode.TESTS_FAILED
    outcome.result.stdout.fnmatch_lines(
        [
            "test_it.py::test_loses PASSED*",
            "test_it.py::test_loses LEAK*",
            "test_it.py::test_clean PASSED*",
            "*ERROR at teardown of test_loses*",
            "leak: 1 block (10 bytes) lost: malloc in make, libplanted.so",
            "  at make (*planted.c:3)",
            "  again: python -m pytest --clib=*libplanted.so test_it.py::test_loses",
            "*= clib =*",
            "test_it.py::test_loses: leak: 1 block*",
            "clib: 1 leak in 2 tests",
            "LEAK test_it.py::test_loses - Found: leak: 1 block (10 bytes) lost*",
        ]
    )


def test_quiet_shows_the_findings_and_one_line(suite, leaks):
    outcome = suite.run(LOSES, leaks, "-q")

    assert "build id" not in outcome.text
    outcome.result.stdout.fnmatch_lines([".L*", "clib: 1 leak in 1 test"])


@pytest.mark.parametrize("style", ["long", "short", "line", "native", "no"])
def test_every_traceback_style_works(suite, leaks, style):
    outcome = suite.run(LOSES, leaks, f"--tb={style}")

    outcome.result.assert_outcomes(passed=1, errors=1)
    outcome.result.stdout.fnmatch_lines(["clib: 1 leak in 1 test"])


def test_first_finding_stops_with_x(suite, leaks):
    outcome = suite.run(LOSES + CLEAN, leaks, "-x")

    outcome.result.assert_outcomes(passed=1, errors=1)


def test_k_selects_as_ever(suite, leaks):
    outcome = suite.run(LOSES + CLEAN, leaks, "-k", "clean")

    outcome.result.assert_outcomes(passed=1, deselected=1)
    assert outcome.findings == []


def test_lf_runs_what_lost_something(suite, leaks):
    suite.write(LOSES + CLEAN, leaks)
    suite.pytester.runpytest_subprocess(f"--clib={leaks}")

    result = suite.pytester.runpytest_subprocess(f"--clib={leaks}", "--lf")

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*run-last-failure: rerun previous 1 failure*"])


def test_xfail_covers_what_is_lost(suite, leaks):
    outcome = suite.run("@pytest.mark.xfail(strict=False)\n" + LOSES, leaks)

    assert outcome.result.ret == 0
    assert outcome.findings == []


def test_workers_of_xdist_send_their_findings(suite, leaks):
    pytest.importorskip("xdist")
    many = "".join(f"def test_{n}():\n    lib.make()\n" for n in range(6))

    outcome = suite.run(many + CLEAN, leaks, "-n2")

    outcome.result.assert_outcomes(passed=7, errors=6)
    assert sorted(f["test"] for f in outcome.findings) == [
        f"test_it.py::test_{n}" for n in range(6)
    ]
    outcome.result.stdout.fnmatch_lines(
        [f"clib: {leaks}, build id *", "clib: 6 leak in 7 tests"]
    )


def test_workers_of_xdist_agree_on_what_was_never_loaded(suite, leaks):
    pytest.importorskip("xdist")

    outcome = suite.run(CLEAN, leaks, "-n2", "--clib=libnever.so")

    assert outcome.text.count("--clib=libnever.so was never loaded") == 1


def test_junit_has_an_error_with_the_finding(suite, leaks):
    outcome = suite.run(LOSES + CLEAN, leaks, "--junitxml=out.xml")

    suite_element = ET.fromstring((suite.pytester.path / "out.xml").read_text())[0]
    assert suite_element.get("errors") == "1"
    error = suite_element.find(".//error")
    assert "leak: 1 block (10 bytes) lost: malloc in make" in error.text
    assert outcome.result.ret == pytest.ExitCode.TESTS_FAILED


def test_report_holds_findings_beside_a_summary(suite, leaks):
    outcome = suite.run(LOSES + CLEAN, leaks)

    report = outcome.report
    assert report["schema"] == 1
    assert report["summary"]["tests"] == 2
    assert report["summary"]["injections"] == 0
    assert report["summary"]["seconds"] > 0
    assert report["summary"]["findings"] == {"leak": 1}
    (finding,) = report["findings"]
    assert finding["test"] == "test_it.py::test_loses"
    assert finding["kind"] == "leak"
    assert finding["count"] == 1
    assert finding["library"] == str(leaks)


def test_report_that_cannot_be_written_is_said(suite, leaks):
    (suite.pytester.path / "taken.json").mkdir()

    outcome = suite.run(CLEAN, leaks, "--clib-report=taken.json")

    outcome.result.stdout.fnmatch_lines(["clib: --clib-report: *Is a directory*"])


def test_report_is_plain_json(suite, leaks):
    suite.run(LOSES, leaks)

    text = (suite.pytester.path / "report.json").read_text()
    assert json.loads(text)["findings"]


def test_reruns_are_counted_as_they_are(suite, leaks):
    pytest.importorskip("pytest_rerunfailures")
    outcome = suite.run(
        "runs = []\n"
        "def test():\n"
        "    runs.append(1)\n"
        "    if len(runs) == 1:\n"
        "        lib.make()\n",
        leaks,
        "--reruns=2",
    )

    assert outcome.result.ret == 0
    outcome.result.stdout.fnmatch_lines(["*1 rerun*"])
