"""The fixture ``clib``."""

from __future__ import annotations

import pytest

SOURCE = """\
#include <stdlib.h>

void *make(void) { return malloc(10); }
int both(void) { free(malloc(1)); free(malloc(2)); return 0; }
"""


@pytest.fixture
def library(build):
    return build(SOURCE)


def test_calls_counts_from_the_beginning_of_the_test(suite, library):
    outcome = suite.run(
        """
def test_one(clib):
    assert clib.calls("malloc") == 0
    lib.both()
    assert clib.calls("malloc") == 2
    assert clib.calls("free") == 2

def test_two(clib):
    assert clib.calls("malloc") == 0
""",
        library,
    )

    outcome.result.assert_outcomes(passed=2)


def test_unknown_function_is_a_lookup_error(suite, library):
    outcome = suite.run(
        """
def test(clib):
    with pytest.raises(LookupError, match="malok"):
        clib.calls("malok")
""",
        library,
    )

    outcome.result.assert_outcomes(passed=1)


def test_leaks_tells_what_is_lost_by_now(suite, library):
    outcome = suite.run(
        """
@pytest.mark.clib_allow(leak=1, reason="on purpose")
def test(clib):
    lib.make.restype = c.c_void_p
    assert clib.leaks() == []
    def lose():
        assert lib.make()
    lose()
    (finding,) = clib.leaks()
    assert finding.kind == "leak"
    assert finding.size == 10
""",
        library,
    )

    outcome.result.assert_outcomes(passed=1)


def test_fixture_without_a_library_says_what_to_do(suite, library):
    suite.write("def test(clib):\n    pass\n", library)

    result = suite.pytester.runpytest_subprocess()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*needs a library under test: --clib=LIB*"])
