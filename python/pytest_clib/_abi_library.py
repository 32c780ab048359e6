"""What the library declares: the native module's dictionaries as typed values.

The only reader of ``pytest_clib._native.Declarations``. Everything is read when it is
asked for, and once. Sizes and offsets are bytes unless the name says bits. Nothing here
knows ctypes, cffi or findings.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from ._native import Declarations

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KEYWORDS = ("struct", "union", "class")


class Place(NamedTuple):
    """Where something is declared."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclasses.dataclass(eq=False, repr=False)
class CType:
    """A type of the library.

    Attributes:
        kind: ``void``, ``bool``, ``char``, ``int``, ``float``, ``enum``, ``pointer``,
            ``function``, ``array``, ``record`` or ``other``.
        size: ``None`` for what has none, or none that is known.
        spelling: as C writes it.
        typedefs: the typedefs it goes through, the one written first.
        name: of a base type, or the tag of a record or enumeration.
        signed: of integers, characters and enumerations.
        to: what a pointer points to, or an array's element.
        count: elements of an array; ``None`` for a flexible one.
        prototype: of a function.
        ident: of a record, for ``Library.record``.
    """

    kind: str
    size: int | None
    spelling: str
    typedefs: tuple[str, ...] = ()
    name: str | None = None
    signed: bool | None = None
    to: CType | None = None
    count: int | None = None
    prototype: CPrototype | None = None
    ident: int = 0


class CPrototype(NamedTuple):
    """A signature; ``complete`` is false where parameters may be missing from it."""

    result: CType
    parameters: tuple[tuple[str | None, CType], ...]
    variadic: bool
    complete: bool


class CFunction(NamedTuple):
    """A function of the library."""

    name: str
    spelling: str
    prototype: CPrototype
    place: Place | None
    language: str


class CField(NamedTuple):
    """A field, with those of anonymous members in their place.

    Attributes:
        bit: its first bit, counted from the start of the record.
        width: in bits; ``None`` where it is not known.
        is_bit_field: whether it was declared as one.
        overlapping: whether it lies in a union.
    """

    name: str
    bit: int
    width: int | None
    type: CType
    is_bit_field: bool
    overlapping: bool
    spelling: str
    place: Place | None


class CRecord(NamedTuple):
    """A structure, union or class; ``size`` is ``None`` if it is only declared."""

    keyword: str
    name: str | None
    ident: int
    size: int | None
    fields: tuple[CField, ...]
    place: Place | None
    language: str

    @property
    def spelling(self) -> str:
        """As C names it."""
        return f"{self.keyword} {self.name or '{...}'}"


class Library:
    """The declarations of one library.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has no usable debug information; the message is a sentence.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._native = Declarations(str(path), [])
        self._records: dict[int, CRecord] = {}
        # Not functools.cache, which would keep the library until the process ends.
        self._functions: dict[str, CFunction | None] = {}
        self._named: dict[str, tuple[CRecord, ...]] = {}

    @property
    def debug_path(self) -> str:
        """The file that its debug information was read from."""
        return str(self._native.debug_path)

    @property
    def damage(self) -> list[str]:
        """What of it could not be read."""
        return list(self._native.damage)

    @functools.cached_property
    def exports(self) -> frozenset[str]:
        """The functions that it exports."""
        return frozenset(self._native.exported_functions())

    def function(self, name: str) -> CFunction | None:
        """A function that it exports or calls, by the name in the symbol table."""
        if name not in self._functions:
            self._functions[name] = self._find_function(name)
        return self._functions[name]

    def _find_function(self, name: str) -> CFunction | None:
        found = self._native.function(name)
        if found is None:
            return None
        return CFunction(
            name=found["name"],
            spelling=found["spelling"],
            prototype=_prototype(found["prototype"]),
            place=_place(found["place"]),
            language=found["language"],
        )

    def record(self, ident: int) -> CRecord:
        """The record that ``CType.ident`` names."""
        if ident not in self._records:
            self._records[ident] = _record(self._native.record(ident))
        return self._records[ident]

    def records(self, written: str) -> tuple[CRecord, ...]:
        """Defined records called ``struct x``, ``union x``, or ``x`` (tag or typedef)."""
        if written not in self._named:
            self._named[written] = self._find_records(written)
        return self._named[written]

    def _find_records(self, written: str) -> tuple[CRecord, ...]:
        first, _, rest = written.partition(" ")
        if rest and first in KEYWORDS:
            found = [_record(one) for one in self._native.records(rest.strip(), first)]
        else:
            found = [_record(one) for one in self._native.records(written)]
            for one in self._native.typedefs(written):
                if one["type"]["kind"] == "record":
                    found.append(self.record(one["type"]["id"]))
        unique = {one.ident: one for one in found if one.size is not None}
        return tuple(unique.values())

    def prototypes(
        self, typedef: str
    ) -> tuple[tuple[CPrototype, str, Place | None], ...]:
        """Function types, or pointers to one, that a typedef of this name stands for.

        Each with its spelling and place.
        """
        out = []
        for one in self._native.typedefs(typedef):
            found = _type(one["type"])
            if found.kind == "pointer" and found.to is not None:
                found = found.to
            if found.kind == "function" and found.prototype is not None:
                out.append((found.prototype, one["spelling"], _place(one["place"])))
        return tuple(out)

    @functools.cached_property
    def record_names(self) -> frozenset[str]:
        """Tags and typedefs without namespaces (of which not all name records)."""
        return frozenset(self._native.record_names()) | frozenset(
            self._native.typedef_names()
        )


def _place(found: tuple[str, int] | None) -> Place | None:
    return None if found is None else Place(*found)


def _type(found: Mapping[str, Any]) -> CType:
    to = found.get("to")
    prototype = found.get("prototype")
    return CType(
        kind=found["kind"],
        size=found["size"],
        spelling=found["spelling"],
        typedefs=tuple(found["typedefs"]),
        name=found.get("name"),
        signed=found.get("signed"),
        to=None if to is None else _type(to),
        count=found.get("count"),
        prototype=None if prototype is None else _prototype(prototype),
        ident=found.get("id", 0),
    )


def _prototype(found: Mapping[str, Any]) -> CPrototype:
    return CPrototype(
        result=_type(found["result"]),
        parameters=tuple((name, _type(one)) for name, one in found["parameters"]),
        variadic=found["variadic"],
        complete=found["complete"],
    )


def _record(found: Mapping[str, Any]) -> CRecord:
    return CRecord(
        keyword=found["keyword"],
        name=found["name"],
        ident=found["id"],
        size=found["size"],
        fields=tuple(_field(one) for one in found["fields"]),
        place=_place(found["place"]),
        language=found["language"],
    )


def _field(found: Mapping[str, Any]) -> CField:
    of = _type(found["type"])
    bits = found["bits"]
    width = None if of.size is None else of.size * 8
    return CField(
        name=found["name"] or "",
        bit=found["offset"] * 8 if bits is None else bits[0],
        width=width if bits is None else bits[1],
        type=of,
        is_bit_field=bits is not None,
        overlapping=found["overlapping"],
        spelling=found["spelling"],
        place=_place(found["place"]),
    )
