"""Torture: every call that can fail, fails once; and the single failures of a user.

For each test, just before its own fixtures are set up, the process forks: once to count the
test's fallible calls, then once for each failure that is planned. Then the test runs here as
without torture, and leaves its state to the next. ``_torture_child`` has the copies,
``_torture_plan`` what they are put through, ``_torture_results`` what it means.

The same way ``--clib-inject`` and ``--clib-guard`` first run a test in a copy, so that a crash
is a finding and not the end of the session; under a debugger they do not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import gc
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import roles
from ._torture_child import Child, Ended, Nursery
from ._torture_fds import Descriptors
from ._torture_plan import Call, Planner
from ._torture_results import Baseline, Judge, Verdict
from .execution import FINDINGS, Found

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .findings import Finding, Place
    from .inject import Injection
    from .run import Run

MOST_CALLS = 1 << 20
FIRST_LIMIT = 60.0  # of the copy that tells how long the test takes
SHORTEST_LIMIT = 5.0
LIMIT_FACTOR = 10
MOST_WAITS = 2  # of one site and failure; each costs a whole time limit


@dataclasses.dataclass(frozen=True)
class Cell:
    """One field of the report's matrix: where a call failed, how, and what came of it."""

    function: str
    how: str
    category: str
    module: str
    offset: int
    site: Place | None

    def to_dict(self, count: int) -> dict[str, Any]:
        """For the report (``docs/report-schema.md``)."""
        return {
            "function": self.function,
            "how": self.how,
            "class": self.category,
            "module": self.module,
            "offset": self.offset,
            "site": self.site and self.site._asdict(),
            "count": count,
        }


