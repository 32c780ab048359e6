"""Scripts in a suite: exact figures, the terminal, reports, comparisons, budgets."""

from __future__ import annotations

import pytest

from pytest_clib._results import compare_ratios

SOURCE = """\
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int quiet(void) { return 0; }
int busy(int calls, int blocks) {
    for (int i = 0; i < calls; i++) getppid();
    for (int i = 0; i < blocks; i++) free(malloc(100));
    return 0;
}
int slow(void) { for (volatile int i = 0; i < 20000; i++) ; return 0; }
int stop(void) { return -1; }
"""

DECLARED = """\
for name in ("quiet", "slow", "stop"):
    getattr(lib, name).argtypes = []
lib.busy.argtypes = [c.c_int, c.c_int]
"""


@pytest.fixture
def library(build):
    return build(SOURCE)


@pytest.fixture
def run(suite, library):
    return lambda source, *args: suite.run(DECLARED + source, library, *args)


def test_figures_are_exact(run):
    outcome = run(
        """
def test(clib):
    result = clib.script("busy").call(lib.busy, 3, 2, expect=0).run(times=1000)
    assert result.system_calls_per_operation == 3
    assert result.allocations_per_operation == 2
    assert result.bytes_per_operation == 200
"""
    )

    outcome.result.assert_outcomes(passed=1)


def test_figures_are_exact_on_many_threads(run):
    outcome = run(
        """
def test(clib):
    result = clib.script().call(lib.busy, 1, 1).run(times=500, threads=4, warmup=3)
    assert result.operations == 2000
    assert result.system_calls_per_operation == 1
    assert result.bytes_per_operation == 100
"""
    )

    outcome.result.assert_outcomes(passed=1)


def test_script_leaves_nothing_behind(run):
    outcome = run(
        """
def test(clib):
    a, b = socket.socketpair()
    with a, b:
        clib.script().send(a, b"x").recv(b, 1).call(lib.busy, 1, 5).run(times=10)
    assert clib.leaks() == []
"""
    )

    outcome.result.assert_outcomes(passed=1)
    assert outcome.findings == []


def test_terminal_has_a_table_for_each_test(run):
    outcome = run(
        """
def test_one(clib):
    script = clib.script("one").call(lib.busy, 2, 1)
    script.run(times=10)
    script.run(times=10, threads=2, name="one, 2 threads")

def test_two(clib):
    clib.script("two").call(lib.quiet).run(times=10)
"""
    )

    outcome.result.stdout.re_match_lines(
        [
            r"=+ clib scripts =+",
            r".*::test_one$",
            r"\s+operations  per second .*syscalls  allocations",
            r"one\s+10 .*  2 +1\b",
            r"one, 2 threads\s+20 .*",
            r".*::test_two$",
            r"two\s+10 .*  0 +0\b",
        ]
    )


def test_quiet_shows_no_table_and_a_suite_without_scripts_no_section(run):
    source = "def test(clib):\n    clib.script().call(lib.quiet).run(times=1)\n"

    assert "clib scripts" in run(source).text
    assert "clib scripts" not in run(source, "-q").text
    assert "clib scripts" not in run("def test(clib):\n    lib.quiet()\n").text


def test_report_has_the_figures(run):
    outcome = run(
        """
def test(clib):
    clib.script("busy").call(lib.busy, 3, 2).run(times=10, threads=2)
"""
    )

    (script,) = outcome.report["scripts"]
    assert script["name"] == "busy"
    assert script["test"].endswith("::test")
    assert (script["threads"], script["operations"]) == (2, 20)
    assert script["system_calls_per_operation"] == 3
    assert sum(count for _, count in script["histogram"]) == 20


def test_figures_arrive_from_workers(run):
    outcome = run(
        """
@pytest.mark.parametrize("n", range(4))
def test(clib, n):
    clib.script(f"run {n}").call(lib.busy, n, 0).run(times=10)
""",
        "-n2",
    )

    shown = {
        s["name"]: s["system_calls_per_operation"] for s in outcome.report["scripts"]
    }
    assert shown == {f"run {n}": n for n in range(4)}
    assert all(f"run {n}" in outcome.text for n in range(4))


def test_failed_step_fails_the_test_with_its_place(run):
    outcome = run(
        """
def test(clib):
    clib.script().call(lib.quiet).call(lib.stop, expect=0).run(times=10)
"""
    )

    outcome.result.assert_outcomes(failed=1)
    outcome.result.stdout.fnmatch_lines(
        ["*step 1 (call stop), iteration -1, instance 0: returned -1*"]
    )


# Comparisons


def test_comparison_tells_which_is_faster(run):
    outcome = run(
        """
def test(clib):
    quiet = clib.script("quiet").call(lib.quiet)
    slow = clib.script("slow").call(lib.slow)
    told = clib.compare(quiet, slow, pairs=9, slice_seconds=0.005)
    assert told.verdict == "quiet"
    assert told.high < 1
    assert clib.compare(slow, quiet, pairs=9, slice_seconds=0.005).verdict == "quiet"
"""
    )

    outcome.result.assert_outcomes(passed=1)
    outcome.result.stdout.re_match_lines(
        [r"quiet / slow: time ratio 0\.0.*quiet is faster"]
    )
    assert outcome.report["scripts"] == []
    first, second = outcome.report["comparisons"]
    assert (first["a"], first["b"], first["verdict"]) == ("quiet", "slow", "quiet")
    assert len(first["ratios"]) == 9
    assert first["low"] <= first["median"] <= first["high"] < 1 < second["low"]
    assert first["test"].endswith("::test")


