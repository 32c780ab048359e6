"""Scripts: a test's round trip, written down once and run natively.

``Script`` collects steps (send, call, receive, wait). ``run`` compiles them once and
executes them in native threads with the GIL released, so that what is measured is the
library and the kernel, not Python. Steps use descriptors and memory of the test; the
script keeps the Python objects alive but closes and frees nothing.
"""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pytest_clib import _native
from pytest_clib._arguments import argument, result_kind
from pytest_clib._results import (
    Comparison,
    ScriptError,
    ScriptResult,
    compare_ratios,
    table,
)
from pytest_clib._values import Field, Value, counter, cycle, instance, random

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "Comparison",
    "Script",
    "ScriptError",
    "ScriptResult",
    "compare",
    "counter",
    "cycle",
    "instance",
    "random",
    "table",
]


class HasFileno(Protocol):
    """A socket, a file, or anything else with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""


Descriptor: TypeAlias = int | HasFileno | Value
Data: TypeAlias = (
    bytes | bytearray | memoryview | ctypes.Structure | ctypes.Array[Any] | Field
)


class Script:
    """Steps that run in order, over and over. Each method returns the script itself.

    Example::

        script = (
            clib.script("read 4 bytes")
            .send(sock, header + request)
            .call(lib.vfu_run_ctx, ctx, expect=1)
            .recv(sock, 36)
        )
        print(script.run(times=10_000))
    """

    def __init__(
        self,
        name: str = "script",
        *,
        on_start: Callable[[], None] | None = None,
        on_result: Callable[[ScriptResult], None] | None = None,
    ) -> None:
        self.name = name
        self._on_start = on_start
        self._on_result = on_result
        self._steps: list[tuple[object, ...]] = []
        self._names: list[str] = []
        self._alive: list[object] = []
        self._native: _native.Script | None = None

    def send(
        self,
        fd: Descriptor,
        data: Data | Sequence[Data],
        *,
        fds: Iterable[Descriptor] = (),
    ) -> Script:
        """Sends all of ``data``.

        Args:
            fd: where to; a socket if descriptors go along.
            data: bytes, a ctypes structure, or a sequence of these and of fields
                (``counter().u16``) that differ in each iteration.
            fds: descriptors to pass with the first byte, at most 253.

        Raises:
            ValueError: there is nothing to send, or more than 253 descriptors.
        """
        passed = [self._descriptor(each) for each in fds]
        if len(passed) > 253:
            raise ValueError(
                f"{len(passed)} descriptors: the kernel passes 253 at most"
            )
        return self._add("send", self._descriptor(fd), self._bytes(data), passed)

    def call(
        self,
        function: Any,
        *args: Any,
        expect: int | None = None,
        errno: int | None = None,
    ) -> Script:
        """Calls a ctypes function.

        Args:
            function: one whose ``argtypes`` and ``restype`` are declared.
            args: its arguments, as ctypes would take them, or values (``counter()``).
            expect: what it must return; ``None`` for anything.
            errno: the errno that it must leave as well.

        Raises:
            TypeError: no ``argtypes``, another number of arguments, or a type that cannot
                be passed natively (structures by value, Python objects).
        """
        name = getattr(function, "__name__", "function")
        try:
            declared = function.argtypes
        except AttributeError:
            raise TypeError(
                f"{name} is no ctypes function: take it from a library that "
                f"ctypes.CDLL has loaded"
            ) from None
        if declared is None:
            raise TypeError(
                f"{name} has no argtypes: declare its argument types, "
                f"as in {name}.argtypes = [ctypes.c_void_p]"
            )
        if len(declared) != len(args):
            raise TypeError(
                f"{name} takes {len(declared)} arguments by its argtypes, {len(args)} are given"
            )
        if expect is None and errno is not None:
            raise TypeError(f"{name}: errno={errno} means nothing without expect=")
        address = ctypes.cast(function, ctypes.c_void_p).value
        natives = []
        for position, (kind, arg) in enumerate(zip(declared, args, strict=True)):
            native, alive = argument(kind, arg, f"argument {position} of {name}")
            if isinstance(native[1], Value):
                native = (native[0], self._value(native[1]))
            natives.append(native)
            self._alive.append(alive)
        self._alive.append(function)
        expected = None if expect is None else (expect, errno)
        return self._add(
            "call", address, name, result_kind(function, name), natives, expected
        )

    def recv(
        self, fd: Descriptor, length: int, *, expect: Data | Sequence[Data] = b""
    ) -> Script:
        """Receives exactly ``length`` bytes.

        Args:
            fd: where from.
            length: how many, 1 or more.
            expect: what they must begin with.
        """
        return self._add("recv", self._descriptor(fd), length, self._bytes(expect))

    def wait(self, fd: Descriptor) -> Script:
        """Waits until ``fd`` can be read."""
        return self._add("wait", self._descriptor(fd))

    def run(
        self,
        *,
        times: int | None = None,
        seconds: float | None = None,
        threads: int = 1,
        instances: Sequence[Mapping[str, int | HasFileno]] = (),
        warmup: int = 1,
        batch: int = 1,
        step_limit: float = 5.0,
        name: str | None = None,
    ) -> ScriptResult:
        """Runs the script natively; blocks until it has ended.

        Args:
            times: iterations of each instance; 1 if ``seconds`` is not given either.
            seconds: run for so long instead.
            threads: native threads; instances are dealt out to them.
            instances: one mapping each of the names that ``instance(name)`` uses to a
                number or an object with a descriptor. Without any, each thread runs the
                script as it is.
            warmup: iterations of each instance before anything is counted.
            batch: iterations between two looks at the clock: more than 1 for operations of
                nanoseconds, whose percentiles are then those of batches.
            step_limit: seconds that a single step may take.
            name: what to call the run in tables, instead of the script's name.

        Raises:
            ScriptError: a step failed, in order of time the first one.
            ValueError: an instance lacks a name that the script uses, or there are no steps.
        """
        if times is None and seconds is None:
            times = 1
        if self._on_start is not None:
            self._on_start()
        result = self.measure(
            times=times,
            seconds=seconds,
            threads=threads,
            instances=instances,
            warmup=warmup,
            batch=batch,
            step_limit=step_limit,
            name=name,
        )
        if self._on_result is not None:
            self._on_result(result)
        return result

    def measure(
        self,
        *,
        times: int | None = None,
        seconds: float | None = None,
        threads: int = 1,
        instances: Sequence[Mapping[str, int | HasFileno]] = (),
        warmup: int = 1,
        batch: int = 1,
        step_limit: float = 5.0,
        name: str | None = None,
    ) -> ScriptResult:
        """As ``run``, but the result is shown nowhere and counts against no budget."""
        _at_least("threads", threads, 1)
        _at_least("batch", batch, 1)
        _at_least("warmup", warmup, 0)
        if times is not None:
            _at_least("times", times, 1)
        for unit, given in (("seconds", seconds), ("step_limit", step_limit)):
            if given is not None and not 0 < given < math.inf:
                raise ValueError(f"{unit} = {given}: more than 0 is needed")
        if self._native is None:
            self._native = _native.Script(self._steps)
        try:
            figures = self._native.run(
                times=times,
                seconds=seconds,
                threads=threads,
                instances=self._numbers(instances),
                warmup=warmup,
                batch=batch,
                step_limit=step_limit,
                count=True,
            )
        except RuntimeError as error:
            if len(error.args) == 6:
                raise ScriptError(*error.args) from None
            raise
        count = len(instances) or threads
        return _result(name or self.name, min(threads, count), count, figures)

    def _add(self, *step: object) -> Script:
        self._steps.append(step)
        self._native = None
        return self

    def _numbers(
        self, instances: Sequence[Mapping[str, int | HasFileno]]
    ) -> list[list[int]]:
        if self._names and not instances:
            raise ValueError(
                f"the script uses {self._names}: run(instances=[...]) must give them"
            )
        rows = []
        for position, given in enumerate(instances):
            missing = [name for name in self._names if name not in given]
            if missing:
                raise ValueError(f"instance {position} lacks {', '.join(missing)}")
            self._alive.extend(given.values())
            rows.append([_number(given[name]) for name in self._names])
        return rows

    def _descriptor(self, fd: Descriptor) -> object:
        if isinstance(fd, Value):
            return self._value(fd)
        self._alive.append(fd)
        return _number(fd)

    def _value(self, value: Value) -> tuple[object, ...]:
        if value.native[0] != "instance":
            return value.native
        name = str(value.native[1])
        if name not in self._names:
            self._names.append(name)
        return ("instance", self._names.index(name))

    def _bytes(
        self, data: Data | Sequence[Data]
    ) -> tuple[bytes, list[tuple[int, int, object]]]:
        parts: Sequence[Any] = data if isinstance(data, (list, tuple)) else [data]
        fixed = bytearray()
        fields: list[tuple[int, int, object]] = []
        for part in parts:
            if isinstance(part, Field):
                fields.append((len(fixed), part.width, self._value(part.value)))
                fixed += bytes(part.width)
            else:
                fixed += bytes(part)
        return bytes(fixed), fields


def compare(
    a: Script,
    b: Script,
    *,
    pairs: int = 31,
    slice_seconds: float = 0.02,
    **options: Any,
) -> Comparison:
    """Runs two scripts in turn in short slices, so that a noisy machine disturbs both alike.

    Args:
        a: one script.
        b: the other; it should do the same work.
        pairs: how many slices of each; at least 6, or no verdict is possible.
        slice_seconds: how long a slice lasts.
        options: as for ``Script.run``.

    Raises:
        ScriptError: a step failed.
        ValueError: too few pairs, or an option that makes no sense.
    """
    if pairs < 6:
        raise ValueError(f"pairs = {pairs}: with fewer than 6 no verdict is possible")
    ratios = []
    for turn in range(pairs):
        first, second = (a, b) if turn % 2 == 0 else (b, a)
        one = first.measure(seconds=slice_seconds, **options)
        two = second.measure(seconds=slice_seconds, **options)
        of_a, of_b = (one, two) if first is a else (two, one)
        ratios.append(
            (of_a.seconds / of_a.operations) / (of_b.seconds / of_b.operations)
        )
    return compare_ratios(a.name, b.name, ratios)


def _at_least(name: str, given: int, least: int) -> None:
    if given < least:
        raise ValueError(f"{name} = {given}: at least {least} is needed")


def _number(given: int | HasFileno) -> int:
    number = given if isinstance(given, int) else given.fileno()
    return number & 0xFFFF_FFFF_FFFF_FFFF


_COPIED = (
    "operations",
    "seconds",
    "min_ns",
    "mean_ns",
    "p50_ns",
    "p90_ns",
    "p99_ns",
    "p999_ns",
    "max_ns",
)


def _result(
    name: str, threads: int, instances: int, figures: dict[str, Any]
) -> ScriptResult:
    operations = figures["operations"]

    def per_operation(count: int | None) -> float | None:
        return None if count is None or not operations else count / operations

    system_calls, allocations, size = figures["counters"] or (None, None, None)
    return ScriptResult(
        name=name,
        threads=threads,
        instances=instances,
        histogram=tuple(map(tuple, figures["histogram"])),
        system_calls_per_operation=per_operation(system_calls),
        allocations_per_operation=per_operation(allocations),
        bytes_per_operation=per_operation(size),
        instructions_per_operation=per_operation(figures["instructions"]),
        **{key: figures[key] for key in _COPIED},
    )
