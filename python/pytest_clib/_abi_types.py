"""Compares one type of the suite with one of the library, where it is used.

What a difference means depends on who writes and who reads the value, so every
comparison has a ``Role``. Nothing is reported that a correct program may contain: a
pointer may be declared as ``c_void_p`` or as an integer of its size, bytes may stand
for anything of their size, and whatever C cannot express is left alone.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, NamedTuple

from .findings import Severity

if TYPE_CHECKING:
    from ._abi_library import CPrototype, CType, Library
    from ._abi_suite import Declared, DeclaredSignature, RecordKey

SCALARS = frozenset({"int", "char", "bool", "enum"})


class Role(enum.Enum):
    """How a value of the type travels."""

    FIELD = "field"
    ARGUMENT = "argument"
    RESULT = "result"
    CALLBACK_ARGUMENT = "callback argument"
    CALLBACK_RESULT = "callback result"
    POINTEE = "pointee"


class Problem(NamedTuple):
    """One difference: ``where`` is the field, argument or result it lies in."""

    severity: Severity
    where: str
    text: str


class Uses:
    """Records and callbacks met on the way, to be compared as subjects of their own."""

    def __init__(self) -> None:
        self.records: list[tuple[RecordKey, int, Role]] = []
        self.callbacks: list[tuple[Declared, CPrototype, str]] = []


class Types:
    """Compares types against one library."""

    def __init__(self, library: Library, uses: Uses) -> None:
        self.library = library
        self.uses = uses

    def compare(
        self, suite: Declared, of: CType, role: Role
    ) -> tuple[Severity, str] | None:
        """The difference between two types, or ``None``."""
        if suite.kind == "opaque" or of.kind == "other":
            return None
        if suite.kind != "record":
            of = self.unwrap(of)
        if suite.kind == "void" or of.kind == "void":
            return self.void(suite, of, role)
        if suite.kind in ("pointer", "function"):
            return self.pointer(suite, of, role)
        if suite.kind == "array":
            return self.array(suite, of, role)
        if suite.kind == "record":
            return self.record(suite, of, role)
        return self.scalar(suite, of, role)

    def unwrap(self, of: CType) -> CType:
        """A record with one field that fills it is, to a caller, that field."""
        for _ in range(8):
            if of.kind != "record" or of.size is None:
                return of
            fields = self.library.record(of.ident).fields
            if len(fields) != 1 or fields[0].bit or fields[0].type.size != of.size:
                return of
            of = fields[0].type
        return of

    def void(
        self, suite: Declared, of: CType, role: Role
    ) -> tuple[Severity, str] | None:
        if suite.kind == of.kind or role is Role.POINTEE:
            return None
        if suite.kind == "void":
            if role is Role.CALLBACK_RESULT:
                text = f"returns nothing; the library expects {of.spelling}"
                return Severity.ERROR, text
            return None  # a result may be ignored
        if role in (Role.RESULT, Role.CALLBACK_RESULT):
            if role is Role.RESULT:
                text = f"read as {suite.spelling}; the library returns nothing (void)"
            else:
                text = f"returns {suite.spelling}; the library expects nothing (void)"
            return Severity.WARNING, text
        return None

    def pointer(
        self, suite: Declared, of: CType, role: Role
    ) -> tuple[Severity, str] | None:
        if of.kind == "function":
            of = dataclasses.replace(of, kind="pointer", size=8, to=of)
        if of.kind == "array" and role in (Role.ARGUMENT, Role.CALLBACK_ARGUMENT):
            of = dataclasses.replace(of, kind="pointer", size=8)
        if of.kind == "pointer":
            return self.pointed(suite, of, role)
        if of.kind == "int" and of.size == suite.size:
            return None  # an address kept as a number
        if of.kind in ("array", "record") and of.size == suite.size:
            return None
        return Severity.ERROR, (
            f"a pointer ({suite.spelling}) here, {described(of)} in the library"
        )

    def pointed(
        self, suite: Declared, of: CType, role: Role
    ) -> tuple[Severity, str] | None:
        to = of.to
        if to is None or to.kind in ("void", "other"):
            return None
        if suite.kind == "function":
            if to.kind == "function" and to.prototype is not None:
                self.uses.callbacks.append((suite, to.prototype, of.spelling))
                return None
            return Severity.ERROR, (
                f"a callback here, {of.spelling} in the library, which is no function"
            )
        if suite.to is None or to.kind == "function":
            return None
        if suite.text:
            return self.text(suite.to, of, to)
        inner = suite.to
        if inner.kind == "array" and to.kind != "array" and inner.to is not None:
            inner = inner.to  # POINTER(T * n) for T *
        if to.kind == "array" and inner.kind != "array" and to.to is not None:
            to = to.to
        return self.pointee(inner, to, role)

    def text(
        self, letter: Declared, of: CType, to: CType
    ) -> tuple[Severity, str] | None:
        """``c_char_p`` may stand for any bytes; ``c_wchar_p`` means 4 bytes a letter."""
        if letter.size == 1 or to.kind not in SCALARS or to.size == letter.size:
            return None
        return Severity.ERROR, (
            f"text of {letter.size} bytes a character here, {of.spelling} in the library"
        )

    def pointee(
        self, inner: Declared, to: CType, role: Role
    ) -> tuple[Severity, str] | None:
        if inner.kind == "record" and to.kind == "record":
            if inner.record is not None:
                self.uses.records.append((inner.record, to.ident, role))
            return None
        if inner.kind == "pointer" and to.kind == "pointer":
            return self.pointed(inner, to, Role.POINTEE)
        if "record" in (inner.kind, to.kind) or "array" in (inner.kind, to.kind):
            return None
        if inner.kind in ("void", "opaque", "function"):
            return None
        if inner.size is not None and to.size is not None and inner.size != to.size:
            # Bytes are how raw buffers are passed; but an int behind one is cut short.
            severity = (
                Severity.WARNING if 1 in (inner.size, to.size) else Severity.ERROR
            )
            return severity, (
                f"points to {inner.spelling} ({inner.size} bytes) here, "
                f"to {to.spelling} ({to.size} bytes) in the library"
            )
        if inner.size == 1:
            return None
        found = self.compare(inner, to, Role.POINTEE)
        if found is None:
            return None
        return found[0], f"points to another type: {found[1]}"

    def array(
        self, suite: Declared, of: CType, role: Role
    ) -> tuple[Severity, str] | None:
        inner = suite.to
        if inner is None:
            return None
        if role in (Role.ARGUMENT, Role.CALLBACK_ARGUMENT) and of.kind == "pointer":
            as_pointer = dataclasses.replace(suite, kind="pointer", size=8)
            return self.pointed(as_pointer, of, role)
        if of.kind == "pointer":
            return Severity.ERROR, (
                f"an array in place ({suite.spelling}) here, a pointer "
                f"({of.spelling}) in the library"
            )
        if of.size is None or of.count == 0:
            return None  # a flexible array; the record's size tells the rest
        if suite.size != of.size:
            return Severity.ERROR, (
                f"{suite.size} bytes ({suite.spelling}) here, {described(of)} in the library"
            )
        if of.kind != "array" or inner.size == 1:
            return None
        element = of
        while element.kind == "array" and element.to is not None:
            element = element.to
        while inner.kind == "array" and inner.to is not None:
            inner = inner.to
        if inner.size != element.size:
            return None  # the same bytes, cut another way
        found = self.compare(inner, element, role)
        return None if found is None else (found[0], f"elements: {found[1]}")

    def record(
        self, suite: Declared, of: CType, role: Role
    ) -> tuple[Severity, str] | None:
        if of.kind == "record":
            if suite.record is not None and of.size is not None:
                self.uses.records.append((suite.record, of.ident, role))
            if suite.size != of.size and of.size is not None:
                return Severity.ERROR, (
                    f"{suite.size} bytes ({suite.spelling}) here, "
                    f"{described(of)} in the library"
                )
            return None
        if of.size == suite.size and role is Role.FIELD:
            return None
        if of.kind == "array" and of.size in (None, 0):
            return None
        return Severity.ERROR, (
            f"a {suite.spelling} by value ({suite.size} bytes) here, "
            f"{described(of)} in the library"
        )

    def scalar(
        self, suite: Declared, of: CType, role: Role
    ) -> tuple[Severity, str] | None:
        floats = (suite.kind == "float", of.kind == "float")
        if floats[0] != floats[1] and of.kind in (*SCALARS, "float", "pointer"):
            return Severity.ERROR, (
                f"{described(suite)} here, {described(of)} in the library"
            )
        if suite.size is None or of.size is None:
            return None
        if suite.size != of.size:
            return self.sizes(suite, of, role)
        if of.kind in ("pointer", "array", "record") or floats[0]:
            return None
        return self.signs(suite, of)

    def sizes(
        self, suite: Declared, of: CType, role: Role
    ) -> tuple[Severity, str] | None:
        severity = Severity.ERROR
        wider = (suite.size or 0) > (of.size or 0)
        text = f"{described(suite)} here, {described(of)} in the library"
        if role is Role.RESULT and suite.default and not wider:
            text = f"no restype, so it is cut to a 4-byte int; it is {described(of)}"
        elif role is Role.ARGUMENT and (wider or suite.kind == "bool"):
            severity = Severity.WARNING  # passed in a register of 8 bytes either way
        elif role is Role.CALLBACK_RESULT and wider:
            severity = Severity.WARNING
        elif role is Role.RESULT and wider and suite.size == 4:
            severity = Severity.WARNING  # compilers extend to an int, the ABI need not
        return severity, text

    def signs(self, suite: Declared, of: CType) -> tuple[Severity, str] | None:
        if suite.kind not in ("int", "char") or of.kind not in ("int", "char"):
            return None
        if suite.signed is None or of.signed is None or suite.signed == of.signed:
            return None
        if of.name == "char":
            return None  # plain char: the sign means nothing
        return Severity.WARNING, (
            f"{sign(suite.signed)} ({suite.spelling}) here, "
            f"{sign(of.signed)} ({of.spelling}) in the library"
        )

    def signature(
        self, suite: DeclaredSignature, of: CPrototype, *, callback: bool
    ) -> list[Problem]:
        """The differences between two signatures."""
        problems = []
        role = Role.CALLBACK_RESULT if callback else Role.RESULT
        found = self.compare(suite.result, of.result, role)
        if found is not None:
            problems.append(Problem(found[0], "result", found[1]))
        if suite.arguments is None:
            return problems
        problems.extend(count_problems(suite, of, callback=callback))
        if not of.complete and len(suite.arguments) != len(of.parameters):
            return problems
        role = Role.CALLBACK_ARGUMENT if callback else Role.ARGUMENT
        pairs = zip(suite.arguments, of.parameters, strict=False)
        for number, (argument, (name, parameter)) in enumerate(pairs, 1):
            found = self.compare(argument, parameter, role)
            if found is not None:
                where = f"argument {number}" + (f" ({name})" if name else "")
                problems.append(Problem(found[0], where, found[1]))
        return problems


def count_problems(
    suite: DeclaredSignature, of: CPrototype, *, callback: bool
) -> list[Problem]:
    """Too few or too many arguments."""
    given = len(suite.arguments or ())
    wanted = len(of.parameters)
    if given == wanted:
        return []
    if given > wanted and (of.variadic or not of.complete):
        return []
    # Arguments that a callback does not name are there all the same.
    severity = Severity.WARNING if callback and given < wanted else Severity.ERROR
    text = f"{given} here, {wanted} in the library"
    return [Problem(severity, "number of arguments", text)]


def sign(signed: bool) -> str:
    """The word."""
    return "signed" if signed else "unsigned"


def described(of: Declared | CType) -> str:
    """Spelling and size."""
    size = "unknown size" if of.size is None else plural(of.size, "byte")
    return f"{of.spelling} ({size})"


def plural(count: int, word: str) -> str:
    """``1 byte``, ``2 bytes``."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
