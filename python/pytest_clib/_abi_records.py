"""Compares a Structure or Union of the suite with a record of the library.

Fields of the same name must lie at the same place and have the same type. Fields whose
names differ are judged by the bytes they cover: to split a field, to join some, or to
rename one is allowed; to cover half of one is not. All positions are bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ._abi_types import Problem, Role, Types, plural
from .findings import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._abi_library import CField, CRecord, Library
    from ._abi_suite import Declared, DeclaredField, DeclaredRecord

MAX_LEAVES = 4096


class Leaf(NamedTuple):
    """A stretch of a record that has one meaning."""

    bit: int
    width: int
    field: CField
    whole: bool
    free: bool


def simplified(name: str) -> str:
    """A name without what Python's words and manners add to it."""
    return name.strip("_").replace("_", "").lower()


def pair_fields(
    suite: DeclaredRecord, of: CRecord
) -> list[tuple[DeclaredField, CField | None]]:
    """Each field of the suite with the library's field of its name.

    The same name; else the same but for case and underscores; else the library's name
    without a prefix that its fields share (``tv_sec``, ``sec``).
    """
    exact = {one.name: one for one in of.fields if one.name}
    loose: dict[str, list[CField]] = {}
    for one in of.fields:
        names = {simplified(one.name)}
        _, underscore, rest = one.name.partition("_")
        if underscore and rest:
            names.add(simplified(rest))
        for name in names - {""}:
            loose.setdefault(name, []).append(one)
    taken = {one.name for one in suite.fields} & exact.keys()
    pairs = []
    for field in suite.fields:
        found = exact.get(field.name)
        if found is None:
            candidates = loose.get(simplified(field.name), [])
            if len(candidates) == 1 and candidates[0].name not in taken:
                found = candidates[0]
                taken.add(found.name)
        pairs.append((field, found))
    return pairs


def agreement(suite: DeclaredRecord, of: CRecord) -> float:
    """Which share of the suite's field names the library knows."""
    if not suite.fields:
        return 0.0
    pairs = pair_fields(suite, of)
    return sum(1 for _, found in pairs if found is not None) / len(pairs)


def compare_records(
    types: Types, suite: DeclaredRecord, of: CRecord, *, prefix: bool = False
) -> list[Problem]:
    """The differences. ``prefix``: the suite may know only the beginning."""
    if of.size is None:
        return []
    problems: list[Problem] = []
    unnamed: list[DeclaredField] = []
    for field, found in pair_fields(suite, of):
        if found is None:
            unnamed.append(field)
            continue
        problem = named(types, field, found)
        if problem is not None:
            problems.append(problem)
    if unnamed:
        problems.extend(by_place(types, suite, unnamed, of))
    errors = any(one.severity is Severity.ERROR for one in problems)
    if not errors:
        problems.extend(sizes(suite, of, prefix=prefix))
    order = {field.name: number for number, field in enumerate(suite.fields)}
    return sorted(problems, key=lambda one: order.get(one.where, len(order)))


def named(types: Types, field: DeclaredField, of: CField) -> Problem | None:
    """A field and the library's field of its name."""
    if field.bit != of.bit:
        text = f"at {position(field.bit)} here, at {position(of.bit)} in the library"
        return Problem(Severity.ERROR, field.name, text)
    if field.is_bit_field or of.is_bit_field:
        if of.width is not None and field.width != of.width:
            text = (
                f"{plural(field.width, 'bit')} here, "
                f"{plural(of.width, 'bit')} in the library"
            )
            return Problem(Severity.ERROR, field.name, text)
        found = types.signs(field.type, of.type)
    else:
        found = types.compare(field.type, of.type, Role.FIELD)
    return None if found is None else Problem(found[0], field.name, found[1])


def by_place(
    types: Types, suite: DeclaredRecord, unnamed: list[DeclaredField], of: CRecord
) -> Iterator[Problem]:
    """Fields whose names the library does not know."""
    stretches = list(leaves(types.library, of))
    end = (of.size or 0) * 8
    for field in unnamed:
        stop = field.bit + field.width
        over = [
            one
            for one in stretches
            if one.bit < stop and field.bit < one.bit + one.width
        ]
        same = [one for one in over if (one.bit, one.width) == (field.bit, field.width)]
        if same:
            found = None
            alike = len(same) == 1 and same[0].whole and not field.is_bit_field
            if alike and not is_bytes(field.type):
                found = types.compare(field.type, same[0].field.type, Role.FIELD)
            if found is not None and found[0] is Severity.ERROR:
                text = f"named {same[0].field.name} in the library; {found[1]}"
                yield Problem(found[0], field.name, text)
            continue
        for leaf in over:
            if leaf.free or field.bit >= end:
                continue
            leaf_stop = leaf.bit + leaf.width
            if field.bit <= leaf.bit and leaf_stop <= stop:
                continue
            if leaf.bit <= field.bit and stop <= leaf_stop and tiled(suite, leaf):
                continue
            text = (
                f"{position(field.bit)} to {position(stop)} covers part of "
                f"{leaf.field.name}, which the library has at {position(leaf.bit)} "
                f"to {position(leaf_stop)}"
            )
            yield Problem(Severity.ERROR, field.name, text)
            break


def is_bytes(of: Declared) -> bool:
    """Raw bytes, which may stand for anything of their size."""
    return of.kind == "array" and of.to is not None and of.to.size == 1


def tiled(suite: DeclaredRecord, leaf: Leaf) -> bool:
    """Whether fields of the suite fill a stretch without a gap."""
    covered = sum(
        one.width
        for one in suite.fields
        if leaf.bit <= one.bit and one.bit + one.width <= leaf.bit + leaf.width
    )
    return covered >= leaf.width


def leaves(
    library: Library, of: CRecord, base: int = 0, depth: int = 0
) -> Iterator[Leaf]:
    """The scalar stretches of a record; arrays and what lies in unions are ``free``."""
    for count, field in enumerate(of.fields):
        if count > MAX_LEAVES or field.width is None:
            return
        overlapping = field.overlapping or of.keyword == "union"
        nested = field.type.kind == "record" and not field.is_bit_field
        if nested and not overlapping and depth < 16:
            yield Leaf(base + field.bit, field.width, field, whole=False, free=True)
            yield from leaves(
                library, library.record(field.type.ident), base + field.bit, depth + 1
            )
            continue
        free = overlapping or field.type.kind in ("array", "other", "record")
        yield Leaf(base + field.bit, field.width, field, whole=depth == 0, free=free)


def sizes(suite: DeclaredRecord, of: CRecord, *, prefix: bool) -> list[Problem]:
    """The record as a whole, where its fields tell nothing."""
    size = of.size or 0
    if suite.size == size:
        return []
    text = f"{plural(suite.size, 'byte')} here, {plural(size, 'byte')} in the library"
    if suite.size < size:
        if prefix:
            return []
        return [Problem(Severity.ERROR, "", f"{text}, which writes past its end")]
    last = of.fields[-1] if of.fields else None
    open_ended = (
        last is not None
        and last.type.kind == "array"
        and (last.type.count is None or last.type.count <= 1)
    )
    if open_ended and last is not None:
        return []
    return [Problem(Severity.ERROR, "", f"{text}, which does not fill its end")]


def position(bit: int) -> str:
    """``byte 4``, or ``byte 4 bit 3``."""
    byte, rest = divmod(bit, 8)
    return f"byte {byte} bit {rest}" if rest else f"byte {byte}"
