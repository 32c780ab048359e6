"""Scripts inside a suite: their figures travel to the terminal, and budgets are kept.

``@pytest.mark.clib_budget(allocations=0, syscalls=2)`` limits what one operation of each
script of the test may cost; in a test that runs no script, what the whole test costs the
libraries. Only exact figures can be limited: a time would depend on the machine.

``Scripts`` is registered where tests are executed, ``ScriptTable`` where they are shown.
What is to be shown travels on the report of a test (``report.clib_scripts``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from _pytest.terminal import TerminalReporter

    from ._results import Comparison, ScriptResult
    from .run import Run
    from .script import Script

BUDGET = "clib_budget"
HELP = (
    "clib_budget(*, allocations=..., syscalls=..., bytes=...): what one operation of each "
    "script of the test may cost at most; without a script, what the test may cost"
)
_FIGURES = {
    "allocations": "allocations",
    "syscalls": "system calls",
    "bytes": "bytes allocated",
}
_FUNCTIONS_SHOWN = 8


def read(item: pytest.Item) -> dict[str, float]:
    """The budget of a test: the limit of each figure; the nearest marker wins.

    Raises:
        pytest.UsageError: a marker makes no sense.
    """
    budget: dict[str, float] = {}
    for mark in item.iter_markers(BUDGET):
        where = f"{item.nodeid}: @pytest.mark.{BUDGET}"
        if mark.args or not mark.kwargs:
            raise pytest.UsageError(
                f"{where} takes keywords only, such as allocations=0; there are "
                + ", ".join(_FIGURES)
            )
        for name, limit in mark.kwargs.items():
            if name not in _FIGURES:
                raise pytest.UsageError(
                    f"{where}: no figure is called {name!r}; there are "
                    + ", ".join(_FIGURES)
                )
            number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
            if not number or not 0 <= limit < math.inf:
                raise pytest.UsageError(
                    f"{where}: {name}={limit!r} is not a number from 0"
                )
            budget.setdefault(name, limit)
    return budget


class _Cost(NamedTuple):
    """What a piece of work cost, in the order of ``_FIGURES``' names."""

    what: str
    figures: Mapping[str, float | None]
    calls: Mapping[str, int]

    def over(self, budget: Mapping[str, float]) -> list[str]:
        """A line for each limit that it exceeds."""
        lines = []
        for name, limit in budget.items():
            figure = self.figures[name]
            if figure is None or figure > limit:
                shown = "nothing counted" if figure is None else f"{figure:,.6g}"
                lines.append(
                    f"{self.what}: {shown} {_FIGURES[name]}, {limit:g} allowed"
                )
        return lines

    def breakdown(self) -> str:
        """Which functions were called, the most frequent first."""
        ordered = sorted(self.calls.items(), key=lambda pair: -pair[1])
        shown = [f"{name} {calls:,}" for name, calls in ordered[:_FUNCTIONS_SHOWN]]
        if len(ordered) > _FUNCTIONS_SHOWN:
            shown.append(f"{len(ordered) - _FUNCTIONS_SHOWN} others")
        return "calls, with those of the warm-up: " + (", ".join(shown) or "none")


