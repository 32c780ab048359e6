"""The ctypes prototype of a C function that a library under test calls.

It is taken from what the user gives, else from the library's debug information, else from the
table of known functions. Pointers are ``c_void_p`` (``c_char_p`` for ``const char *``).
"""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import Run

_INTEGERS = {
    (1, True): ctypes.c_int8,
    (1, False): ctypes.c_uint8,
    (2, True): ctypes.c_int16,
    (2, False): ctypes.c_uint16,
    (4, True): ctypes.c_int32,
    (4, False): ctypes.c_uint32,
    (8, True): ctypes.c_int64,
    (8, False): ctypes.c_uint64,
}
_FLOATS = {4: ctypes.c_float, 8: ctypes.c_double}

# The types in the table's prototypes that are no pointers; all others there are int.
_NAMED: dict[str, Any] = {
    "size_t": ctypes.c_size_t,
    "ssize_t": ctypes.c_ssize_t,
    "off_t": ctypes.c_int64,
    "time_t": ctypes.c_int64,
    "clock_t": ctypes.c_int64,
    "long": ctypes.c_long,
    "unsigned long": ctypes.c_ulong,
    "unsigned": ctypes.c_uint,
    "unsigned int": ctypes.c_uint,
    "nfds_t": ctypes.c_ulong,
    "socklen_t": ctypes.c_uint,
    "mode_t": ctypes.c_uint,
    "uid_t": ctypes.c_uint,
    "gid_t": ctypes.c_uint,
    "dev_t": ctypes.c_uint64,
    "pthread_t": ctypes.c_ulong,
    "pthread_key_t": ctypes.c_uint,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "useconds_t": ctypes.c_uint,
    "eventfd_t": ctypes.c_uint64,
    "timer_t": ctypes.c_void_p,
    "sighandler_t": ctypes.c_void_p,
    "double": ctypes.c_double,
    "va_list": ctypes.c_void_p,
}


def find(run: Run, function: str, given: Any) -> Any:
    """The prototype as ``ctypes.CFUNCTYPE`` makes it, with errno passed on.

    Args:
        run: where the libraries are.
        function: its name.
        given: what the user says: a prototype, a ctypes function with ``argtypes``, or
            a sequence of the result's type and the arguments' types; or ``None``.

    Raises:
        TypeError: ``given`` is none of these.
        LookupError: nothing is given, and nobody knows it.
    """
    if given is not None:
        return _given(function, given)
    for library in run.libraries:
        if library.debug:
            found = _from_debug(run, library.path, function)
            if found is not None:
                return found
    row = run.native.table_row(function)
    if row is not None:
        return from_text(row[8])
    raise LookupError(
        f"the prototype of {function} is not known: neither debug information nor the "
        "table has it; give it as prototype=(result, argument, ...)"
    )


def _make(result: Any, arguments: list[Any]) -> Any:
    return ctypes.CFUNCTYPE(result, *arguments, use_errno=True)


def _given(function: str, given: Any) -> Any:
    if isinstance(given, type) and hasattr(given, "_restype_"):
        prototype: Any = given
        return _make(prototype._restype_, list(prototype._argtypes_))
    if isinstance(given, (tuple, list)) and given:
        return _make(given[0], list(given[1:]))
    arguments = getattr(given, "argtypes", None)
    if arguments is not None:
        return _make(given.restype, list(arguments))
    raise TypeError(
        f"prototype={given!r} of {function}: expected what ctypes.CFUNCTYPE returns, a "
        "ctypes function with argtypes, or (result, argument, ...)"
    )


def _from_debug(run: Run, path: str, function: str) -> Any:
    cache = _OPENED
    if path not in cache:
        try:
            cache[path] = run.native.Declarations(path)
        except (OSError, ValueError):
            cache[path] = None
    described = cache[path].function(function) if cache[path] is not None else None
    if described is None:
        return None
    prototype = described["prototype"]
    if prototype["variadic"] or not prototype["complete"]:
        return None
    kinds = [_type(kind) for _, kind in prototype["parameters"]]
    result = prototype["result"]
    if any(kind is None for kind in kinds):
        return None
    made = None if result is None or result["kind"] == "void" else _type(result)
    if made is None and result is not None and result["kind"] != "void":
        return None
    return _make(made, kinds)


_OPENED: dict[str, Any] = {}


def _type(kind: dict[str, Any]) -> Any:
    """The ctypes type of a described one; ``None`` for what a mock cannot take."""
    name, size = kind["kind"], kind["size"]
    if name == "pointer":
        text = kind["to"]["spelling"] if kind.get("to") else ""
        return ctypes.c_char_p if text == "const char" else ctypes.c_void_p
    if name in {"float", "double"}:
        return _FLOATS.get(size)
    if name == "bool":
        return ctypes.c_bool
    return _INTEGERS.get((size, bool(kind.get("signed"))))


def from_text(text: str) -> Any:
    """The prototype that a line of C declares.

    Variable arguments are left out: a mock sees the fixed ones.

    Raises:
        LookupError: the text is no prototype.
    """
    found = re.match(r"(?P<result>.+?)\b[\w:\[\] ]+?\((?P<arguments>.*)\)$", text)
    if found is None:
        raise LookupError(f"no prototype: {text}")
    head = text[: text.index("(")]
    words = re.match(r"(.*?[\s*])(\S+)$", head)
    result = _of_text(words[1] if words else "int")
    arguments = [
        _of_text(part)
        for part in _split(found["arguments"])
        if part not in {"", "void", "..."}
    ]
    return _make(result, arguments)


def _split(text: str) -> list[str]:
    """Arguments at the commas that stand in no parentheses."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    parts.append(text[start:].strip())
    return parts


def _of_text(text: str) -> Any:
    text = text.strip()
    if "(*" in text or "[" in text:
        return ctypes.c_void_p
    if "*" in text:
        plain = re.sub(r"\s*\*\s*\w*$", "", text).strip()
        return ctypes.c_char_p if plain == "const char" else ctypes.c_void_p
    for name, kind in sorted(_NAMED.items(), key=lambda pair: -len(pair[0])):
        if re.match(rf"(const )?{name}\b", text):
            return kind
    return None if text == "void" else ctypes.c_int