@dataclasses.dataclass
class Harvest:
    """What the children of one test showed."""

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    found: list[tuple[str, Finding]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    cells: Counter[Cell] = dataclasses.field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """For the test's report."""
        return {
            "counts": dict(self.counts),
            "found": [(key, finding.to_dict()) for key, finding in self.found],
            "notes": self.notes,
            "cells": [cell.to_dict(count) for cell, count in self.cells.items()],
        }


class Torture:
    """The plugin object, where tests are executed."""

    def __init__(
        self, run: Run, progress: Callable[[Counter[str], float], None]
    ) -> None:
        self._run = run
        self._options = run.options
        self._progress = progress
        self._nursery = Nursery(run, roomy=roles.has_spare_core(run.config))
        self._judge = Judge(run)
        self._log = run.native.EventLog(MOST_CALLS)
        mode = run.options.torture or "sites"
        self._planner = Planner(
            run.native,
            mode,
            most=run.options.torture_most,
            later=run.options.torture_later,
        )
        self._pending: pytest.Item | None = None
        self._child: Child | None = None
        self._accepted: dict[Injection, set[int]] = {}
        self._waits: Counter[Injection] = Counter()
        self._harvest: Harvest | None = None
        self._plans: dict[Injection, int] = {}
        self._happened: set[Injection] = set()  # in a copy of the running test
        self._firsts: dict[Path, str] = {}
        self._descriptors: Descriptors | None = None
        self._numbers: dict[tuple[str, int, int], int] = {}
        self._places: dict[int, Place | None] = {}
        self._kept: tuple[object, ...] = ()

    # Where pytest comes along.

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note which test is the first of its file: it needs none before it."""
        for item in items:
            self._firsts.setdefault(item.path, item.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """A test begins."""
        self._pending = item
        return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_fixture_setup(
        self, fixturedef: Any, request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        """The first of the test's own fixtures is about to be set up."""
        if fixturedef.scope == "function" and self._pending is not None:
            try:
                self._begin(request.node)
            except BaseException as error:
                # What pytest notes of a fixture that fails: without it, the fixture is
                # not torn down, and cannot be set up for the next test.
                key = fixturedef.cache_key(request)
                fixturedef.cached_result = (None, key, (error, error.__traceback__))
                raise
        return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """The test has no fixtures of its own."""
        if self._pending is not None:
            self._begin(item)
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, Any, Any]:
        """A phase is over: in a copy, the rest is not pytest's."""
        if self._child is not None:
            self._child.makereport(call)
        if call.when == "teardown":
            self._disarm(item)
        report = yield
        if self._harvest is not None:
            report.clib_torture = self._harvest.to_dict()
            self._harvest = None
        return report

    def pytest_unconfigure(self) -> None:
        """Give everything back."""
        self._nursery.close()

    # What is done with a test.

    def _begin(self, item: pytest.Item) -> None:
        """Put ``item`` through what was asked for. Returns in the copies, too."""
        self._pending = None
        self._harvest = Harvest()
        gc.collect(1)
        gc.freeze()
        self._descriptors = None
        try:
            self._nursery.begin_test()
            failure = self._work(item)
        finally:
            if self._child is None:
                gc.unfreeze()
                self._nursery.end_test()
                self._forget_descriptors()
        if self._child is None:
            if failure is not None:
                raise failure
            self._arm(item)

    def _forget_descriptors(self) -> None:
        if self._descriptors is not None:
            self._descriptors.close()

    def _work(self, item: pytest.Item) -> Found | None:
        """All copies; what keeps the test from running here, if anything does."""
        options = self._options
        if not options.torture and not (options.guard or options.inject):
            return None
        if options.inject:
            mine = [i for i in options.inject if i.applies(item.nodeid)]
            if not mine and not options.guard:
                return None
            if _is_traced():
                return None
            return self._trial(item, mine)
        if not options.torture:
            return None if _is_traced() else self._trial(item, [])
        return self._sweep(item)

    def _trial(self, item: pytest.Item, mine: list[Injection]) -> Found | None:
        """One copy with the user's failures."""
        ended = self._copy(item, self._limit(None), mine)
        if ended is None:
            return None
        injection = mine[0] if mine else None
        made_to_fail = {function for function, *_ in ended.snapshot[1]}
        self._happened = {i for i in mine if i.function in made_to_fail}
        verdict = self._judge.judge(
            ended, injection, Baseline(), item.nodeid, self._command(item)
        )
        return self._failure(item, verdict)

    def _failure(self, item: pytest.Item, verdict: Verdict) -> Found | None:
        if not verdict.findings:
            return None
        findings = [finding for _, finding in verdict.findings]
        item.stash.setdefault(FINDINGS, []).extend(findings)
        return Found(findings)

    def _sweep(self, item: pytest.Item) -> Found | None:
        """A copy that counts, and one for each failure."""
        harvest = self._harvest
        assert harvest is not None  # noqa: S101 (set by the only caller)
        counted = self._copy(item, self._limit(None), [], log=True)
        if counted is None:
            return None
        verdict = self._judge.judge(
            counted, None, Baseline(), item.nodeid, self._command(item)
        )
        if counted.told is None:
            if verdict.findings:
                return self._failure(item, verdict)
            harvest.notes.append(
                f"{item.nodeid} does not end in a forked copy (threads of a fixture "
                "are not in it), and was not tortured"
            )
            return None
        calls = [Call(*what, *whether) for *what, whether in self._log.events()]
        if self._log.dropped():
            harvest.notes.append(
                f"{item.nodeid} makes more than {MOST_CALLS} fallible calls; the rest "
                "was not made to fail"
            )
        baseline = self._baseline(counted, calls)
        limit = self._limit(counted.seconds)
        planned = self._planner.plan(calls)
        # Another test may lose what this one's variables hold.
        self._accepted.clear()
        # Who leaves this function in a copy does not take it apart.
        self._kept = (counted, verdict, calls, baseline, planned)
        if self._planner.left_out:
            harvest.counts["beyond"] += self._planner.left_out
        # The limit after which pytest shows where a test is was meant for the test alone.
        faulthandler.cancel_dump_traceback_later()
        try:
            for number, injection in enumerate(planned, 1):
                if self._one(item, injection, baseline, limit, harvest):
                    return None
                if number < len(planned):
                    self._progress(harvest.counts, number / len(planned))
        finally:
            if self._child is None:
                self._progress(harvest.counts, 1.0)
        return None

    def _one(
        self,
        item: pytest.Item,
        injection: Injection,
        baseline: Baseline,
        limit: float,
        harvest: Harvest,
    ) -> bool:
        """One copy with one failure; whether this is the copy."""
        what = dataclasses.replace(injection, nth=0)
        if self._waits[what] >= MOST_WAITS:
            harvest.counts["left out"] += 1
            return False
        accepted = self._accepted.setdefault(what, set())
        options = self._options
        ended = self._copy(
            item, limit, [injection], log=options.unnoticed, accepted=accepted
        )
        if ended is None:
            return True
        if options.unnoticed and ended.told is not None:
            ended.told["calls"] = [(e[0], e[4]) for e in self._log.events()]
        verdict = self._judge.judge(
            ended,
            injection,
            baseline,
            item.nodeid,
            self._command(item, self._call_number(injection)),
            unnoticed=options.unnoticed,
        )
        harvest.counts["injections"] += 1
        harvest.counts[verdict.category] += 1
        harvest.cells[self._cell(ended, injection, verdict.category)] += 1
        harvest.found.extend((repr(key), finding) for key, finding in verdict.findings)
        if ended.told is not None and ended.told["held"] and not ended.told["lost"]:
            accepted.add(ended.told["held"])
        if ended.told is not None and ended.told["error"]:
            harvest.notes.append(
                f"what was lost could not be told: {ended.told['error']}"
            )
        if verdict.category in {"hang", "waited"}:
            self._waits[what] += 1
        return False

    def _cell(self, ended: Ended, injection: Injection, category: str) -> Cell:
        injected = next(iter(ended.snapshot[1]), None)
        if injected is None:
            return Cell(injection.function, injection.how(), category, "", 0, None)
        function, errno, _, _, site, *_ = injected
        module, offset = self._judge.stable(site)
        if site not in self._places:
            trail = self._judge.trail([site], first_exact=False)
            self._places[site] = trail[0] if trail else None
        how = injection.how(errno)
        return Cell(function, how, category, module, offset, self._places[site])

    def _copy(
        self,
        item: pytest.Item,
        limit: float,
        injections: list[Injection],
        *,
        log: bool = False,
        accepted: set[int] | frozenset[int] = frozenset(),
    ) -> Ended | None:
        """Run a copy. ``None``: this is the copy."""
        native = self._run.native
        if log:
            self._log.clear()
        if self._descriptors is None:
            self._descriptors = Descriptors(self._nursery.done)
        shared = self._descriptors

        def begin() -> None:
            shared.isolate()
            for injection in injections:
                with contextlib.suppress(LookupError, ValueError):
                    injection.arm(native)
            if log:
                self._log.start(list(self._options.groups))

        def finish() -> dict[str, Any]:
            if not self._options.guard:
                return {}
            return {"damage": native.guard_check()}

        ended, child = self._nursery.run(item, limit, begin, finish, accepted)
        self._child = child
        if child is None:
            shared.restore()
        return ended

    def _baseline(self, counted: Ended, calls: list[Call]) -> Baseline:
        told = counted.told or {}
        self._numbers = {
            (call.function, call.stack, call.at_stack): call.call for call in calls
        }
        return Baseline(
            passed=not any(name for _, name, _ in told["phases"]),
            lost=frozenset(
                (kind, function, site, tuple(backtrace))
                for kind, function, site, backtrace, *_ in told["lost"]
            ),
            calls=tuple((call.function, call.stack) for call in calls),
        )

    def _call_number(self, injection: Injection) -> int:
        key = (injection.function, injection.stack, injection.nth)
        return self._numbers.get(key, injection.nth)

    def _limit(self, seconds: float | None) -> float:
        if seconds is None:
            return max(FIRST_LIMIT, self._options.timeout)
        if self._options.timeout:
            return self._options.timeout
        return max(SHORTEST_LIMIT, LIMIT_FACTOR * seconds)

    def _command(
        self, item: pytest.Item, call: int = 0
    ) -> Callable[[Injection | None, int], str]:
        """From a failure to the command that shows it again."""
        extra = [f"--clib-guard={self._options.guard}"] if self._options.guard else []

        def command(injection: Injection | None, errno: int) -> str:
            if injection is None:
                return self._run.command(item.nodeid, *extra)
            if self._firsts.get(item.path, item.nodeid) == item.nodeid:
                spec = injection.spec(call, errno)
                return self._run.command(item.nodeid, *extra, f"--clib-inject={spec}")
            # It may need what the tests before it left.
            file, _, name = item.nodeid.partition("::")
            spec = injection.spec(call, errno, test=name)
            return self._run.command(file, *extra, f"--clib-inject={spec}")

        return command

    # Failures in this process.

    def _arm(self, item: pytest.Item) -> None:
        for injection in self._options.inject:
            if injection.applies(item.nodeid):
                try:
                    plan = injection.arm(self._run.native)
                except (LookupError, ValueError) as error:
                    raise pytest.UsageError(
                        f"--clib-inject={injection.spec()}: {error}"
                    ) from None
                self._plans[injection] = plan

    def _disarm(self, item: pytest.Item) -> None:
        harvest = self._harvest = self._harvest or Harvest()
        for injection in self._options.inject:
            if not injection.applies(item.nodeid):
                continue
            spec = injection.spec(test=injection.test)
            plan = self._plans.pop(injection, None)
            outcome = self._run.native.disarm(plan) if plan is not None else None
            matched, injected, _ = outcome or (0, 0, None)
            happened = bool(injected) or injection in self._happened
            harvest.counts[f"inject {spec}"] += happened
            harvest.counts["injections"] += happened
            if not happened:
                why = (
                    "its own code did not run"
                    if plan is None
                    else f"it makes {matched} call{'s' if matched != 1 else ''} of "
                    f"{injection.function}"
                )
                harvest.notes.append(
                    f"--clib-inject={spec} never happened in {item.nodeid}: {why}"
                )
        self._happened = set()
        if self._options.guard and not self._options.torture:
            self._run.native.guard_check()


def _is_traced() -> bool:
    """Whether a debugger is attached."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return any(
        line.startswith("TracerPid:") and line.split()[1] != "0"
        for line in status.splitlines()
    )
