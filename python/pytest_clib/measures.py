"""What the libraries under test did in each test: calls, allocations, memory.

Registered where tests are executed, and only when a report is to be written. What it notes
travels on the report of the test's teardown (``report.clib_used``), so that it arrives from
the workers of pytest-xdist as well. It judges nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from ._results import ScriptResult
    from .run import Run


class Measures:
    """The plugin object."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._before: tuple[int, int] = (0, 0)
        self._scripts: list[dict[str, Any]] = []
        self._allocators = {
            row[0] for row in run.native.table_rows() if row[2] == "memory" and row[3]
        }

    def script_finished(self, result: ScriptResult) -> None:
        """Put the figures of a script into the report of the running test."""
        self._scripts.append(result.to_dict())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Generator[None, Any, Any]:
        """A test begins."""
        self._scripts.clear()
        self._before = self._counts()
        self._run.native.take_peak()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[Any]
    ) -> Generator[None, Any, Any]:
        """A test is over: note what it used."""
        report = yield
        if call.when == "teardown":
            calls, allocations = self._counts()
            _, peak = self._run.native.take_peak()
            report.clib_used = {
                "calls": calls - self._before[0],
                "allocations": allocations - self._before[1],
                "peak_bytes": peak,
                "scripts": list(self._scripts),
            }
        return report

    def _counts(self) -> tuple[int, int]:
        calls = allocations = 0
        for _, function, count in self._run.native_session.counts():
            calls += count
            if function in self._allocators:
                allocations += count
        return calls, allocations
