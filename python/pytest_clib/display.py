"""The hooks that show what was found, in the process that owns the terminal."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import pytest

from . import terminal
from .findings import Finding, Severity
from .library import Library
from .progress import Bar
from .report_tests import Tests
from .torture_report import Sweep

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from _pytest.terminal import TerminalReporter

    from .options import Options


class Display:
    """The plugin object of the only process, or of pytest-xdist's controller."""

    def __init__(self, config: pytest.Config, options: Options) -> None:
        self.notes: list[str] = []
        self._sweep = Sweep(options)
        self._interrupted = False
        self._config = config
        self._options = options
        self._began = time.monotonic()
        self._tests: set[str] = set()
        self._done = 0
        # Only a report tells of tests in which nothing was found.
        wanted = bool(options.reports) or options.coverage is not None
        self._results = Tests() if wanted else None
        self._coverage: dict[str, Any] | None = None
        self._of_tests: list[Finding] = []
        self._of_session: list[Finding] = []
        self._libraries: dict[str, Library] = {}
        self._introduced: set[str] = set()
        self._never: list[set[str]] = []
        self._bar = Bar(None)

    def pytest_sessionstart(self) -> None:
        """Nothing is captured yet."""
        if self._options.torture and self._config.option.verbose >= -1:
            self._bar = Bar(self._config.pluginmanager.get_plugin("terminalreporter"))

    def pytest_unconfigure(self) -> None:
        """The session is over."""
        self._bar.close()

    def pytest_report_header(self) -> list[str]:
        """Say at once that nothing is checked, if so."""
        lines = [f"clib: {note}" for note in self.notes]
        self.notes.clear()
        return lines

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the findings from a test's report, wherever it ran."""
        self._tests.add(report.nodeid)
        self._done += report.when == "teardown"
        if self._results is not None:
            self._results.add(report)
        data = getattr(report, "clib_torture", None)
        if data is not None:
            for finding in self._sweep.add(data):
                self._tell_at_once(finding)
            if self._config.pluginmanager.has_plugin("dsession"):
                self.torture_progress({}, 0.0)  # the test ran in a worker
        for data in getattr(report, "clib_findings", ()):
            finding = Finding.from_dict(data)
            expected = finding.severity is Severity.ERROR and not (
                report.failed or str(report.outcome) == "rerun"
            )
            if not expected:  # xfail
                self._of_tests.append(finding)

    def _tell_at_once(self, finding: Finding) -> None:
        """A line: torture takes long, and who stops it for good sees no summary."""
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and self._config.option.verbose >= -1:
            reporter.ensure_newline()
            reporter.write_line(f"clib: {finding.lines()[0]}", red=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: Any
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """A test that only lost something has a letter and a word of its own."""
        found = getattr(report, "clib_findings", ())
        if found and report.failed and report.when == "teardown":
            kinds = {data["kind"] for data in found if data["severity"] == "error"}
            if kinds and _is_found(report):
                word = kinds.pop() if len(kinds) == 1 else "clib"
                return "error", "L", (word.upper(), {"red": True})
        return None

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of pytest-xdist is done."""
        output = getattr(node, "workeroutput", None) or {}
        if "clib" in output:
            self.take_output(output["clib"])

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, report: pytest.TestReport) -> None:
        """A worker of pytest-xdist died in a test."""
        report.__dict__["clib_crashed"] = True

    def take_output(self, output: dict[str, Any]) -> None:
        """Take what belongs to no test from a process that executed some."""
        for fields in output["libraries"]:
            self._libraries.setdefault(fields["path"], Library(**fields))
        self._never.append(set(output["never"]))
        for data in output["findings"]:
            finding = Finding.from_dict(data)
            if finding not in self._of_session:
                self._of_session.append(finding)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Any:
        """What belongs to no test fails the session."""
        result = yield
        self._interrupted = session.exitstatus == pytest.ExitCode.INTERRUPTED
        self._of_session.extend(self._sweep.findings())
        failed = any(f.severity is Severity.ERROR for f in self._of_session)
        fine = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if (failed or self._sweep.never()) and session.exitstatus in fine:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._never:
            self.notes.extend(
                f"--clib={spec} was never loaded; nothing of it was checked"
                for spec in self._options.libraries
                if all(spec in never for never in self._never)
            )
        self.notes.extend(
            self._sweep.notes(len(self._tests), interrupted=self._interrupted)
        )
        if self._options.coverage is not None:
            self._evaluate_coverage(session)
        self._write_reports()
        return result

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """The section and the summary line."""
        terminal.show(
            terminalreporter,
            self._of_tests,
            self._of_session,
            headers=[
                library.header()
                for path, library in self._libraries.items()
                if path not in self._introduced
            ],
            notes=self.notes,
            tests=len(self._tests),
        )

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Know how much there is to do."""
        self._sweep.total = max(self._sweep.total, len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """The same with pytest-xdist."""
        self._sweep.total = max(self._sweep.total, len(ids))

    def torture_progress(self, counts: Mapping[str, int], share: float) -> None:
        """Draw how far torture has come, if someone watches.

        Args:
            counts: of the test that runs.
            share: how much of it is done, from 0 to 1; then the bar is taken away, since
                the test runs where it may print.
        """
        if not self._bar.is_seen:
            return
        if share >= 1:
            self._bar.erase()
            return
        progress = self._sweep.progress(self._done + share, counts)
        if progress is not None:
            self._bar.draw(*progress)

    def introduce(self, libraries: list[Library]) -> list[str]:
        """The lines about libraries that have been loaded by the end of collection."""
        self._introduced.update(library.path for library in libraries)
        return [library.header() for library in libraries]

    def _evaluate_coverage(self, session: pytest.Session) -> None:
        """Read what was counted; too little of it fails the session."""
        options = self._options
        folder = options.coverage
        if folder is None or not self._libraries:
            return
        from . import coverage  # noqa: PLC0415 (seldom used)

        try:
            result = coverage.evaluate(
                folder,
                list(self._libraries),
                options.coverage_sources,
                by_test=options.coverage_tests,
            )
        except ValueError as error:
            self.notes.append(f"--clib-coverage: {error}")
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
            return
        self._coverage = result.data
        self.notes.append(result.note)
        self._write_report(folder / "index.html", page="coverage")
        if result.percent < options.coverage_fail_under:
            self.notes.append(
                f"coverage is below --clib-coverage-fail-under="
                f"{options.coverage_fail_under:g}"
            )
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def _write_reports(self) -> None:
        for path in self._options.reports:
            self._write_report(path)

    def _write_report(self, path: Path, page: str = "") -> None:
        from . import report as reports  # noqa: PLC0415 (seldom used)

        data = reports.data(
            [*self._of_tests, *self._of_session],
            tests=len(self._tests),
            injections=self._sweep.counts["injections"],
            seconds=time.monotonic() - self._began,
            libraries=[dataclasses.asdict(lib) for lib in self._libraries.values()],
            results=self._results,
            notes=self.notes,
            interrupted=self._interrupted,
            tool=self._options.tool,
            coverage=self._coverage,
            page=page,
        )
        try:
            reports.write(path, data)
        except OSError as error:
            self.notes.append(f"--clib-report: {error}")


def _is_found(report: Any) -> bool:
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash is None or crash.message.startswith("Found: ")
