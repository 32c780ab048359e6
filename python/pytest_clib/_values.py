"""Numbers that differ for each iteration or instance of a script.

A value stands wherever a step takes a number: as a descriptor, as an argument of a
call, or inside the bytes of a message (``counter().u16``). It is only a description;
the native side works it out in each iteration.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MASK = (1 << 64) - 1


@dataclasses.dataclass(frozen=True)
class Value:
    """A number that is worked out anew in each iteration.

    Attributes:
        native: what the native module takes: a tuple that begins with the kind.
    """

    native: tuple[object, ...]

    @property
    def u8(self) -> Field:
        """The low byte, for use inside a message."""
        return Field(self, 1)

    @property
    def u16(self) -> Field:
        """The low 2 bytes, little-endian."""
        return Field(self, 2)

    @property
    def u32(self) -> Field:
        """The low 4 bytes, little-endian."""
        return Field(self, 4)

    @property
    def u64(self) -> Field:
        """All 8 bytes, little-endian."""
        return Field(self, 8)


@dataclasses.dataclass(frozen=True)
class Field:
    """A value of a fixed width inside a message."""

    value: Value
    width: int


def counter(start: int = 0, step: int = 1, *, wrap: int = 0) -> Value:
    """``start``, then ``step`` more in each iteration, modulo 2**64.

    Args:
        start: the number in the first iteration.
        step: what each iteration adds; may be negative.
        wrap: after so many iterations it starts again; 0 for never.
    """
    return Value(("counter", start & _MASK, step & _MASK, _count("wrap", wrap)))


def random(low: int, high: int, *, seed: int = 0) -> Value:
    """A number from ``low`` to ``high`` inclusive; the same ones for the same ``seed``.

    Raises:
        ValueError: not ``0 <= low <= high < 2**64``.
    """
    if not 0 <= low <= high <= _MASK:
        raise ValueError(f"random({low}, {high}): 0 <= low <= high < 2**64 is needed")
    return Value(("random", seed & _MASK, low, high))


def cycle(numbers: Iterable[int]) -> Value:
    """The numbers in turn, from the first again after the last.

    Raises:
        ValueError: there are none.
    """
    listed = [number & _MASK for number in numbers]
    if not listed:
        raise ValueError("cycle() of no numbers")
    return Value(("list", listed))


def instance(name: str) -> Value:
    """The number that ``run(instances=[{name: ...}, ...])`` gives each instance."""
    return Value(("instance", name))


def _count(name: str, number: int) -> int:
    if not 0 <= number <= _MASK:
        raise ValueError(f"{name} = {number}: 0 to 2**64 - 1 is possible")
    return number
