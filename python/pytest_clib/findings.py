"""What was found: one type for every check, made in one place.

A check (leaks, callbacks, declarations, torture, ...) only builds ``Finding`` values;
the terminal, JUnit XML, the JSON report and the transport between xdist workers only
read them. Nothing here knows pytest or the native module.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Kind(str, enum.Enum):
    """The kinds of the command line's contract; the value is what users read."""

    LEAK = "leak"
    FD_LEAK = "fd-leak"
    MAPPING_LEAK = "mapping-leak"
    HELD = "held"
    CRASH = "crash"
    ABORT = "abort"
    OOM_ABORT = "oom-abort"
    EXIT = "exit"
    HANG = "hang"
    UNNOTICED = "unnoticed"
    OVERFLOW = "overflow"
    USE_AFTER_FREE = "use-after-free"
    ABI = "abi"
    CALLBACK_EXCEPTION = "callback-exception"
    MOCK_EXCEPTION = "mock-exception"
    VALGRIND = "valgrind"
    ASAN = "asan"
    UBSAN = "ubsan"

    def __str__(self) -> str:
        return self.value


class Severity(str, enum.Enum):
    """Whether a finding fails the test: an ``ERROR`` does, a ``WARNING`` is shown."""

    ERROR = "error"
    WARNING = "warning"

    def __str__(self) -> str:
        return self.value


class Place(NamedTuple):
    """A place in machine code, as far as it could be symbolised.

    Attributes:
        function: name of the function, or ``""``.
        file: source file as the debug information names it, or ``""``.
        line: line in ``file``, counted from 1; 0 when not known.
        module: path of the object that holds the address.
        offset: the address relative to where ``module`` was loaded, as a debugger
            or ``addr2line`` wants it.
    """

    function: str = ""
    file: str = ""
    line: int = 0
    module: str = ""
    offset: int = 0

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.file else ""
        if not where:
            where = f"{self.module or '?'}+{self.offset:#x}"
        return f"{self.function} ({where})" if self.function else where


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes:
        kind: see ``Kind``.
        message: one line; a whole sentence without the full stop.
        test: node id of the test it belongs to; ``""`` for the whole session.
        severity: a ``WARNING`` is listed and fails nothing.
        library: path of the library under test that it was found in.
        function: the C function that opened, failed, crashed or was declared.
        errno: name of the injected error number, such as ``"ENOMEM"``, or ``""``.
        site: the call that the library made (``function`` is the callee).
        backtrace: callers of ``site``, innermost first.
        details: more lines, shown below the message as they are.
        command: the command that shows it again.
        count: how many blocks, descriptors, ... or tests were the same.
        size: bytes lost or held, 0 where that means nothing.
        place: where it went wrong, if that is another place than ``site``: there a
            call was made to fail.
        trail: callers of ``place``, innermost first.
    """

    kind: Kind
    message: str
    test: str = ""
    severity: Severity = Severity.ERROR
    library: str = ""
    function: str = ""
    errno: str = ""
    site: Place | None = None
    backtrace: tuple[Place, ...] = ()
    details: str = ""
    command: str = ""
    count: int = 1  # type: ignore[assignment]  # tuple's method is not wanted
    size: int = 0
    place: Place | None = None
    trail: tuple[Place, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON data (the schema of ``--clib-report``)."""
        data = self._asdict()
        data["kind"] = str(self.kind)
        data["severity"] = str(self.severity)
        data["site"] = self.site and self.site._asdict()
        data["backtrace"] = [place._asdict() for place in self.backtrace]
        data["place"] = self.place and self.place._asdict()
        data["trail"] = [place._asdict() for place in self.trail]
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Finding:
        """The inverse of ``to_dict``.

        Raises:
            KeyError: a field that every finding has is missing.
            ValueError: the kind or the severity is not one of ours.
        """
        site = data.get("site")
        return cls(
            kind=Kind(data["kind"]),
            message=data["message"],
            test=data["test"],
            severity=Severity(data["severity"]),
            library=data["library"],
            function=data["function"],
            errno=data["errno"],
            site=Place(**site) if site else None,
            backtrace=tuple(Place(**place) for place in data["backtrace"]),
            details=data["details"],
            command=data["command"],
            count=data["count"],
            size=data["size"],
            place=Place(**data["place"]) if data.get("place") else None,
            trail=tuple(Place(**place) for place in data.get("trail", ())),
        )

    def lines(self) -> list[str]:
        """The finding as the terminal shows it."""
        out = [f"{self.kind}: {self.message}"]
        if self.place is not None:
            out.append(f"  at {self.place}")
            out.extend(f"  by {place}" for place in self.trail)
        if self.site is not None:
            failed = f"{self.function} failed " if self.errno or self.place else ""
            out.append(f"  {failed}at {self.site}")
        out.extend(f"  by {place}" for place in self.backtrace)
        out.extend(f"  {line}" for line in self.details.splitlines())
        if self.command:
            out.append(f"  again: {self.command}")
        return out


def count_by_kind(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings of each kind there are, in the order of ``Kind``."""
    counts: dict[str, int] = {}
    for finding in findings:
        counts[str(finding.kind)] = counts.get(str(finding.kind), 0) + 1
    order = [str(kind) for kind in Kind]
    return dict(sorted(counts.items(), key=lambda pair: order.index(pair[0])))
