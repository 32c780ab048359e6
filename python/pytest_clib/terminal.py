"""What the terminal shows of a run: one section, one summary line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .findings import Finding, Severity, count_by_kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _pytest.terminal import TerminalReporter


def show(
    reporter: TerminalReporter,
    of_tests: Sequence[Finding],
    of_session: Sequence[Finding],
    *,
    headers: Sequence[str],
    notes: Sequence[str],
    tests: int,
) -> None:
    """Write the section with the findings, and the summary line.

    Args:
        reporter: pytest's.
        of_tests: findings that were shown with their test already: a line each.
        of_session: findings that were not: in full.
        headers: lines about libraries that were not shown at the start.
        notes: lines that are no findings (a library never loaded, ...).
        tests: how many tests were run.
    """
    quiet = reporter.verbosity < 0
    if of_tests or of_session or notes or (headers and not quiet):
        reporter.section("clib", sep="=")
    if not quiet:
        for line in headers:
            reporter.write_line(line)
    for line in notes:
        reporter.write_line(f"clib: {line}", yellow=True)
    for finding in of_tests:
        short = finding.severity is Severity.ERROR and reporter.verbosity <= 0
        _write(reporter, finding, short=short)
    for finding in sorted(of_session, key=lambda one: one.severity is Severity.WARNING):
        _write(reporter, finding, short=False)
    everything = [*of_tests, *of_session]
    reporter.write_line(_summary(everything, tests), **_colour(everything))


def _write(reporter: TerminalReporter, finding: Finding, *, short: bool) -> None:
    first, *rest = finding.lines()
    warning = finding.severity is Severity.WARNING
    if warning:  # not by its colour alone
        first = first.replace(":", " (warning):", 1)
    test = f"{finding.test}: " if finding.test else ""
    reporter.write_line(f"{test}{first}", yellow=warning, red=not warning)
    for line in rest[:1] if short else rest:
        reporter.write_line(line)


def _summary(findings: Sequence[Finding], tests: int) -> str:
    of_tests = f"{tests} test{'s' if tests != 1 else ''}"
    errors = [f for f in findings if f.severity is Severity.ERROR]
    warnings = len(findings) - len(errors)
    text = ", ".join(f"{count} {kind}" for kind, count in count_by_kind(errors).items())
    if warnings:
        tail = f"{warnings} warning{'s' if warnings != 1 else ''}"
        text = f"{text}, {tail}" if text else tail
    return f"clib: {text or 'nothing found'} in {of_tests}"


def _colour(findings: Sequence[Finding]) -> dict[str, bool]:
    if any(finding.severity is Severity.ERROR for finding in findings):
        return {"red": True}
    return {"yellow": True} if findings else {"green": True}
