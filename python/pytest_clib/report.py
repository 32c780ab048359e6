"""Everything found, as data: ``--clib-report=FILE``.

The JSON has a version (``schema``); ``docs/report-schema.md`` describes it. Each suffix has
one writer in ``WRITERS``; a writer gets the data that the JSON file holds, and nothing else.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import platform
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import report_html
from .findings import Finding, count_by_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .report_tests import Tests

SCHEMA = 1
AROUND = 5  # lines of source before and after a place
LONGEST_LINE = 400


def data(
    findings: Iterable[Finding],
    *,
    tests: int,
    injections: int,
    seconds: float,
    libraries: Iterable[dict[str, Any]],
    results: Tests | None = None,
    notes: Sequence[str] = (),
    coverage: dict[str, Any] | None = None,
    tool: str = "",
    interrupted: bool = False,
    page: str = "",
) -> dict[str, Any]:
    """The report as JSON data.

    Args:
        findings: everything found.
        tests: how many tests were run.
        injections: how many calls were made to fail.
        seconds: how long the session took.
        libraries: the libraries under test, as ``Library`` fields.
        results: the tests, and what they measured.
        notes: lines that are no findings.
        coverage: lines of the libraries that were reached.
        tool: what the session ran under: ``memcheck``, ``helgrind``, ``asan``, or ``""``.
        interrupted: the session was stopped before its end.
        page: ``coverage`` for a page in which that comes first.
    """
    found = list(findings)
    entries = results.entries() if results else []
    cells = results.cells() if results else []
    return {
        "schema": SCHEMA,
        "run": _run(tool, page),
        "summary": {
            "tests": tests,
            "injections": injections,
            "seconds": round(seconds, 3),
            "findings": count_by_kind(found),
            "outcomes": _count_outcomes(entries),
            "interrupted": interrupted,
        },
        "notes": list(notes),
        "libraries": list(libraries),
        "findings": [finding.to_dict() for finding in found],
        "tests": entries,
        "torture": {"cells": cells} if cells else None,
        "coverage": coverage,
        "scripts": results.scripts if results else [],
        "comparisons": results.comparisons if results else [],
        "sources": _sources(found, cells),
    }


def _run(tool: str, page: str) -> dict[str, str]:
    try:
        version = importlib.metadata.version("pytest-clib")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    return {
        "version": version,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "started": dt.datetime.now().astimezone().isoformat(" ", "seconds"),
        "command": shlex.join(["pytest", *sys.argv[1:]]),
        "tool": tool,
        "page": page,
    }


def _count_outcomes(entries: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry["outcome"]] = counts.get(entry["outcome"], 0) + 1
    return counts


def _sources(
    findings: list[Finding], cells: list[dict[str, Any]]
) -> dict[str, dict[str, str]]:
    """Source lines around each place, by file and line, where the file can be read."""
    wanted: dict[str, set[int]] = {}
    for finding in findings:
        places = [
            finding.site,
            finding.place,
            *finding.backtrace[:1],
            *finding.trail[:1],
        ]
        for place in filter(None, places):
            wanted.setdefault(place.file, set()).add(place.line)
    for cell in cells:
        site = cell["site"]
        if site:
            wanted.setdefault(site["file"], set()).add(site["line"])
    sources: dict[str, dict[str, str]] = {}
    for file, numbers in wanted.items():
        lines = read_lines(file) if file else []
        near = {
            line
            for number in numbers
            for line in range(number - AROUND, number + AROUND + 1)
            if 0 < line <= len(lines)
        }
        if near:
            sources[file] = {str(n): lines[n - 1][:LONGEST_LINE] for n in sorted(near)}
    return sources


def read_lines(file: str) -> list[str]:
    """The lines of a source file; none if it cannot be read."""
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        return []


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write the report as JSON."""
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


WRITERS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    ".json": write_json,
    ".html": report_html.write,
}


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the report in the form that the name asks for.

    Raises:
        OSError: the file cannot be written.
    """
    WRITERS[path.suffix](path, report)
