"""``@pytest.mark.clib_allow``."""

from __future__ import annotations

import pytest

LEAKS = """\
#include <fcntl.h>
#include <stdlib.h>

int make(void) { return malloc(10) != NULL; }
int other(void) { return malloc(20) != NULL; }
int null(void) { return open("/dev/null", O_RDONLY); }
"""


@pytest.fixture
def leaks(build):
    return build(LEAKS)


def test_allowed_number_is_not_told(suite, leaks):
    outcome = suite.run(
        """
@pytest.mark.clib_allow(leak=2, reason="the pool")
def test():
    for _ in range(2):
        lib.make()
""",
        leaks,
    )

    outcome.result.assert_outcomes(passed=1)
    assert outcome.findings == []


def test_more_than_the_allowed_number_is_told(suite, leaks):
    outcome = suite.run(
        """
@pytest.mark.clib_allow(leak=1, reason="the pool")
def test():
    for _ in range(2):
        lib.make()
""",
        leaks,
    )

    outcome.result.assert_outcomes(passed=1, errors=1)


def test_other_kinds_are_told(suite, leaks):
    outcome = suite.run(
        """
@pytest.mark.clib_allow(leak=True, reason="the pool")
def test():
    lib.make()
    lib.null()
""",
        leaks,
    )

    assert outcome.kinds == ["fd-leak"]


def test_only_the_named_function_is_allowed(suite, leaks):
    outcome = suite.run(
        """
@pytest.mark.clib_allow(leak="ma*", reason="the pool")
def test():
    lib.make()
    lib.other()
""",
        leaks,
    )

    assert [f["site"]["function"] for f in outcome.findings] == ["other"]


def test_markers_of_class_and_module_add_up(suite, leaks):
    outcome = suite.run(
        """
pytestmark = pytest.mark.clib_allow(fd_leak=True, reason="the log")

@pytest.mark.clib_allow(leak="make", reason="the pool")
class Test:
    def test(self):
        lib.make()
        lib.null()
""",
        leaks,
    )

    outcome.result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("leak=1", 'needs a reason="..."'),
        ("leak=1, reason=' '", 'needs a reason="..."'),
        ("reason='x'", "allows nothing"),
        ("leek=1, reason='x'", "no kind of finding is called 'leek'"),
        ("leak=0, reason='x'", "neither a positive number"),
        ("leak=1.5, reason='x'", "neither a positive number"),
        ("1, reason='x'", "takes keywords only"),
    ],
)
def test_marker_that_makes_no_sense_is_told_at_collection(
    suite, leaks, arguments, message
):
    outcome = suite.run(
        f"@pytest.mark.clib_allow({arguments})\ndef test():\n    pass\n", leaks
    )

    assert outcome.result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in outcome.result.stderr.str() + outcome.text
