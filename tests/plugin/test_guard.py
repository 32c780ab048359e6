"""``--clib-guard``: an overflow or a use after free is a finding with three places."""

from __future__ import annotations

import shlex

import pytest

SOURCE = r"""
#include <stdlib.h>
#include <string.h>

char *make(void) { return malloc(32); }
void drop(char *block) { free(block); }
void put(char *block, int at) { ((volatile char *)block)[at] = 'x'; }
char *text(void) { return strdup("handed out"); }
"""
PRELUDE = """
lib.make.restype = lib.text.restype = c.c_void_p
lib.drop.argtypes = [c.c_void_p]
lib.put.argtypes = [c.c_void_p, c.c_int]
lib.drop.restype = lib.put.restype = None
"""


@pytest.fixture
def run(suite, build):
    library = build(SOURCE, name="guarded")
    return lambda test, *args: suite.run(PRELUDE + test, library, *args)


def test_a_use_after_free_has_access_allocation_and_release(run, suite):
    outcome = run(
        """
def test():
    block = lib.make()
    lib.drop(block)
    lib.put(block, 3)

def test_after():
    lib.drop(lib.make())
""",
        "--clib-guard",
    )

    (finding,) = outcome.findings
    assert finding["kind"] == "use-after-free"
    assert finding["place"]["function"] == "put"
    assert "allocated at make (" in finding["details"]
    assert "freed at drop (" in finding["details"]
    outcome.result.assert_outcomes(passed=1, failed=1)
    assert "--clib-guard=over" in finding["command"]
    repeated = suite.again(*shlex.split(finding["command"])[3:])
    assert repeated.kinds == ["use-after-free"]


@pytest.mark.parametrize(("side", "at"), [("over", 32), ("under", -1)])
def test_both_sides_can_be_exact(run, side, at):
    outcome = run(
        f"def test():\n    block = lib.make()\n    lib.put(block, {at})\n",
        f"--clib-guard={side}",
    )

    assert outcome.kinds == ["overflow"]
    assert outcome.findings[0]["place"]["function"] == "put"


def test_blocks_that_others_free_are_handled(run):
    outcome = run(
        """
libc = c.CDLL(None)
libc.free.argtypes = [c.c_void_p]
libc.free.restype = None

def test():
    text = lib.text()
    assert c.string_at(text) == b"handed out"
    lib.drop(text)
""",
        "--clib-guard",
    )

    outcome.result.assert_outcomes(passed=1)
    assert outcome.findings == []


def test_a_wrong_side_is_a_usage_error(run):
    outcome = run("def test(): pass\n", "--clib-guard=left")

    assert outcome.result.ret == pytest.ExitCode.USAGE_ERROR
    outcome.result.stderr.fnmatch_lines("ERROR: *expected over or under")
