"""Findings from differences: one sentence, then both declarations side by side."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ._abi_records import pair_fields
from .findings import Finding, Kind, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ._abi_library import CPrototype, CRecord, Place
    from ._abi_suite import (
        Declared,
        DeclaredCallback,
        DeclaredFunction,
        DeclaredRecord,
        DeclaredSignature,
    )
    from ._abi_types import Problem

MAX_ROWS = 24
CONTEXT = 2
MAX_COLUMN = 56

Row = tuple[str, str, str]


def findings(
    library: str, subject: str, problems: Sequence[Problem], details: str
) -> list[Finding]:
    """One finding for the errors of a subject, one for its warnings."""
    out = []
    for severity in (Severity.ERROR, Severity.WARNING):
        some = [one for one in problems if one.severity is severity]
        if not some:
            continue
        first = some[0]
        where = f", {first.where}" if first.where else ""
        message = f"{subject}{where}: {first.text}"
        rest = "".join(
            f"also {one.where or 'as a whole'}: {one.text}\n" for one in some[1:]
        )
        out.append(
            Finding(
                kind=Kind.ABI,
                message=message,
                severity=severity,
                library=library,
                function=subject,
                details=rest + details,
                count=len(some),
            )
        )
    return out


def record_details(
    suite: DeclaredRecord, of: CRecord, problems: Iterable[Problem], rootdir: str
) -> str:
    """A Structure beside the library's record, field by field."""
    wrong = {one.where for one in problems}
    rows: list[Row] = []
    seen = set()
    for field, found in pair_fields(suite, of):
        mark = "!" if field.name in wrong else ""
        left = cell(field.bit, field.width, f"{field.name}: {field.written()[0]}")
        right = ""
        if found is not None:
            seen.add(found.name)
            right = cell(found.bit, found.width, found.spelling)
        rows.append((mark, left, right))
    rows += [
        ("", "", cell(one.bit, one.width, one.spelling))
        for one in of.fields
        if one.name not in seen
    ]
    rows = shortened(rows)
    spelling, place = suite.written()
    title = (
        "",
        f"{spelling}, {suite.size} bytes",
        f"{of.spelling}, {of.size} bytes",
    )
    lines = table([places(place, of.place, rootdir), title, *rows])
    lines += field_places(suite, of, wrong, rootdir)
    return "\n".join(lines)


def field_places(
    suite: DeclaredRecord, of: CRecord, wrong: set[str], rootdir: str
) -> list[str]:
    """Lines of the fields that differ, on both sides."""
    out = []
    for field, found in pair_fields(suite, of):
        if field.name not in wrong:
            continue
        theirs = None if found is None else found.place
        sides = [shown(field.written()[1], rootdir), shown(theirs, rootdir)]
        if any(sides):
            out.append(f"{field.name}: {sides[0] or '?'} | {sides[1] or '?'}")
    return out[:MAX_ROWS]


def function_details(
    suite: DeclaredFunction | DeclaredCallback,
    spelling: str,
    of: CPrototype,
    place: Place | None,
    *,
    problems: Iterable[Problem],
    rootdir: str,
) -> str:
    """A function or callback beside the library's, argument by argument."""
    wrong = {one.where for one in problems}
    declaration, suite_place = suite.written()
    suite_at = shown(suite_place, rootdir)
    head = [f"suite:   {suite_at}".rstrip()] if suite_at else []
    head += [f"         {line}" for line in declaration.splitlines()]
    library_at = shown(place, rootdir)
    head += [f"library: {library_at}".rstrip()] if library_at else []
    head.append(f"         {spelling}")
    return "\n".join([*head, *table(signature_rows(suite.signature, of, wrong))])


def signature_rows(
    suite: DeclaredSignature, of: CPrototype, wrong: set[str]
) -> list[Row]:
    """Result and arguments, one a row."""
    mark = "!" if "result" in wrong else ""
    rows = [(mark, f"result: {typed(suite.result)}", f"result: {of.result.spelling}")]
    arguments = suite.arguments
    count = max(len(arguments or ()), len(of.parameters))
    for number in range(count):
        left = right = ""
        if arguments is not None and number < len(arguments):
            left = f"{number + 1}: {typed(arguments[number])}"
        name = ""
        if number < len(of.parameters):
            name, kind = of.parameters[number][0] or "", of.parameters[number][1]
            right = f"{number + 1}: {kind.spelling} {name}".rstrip()
        where = f"argument {number + 1}" + (f" ({name})" if name else "")
        missing = "number of arguments" in wrong and not (left and right)
        rows.append(("!" if where in wrong or missing else "", left, right))
    if arguments is None:
        rows = rows[:1]
    return rows


def typed(of: Declared) -> str:
    """Spelling of a type."""
    return of.spelling


def cell(bit: int, width: int | None, text: str) -> str:
    """A field with its place and size."""
    byte, rest = divmod(bit, 8)
    at = f"{byte}.{rest}" if rest else f"{byte}"
    if width is None:
        size = "?"
    elif width % 8:
        size = f"{width}b"
    else:
        size = str(width // 8)
    return f"{at:>5} {size:>4}  {text}"


def shortened(rows: list[Row]) -> list[Row]:
    """The marked rows and their neighbours, where there are too many to show."""
    if len(rows) <= MAX_ROWS:
        return rows
    near = {
        other
        for number, row in enumerate(rows)
        if row[0]
        for other in range(number - CONTEXT, number + CONTEXT + 1)
    }
    if not near:
        near = set(range(len(rows) - 2 * CONTEXT, len(rows)))
    out: list[Row] = []
    skipped = False
    for number, row in enumerate(rows):
        if number in near and len(out) < MAX_ROWS:
            out.append(row)
            skipped = False
        elif not skipped:
            out.append(("", "  ...", "  ..."))
            skipped = True
    return out


def table(rows: list[Row]) -> list[str]:
    """Two columns of text."""
    width = min(max((len(left) for _, left, _ in rows), default=0), MAX_COLUMN)
    return [f"{mark:1} {left:{width}} | {right}".rstrip() for mark, left, right in rows]


def places(suite: Place | None, library: Place | None, rootdir: str) -> Row:
    """The heading: both places."""
    return (
        "",
        shown(suite, rootdir) or "the suite",
        shown(library, rootdir) or "the library",
    )


def shown(place: Place | None, rootdir: str) -> str:
    """A place, relative to the root directory if it lies in it."""
    if place is None:
        return ""
    root = os.path.join(rootdir, "")  # noqa: PTH118 - wants the slash
    file = place.file.removeprefix(root)
    return f"{file}:{place.line}" if place.line else file
