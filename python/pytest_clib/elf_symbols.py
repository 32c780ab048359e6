"""Names in an ELF file: what it needs, what it defines, who compiled it.

Enough to tell how a library was instrumented and which runtime suits it. Pure Python over
the section headers; a file that cannot be read or is damaged has no names.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from typing import TYPE_CHECKING

from .elf import HEADER

if TYPE_CHECKING:
    from pathlib import Path

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC = struct.Struct("<qQ")
_SYMTAB, _DYNSYM, _DYNAMIC_SECTION = 2, 11, 6
_NEEDED = 1
_OBJECT = 1


@dataclasses.dataclass
class Names:
    """What the file says.

    Attributes:
        needed: names of the libraries that it needs.
        undefined: symbols that it takes from others.
        defined: addresses of its own symbols, local ones included if not stripped.
        variables: name, address and size of each of its variables; names may be the same.
        compilers: what its compilers left in ``.comment``.
        sections: address and size of each section, by name.
    """

    needed: list[str] = dataclasses.field(default_factory=list)
    undefined: set[str] = dataclasses.field(default_factory=set)
    defined: dict[str, int] = dataclasses.field(default_factory=dict)
    variables: list[tuple[str, int, int]] = dataclasses.field(default_factory=list)
    compilers: str = ""
    sections: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    @property
    def all(self) -> set[str]:
        """Every symbol."""
        return self.undefined | set(self.defined)

    def has(self, pattern: str) -> bool:
        """Whether some symbol matches a regular expression from its start."""
        compiled = re.compile(pattern)
        return any(compiled.match(name) for name in self.all)


def read(path: Path | str) -> Names:
    """The names in a file."""
    names = Names()
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (as the loader named it)
            data = file.read()
        _read(data, names)
    except (OSError, struct.error, IndexError):
        pass
    return names


def _read(data: bytes, names: Names) -> None:
    fields = HEADER.unpack_from(data)
    start, size, count, strings = fields[6], fields[11], fields[12], fields[13]
    sections = [_SECTION.unpack_from(data, start + i * size) for i in range(count)]
    for section in sections:
        name, kind, _, address, offset, length, link, *_ = section
        title = _text(data, sections[strings][4] + name)
        names.sections[title] = (address, length)
        if kind in {_SYMTAB, _DYNSYM}:
            _symbols(data, section, sections[link][4], names)
        elif kind == _DYNAMIC_SECTION:
            for at in range(offset, offset + length, _DYNAMIC.size):
                tag, value = _DYNAMIC.unpack_from(data, at)
                if tag == _NEEDED:
                    names.needed.append(_text(data, sections[link][4] + value))
        elif title == ".comment":
            text = data[offset : offset + length].replace(b"\0", b"\n")
            names.compilers = text.decode(errors="replace")


def _symbols(data: bytes, section: tuple[int, ...], strings: int, names: Names) -> None:
    offset, length = section[4], section[5]
    for name, info, _, index, value, size in _SYMBOL.iter_unpack(
        data[offset : offset + length - length % _SYMBOL.size]
    ):
        if not name:
            continue
        text = _text(data, strings + name)
        if index == 0:
            names.undefined.add(text)
        else:
            names.defined[text] = value
            if info & 0xF == _OBJECT and size:
                names.variables.append((text, value, size))


def _text(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode(errors="replace")
