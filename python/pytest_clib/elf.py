"""Which file names a library under test, judged by its name and its ELF header.

Reads headers only, never loads anything, and is pure Python: it must work where the
native module does not.
"""

from __future__ import annotations

import fnmatch
import re
import struct
from pathlib import Path, PurePath

ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
EM_X86_64 = 62
PT_DYNAMIC = 2
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER_TYPE = struct.Struct("<I")
MACHINES = {3: "i386", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 22: "S390",
            40: "ARM", 183: "AArch64", 243: "RISC-V", 258: "LoongArch"}  # fmt: skip

# auditwheel renames libfoo.so.1 to libfoo-1a2b3c4d.so.1 in a wheel's *.libs folder.
WHEEL_HASH = re.compile(r"-[0-9a-f]{8}(?=\.|$)")


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
    except FileNotFoundError:
        return "no such file"
    except (OSError, OverflowError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if entry_size < 4 or len(table) < entry_size * entries:
        return "a truncated ELF file: its program headers are missing"
    types = {
        PROGRAM_HEADER_TYPE.unpack_from(table, i * entry_size)[0]
        for i in range(entries)
    }
    if PT_DYNAMIC not in types:
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


def matches(spec: str, path: str, soname: str = "") -> bool:
    """Whether the loaded object at ``path`` is the library that ``spec`` names.

    A file name or a glob is compared with the base name, with the base name without
    a wheel's hash, with the name behind symbolic links, and with the SONAME; a path
    with the file itself.
    """
    if not path:
        return False
    if "/" in spec:
        if fnmatch.fnmatchcase(path, spec):
            return True
        try:
            return Path(spec).samefile(path)
        except OSError:
            return False
    real = PurePath(Path(path).resolve()).name
    names = {PurePath(path).name, real, soname} - {""}
    names |= {WHEEL_HASH.sub("", name) for name in names}
    return any(fnmatch.fnmatchcase(name, spec) for name in names)
