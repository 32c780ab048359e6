"""The texts of ASAN, LSan and UBSan, taken apart.

Frames come in the form that ``FRAMES`` asks for, so that module and offset are always
there, also where the runtime has no symbolizer.
"""

from __future__ import annotations

import dataclasses
import re

from .findings import Place

FRAMES = "#%n|%p|%m|%o|%f|%s|%l|"
_FRAME = re.compile(
    r"#\d+\|(?P<pc>0x[0-9a-f]+)\|(?P<module>[^|]*)\|(?P<offset>[^|]*)\|"
    r"(?P<function>[^|]*)\|(?P<file>[^|]*)\|(?P<line>[^|]*)\|"
)
_ERROR = re.compile(
    r"^==\d+==\s*(?:ERROR|WARNING): (?P<who>\w+Sanitizer): (?P<what>.*)$"
)
_LEAK = re.compile(
    r"^(?P<how>Direct|Indirect) leak of (?P<size>\d+) byte\(s\) in (?P<count>\d+)"
)
_RUNTIME = re.compile(
    r"^(?:(?P<file>[^:\s]*):(?P<line>\d+):(?:\d+:)? |\S+ )?runtime error: (?P<what>.*)$"
)
_TITLE = re.compile(
    r"^(READ|WRITE) of size|^(previously |freed by|allocated by|Thread T\d+ created)"
    r"|is located|^\s*(0x)?[0-9a-f]+ is |^Address "
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclasses.dataclass
class Report:
    """One report.

    Attributes:
        tool: ``asan``, ``lsan`` or ``ubsan``.
        what: one line.
        stacks: (title, frames), the main one first.
        leaked: bytes, for a leak.
        count: blocks, for a leak.
        place: where UBSan says it is.
    """

    tool: str
    what: str
    stacks: list[tuple[str, list[Place]]] = dataclasses.field(default_factory=list)
    leaked: int = 0
    count: int = 1
    direct: bool = True
    place: Place | None = None


def parse(text: str) -> list[Report]:
    """The reports in a log, in their order."""
    reports: list[Report] = []
    current: Report | None = None
    title = ""
    within_frames = False
    for raw in text.splitlines():
        line = _COLOUR.sub("", raw).rstrip()
        frame = _FRAME.search(line)
        if frame and current is not None:
            if not within_frames:
                current.stacks.append((title, []))
                title = ""
            current.stacks[-1][1].append(_place(frame))
            within_frames = True
            continue
        within_frames = False
        begun = _begin(line, current)
        if begun is not None:
            current, title = begun, ""
            if current.what:
                reports.append(current)
        elif _TITLE.match(line):
            title = line.strip().rstrip(":")
    return reports


def _begin(line: str, current: Report | None) -> Report | None:
    """The report that begins with this line, if one does."""
    if error := _ERROR.match(line):
        if error["who"] == "LeakSanitizer":
            return Report("lsan", "")  # each leak has a line of its own
        what = re.sub(r" (on|at)( unknown)? address.*| \(pc 0x.*", "", error["what"])
        return Report("asan", what)
    if (leak := _LEAK.match(line)) and current is not None:
        count = int(leak["count"])
        blocks = f"{count} block{'s' if count != 1 else ''}"
        direct = leak["how"] == "Direct"
        how = "lost" if direct else "lost with what pointed to it"
        what = f"{blocks} ({leak['size']} bytes) {how}"
        return Report(
            "lsan", what, leaked=int(leak["size"]), count=count, direct=direct
        )
    if runtime := _RUNTIME.match(line):
        place = Place(file=runtime["file"] or "", line=int(runtime["line"] or 0))
        return Report("ubsan", runtime["what"], place=place)
    return None


def _place(frame: re.Match[str]) -> Place:
    def known(name: str) -> str:
        text = frame[name]
        return "" if text in {"<null>", "(null)", "??", "<unknown module>"} else text

    offset = known("offset")
    return Place(
        function=known("function"),
        file=known("file"),
        line=int(known("line") or 0),
        module=known("module"),
        offset=int(offset, 16) if offset.startswith("0x") else 0,
    )
