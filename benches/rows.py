"""What is measured, and what is to be reached."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def size(number: int) -> str:
    """Bytes for people."""
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= factor:
            return f"{number // factor} {unit}"
    return f"{number} B"


def regions(number: int) -> str:
    """So many DMA regions."""
    return f"{number:,} regions" if number != 1 else "1 region"


def threads(number: int) -> str:
    """So many threads at work."""
    return f"{number} threads" if number != 1 else "1 thread"


def nothing(_: int) -> str:
    """The row has no parameter."""
    return ""


@dataclasses.dataclass(frozen=True)
class Row:
    """A kind of work, for one or more parameters.

    Attributes:
        name: what the program calls it.
        title: what people call it.
        parameters: each is measured.
        quick: those of a quick run.
        label: a parameter in words.
        without: subjects that cannot do it.
        unit: ``ns`` an operation, or ``bytes``.
    """

    name: str
    title: str
    parameters: tuple[int, ...] = (0,)
    quick: tuple[int, ...] = (0,)
    label: Callable[[int], str] = nothing
    without: tuple[str, ...] = ()
    unit: str = "ns"


SIZES = (4, 64, 512, 4096, 65536, 1048576)

ROWS = (
    Row("read", "read, two processes", SIZES, (4, 4096), size),
    Row("write", "write, two processes", SIZES, (4, 4096), size),
    Row("read-turns", "read, one thread", (4, 512, 4096), (4,), size),
    Row("write-turns", "write, one thread", (4, 512, 4096), (4,), size),
    Row(
        "empty",
        "nothing to read, beside a failed",
        (0, 1),
        (0, 1),
        ("recv", "recvmsg").__getitem__,
    ),
    Row("burst", "posted writes in a burst", (1, 8, 64, 512), (64,), "{:,}".format),
    Row(
        "map-fd",
        "DMA map + unmap, descriptor",
        (1, 64, 1000, 16000),
        (1, 1000),
        regions,
    ),
    Row("map", "DMA map + unmap", (1, 1000, 100_000, 1_000_000), (1,), regions),
    Row(
        "translate",
        "vfu_addr_to_sgl, random",
        (1, 64, 1000, 16000),
        (1, 64, 1000),
        regions,
    ),
    Row(
        "translate-nofd",
        "vfu_addr_to_sgl, random, no descriptors",
        (1000, 100_000, 1_000_000),
        (1000,),
        regions,
    ),
    Row("threads", "vfu_addr_to_sgl, 1,000 regions", (1, 2, 4, 8), (1, 4), threads),
    # The other library does not allow it: regions vanish under the translating threads.
    Row(
        "churn",
        "... while another thread maps",
        (1, 2, 4, 8),
        (1,),
        threads,
        without=("against",),
    ),
    Row("sgl-read", "vfu_sgl_read by message", (4096, 65536, 1048576), (4096,), size),
    Row("sgl-write", "vfu_sgl_write by message", (4096, 65536, 1048576), (4096,), size),
    Row(
        "dirty",
        "dirty report of 1 GiB",
        (0, 1, 100),
        (100,),
        lambda number: f"{number} % dirty",
    ),
    Row("irq", "vfu_irq_trigger"),
    Row("cycle", "context: create, attach, one read, destroy"),
    Row(
        "contexts",
        "read 4 B, contexts by turns",
        (1, 10, 100, 1000),
        (10,),
        "{:,}".format,
    ),
    Row(
        "context-bytes",
        "an idle context",
        (1000,),
        (100,),
        "one of {:,}".format,
        without=("floor",),
        unit="bytes",
    ),
)

COUNTED = (
    ("read-turns", 4, "read 4 B"),
    ("write-turns", 4, "write 4 B"),
    ("read-turns", 4096, "read 4 KiB"),
    ("empty", 0, "run with nothing to read"),
    ("burst", 64, "64 posted writes"),
    ("map-fd", 1, "map + unmap with descriptor"),
    ("map", 1, "map + unmap"),
    ("translate", 1, "vfu_addr_to_sgl, 1 region"),
    ("translate", 64, "vfu_addr_to_sgl, 64 regions"),
    ("irq", 0, "vfu_irq_trigger"),
)


@dataclasses.dataclass(frozen=True)
class Target:
    """A figure that is to stay below (or above) a limit."""

    what: str
    row: str
    parameter: int
    figure: str
    limit: float
    least: bool = False

    def judge(self, data: dict) -> dict:
        """What was reached; ``met`` is ``None`` where it was not measured."""
        reached = self._find(data)
        met = None
        if reached is not None:
            met = reached >= self.limit if self.least else reached <= self.limit
        return {
            "what": self.what,
            "reached": None if reached is None else round(reached, 3),
            "limit": f"{'>=' if self.least else '<='} {self.limit:g}",
            "met": met,
        }

    def _find(self, data: dict) -> float | None:
        key = (self.row, self.parameter)
        for entry in data["counts"]:
            if (entry["row"], entry["parameter"]) == key and self.figure in entry[
                "counts"
            ].get("ours", {}):
                return entry["counts"]["ours"][self.figure]
        for result in data["results"]:
            if (result["row"], result["parameter"]) != key:
                continue
            if self.figure == "bytes":
                return result["bytes"].get("ours")
            if self.figure == "ns":
                return result["ns"].get("ours")
            if self.figure == "against/ours":
                found = result["ratios"].get("ours/against")
                return found and 1 / found["median"]
            found = result["ratios"].get(self.figure)
            return found and found["median"]
        return None


def _targets() -> tuple[Target, ...]:
    targets = [
        Target(f"{row} {size(parameter)} / floor", row, parameter, "ours/floor", 1.10)
        for row, parameters in (
            ("read", (4, 64, 512, 4096)),
            ("write", (4, 64, 512, 4096)),
            ("read-turns", (4, 4096)),
            ("write-turns", (4, 4096)),
        )
        for parameter in parameters
    ]
    targets += [
        Target("instructions, 4-byte read", "read-turns", 4, "instructions", 450),
        Target("system calls, 4-byte read", "read-turns", 4, "system_calls", 2),
        Target("allocations, 4-byte read", "read-turns", 4, "allocations", 0),
        Target("empty run / failed recv", "empty", 0, "ours/floor", 1.10),
        Target("64 posted writes, times as fast", "burst", 64, "against/ours", 5, True),
        Target("map + unmap, 1 / floor", "map-fd", 1, "ours/floor", 1.25),
        Target("map + unmap, 16,000 / floor", "map-fd", 16000, "ours/floor", 1.25),
        Target("system calls, map + unmap", "map-fd", 1, "system_calls", 10),
    ]
    targets += [
        Target(f"translate among {count:,}, ns", "translate", count, "ns", limit)
        for count, limit in ((1, 5), (64, 20), (1000, 35), (16000, 75))
    ]
    targets += [
        Target("sgl_read 1 MiB / floor", "sgl-read", 1 << 20, "ours/floor", 1.05),
        Target("sgl_write 1 MiB / floor", "sgl-write", 1 << 20, "ours/floor", 1.05),
        Target("dirty report, 100 % / floor", "dirty", 100, "ours/floor", 3),
        Target("idle context, bytes", "context-bytes", 1000, "bytes", 12000),
    ]
    return tuple(targets)


TARGETS = _targets()
