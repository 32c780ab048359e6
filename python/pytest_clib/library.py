"""A library under test, as people and reports know it."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import PurePath

from . import elf

SHOWN = 8  # digits of a build id in the header; reports have them all


@dataclasses.dataclass(eq=False, repr=False)
class Library:
    """A library under test.

    Attributes:
        number: how the native session calls it.
        path: as the loader knows it.
        spec: number of the ``--clib`` value that it matched.
        build_id: in hexadecimal, or ``""``.
        bias: address in memory minus address in the file.
        functions: how many functions of others it calls, all redirected.
        debug: whether it has debug information that can be found.
    """

    number: int
    path: str
    spec: int
    build_id: str
    bias: int
    functions: int
    debug: bool

    @functools.cached_property
    def variables(self) -> tuple[tuple[int, int], ...]:
        """Where its variables are in memory, as (address, bytes)."""
        return tuple(
            (self.bias + segment.address, segment.memory_size)
            for segment in elf.writable_segments(self.path)
        )

    @property
    def name(self) -> str:
        """Its file name."""
        return PurePath(self.path).name

    def header(self) -> str:
        """The line about it at the start of the session."""
        return (
            f"clib: {self.path}, build id {self.build_id[:SHOWN] or 'none'}, "
            f"{self.functions} function{'s' if self.functions != 1 else ''} hooked, "
            f"{'debug information' if self.debug else 'no debug information'}"
        )
