"""The tests of a run, for the report: one entry a test, made of the reports of its phases.

In the process that owns the terminal. An entry is plain data (``docs/report-schema.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .findings import Finding

if TYPE_CHECKING:
    import pytest

_CELL = ("function", "how", "class", "module", "offset")


class Tests:
    """Collects tests, in the order in which they began."""

    def __init__(self) -> None:
        self._tests: dict[str, dict[str, Any]] = {}
        self._cells: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.scripts: list[dict[str, Any]] = []
        self.comparisons: list[dict[str, Any]] = []

    def add(self, report: pytest.TestReport) -> None:
        """Take what the report of a phase tells."""
        entry = self._tests.get(report.nodeid)
        if entry is None:
            entry = self._tests[report.nodeid] = _new(report.nodeid)
        phase = report.when
        entry["phases"][phase] = round(report.duration, 6)
        entry["seconds"] = round(sum(entry["phases"].values()), 6)
        entry["outcome"] = _outcome(report, entry["outcome"])
        if report.failed and not entry["message"]:
            entry["message"] = _message(report)
        for data in getattr(report, "clib_findings", ()):
            entry["findings"] += bool(Finding.from_dict(data))
        used = getattr(report, "clib_used", None)
        if used is not None:
            entry.update(
                {key: used[key] for key in ("calls", "allocations", "peak_bytes")}
            )
            for figures in used["scripts"]:
                self.scripts.append({**figures, "test": report.nodeid})
        for shown in getattr(report, "clib_scripts", ()):
            if "comparison" in shown:
                self.comparisons.append({**shown["comparison"], "test": report.nodeid})
        self._add_cells(report)

    def _add_cells(self, report: pytest.TestReport) -> None:
        """Sum up what became of the injections, over all tests."""
        for cell in (getattr(report, "clib_torture", None) or {}).get("cells", ()):
            key = tuple(cell[name] for name in _CELL)
            known = self._cells.setdefault(key, {**cell, "count": 0, "tests": 0})
            known["count"] += cell["count"]
            known["tests"] += 1

    def entries(self) -> list[dict[str, Any]]:
        """One for each test."""
        return list(self._tests.values())

    def cells(self) -> list[dict[str, Any]]:
        """One for each injected site, failure and class."""
        return list(self._cells.values())


def _new(nodeid: str) -> dict[str, Any]:
    return {
        "test": nodeid,
        "outcome": "",
        "message": "",
        "seconds": 0.0,
        "phases": {},
        "calls": None,
        "allocations": None,
        "peak_bytes": None,
        "findings": 0,
    }


def _outcome(report: pytest.TestReport, before: str) -> str:
    """The word for the test so far: the first phase that did not pass decides."""
    if getattr(report, "clib_crashed", False):
        return "crashed"
    if before in {"failed", "error", "crashed"}:
        return before
    if report.failed:
        return "failed" if report.when == "call" else "error"
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.skipped:
        return "skipped"
    return before or ("passed" if report.when == "call" else "")


def _message(report: pytest.TestReport) -> str:
    """The first line of the failure."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else report.longreprtext
    lines = [line for line in str(text).splitlines() if line.strip()]
    return lines[0][:300] if lines else ""
