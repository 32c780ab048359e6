"""Declarations in cffi, where nobody has compiled them: ABI mode, in line or not.

What ``ffi.cdef`` was told is read back through cffi's public calls (``list_types``,
``typeof``, the names of a library object). API mode is left alone: there a C compiler
has read the library's own header, so that a wrong declaration did not survive the
build.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from ._abi_sources import file_of
from ._abi_suite import (
    Declared,
    DeclaredField,
    DeclaredFunction,
    DeclaredRecord,
    DeclaredSignature,
    RecordKey,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._abi_collect import Symbols
    from ._abi_library import Place
    from ._abi_sources import Sources

MAX_DEPTH = 64
CHARACTERS = frozenset(
    {"char", "wchar_t", "char16_t", "char32_t"},
)
FLOATS = frozenset({"float", "double", "long double"})
# What cffi's calls raise for names and types that are incomplete or unknown.
REFUSALS = (AttributeError, KeyError, TypeError, ValueError, RuntimeError)


class Reader:
    """Turns cffi's types into ``Declared``."""

    def __init__(self, sources: Sources, backend: Any) -> None:
        self.sources = sources
        self.backend = backend

    def type(self, of: Any, depth: int = 0) -> Declared:
        """Any type that cffi knows."""
        size = self.size(of)
        name = of.cname
        if depth > MAX_DEPTH:
            return Declared("opaque", size, name)
        if of.kind == "void":
            return Declared("void", None, name)
        if of.kind == "primitive":
            return self.primitive(of, size)
        if of.kind == "enum":
            return Declared("enum", size, name)
        if of.kind == "pointer":
            item = self.type(of.item, depth + 1)
            anything = item.kind in ("void", "opaque")
            return Declared("pointer", size, name, to=None if anything else item)
        if of.kind == "function":
            signature = self.signature(of, depth)
            return Declared("function", size, name, signature=signature)
        if of.kind == "array":
            item = self.type(of.item, depth + 1)
            return Declared("array", size, name, to=item, count=of.length or 0)
        if of.kind in ("struct", "union"):
            if size is None:
                return Declared("opaque", None, name)
            return Declared("record", size, name, record=self.key(of))
        return Declared("opaque", size, name)

    def size(self, of: Any) -> int | None:
        try:
            return int(self.backend.sizeof(of))
        except Exception:  # noqa: BLE001 - cffi's own, for what is incomplete
            return None

    def primitive(self, of: Any, size: int | None) -> Declared:
        name = of.cname
        if name in FLOATS:
            return Declared("float", size, name)
        if name in ("_Bool", "bool"):
            return Declared("bool", size, name)
        if name in CHARACTERS:
            return Declared("char", size, name)
        try:
            signed = int(self.backend.cast(of, -1)) < 0
        except (*REFUSALS, OverflowError):
            return Declared("opaque", size, name)
        return Declared("int", size, name, signed=signed)

    def signature(self, of: Any, depth: int = 0) -> DeclaredSignature:
        """A function type."""
        return DeclaredSignature(
            result=self.type(of.result, depth + 1),
            arguments=tuple(self.type(one, depth + 1) for one in of.args),
            variadic=bool(of.ellipsis),
            identity=of,
        )

    def key(self, of: Any) -> RecordKey:
        """Names a structure or union."""
        return RecordKey(of.cname, of, lambda: self.record(of))

    def record(self, of: Any) -> DeclaredRecord | None:
        """Describes a structure or union; ``None`` if it is opaque."""
        fields = list(self.fields(of))
        size = self.size(of)
        if not fields or size is None:
            return None
        tag = of.cname.partition(" ")[2] or of.cname
        pattern = rf"(\b{re.escape(tag)}\b)"
        return DeclaredRecord(
            key=self.key(of),
            keyword=of.kind,
            size=size,
            fields=tuple(fields),
            written=lambda: (of.cname, self.sources.cdef(re.compile(pattern))),
        )

    def written_function(self, name: str, of: Any) -> tuple[str, Place | None]:
        """How a function is written, and where."""
        place = self.sources.cdef(re.compile(rf"(\b{re.escape(name)})\s*\("))
        return of.cname.replace("(*)", f" {name}", 1), place

    def fields(self, of: Any, base: int = 0) -> Iterator[DeclaredField]:
        """Fields, with those of anonymous members in their place."""
        try:
            entries = of.fields
        except REFUSALS:
            return
        for name, one in entries or ():
            start = base + one.offset * 8
            if not name and one.type.kind in ("struct", "union"):
                yield from self.fields(one.type, start)
                continue
            declared = self.type(one.type)
            is_bit_field = one.bitsize >= 0
            width = one.bitsize if is_bit_field else (declared.size or 0) * 8
            start += max(one.bitshift, 0) if is_bit_field else 0
            text = f"{declared.spelling} {name}"
            text += f" : {width}" if is_bit_field else ""
            written = functools.partial(_nowhere, text)
            yield DeclaredField(name, start, width, declared, is_bit_field, written)


def _nowhere(text: str) -> tuple[str, Place | None]:
    return text, None


def records(reader: Reader, ffi: Any) -> Iterator[tuple[str, RecordKey]]:
    """Names and keys of the structures and unions that an FFI object declares."""
    try:
        typedefs, structs, unions = ffi.list_types()
    except REFUSALS:
        return
    written = [f"struct {one}" for one in structs]
    written += [f"union {one}" for one in unions]
    written += list(typedefs)
    seen = []
    for name in written:
        try:
            of = ffi.typeof(name)
        except Exception:  # noqa: BLE001, S112 - cffi has errors of its own for what is partial
            continue
        if of.kind in ("struct", "union") and of not in seen:
            seen.append(of)
            yield name, reader.key(of)


def functions(
    reader: Reader, library: Any, symbols: Symbols
) -> Iterator[tuple[str, DeclaredFunction]]:
    """Functions that a library object offers, each with the library it is in."""
    try:
        names = dir(library)
    except REFUSALS:
        return
    for name in names:
        try:
            one = getattr(library, name)
            of = reader.backend.typeof(one)
        except Exception:  # noqa: BLE001, S112 - a missing symbol, a constant, a variable
            continue
        if of.kind != "function":
            continue
        found = symbols.find(int(reader.backend.cast("intptr_t", one)))
        if found is None:
            continue
        written = functools.partial(reader.written_function, name, of)
        yield found[0], DeclaredFunction(name, reader.signature(of), written)


def is_abi_mode(ffi: Any, modules: dict[str, Any]) -> bool:
    """Whether a compiled FFI object comes from a Python file: then no compiler was run."""
    for module in modules.values():
        namespace = object.__getattribute__(module, "__dict__")
        if namespace.get("ffi") is ffi:
            return file_of(module) is not None and "lib" not in namespace
    return False
