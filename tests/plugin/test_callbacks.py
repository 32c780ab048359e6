"""Exceptions in callbacks: when they are raised, and what is shown."""

from __future__ import annotations

import pytest

CALLS = """\
#include <errno.h>
#include <pthread.h>

static int last;

int call(int (*f)(int), int n) { errno = 0; last = f(n); return errno; }
int twice(int (*f)(int)) { return f(1) + f(2); }
int result(void) { return last; }
"""
RAISES = """\
proto = c.CFUNCTYPE(c.c_int, c.c_int)

@proto
def broken(n):
    raise ValueError(f"no {n}")
"""


@pytest.fixture
def calls(build):
    return build(CALLS)


def test_exception_is_raised_where_the_foreign_call_returns(suite, calls):
    outcome = suite.run(
        RAISES
        + """
reached = []

def test():
    with pytest.raises(ValueError, match="no 5"):
        lib.call(broken, 5)
        reached.append(1)
    assert not reached
""",
        calls,
    )

    outcome.result.assert_outcomes(passed=1)
    assert outcome.findings == []


def test_failure_shows_the_callbacks_own_traceback_and_the_foreign_function(
    suite, calls
):
    outcome = suite.run(RAISES + "\ndef test():\n    lib.call(broken, 5)\n", calls)

    outcome.result.assert_outcomes(failed=1)
    outcome.result.stdout.fnmatch_lines(
        [
            "*lib.call(broken, 5)*",
            '*raise ValueError(f"no {n}")*',
            "*ValueError: no 5*",
            "*in the callback broken, while the foreign function call, called by*",
        ]
    )
    assert outcome.kinds == ["callback-exception"]
    assert outcome.findings[0]["function"] == "call"


def test_function_with_its_own_errcheck_is_left_alone(suite, calls):
    outcome = suite.run(
        RAISES
        + """
def mine(result, function, arguments):
    return 17

lib.call.errcheck = mine

def test():
    assert lib.call(broken, 5) == 17
""",
        calls,
    )

    outcome.result.assert_outcomes(failed=1)
    outcome.result.stdout.fnmatch_lines(["*ValueError: no 5*"])


def test_first_of_several_exceptions_fails_the_test(suite, calls):
    outcome = suite.run(RAISES + "\ndef test():\n    lib.twice(broken)\n", calls)

    outcome.result.assert_outcomes(failed=1)
    outcome.result.stdout.fnmatch_lines(["*ValueError: no 1*"])
    assert outcome.kinds == ["callback-exception"] * 2


def test_other_unraisable_exceptions_go_where_they_went(suite, calls):
    outcome = suite.run(
        """
class Broken:
    def __del__(self):
        raise RuntimeError("in a finalizer")

def test():
    Broken()
""",
        calls,
    )

    outcome.result.assert_outcomes(passed=1, warnings=1)
    outcome.result.stdout.fnmatch_lines(["*RuntimeError: in a finalizer*"])


def test_suite_that_watches_unraisable_exceptions_itself_keeps_them(suite, calls):
    outcome = suite.run(
        RAISES
        + """
def test(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    lib.call(broken, 5)
    assert len(seen) == 1
""",
        calls,
    )

    outcome.result.assert_outcomes(passed=1)
    assert outcome.findings == []


def test_skip_in_a_callback_skips(suite, calls):
    outcome = suite.run(
        """
@c.CFUNCTYPE(c.c_int, c.c_int)
def skips(n):
    pytest.skip("not here")

def test():
    lib.call(skips, 1)
""",
        calls,
    )

    outcome.result.assert_outcomes(skipped=1)
    assert outcome.findings == []


def test_callback_gives_its_error_value_and_errno_at_once(suite, calls):
    outcome = suite.run(
        """
import pytest_clib

@pytest_clib.callback(c.CFUNCTYPE(c.c_int, c.c_int), error=-7, errno=errno.EXDEV)
def broken(n):
    raise ValueError(n)

def test():
    with pytest.raises(ValueError):
        lib.call(broken, 1)
    assert lib.result() == -7

def test_errno():
    seen = []
    def see(result, function, arguments):
        seen.append(result)
        return result
    lib.call.errcheck = see
    lib.call(broken, 1)
    assert seen == [errno.EXDEV]
""",
        calls,
    )

    outcome.result.assert_outcomes(passed=1, failed=1)
    outcome.result.stdout.fnmatch_lines(["*ValueError: 1*"])
    assert "assert seen ==" not in outcome.text


def test_callback_stays_alive_until_the_test_is_over(suite, build):
    library = build(
        "static int (*kept)(int);\n"
        "void keep(int (*f)(int)) { kept = f; }\n"
        "int use(int n) { return kept(n); }\n"
    )
    outcome = suite.run(
        """
import gc, pytest_clib

def test():
    def register():
        lib.keep.restype = None
        lib.keep(pytest_clib.callback(c.CFUNCTYPE(c.c_int, c.c_int), error=0)(lambda n: n + 1))
    register()
    gc.collect()
    assert lib.use(41) == 42
""",
        library,
    )

    outcome.result.assert_outcomes(passed=1)


def test_callback_wants_an_error_value_where_there_is_a_result(suite, calls):
    outcome = suite.run(
        """
import pytest_clib

def test():
    with pytest.raises(TypeError, match="needs error="):
        pytest_clib.callback(c.CFUNCTYPE(c.c_int))
    with pytest.raises(TypeError, match="not a prototype"):
        pytest_clib.callback(int, error=0)
    pytest_clib.callback(c.CFUNCTYPE(None))(print)
""",
        calls,
    )

    outcome.result.assert_outcomes(passed=1)


def test_exception_while_a_module_is_imported_belongs_to_the_session(suite, calls):
    outcome = suite.run(
        RAISES
        + """
lib.call.errcheck = lambda result, function, arguments: result
lib.call(broken, 3)

def test():
    pass
""",
        calls,
    )

    outcome.result.assert_outcomes(passed=1)
    assert outcome.kinds == ["callback-exception"]
    assert outcome.result.ret == pytest.ExitCode.TESTS_FAILED
