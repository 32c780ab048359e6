"""Addresses as places that people can open in an editor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .findings import Place

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

MOST_FRAMES = 12


def of_return(native: ModuleType | Any, address: int) -> list[Place]:
    """The places of the call that returns to ``address``: inlined ones first."""
    return [_place(frame) for frame in native.symbolize_return(address)]


def of_address(native: ModuleType | Any, address: int) -> list[Place]:
    """The places of an address itself, such as that of a fault: inlined ones first."""
    return [_place(frame) for frame in native.symbolize(address)]


def of_backtrace(
    native: ModuleType | Any, site: int, backtrace: Iterable[int]
) -> tuple[Place, tuple[Place, ...]]:
    """The call site, and the callers around it, innermost first.

    Args:
        native: the native module.
        site: return address of the call.
        backtrace: return addresses outwards; its first may be ``site`` itself.
    """
    frames = of_return(native, site)
    for address in backtrace:
        if address != site:
            frames.extend(of_return(native, address))
    return frames[0], tuple(frames[1:MOST_FRAMES])


def _place(frame: tuple[Any, ...]) -> Place:
    function, file, line, module, offset, _inlined = frame
    return Place(function or "", file or "", line or 0, module or "", offset)
