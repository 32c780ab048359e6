"""Declarations in ctypes, read from the live classes and function objects.

Nothing is called, instantiated or imported: only what ctypes itself keeps (``_fields_``,
``_type_``, ``argtypes``, ``restype``, field descriptors) is looked at. A class that is
not finished, or that a metaclass has changed beyond recognition, is opaque.
"""

from __future__ import annotations

import _ctypes
import ctypes
import functools
from typing import TYPE_CHECKING, Any

from ._abi_collect import is_class
from ._abi_suite import (
    Declared,
    DeclaredField,
    DeclaredRecord,
    DeclaredSignature,
    RecordKey,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._abi_library import Place
    from ._abi_sources import Sources

SIMPLE = _ctypes._SimpleCData  # noqa: SLF001 - ctypes gives its bases no public name
POINTER = _ctypes._Pointer  # noqa: SLF001
ARRAY = _ctypes.Array
STRUCTURE = _ctypes.Structure
UNION = _ctypes.Union
FUNCTION = _ctypes.CFuncPtr

# The letters of _SimpleCData._type_.
SIGNED = frozenset("bhilq")
UNSIGNED = frozenset("BHILQ")
FLOATS = frozenset("fdg")
MAX_DEPTH = 64


def is_ctypes(kind: object) -> bool:
    """Whether this is one of ctypes' types."""
    if not is_class(kind):
        return False
    mro = type.__getattribute__(kind, "__mro__")
    return any(
        one in mro for one in (SIMPLE, POINTER, ARRAY, STRUCTURE, UNION, FUNCTION)
    )


class Reader:
    """Turns ctypes' types into ``Declared``; ``sources`` says where they stand."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources

    def type(self, kind: Any, depth: int = 0) -> Declared:
        """Any type, or anything else that ctypes accepts in ``argtypes``."""
        if kind is None:
            return Declared("void", None, "None")
        if not is_ctypes(kind) or depth > MAX_DEPTH:
            return Declared("opaque", None, getattr(kind, "__name__", repr(kind)))
        if issubclass(kind, SIMPLE):
            return simple(kind)
        if issubclass(kind, POINTER):
            to = static(kind, "_type_")
            inner = self.type(to, depth + 1) if is_ctypes(to) else None
            spelling = f"POINTER({inner.spelling})" if inner else kind.__name__
            return Declared("pointer", ctypes.sizeof(kind), spelling, to=inner)
        if issubclass(kind, ARRAY):
            inner = self.type(static(kind, "_type_"), depth + 1)
            count = static(kind, "_length_")
            return Declared(
                "array",
                ctypes.sizeof(kind),
                f"{inner.spelling} * {count}",
                to=inner,
                count=count if isinstance(count, int) else 0,
            )
        if issubclass(kind, FUNCTION):
            return self.function_type(kind, depth)
        size = ctypes.sizeof(kind)
        return Declared("record", size, kind.__name__, record=self.key(kind))

    def function_type(self, kind: Any, depth: int = 0) -> Declared:
        """A prototype that CFUNCTYPE or its like made."""
        signature = self.prototype(kind, depth)
        arguments = signature.arguments or ()
        inside = [signature.result.spelling, *(one.spelling for one in arguments)]
        spelling = f"CFUNCTYPE({', '.join(inside)})"
        return Declared("function", 8, spelling, signature=signature)

    def prototype(self, kind: Any, depth: int = 0) -> DeclaredSignature:
        """The signature of such a prototype."""
        arguments = static(kind, "_argtypes_")
        return DeclaredSignature(
            result=self.result(static(kind, "_restype_"), depth),
            arguments=None
            if not isinstance(arguments, tuple)
            else tuple(self.type(one, depth + 1) for one in arguments),
            identity=kind,
        )

    def result(self, kind: Any, depth: int = 0) -> Declared:
        """A result type; a callable that is no type receives a C int."""
        if kind is None or is_ctypes(kind):
            return self.type(kind, depth + 1)
        name = getattr(kind, "__name__", repr(kind))
        return Declared("int", 4, f"{name} (a callable, given an int)", signed=True)

    def function(self, function: Any) -> DeclaredSignature:
        """The signature of a foreign function object as it stands now."""
        arguments = function.argtypes
        result = function.restype
        declared = self.result(result)
        if result is ctypes.c_int and not self.has_own_result(function):
            declared = Declared("int", 4, "c_int (default)", signed=True, default=True)
        return DeclaredSignature(
            result=declared,
            arguments=None
            if arguments is None
            else tuple(self.type(one) for one in arguments),
        )

    def has_own_result(self, function: Any) -> bool:
        """Whether some module assigns ``restype`` to a function of this name.

        ctypes does not tell a result that was set to c_int from one that was not.
        """
        name = getattr(function, "__name__", None)
        kind = type(function)
        if "CDLL" not in kind.__qualname__:
            return True  # made by a prototype, which always says its result
        return isinstance(name, str) and self.sources.assigns(name, "restype")

    def key(self, kind: Any) -> RecordKey:
        """Names a Structure or Union."""
        return RecordKey(kind.__name__, kind, lambda: self.record(kind))

    def record(self, kind: Any) -> DeclaredRecord | None:
        """Describes a Structure or Union; ``None`` if it has no fields (yet)."""
        fields = []
        for name, of, bit, bits in flat_fields(kind):
            declared = self.type(of)
            width = ctypes.sizeof(of) * 8 if bits is None else bits
            written = functools.partial(self.written_field, kind, name, declared, bits)
            fields.append(
                DeclaredField(name, bit, width, declared, bits is not None, written)
            )
        if not fields:
            return None
        keyword = "union" if issubclass(kind, UNION) else "struct"
        return DeclaredRecord(
            key=self.key(kind),
            keyword=keyword,
            size=ctypes.sizeof(kind),
            fields=tuple(fields),
            written=lambda: self.written_record(kind),
        )

    def written_record(self, kind: Any) -> tuple[str, Place | None]:
        """How a Structure or Union is written, and where."""
        module = static(kind, "__module__")
        found = self.sources.class_in(module, kind.__qualname__)
        base = "Union" if issubclass(kind, UNION) else "Structure"
        place = found.place if found else self.sources.module_place(module)
        return f"class {kind.__name__}({base})", place

    def written_field(
        self, kind: Any, name: str, declared: Declared, bits: int | None
    ) -> tuple[str, Place | None]:
        """How a field is written, and where; its type if that cannot be found."""
        found = self.sources.class_in(static(kind, "__module__"), kind.__qualname__)
        text, place = (found and found.field(name)) or (declared.spelling, None)
        if bits is not None and "bits" not in text:
            text = f"{text}, {bits} bits"
        return text, place


def simple(kind: Any) -> Declared:
    """One of ctypes' simple types, or a class derived from one."""
    code = static(kind, "_type_")
    size = ctypes.sizeof(kind)
    name = kind.__name__
    if not isinstance(code, str):
        return Declared("opaque", size, name)
    if code in SIGNED or code in UNSIGNED:
        return Declared("int", size, name, signed=code in SIGNED)
    if code in FLOATS:
        return Declared("float", size, name)
    if code == "?":
        return Declared("bool", size, name)
    if code in "cu":
        return Declared("char", size, name)
    if code in "zZ":
        letter = ctypes.c_char if code == "z" else ctypes.c_wchar
        return Declared("pointer", size, name, to=simple(letter), text=True)
    if code in "PO":
        return Declared("pointer", size, name)
    return Declared("opaque", size, name)


def static(kind: Any, name: str) -> Any:
    """A class attribute, found without running anybody's ``__getattribute__``."""
    for base in type.__getattribute__(kind, "__mro__"):
        namespace = type.__getattribute__(base, "__dict__")
        if name in namespace:
            return namespace[name]
    return None


def flat_fields(kind: Any, base: int = 0) -> Iterator[tuple[str, Any, int, int | None]]:
    """Name, type, first bit, and width if it is a bit field, of every field.

    Base classes come first, and the fields of ``_anonymous_`` members in their place.
    """
    for owner in reversed(type.__getattribute__(kind, "__mro__")):
        namespace = type.__getattribute__(owner, "__dict__")
        declared = namespace.get("_fields_")
        if not isinstance(declared, (list, tuple)):
            continue
        anonymous = namespace.get("_anonymous_", ())
        for entry in declared:
            name, of = entry[0], entry[1]
            descriptor = namespace.get(name)
            if descriptor is None or not is_ctypes(of):
                continue
            bit, width = position(descriptor, entry)
            if name in anonymous and issubclass(of, (STRUCTURE, UNION)):
                yield from flat_fields(of, base + bit)
            else:
                yield name, of, base + bit, width


def position(descriptor: Any, entry: tuple[Any, ...]) -> tuple[int, int | None]:
    """First bit of a field in its record, and its width if it is a bit field."""
    if len(entry) < 3:
        return descriptor.offset * 8, None
    if hasattr(descriptor, "bit_offset"):  # CPython 3.14
        return descriptor.byte_offset * 8 + descriptor.bit_offset, descriptor.bit_size
    # Until 3.13: the width in the upper half of the size, the position in the lower.
    return descriptor.offset * 8 + (descriptor.size & 0xFFFF), descriptor.size >> 16