def test_verdict_needs_a_spread_that_allows_one():
    assert compare_ratios("a", "b", [0.9] * 6).verdict == "a"
    assert compare_ratios("a", "b", [1.1] * 6).verdict == "b"
    assert compare_ratios("a", "b", [0.9] * 5 + [1.1]).verdict is None
    # The sign test, two-sided at 5 %: of 12 pairs two may go the other way, not three.
    assert compare_ratios("a", "b", [0.9] * 10 + [1.1] * 2).verdict == "a"
    assert compare_ratios("a", "b", [0.9] * 9 + [1.1] * 3).verdict is None


def test_too_few_pairs_are_refused(run):
    outcome = run(
        """
def test(clib):
    script = clib.script().call(lib.quiet)
    with pytest.raises(ValueError, match="pairs = 5: with fewer than 6"):
        clib.compare(script, script, pairs=5)
"""
    )

    outcome.result.assert_outcomes(passed=1)


# Budgets

BUDGET = """
@pytest.mark.clib_budget({budget})
def test(clib):
    clib.script("busy").call(lib.busy, 3, 2).run(times=100)
"""


@pytest.mark.parametrize(
    "budget", ["syscalls=3", "allocations=2, syscalls=4", "bytes=200", "bytes=1e3"]
)
def test_script_within_its_budget_passes(run, budget):
    run(BUDGET.format(budget=budget)).result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("syscalls=2", "busy, each operation: 3 system calls, 2 allowed"),
        ("allocations=1.5", "busy, each operation: 2 allocations, 1.5 allowed"),
        (
            "bytes=199, syscalls=9",
            "busy, each operation: 200 bytes allocated, 199 allowed",
        ),
    ],
)
def test_script_over_its_budget_fails_with_the_figures(run, budget, message):
    outcome = run(BUDGET.format(budget=budget))

    outcome.result.assert_outcomes(failed=1)
    outcome.result.stdout.fnmatch_lines(
        [message, "*warm-up: getppid 303, free 202, malloc 202"]
    )


def test_each_script_is_held_against_the_budget(run):
    outcome = run(
        """
@pytest.mark.clib_budget(allocations=1)
def test(clib):
    clib.script("fine").call(lib.busy, 0, 1).run(times=10)
    clib.script("greedy").call(lib.busy, 0, 2).run(times=10)
    lib.busy(0, 50)
"""
    )

    outcome.result.assert_outcomes(failed=1)
    assert "greedy, each operation: 2 allocations, 1 allowed" in outcome.text
    assert "fine, each" not in outcome.text


def test_without_a_script_the_whole_test_is_one_operation(run):
    outcome = run(
        """
@pytest.fixture
def before():
    lib.busy(100, 100)

@pytest.mark.clib_budget(syscalls=5, allocations=0)
def test_within(before):
    lib.busy(5, 0)

@pytest.mark.clib_budget(syscalls=5, allocations=0)
def test_over(before):
    lib.busy(5, 1)
"""
    )

    outcome.result.assert_outcomes(passed=1, failed=1)
    assert "the test: 1 allocations, 0 allowed" in outcome.text


def test_nearest_marker_wins_and_others_add_their_figures(run):
    outcome = run(
        """
pytestmark = pytest.mark.clib_budget(syscalls=0, allocations=0)

@pytest.mark.clib_budget(syscalls=1)
def test(clib):
    clib.script("it").call(lib.busy, 1, 1).run(times=1)
"""
    )

    assert "it, each operation: 1 allocations, 0 allowed" in outcome.text
    assert "system calls" not in outcome.text


def test_failure_of_the_test_itself_is_what_is_shown(run):
    outcome = run(
        """
@pytest.mark.clib_budget(syscalls=0)
def test(clib):
    clib.script().call(lib.busy, 1, 0).run(times=1)
    assert "this" == "that"
"""
    )

    outcome.result.assert_outcomes(failed=1)
    assert "over budget" not in outcome.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "takes keywords only"),
        ("2", "takes keywords only"),
        ("syscall=2", "no figure is called 'syscall'; there are allocations, syscalls"),
        ("syscalls=-1", "syscalls=-1 is not a number from 0"),
        ("syscalls='2'", "syscalls='2' is not a number from 0"),
        ("syscalls=True", "syscalls=True is not a number"),
        ("bytes=float('inf')", "bytes=inf is not a number"),
    ],
)
def test_budget_that_makes_no_sense_is_told_at_collection(run, arguments, message):
    outcome = run(f"@pytest.mark.clib_budget({arguments})\ndef test():\n    pass\n")

    assert outcome.result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in outcome.result.stderr.str() + outcome.text
