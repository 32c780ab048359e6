"""Which file names a library under test, judged by its name and its ELF header.

Reads headers only, never loads anything, and is pure Python: it must work where the
native module does not.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
EM_X86_64 = 62
PT_LOAD, PT_DYNAMIC = 1, 2
PF_W = 2
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
MACHINES = {3: "i386", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 22: "S390",
            40: "ARM", 183: "AArch64", 243: "RISC-V", 258: "LoongArch"}  # fmt: skip


def is_glob(spec: str) -> bool:
    """Whether ``spec`` has characters that mean something to ``fnmatch``."""
    return any(char in spec for char in "*?[")


def why_unusable(path: Path) -> str:
    """Why the file at ``path`` cannot be a library under test; ``""`` if it can."""
    try:
        with path.open("rb") as file:
            head = file.read(HEADER.size)
            if head[:8] == b"!<arch>\n":
                return (
                    "a static archive; name the shared object that it was linked into"
                )
            if head[:4] != b"\x7fELF":
                return "not an ELF file"
            reason = _judge_header(head)
            if reason:
                return reason
            fields = HEADER.unpack(head)
            offset, entry_size, entries = fields[5], fields[9], fields[10]
            file.seek(offset)
            table = file.read(entry_size * entries)
            size = file.seek(0, 2)
    except FileNotFoundError:
        return "no such file"
    except (OSError, OverflowError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if entry_size < PROGRAM_HEADER.size or len(table) < entry_size * entries:
        return "a truncated ELF file: its program headers are missing"
    headers = [
        PROGRAM_HEADER.unpack_from(table, i * entry_size) for i in range(entries)
    ]
    needed = max((one[2] + one[5] for one in headers if one[0] == PT_LOAD), default=0)
    if size < needed:
        return (
            f"a truncated ELF file: it has {size} bytes, and its segments need {needed}"
        )
    if PT_DYNAMIC not in [one[0] for one in headers]:
        return (
            "a static object: it has no dynamic section, so nothing can be redirected"
        )
    return ""


def _judge_header(head: bytes) -> str:
    if len(head) < HEADER.size:
        return "a truncated ELF file: its header is missing"
    word_size, byte_order = head[4], head[5]
    if byte_order != 1:
        return "built for a big-endian machine, not for x86-64"
    machine = struct.unpack_from("<H", head, 18)[0]
    if machine != EM_X86_64:
        name = MACHINES.get(machine, f"machine {machine}")
        return f"built for {name}, not for x86-64"
    if word_size != 2:
        return "built for x32 (32-bit pointers), not for x86-64"
    kind = struct.unpack_from("<H", head, 16)[0]
    if kind == ET_REL:
        return "an object file (.o); link it into a shared object first"
    if kind == ET_CORE:
        return "a core dump, not a shared object"
    if kind not in (ET_EXEC, ET_DYN):
        return f"an ELF file of type {kind}, not a shared object"
    return ""


class Segment(NamedTuple):
    """A part of a library that it can write to.

    Attributes:
        address: where it begins, relative to the load bias.
        memory_size: bytes in memory.
        content: how it begins in the file; the rest is zero at first.
    """

    address: int
    memory_size: int
    content: bytes


def writable_segments(path: str) -> Iterator[Segment]:
    """The writable segments of a loaded library; none if its file cannot be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (as the loader named it)
            fields = HEADER.unpack(file.read(HEADER.size))
            offset, entry_size, entries = fields[5], fields[9], fields[10]
            file.seek(offset)
            table = file.read(entry_size * entries)
            for i in range(entries):
                kind, flags, start, address, _, size, memory_size, _ = (
                    PROGRAM_HEADER.unpack_from(table, i * entry_size)
                )
                if kind == PT_LOAD and flags & PF_W:
                    file.seek(start)
                    yield Segment(address, memory_size, file.read(size))
    except (OSError, struct.error):
        return
