"""What a script run yields: figures with their units in their names."""

from __future__ import annotations

import dataclasses
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class ScriptError(AssertionError):
    """A step of a script did not do what it should; the message names all of it.

    Attributes:
        step: index of the step in its script.
        iteration: the iteration, from 0; negative in the warm-up.
        instance: the instance, from 0.
        errno: the error number of the failed call, 0 if there is none.
        received: the bytes that came instead of the expected ones, else ``None``.
    """

    def __init__(  # noqa: PLR0917 - one for each attribute, as the native side gives them
        self,
        message: str,
        step: int,
        iteration: int,
        instance: int,
        errno: int,
        received: bytes | None,
    ) -> None:
        super().__init__(message)
        self.step = step
        self.iteration = iteration
        self.instance = instance
        self.errno = errno
        self.received = received


@dataclasses.dataclass(frozen=True)
class ScriptResult:
    """The figures of one run. Latencies are of one operation, the whole script once.

    The ``*_per_operation`` figures are exact counts divided by ``operations``; they are
    ``None`` where nothing counted (no library under test; no instruction counter).

    Attributes:
        name: what the run is called in tables and reports.
        threads: threads that ran.
        instances: instances that ran side by side.
        operations: how often the script ran, all instances together.
        seconds: from the first measured step to the last.
        histogram: ``(nanoseconds up to, operations)`` in rising order.
        system_calls_per_operation: calls of the library into the kernel.
        allocations_per_operation: calls of the library for memory.
        bytes_per_operation: bytes that those calls asked for.
        instructions_per_operation: user-mode instructions, of client and library.
    """

    name: str
    threads: int
    instances: int
    operations: int
    seconds: float
    min_ns: int
    mean_ns: float
    p50_ns: int
    p90_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int
    histogram: tuple[tuple[int, int], ...] = dataclasses.field(repr=False)
    system_calls_per_operation: float | None = None
    allocations_per_operation: float | None = None
    bytes_per_operation: float | None = None
    instructions_per_operation: float | None = None

    @property
    def operations_per_second(self) -> float:
        """All instances together; 0 if no time passed."""
        return self.operations / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON data, for the report."""
        data = dataclasses.asdict(self)
        data["operations_per_second"] = self.operations_per_second
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ScriptResult:
        """The inverse of ``to_dict``.

        Raises:
            KeyError: a figure is missing.
        """
        fields = {each.name: data[each.name] for each in dataclasses.fields(cls)}
        fields["histogram"] = tuple(map(tuple, fields["histogram"]))
        return cls(**fields)

    def __str__(self) -> str:
        return table([self])


_COLUMNS: tuple[tuple[str, Callable[[ScriptResult], str]], ...] = (
    ("operations", lambda it: f"{it.operations:,}"),
    ("per second", lambda it: f"{it.operations_per_second:,.0f}"),
    ("mean", lambda it: duration(it.mean_ns)),
    ("p50", lambda it: duration(it.p50_ns)),
    ("p90", lambda it: duration(it.p90_ns)),
    ("p99", lambda it: duration(it.p99_ns)),
    ("p99.9", lambda it: duration(it.p999_ns)),
    ("max", lambda it: duration(it.max_ns)),
    ("syscalls", lambda it: _count(it.system_calls_per_operation)),
    ("allocations", lambda it: _count(it.allocations_per_operation)),
    ("instructions", lambda it: _count(it.instructions_per_operation)),
)


def table(results: Sequence[ScriptResult]) -> str:
    """The runs as a table for the terminal, one a line; counts are per operation."""
    rows = [["", *(title for title, _ in _COLUMNS)]]
    rows += [[it.name, *(show(it) for _, show in _COLUMNS)] for it in results]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def duration(nanoseconds: float) -> str:
    """Nanoseconds with a unit that suits them: ``812 ns``, ``4.31 us``, ``1.2 s``."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds:.0f} ns"


def _count(figure: float | None) -> str:
    return (
        "-"
        if figure is None
        else f"{figure:,.4g}"
        if figure < 1e4
        else f"{figure:,.0f}"
    )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two scripts, run in turn in short slices.

    Attributes:
        ratios: time an operation of the first took over one of the second, by slice pair.
        median: their median.
        low: lower end of the 95 % confidence interval of the median.
        high: its upper end.
    """

    a: str
    b: str
    ratios: tuple[float, ...] = dataclasses.field(repr=False)
    median: float
    low: float
    high: float

    @property
    def verdict(self) -> str | None:
        """The name of the faster one; ``None`` where the spread allows no verdict."""
        if self.high < 1:
            return self.a
        if self.low > 1:
            return self.b
        return None

    def to_dict(self) -> dict[str, Any]:
        """As JSON data (``docs/report-schema.md``)."""
        return {**dataclasses.asdict(self), "verdict": self.verdict}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comparison:
        """The inverse of ``to_dict``."""
        fields = {field.name: data[field.name] for field in dataclasses.fields(cls)}
        return cls(**{**fields, "ratios": tuple(fields["ratios"])})

    def __str__(self) -> str:
        faster = f"{self.verdict} is faster" if self.verdict else "no verdict"
        return (
            f"{self.a} / {self.b}: time ratio {self.median:.3f} "
            f"({self.low:.3f} to {self.high:.3f} with 95 % confidence, "
            f"{len(self.ratios)} pairs): {faster}"
        )


def compare_ratios(a: str, b: str, ratios: Sequence[float]) -> Comparison:
    """The median of paired ratios with its distribution-free confidence interval."""
    ordered = sorted(ratios)
    rank = _confidence_rank(len(ordered))
    return Comparison(
        a=a,
        b=b,
        ratios=tuple(ratios),
        median=statistics.median(ordered),
        low=ordered[rank],
        high=ordered[-1 - rank],
    )


def _confidence_rank(pairs: int) -> int:
    """How many ratios to leave out at each end (the sign test, two-sided 5 %)."""
    tail = probability = 0.5**pairs
    rank = 0
    while tail <= 0.025:
        rank += 1
        probability *= (pairs - rank + 1) / rank
        tail += probability
    return max(rank - 1, 0)
