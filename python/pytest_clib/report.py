"""Everything found, as data: ``--clib-report=FILE``.

The JSON has a version (``schema``); ``docs/guide.md`` describes it. Each suffix has one
writer in ``WRITERS``; a writer gets the data that the JSON file holds, and nothing else.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .findings import Finding, count_by_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

SCHEMA = 1


def data(
    findings: Iterable[Finding],
    *,
    tests: int,
    injections: int,
    seconds: float,
    libraries: Iterable[dict[str, Any]],
) -> dict[str, Any]:
    """The report as JSON data.

    Args:
        findings: everything found.
        tests: how many tests were run.
        injections: how many calls were made to fail.
        seconds: how long the session took.
        libraries: the libraries under test, as ``Library`` fields.
    """
    found = list(findings)
    return {
        "schema": SCHEMA,
        "summary": {
            "tests": tests,
            "injections": injections,
            "seconds": round(seconds, 3),
            "findings": count_by_kind(found),
        },
        "libraries": list(libraries),
        "findings": [finding.to_dict() for finding in found],
    }


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write the report as JSON."""
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


WRITERS: dict[str, Callable[[Path, dict[str, Any]], None]] = {".json": write_json}


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the report in the form that the name asks for.

    Raises:
        OSError: the file cannot be written.
    """
    WRITERS[path.suffix](path, report)