class Scripts:
    """The plugin object of a process that executes tests.

    Most suites have no scripts and no budgets: ``_Phases`` is there from the first one on.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._costs: list[_Cost] = []
        self._shown: list[dict[str, Any]] = []
        self._before: dict[str, int] = {}
        self._watching = False

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Are there budgets to be kept?"""
        if any(item.get_closest_marker(BUDGET) for item in session.items):
            self._watch()

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            manager = self._run.config.pluginmanager
            manager.register(_Phases(self), "clib-script-phases")

    def begin(self) -> None:
        """A script is about to run."""
        self._watch()
        self._run.rescan()
        self._before = self._counts()

    def finish(self, result: ScriptResult) -> None:
        """A script has run: keep its figures for the budget, the terminal and the report."""
        figures = {
            "allocations": result.allocations_per_operation,
            "syscalls": result.system_calls_per_operation,
            "bytes": result.bytes_per_operation,
        }
        self._costs.append(
            _Cost(f"{result.name}, each operation", figures, self._calls_since())
        )
        self._shown.append({"script": result.to_dict()})
        measures: Any = self._run.config.pluginmanager.get_plugin("clib-measures")
        if measures is not None:
            measures.script_finished(result)

    def compared(self, comparison: Comparison) -> None:
        """Two scripts have been compared."""
        self._watch()
        self._shown.append({"comparison": comparison.to_dict()})

    def clear(self) -> None:
        """A test begins."""
        self._costs.clear()
        self._shown.clear()

    def totals(self) -> tuple[int, ...]:
        """What all has cost so far, for ``over``."""
        self._run.rescan()
        self._before = self._counts()
        return tuple(self._run.native.totals())

    def over(self, budget: Mapping[str, float], totals: tuple[int, ...]) -> list[str]:
        """Lines about what the scripts of a test, or the test since ``totals``, spent too much."""
        costs = list(self._costs)
        if not costs:
            now = self._run.native.totals()
            spent = [after - before for after, before in zip(now, totals, strict=True)]
            names = ("syscalls", "allocations", "bytes")
            figures = dict(zip(names, spent, strict=True))
            costs.append(_Cost("the test", figures, self._calls_since()))
        lines = []
        for cost in costs:
            over = cost.over(budget)
            if over:
                lines.extend([*over, f"  {cost.breakdown()}"])
        return lines

    def hand_over(self, report: Any) -> None:
        """Put the figures on the report of a test's last phase."""
        if self._shown:
            report.clib_scripts = list(self._shown)

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for _, function, calls in self._run.native_session.counts():
            counts[function] = counts.get(function, 0) + calls
        return counts

    def _calls_since(self) -> dict[str, int]:
        since = {
            name: calls - self._before.get(name, 0)
            for name, calls in self._counts().items()
        }
        return {name: calls for name, calls in since.items() if calls}


class _Phases:
    """Its hooks around each test."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None, Any, Any]:
        """A test begins."""
        self._scripts.clear()
        return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Run the test, then hold its costs against its budget."""
        budget = read(item)
        if not budget:
            return (yield)
        totals = self._scripts.totals()
        result = yield
        lines = self._scripts.over(budget, totals)
        if lines:
            pytest.fail("over budget\n" + "\n".join(lines), pytrace=False)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[Any]
    ) -> Generator[None, Any, Any]:
        """Hand the figures over."""
        report = yield
        if call.when == "teardown":
            self._scripts.hand_over(report)
        return report


class Scripting:
    """What the fixture ``clib`` offers about scripts."""

    def __init__(self, run: Run) -> None:
        self._shown: Scripts = cast(
            "Scripts", run.config.pluginmanager.get_plugin("clib-scripts")
        )

    def script(self, name: str = "script") -> Script:
        """An empty script: add steps to it, then ``run`` it at native speed.

        Its figures are shown at the end of the session and are part of the report; a
        ``clib_budget`` of the test limits them.

        Args:
            name: what tables and reports call it.
        """
        from .script import Script  # noqa: PLC0415 (needs the native module)

        return Script(name, on_start=self._shown.begin, on_result=self._shown.finish)

    def compare(self, a: Script, b: Script, **options: Any) -> Comparison:
        """Runs two scripts in turn in short slices; which is faster, if that can be said.

        Args:
            a: one script.
            b: the other, which does the same work; with another library, say.
            options: as for ``pytest_clib.script.compare``: ``pairs``, ``slice_seconds``,
                and what ``Script.run`` takes.

        Raises:
            ScriptError: a step failed.
            ValueError: an option makes no sense.
        """
        from .script import compare  # noqa: PLC0415 (needs the native module)

        comparison = compare(a, b, **options)
        self._shown.compared(comparison)
        return comparison


class ScriptTable:
    """The plugin object of the process that owns the terminal."""

    def __init__(self) -> None:
        self._tests: dict[str, list[dict[str, Any]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the figures from a test's report, wherever it ran."""
        shown = getattr(report, "clib_scripts", None)
        if shown:
            self._tests.setdefault(report.nodeid, []).extend(shown)

    @pytest.hookimpl(tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """A table for each test that ran scripts."""
        if not self._tests or terminalreporter.verbosity < 0:
            return
        from ._results import (  # noqa: PLC0415 (seldom used)
            Comparison,
            ScriptResult,
            table,
        )

        terminalreporter.section("clib scripts", sep="=")
        for test, shown in self._tests.items():
            terminalreporter.write_line(test)
            results = [
                ScriptResult.from_dict(entry["script"])
                for entry in shown
                if "script" in entry
            ]
            if results:
                terminalreporter.write_line(table(results))
            for entry in shown:
                if "comparison" in entry:
                    comparison = Comparison.from_dict(entry["comparison"])
                    terminalreporter.write_line(str(comparison))
