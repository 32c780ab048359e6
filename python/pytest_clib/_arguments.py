"""ctypes arguments and results as plain numbers, for calls without Python.

An argument becomes ``(kind, number)`` and the object that has to stay alive. What cannot
be passed in registers as a number (structures by value, Python objects) is refused.
"""

from __future__ import annotations

import ctypes
import operator
from typing import Any

from pytest_clib._values import Value

_MASK = (1 << 64) - 1
_SIMPLE: type = ctypes.c_int.__mro__[1]
_POINTER: type = ctypes.POINTER(ctypes.c_int).__mro__[1]
_FUNCTION: type = ctypes.CFUNCTYPE(None).__mro__[1]
_SIGNED = "bhilq"
_UNSIGNED = "cBHILQ"
_ADDRESSES = "PzZ"


def _code(kind: Any) -> str:
    """The type code of a simple ctypes type, else ``""``."""
    return getattr(kind, "_type_", "") if issubclass(kind, _SIMPLE) else ""


def argument(kind: Any, given: Any, where: str) -> tuple[tuple[str, object], object]:
    """``given`` as the native call takes it, by its declared type ``kind``.

    Raises:
        TypeError: it cannot be passed as a number, or does not suit its type.
    """
    if not isinstance(kind, type):
        raise TypeError(f"{where}: the declared type {kind!r} is not a ctypes type")
    code = _code(kind)
    if code in ("f", "d"):
        name = "float" if code == "f" else "double"
        return (name, float(getattr(given, "value", given))), None
    if isinstance(given, Value):
        return ("integer", given), None
    if code and code in _SIGNED + _UNSIGNED + "?":
        number = getattr(given, "value", given)
        if isinstance(number, bytes) and code == "c":
            number = number[0]
        try:
            number = operator.index(number)
        except TypeError:
            raise TypeError(
                f"{where}: {given!r} is no number to pass as {kind.__name__}"
            ) from None
        return (
            "integer",
            kind(number).value & _MASK if code not in "c?" else number,
        ), None
    if (code and code in _ADDRESSES) or issubclass(kind, (_POINTER, _FUNCTION)):
        address, alive = _address(kind, given, where)
        return ("integer", address & _MASK), alive
    raise TypeError(f"{where}: {kind.__name__} cannot be passed without Python")


def _address(kind: Any, given: Any, where: str) -> tuple[int, object]:
    if given is None:
        return 0, None
    if isinstance(given, int):
        return given, None
    target = getattr(given, "_obj", given)  # byref(x)._obj is x
    if target is not given:
        return ctypes.addressof(target), target
    if isinstance(given, (ctypes.Structure, ctypes.Union, ctypes.Array)):
        return ctypes.addressof(given), given
    try:
        if isinstance(given, (bytes, str)):
            given = kind(given)
        return ctypes.cast(given, ctypes.c_void_p).value or 0, given
    except (TypeError, ctypes.ArgumentError) as error:
        raise TypeError(
            f"{where}: {type(given).__name__} has no address to pass as {kind.__name__}"
        ) from error


def result_kind(function: Any, name: str) -> tuple[str, int]:
    """How the native call reads the result of a ctypes function.

    Raises:
        TypeError: its ``restype`` is neither a number nor an address.
    """
    kind: Any = function.restype
    if kind is None:
        return "void", 0
    if isinstance(kind, type) and issubclass(kind, (_SIMPLE, _POINTER, _FUNCTION)):
        code = _code(kind)
        if code == "?":
            return "bool", 1
        if code == "d":
            return "double", 8
        if code and code in _SIGNED:
            return "signed", ctypes.sizeof(function.restype)
        if not code or code in _UNSIGNED + _ADDRESSES:
            return "unsigned", ctypes.sizeof(function.restype)
    raise TypeError(f"{name}: a result of type {kind!r} cannot be read without Python")
