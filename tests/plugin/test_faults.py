"""``clib.fail`` and ``clib.mock``: single faults and replaced functions."""

from __future__ import annotations

import pytest

SOURCE = r"""
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

long now(void)
{
    struct timespec t;
    return clock_gettime(CLOCK_REALTIME, &t) == 0 ? t.tv_sec : -1;
}

int put(int fd, const char *text, long size)
{
    long done = 0;
    while (done < size) {
        ssize_t put = write(fd, text + done, size - done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        done += put;
    }
    return 0;
}

int helper(int value) { return value + 1; }
int uses(int value) { return helper(value) * 2; }
double half(double value) { return value / 2; }
double quarter(double value) { return half(value) / 2; }
void *get(int size) { return malloc(size); }
void put_back(void *block) { free(block); }
"""
PRELUDE = """
import unittest.mock
lib.get.restype = c.c_void_p
lib.put_back.argtypes = [c.c_void_p]
lib.put_back.restype = None
lib.now.restype = c.c_long
lib.quarter.restype = c.c_double
lib.quarter.argtypes = [c.c_double]
"""


@pytest.fixture
def run(suite, build):
    library = build(SOURCE, name="faulty")
    return lambda test, *args: suite.run(PRELUDE + test, library, *args)


def test_calls_fail_as_told_and_no_others(run):
    outcome = run("""
def test(clib):
    with clib.fail("malloc") as failure:
        assert not lib.get(10)
        assert c.get_errno() == errno.ENOMEM
        lib.put_back(lib.get(10))
    assert (failure.happened, failure.matched) == (1, 2)
    with clib.fail("malloc", "ENOMEM", nth=2, count=None):
        block = lib.get(10)
        assert block
        assert not lib.get(1)
        assert not lib.get(1)
        lib.put_back(block)
    with clib.fail("helper", returns=20):
        assert lib.uses(1) == 40
    assert lib.uses(1) == 4
""")

    outcome.result.assert_outcomes(passed=1)


def test_short_and_interrupted_writes_are_completed(run):
    outcome = run("""
def test(clib, tmp_path):
    file = tmp_path / "out"
    with file.open("wb") as out:
        with clib.fail("write", short=1) as short:
            assert lib.put(out.fileno(), b"hello", 5) == 0
        with clib.fail("write", errno.EINTR) as interrupted:
            assert lib.put(out.fileno(), b"hello", 5) == 0
    assert (short.happened, interrupted.happened) == (1, 1)
    assert (short.matched, interrupted.matched) == (2, 2)
    assert file.read_bytes() == b"hellohello"
""")

    outcome.result.assert_outcomes(passed=1)


def test_a_failure_that_is_not_ended_ends_with_its_test(run):
    outcome = run("""
def test_one(clib):
    clib.fail("malloc", count=None)
    assert not lib.get(1)

def test_two():
    lib.put_back(lib.get(1))
""")

    outcome.result.assert_outcomes(passed=2)
    assert outcome.findings == []


def test_mocks_of_the_standard_library_count_and_are_undone(run):
    outcome = run("""
def test(clib):
    clock = unittest.mock.Mock(return_value=-1)
    with clib.mock("clock_gettime", clock):
        assert lib.now() == -1
    clock.assert_called_once()
    assert clock.call_args.args[0] == 0
    assert lib.now() > 0
    assert clib.calls("clock_gettime") == 2

def test_undone_at_the_end(clib):
    clib.mock("helper", lambda value: 5)
    assert lib.uses(1) == 10

def test_was_undone():
    assert lib.uses(1) == 4
""")

    outcome.result.assert_outcomes(passed=3)


def test_mocks_may_call_the_original_and_nest(run):
    outcome = run("""
def test(clib):
    outer = clib.mock("helper", lambda value: outer.original(value) + 10)
    assert lib.uses(1) == 24
    with clib.mock("helper", lambda value: -value):
        assert lib.uses(1) == -2
    assert lib.uses(1) == 24
    with clib.mock("half", lambda value: value * 8):
        assert lib.quarter(2.0) == 8.0
    with clib.mock("helper", lambda v: v + 0.5, prototype=(c.c_double, c.c_double)):
        pass
""")

    outcome.result.assert_outcomes(passed=1)


def test_an_exception_in_a_mock_fails_the_test(run):
    outcome = run("""
def test(clib):
    clib.mock("helper", lambda value: 1 / 0)
    assert lib.uses(1) == -2

def test_result_that_is_no_int(clib):
    clib.mock("helper", lambda value: "text", error=3)
    assert lib.uses(1) == 6

def test_after():
    assert lib.uses(1) == 4
""")

    assert outcome.kinds == ["mock-exception", "mock-exception"]
    assert "ZeroDivisionError in the mock of helper" in outcome.findings[0]["message"]
    assert "TypeError in the mock of helper" in outcome.findings[1]["message"]
    outcome.result.assert_outcomes(passed=3, errors=2)


def test_what_cannot_be_done_is_said(run):
    outcome = run("""
def test(clib):
    with pytest.raises(LookupError, match="near it: malloc"):
        clib.fail("maloc")
    with pytest.raises(ValueError, match="transfers no bytes"):
        clib.fail("malloc", short=1)
    with pytest.raises(ValueError, match="counted from 1"):
        clib.fail("malloc", nth=0)
    with pytest.raises(ValueError, match="no errno 4000"):
        clib.fail("malloc", 4000)
    with pytest.raises(ValueError, match="say which value"):
        clib.fail("helper")
    with pytest.raises(LookupError, match="nonsense"):
        clib.mock("nonsense", lambda: 0)
    with pytest.raises(TypeError, match="cannot be called"):
        clib.mock("helper", 7)
    with pytest.raises(TypeError, match="prototype="):
        clib.mock("helper", lambda value: 0, prototype="int")
    with pytest.raises(ValueError, match="redirected safely"):
        clib.mock("longjmp", lambda value: 0, prototype=(c.c_int,))
""")

    outcome.result.assert_outcomes(passed=1)


def test_faults_hold_in_the_copies_of_torture(run):
    outcome = run(
        """
def test(clib):
    with clib.mock("clock_gettime", lambda clock, into: -1):
        assert lib.now() == -1
    with clib.fail("malloc"):
        assert not lib.get(1)
""",
        "--clib-torture",
    )

    outcome.result.assert_outcomes(passed=1)
    assert outcome.findings == []
