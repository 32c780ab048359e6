"""Collections of garbage pass over what is older than the suite, and nothing is missed for that."""

from __future__ import annotations

import sys

import pytest
from handle_library import DECLARED

MANY = 1000  # CPython 3.12 begins with some
FROZEN = "import gc\nprint('frozen:', gc.get_freeze_count())\n"


def frozen(result: pytest.RunResult) -> list[int]:
    """What was printed while a suite's module was imported."""
    lines = [line for line in result.outlines if line.startswith("frozen: ")]
    return [int(line.split()[1]) for line in lines]


def test_what_was_there_before_the_suite_is_left_out(suite, handles):
    outcome = suite.run(
        DECLARED
        + FROZEN
        + """
class Node:
    pass
node = Node()
node.itself = node

def test():
    import gc, weakref
    global node
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None
""",
        handles,
        "-s",
    )

    outcome.result.assert_outcomes(passed=1)
    assert [count > MANY for count in frozen(outcome.result)] == [True]


def test_nothing_is_left_out_without_a_library_under_test(suite, handles):
    suite.write(DECLARED + FROZEN + "def test():\n    pass\n", handles)

    (count,) = frozen(suite.pytester.runpytest_subprocess("-s"))
    assert count < MANY


def test_nothing_is_left_out_where_the_process_goes_on(suite, handles):
    suite.write(DECLARED + FROZEN + "def test():\n    pass\n", handles)
    program = suite.pytester.makepyfile(
        program=f"""
        import gc, pytest
        assert pytest.main(["-s", "-p", "no:cacheprovider", "--clib={handles}"]) == 0
        assert gc.get_freeze_count() < {MANY}
        """
    )

    result = suite.pytester.run(sys.executable, program)

    assert result.ret == 0
    (count,) = frozen(result)
    assert count < MANY


@pytest.mark.parametrize("keep", ["config", "config.pluginmanager"])
def test_what_is_left_out_can_hold_a_handle(suite, handles, keep):
    """The configuration is older than the suite."""
    outcome = suite.run(
        DECLARED
        + f"""
def test_makes(request):
    request.{keep}.handle = lib.make()

def test_destroys(request):
    lib.destroy(request.{keep}.handle)

def test_loses(request):
    lib.make()
""",
        handles,
    )

    outcome.result.assert_outcomes(passed=3, errors=1)
    assert [one["test"].partition("::")[2] for one in outcome.findings] == [
        "test_loses"
    ]


def test_declarations_of_a_plugin_that_is_older_than_the_suite_are_compared(
    suite, build
):
    library = build("long twice(long number) { return 2 * number; }\n", name="twice")
    suite.pytester.makepyfile(
        bindings=f"""
        import ctypes
        lib = ctypes.CDLL({str(library)!r})
        twice = lib.twice
        twice.restype = ctypes.c_int
        """
    )
    suite.write(
        "import bindings\ndef test():\n    assert bindings.twice(2) == 4\n", library
    )
    suite.pytester.syspathinsert()

    outcome = suite.again(f"--clib={library}", "-p", "bindings")

    assert [(one["kind"], one["function"]) for one in outcome.findings] == [
        ("abi", "twice")
    ]
