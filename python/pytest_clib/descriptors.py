"""Which descriptors left open by a library are lost.

A descriptor is a small number, and small numbers are everywhere, so reachability in the
sense of memory means nothing for it. One counts as held when someone could still
close it: its number stands in a block of the library that is reachable, in the library's
variables (in a word that the program has changed), in a Python object that owns
descriptors, in a variable of the test's modules, or in a block of the C heap that the library's
memory leads to (another library's list, or what was allocated while the library was loaded).
Otherwise it is lost.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import io
import select
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

from . import elf, reach

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

INT = ctypes.sizeof(ctypes.c_int)
WORD = ctypes.sizeof(ctypes.c_void_p)
ALIGNED = 2 * WORD  # where blocks of the C heap begin
FLAGS = 7  # below a chunk's size
SMALLEST = 32  # bytes of a chunk
MOST_BLOCKS = 10_000
OWNERS = (socket.socket, io.FileIO, select.epoll)


class Searcher:
    """Looks for descriptors in everything that may hold one, cheapest first.

    Args:
        blocks: (address, bytes) of the libraries' reachable blocks.
        libraries: (path, load bias) of the libraries under test.
        namespaces: dictionaries of the test's modules, classes and instances.
    """

    def __init__(
        self,
        blocks: Iterable[tuple[int, int]],
        libraries: Iterable[tuple[str, int]],
        namespaces: Iterable[dict[Any, Any]],
    ) -> None:
        self._blocks = list(blocks)
        self._libraries = libraries
        self._namespaces = namespaces

    def holds(self, descriptor: int) -> bool:
        """Whether someone could still close ``descriptor``."""
        return (
            any(any(ints_in(block, descriptor)) for block in self._contents)
            or any(
                _changed_to(descriptor, now, first) for now, first in self._variables
            )
            or descriptor in self._globals
            or descriptor in self._owned
            or any(any(ints_in(block, descriptor)) for block in self._others)
        )

    @functools.cached_property
    def _contents(self) -> list[bytes]:
        return [ctypes.string_at(address, size) for address, size in self._blocks]

    @functools.cached_property
    def _variables(self) -> list[tuple[bytes, bytes]]:
        return [
            pair for path, bias in self._libraries for pair in _variables(path, bias)
        ]

    @functools.cached_property
    def _globals(self) -> set[int]:
        values: set[int] = set()
        for namespace in self._namespaces:
            for name, value in list(namespace.items()):
                if not (isinstance(name, str) and name.isupper()):  # a constant
                    _add(values, value)
        return values

    @functools.cached_property
    def _owned(self) -> set[int]:
        values: set[int] = set()
        for owner in gc.get_objects():
            if isinstance(owner, OWNERS):
                try:
                    values.add(owner.fileno())
                except (OSError, ValueError):
                    continue  # closed
        return values

    @functools.cached_property
    def _others(self) -> list[bytes]:
        own = {address for address, _ in self._blocks}
        begin = [*self._contents, *(now for now, _ in self._variables)]
        return list(_behind(begin, own, reach.Memory().heaps))


def ints_in(memory: bytes, value: int) -> Iterator[int]:
    """The offset behind each C int in ``memory``, which begins at one, that has this value."""
    bytes_of = value.to_bytes(INT, sys.byteorder, signed=True)
    at = memory.find(bytes_of)
    while at >= 0:
        if at % INT == 0:
            yield at + INT
        at = memory.find(bytes_of, at + 1)


def _behind(
    memories: list[bytes], known: set[int], heaps: list[tuple[int, int]]
) -> Iterator[bytes]:
    """The blocks of the C heap that words in ``memories`` lead to, but for the ``known`` ones.

    A word that only looks like a pointer leads to bytes of something else: then more counts as held.
    """
    seen = set(known)
    most = len(seen) + MOST_BLOCKS
    following = list(memories)
    while following:
        memory = following.pop()
        whole = len(memory) - len(memory) % WORD
        for (word,) in struct.iter_unpack("=Q", memory[:whole]):
            if word % ALIGNED or word in seen or len(seen) >= most:
                continue
            for start, end in heaps:
                if start + ALIGNED <= word < end:
                    seen.add(word)
                    size = ctypes.c_size_t.from_address(word - WORD).value & ~FLAGS
                    if SMALLEST <= size <= end - word:
                        block = ctypes.string_at(word, size - WORD)
                        yield block
                        following.append(block)
                    break


def _variables(path: str, bias: int) -> Iterable[tuple[bytes, bytes]]:
    for segment in elf.writable_segments(path):
        start = bias + segment.address
        aligned = -start % INT
        size = segment.memory_size - aligned
        if size > 0:
            now = ctypes.string_at(start + aligned, size)
            yield now, segment.content[aligned:].ljust(size, b"\0")


def _changed_to(value: int, now: bytes, first: bytes) -> bool:
    """Whether ``value`` stands in ``now`` where it did not stand at first."""
    return any(
        first[end - INT : end] != now[end - INT : end] for end in ints_in(now, value)
    )


def _add(values: set[int], value: object) -> None:
    if type(value) is int:
        values.add(value)
    elif isinstance(value, (list, tuple, set, frozenset)):
        values.update(item for item in value if type(item) is int)
    elif isinstance(value, dict):
        values.update(item for item in value.values() if type(item) is int)
