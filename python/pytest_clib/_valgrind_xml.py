"""Valgrind's XML output, read while it is being written.

The protocol is valgrind's own (``docs/internals/xml-output-protocol4.txt`` in its sources):
a stream of elements below one root, of which only ``error`` and ``fatal_signal`` matter
here. Nothing here knows which errors are worth showing.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import TYPE_CHECKING

from .findings import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from xml.etree import ElementTree as ET

# As in the standard library's saxutils, which imports a whole client for HTTP.
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_OBJECT = re.compile(r"^(0x[0-9a-fA-F]+)$")


@dataclasses.dataclass(frozen=True)
class Error:
    """One error.

    Attributes:
        kind: valgrind's word, such as ``InvalidRead``.
        what: one line.
        stack: where it happened, innermost first.
        others: (line, stack) of what else valgrind says: where a block was
            allocated or freed, the other access of a race.
        leaked: bytes lost; 0 if it is no leak.
    """

    kind: str
    what: str
    stack: tuple[Place, ...]
    others: tuple[tuple[str, tuple[Place, ...]], ...] = ()
    leaked: int = 0

    @property
    def stacks(self) -> Iterator[tuple[Place, ...]]:
        """All stacks, the main one first."""
        yield self.stack
        for _, stack in self.others:
            yield stack


class Reader:
    """Reads what has been added to a file since the last look.

    Only errors with a frame in an object that is asked for are looked into: a leak check
    tells thousands of the interpreter's, and this runs under valgrind, too.

    Attributes:
        seen: how many errors, whosever they are, were read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self.seen = 0

    def new(self, objects: Iterable[str], skip: int = 0) -> list[Error]:
        """The errors that are complete by now, were not yet told, and are of ``objects``.

        Args:
            objects: paths, as valgrind writes them.
            skip: how many of the file's first errors do not count.
        """
        try:
            if os.stat(self._path).st_size == self._offset:  # noqa: PTH116 (asked often)
                return []
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(data)
        data = self._rest + data
        names = [name.translate(_ESCAPES).encode() for name in objects]
        errors = []
        end = 0
        for start, end in _elements(data):
            self.seen += 1
            if self.seen > skip and any(
                data.find(name, start, end) >= 0 for name in names
            ):
                from xml.etree import ElementTree as ET  # noqa: PLC0415 (takes a moment)

                errors.append(_error(ET.fromstring(data[start:end])))  # noqa: S314
        self._rest = data[end:]
        return errors


def _elements(data: bytes) -> list[tuple[int, int]]:
    """Where errors, and the signal that may follow them, begin and end."""
    found = []
    for tag in (b"error", b"fatal_signal"):
        opening, closing = b"<%s>" % tag, b"</%s>" % tag
        start = data.find(opening)
        while start >= 0:
            end = data.find(closing, start)
            if end < 0:
                break
            end += len(closing)
            found.append((start, end))
            start = data.find(opening, end)
    return sorted(found)


def _error(element: ET.Element) -> Error:
    if element.tag == "fatal_signal":
        name = element.findtext("signame") or "a signal"
        event = element.findtext("event") or ""
        address = element.findtext("siaddr") or ""
        what = f"{name}: {event}" + (f" at {address}" if address else "")
        return Error("FatalSignal", what, _stack(element.find("stack")))
    what = element.findtext("what") or element.findtext("xwhat/text") or ""
    stacks: list[tuple[str, tuple[Place, ...]]] = []
    title = what
    for child in element:
        if child.tag == "auxwhat":
            title = child.text or ""
        elif child.tag == "xauxwhat":
            title = child.findtext("text") or ""
        elif child.tag == "stack":
            stacks.append((title, _stack(child)))
            title = ""
            continue
        else:
            continue
        stacks.append((title, ()))
    main = next((stack for _, stack in stacks if stack), ())
    others = [
        pair
        for index, pair in enumerate(stacks)
        if pair[1] is not main
        and not (
            not pair[1] and index + 1 < len(stacks) and stacks[index + 1][0] == pair[0]
        )
    ]
    return Error(
        kind=element.findtext("kind") or "",
        what=what,
        stack=main,
        others=tuple(others),
        leaked=int(element.findtext("xwhat/leakedbytes") or 0),
    )


def _stack(element: ET.Element | None) -> tuple[Place, ...]:
    return tuple(_place(frame) for frame in element or ())


def _place(frame: ET.Element) -> Place:
    folder, file = frame.findtext("dir"), frame.findtext("file")
    address = frame.findtext("ip") or "0"
    return Place(
        function=frame.findtext("fn") or "",
        file=f"{folder}/{file}" if folder and file else file or "",
        line=int(frame.findtext("line") or 0),
        module=frame.findtext("obj") or "",
        offset=int(address, 16) if _OBJECT.match(address) else 0,
    )
