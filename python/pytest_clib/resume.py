"""The journal of a session under a tool, and the plugin that writes and follows it.

Each line of ``journal.jsonl`` is one event: a test begins, a report of one of its phases,
the test ends, the child died in it, the session ends. A child that is started after another
died finds there what it need not run again.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from .findings import Finding, Kind

if TYPE_CHECKING:
    import io
    from collections.abc import Callable
    from pathlib import Path

    from .run import Run


class Journal:
    """What is written so far.

    Attributes:
        reports: of each test that is over, by node id.
        deaths: tests that the process did not survive: its exit status and its id.
        running: the test that began last, if it is not over.
        finished: whether the session came to its end.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal.jsonl"
        self.reports: dict[str, list[dict[str, Any]]] = {}
        self.deaths: dict[str, tuple[int, int]] = {}
        self.running: str | None = None
        self.finished = False
        self._process = 0
        self._file: io.FileIO | None = None
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        if "begin" in event:
            self.running = event["begin"]
            self._process = event["process"]
            self.reports[event["begin"]] = []
        elif "report" in event:
            self.reports.setdefault(event["test"], []).append(event["report"])
        elif "end" in event:
            self.running = None
        elif "died" in event:
            self.deaths[event["died"]] = event["status"], self._process
            self.running = None
        elif "finished" in event:
            self.finished = True

    def write(self, **event: Any) -> None:
        """Add an event, which is in the file when this returns."""
        if self._file is None:
            self._file = self._path.open("ab", buffering=0)
        self._file.write(json.dumps(event).encode() + b"\n")

    def close(self) -> None:
        """Nothing is added any more."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def died(self, status: int) -> None:
        """The process died in the running test."""
        self.write(died=self.running, status=status)


class Resume:
    """The plugin object, where tests are executed under a tool."""

    def __init__(
        self,
        folder: Path,
        config: pytest.Config,
        run: Run,
        explain: Callable[[str, int], list[Finding]],
    ) -> None:
        self._journal = Journal(folder)
        self._config = config
        self._run = run
        self._explain = explain
        self._replaying = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Show what is known of a test instead of running it."""
        known = self._journal.reports.get(item.nodeid)
        if known is None:
            self._journal.write(begin=item.nodeid, process=os.getpid())
            return None
        death = self._journal.deaths.get(item.nodeid)
        hook = item.ihook
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        self._replaying = True
        for data in known:
            report = _passed(item, data) if "passed" in data else self._report(data)
            hook.pytest_runtest_logreport(report=report)
        if death is not None:
            report = self._death(item, death, "setup" if not known else "call")
            hook.pytest_runtest_logreport(report=report)
        self._replaying = False
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what is known of a test."""
        if self._replaying:
            return
        data = _short(report)
        if data is None:
            data = self._config.hook.pytest_report_to_serializable(
                config=self._config, report=report
            )
        self._journal.write(test=report.nodeid, report=data)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """A test is over."""
        if not self._replaying:
            self._journal.write(end=nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """The session is over."""
        self._journal.write(finished=True)
        self._journal.close()

    def _report(self, data: dict[str, Any]) -> pytest.TestReport:
        return self._config.hook.pytest_report_from_serializable(  # type: ignore[no-any-return]
            config=self._config, data=data
        )

    def _death(
        self, item: pytest.Item, death: tuple[int, int], when: Any
    ) -> pytest.TestReport:
        status, process = death
        findings = self._explain(item.nodeid, process)
        findings = findings or [self._died(item.nodeid, status)]
        text = "\n\n".join("\n".join(finding.lines()) for finding in findings)
        report = pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={item.name: 1},
            outcome="failed",
            longrepr=text,
            when=when,
        )
        report.__dict__.update(
            clib_findings=[finding.to_dict() for finding in findings],
            clib_crashed=True,
        )
        return report

    def _died(self, test: str, status: int) -> Finding:
        """The finding about a death that no tool has explained."""
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return Finding(
            kind=Kind.CRASH,
            message=f"the process died in this test ({how})",
            test=test,
            command=self._run.command(test),
        )


# What a report has if nothing happened in the phase.
_PLAIN: dict[str, Any] = {
    "longrepr": None,
    "sections": [],
    "user_properties": [],
    "clib_findings": [],
}
_TIMES = ("duration", "start", "stop")
_OF_TEST = {"nodeid", "location", "keywords", "outcome", "when", *_PLAIN, *_TIMES}


def _short(report: pytest.TestReport) -> dict[str, Any] | None:
    """The report of a phase in which nothing happened, in few words; else ``None``.

    Most are: what pytest makes of them is several times as long, and this runs under a tool.
    """
    fields = vars(report)
    if report.outcome != "passed" or not fields.keys() <= _OF_TEST:
        return None
    if any(fields.get(name) for name in _PLAIN):
        return None
    times = {name: fields[name] for name in _TIMES if name in fields}
    return {"passed": report.when, "times": times}


def _passed(item: pytest.Item, data: dict[str, Any]) -> pytest.TestReport:
    """The inverse of ``_short``."""
    report = pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome="passed",
        longrepr=None,
        when=data["passed"],
        sections=[],
        user_properties=[],
        **data["times"],
    )
    report.__dict__["clib_findings"] = []
    return report
