"""From the count of a test's fallible calls to the failures that it is put through.

A *site* is a function called with one stack of return addresses inside the libraries.

- ``sites``: the first call at each site fails once in each test, with the likeliest errno.
- ``each``: every call fails once in each test; with ``each:N``, where more than N are made at
  one site in a test, N of them: the first, the last, and others evenly between.
- With both, what else may happen to a call (its other errnos, EINTR, short counts, the
  end of a file) is tried once per site, in the first test that comes there; with ``each``,
  in every test. A short count is tried once more for a message that brings descriptors.

Some things never happen, and are not tried: EAGAIN from a descriptor in blocking mode, a
short count of one byte, a call that is interrupted for ever, and calls that fail for wrong
arguments only (``sysconf``, ``uname``).
"""

from __future__ import annotations

import errno as errnos
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from .inject import Injection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

# What a call answers when it was called wrongly: a library that calls rightly never sees it.
MISUSE = frozenset({errnos.EINVAL, errnos.EFAULT, errnos.EBADF, errnos.ENOTSOCK})

# They may fail by the standard, and never do with glibc.
NEVER = frozenset(
    {
        "pthread_mutex_init",
        "pthread_mutexattr_init",
        "pthread_cond_init",
        "pthread_condattr_init",
        "pthread_rwlock_init",
        "pthread_attr_init",
        "pthread_spin_init",
        "sem_init",
    }
)

# Answers that the caller is to try again after: never given for ever.
AGAIN = frozenset({errnos.EINTR, errnos.EAGAIN})


class Call(NamedTuple):
    """A fallible call, as the native log tells it."""

    function: str
    group: str
    library: int
    site: int
    stack: int
    call: int
    ordinal: int
    at_stack: int
    thread: int
    partial: bool
    reads: bool
    nonblocking: bool
    passed: bool


class Planner:
    """Plans tests one after another; remembers the sites that were met.

    Attributes:
        left_out: how many calls of the test planned last were more than ``most`` at a site.
    """

    def __init__(
        self, native: ModuleType | Any, mode: str, *, most: int = 0, later: bool
    ) -> None:
        self._native = native
        self._each = mode == "each"
        self._most = most
        self._later = later
        self.left_out = 0
        self._met: set[tuple[str, int]] = set()
        self._met_passing: set[tuple[str, int]] = set()
        self._errnos: dict[str, tuple[int, ...]] = {}

    def plan(self, calls: Iterable[Call]) -> list[Injection]:
        """The failures for a test that makes these calls, in their order."""
        planned: list[Injection] = []
        here: set[tuple[str, int]] = set()
        for call in self._chosen(calls):
            site = (call.function, call.stack)
            if self._each or site not in here:
                planned.extend(self._failures(call))
            if (self._each or site not in here) and (
                self._each or site not in self._met
            ):
                planned.extend(self._variants(call, first=site not in self._met))
            elif call.passed and site not in self._met_passing:
                planned.extend(self._short(call))
            if call.passed:
                self._met_passing.add(site)
            here.add(site)
            self._met.add(site)
        return planned

    def _chosen(self, calls: Iterable[Call]) -> list[Call]:
        """Those that can fail, and at each site no more than were asked for."""
        fallible = [call for call in calls if not self._never_fails(call.function)]
        self.left_out = 0
        if not self._most:
            return fallible
        made = Counter((call.function, call.stack) for call in fallible)
        turns = {site: spread(count, self._most) for site, count in made.items()}
        turn: Counter[tuple[str, int]] = Counter()
        chosen = []
        for call in fallible:
            site = (call.function, call.stack)
            if turn[site] in turns[site]:
                chosen.append(call)
            turn[site] += 1
        self.left_out = len(fallible) - len(chosen)
        return chosen

    def _target(self, call: Call) -> dict[str, Any]:
        return {"nth": call.at_stack, "stack": call.stack}

    def _failures(self, call: Call) -> Iterator[Injection]:
        """The likeliest failure of a call."""
        first = next(iter(self._possible(call)), 0)
        yield Injection(call.function, errno=first, **self._target(call))
        if self._later:
            lasting = next((e for e in self._possible(call) if e not in AGAIN), None)
            if lasting is not None or not self._row_errnos(call.function):
                yield Injection(
                    call.function, errno=lasting or 0, later=True, **self._target(call)
                )

    def _variants(self, call: Call, *, first: bool) -> Iterator[Injection]:
        """What else may happen to a call."""
        for number in self._possible(call)[1:]:
            if first or number == errnos.EINTR:
                yield Injection(call.function, errno=number, **self._target(call))
        yield from self._short(call)
        if call.reads:
            # What has come to its end stays there.
            yield Injection(
                call.function, action="eof", later=True, **self._target(call)
            )

    def _short(self, call: Call) -> Iterator[Injection]:
        if call.partial:
            yield Injection(call.function, action="short", **self._target(call))

    def _possible(self, call: Call) -> tuple[int, ...]:
        """The errnos that this call may give, the likeliest first."""
        numbers = self._row_errnos(call.function)
        if call.function == "fcntl":
            return (0,)  # depends on its command, which the engine looks at
        transfers = call.group in {"socket", "file", "fd"}
        if transfers and not call.nonblocking:
            numbers = tuple(n for n in numbers if n != errnos.EAGAIN)
        return numbers or (0,)

    def _never_fails(self, function: str) -> bool:
        if function in NEVER:
            return True
        numbers = self._row_errnos(function)
        return bool(numbers) and function != "fcntl" and MISUSE.issuperset(numbers)

    def _row_errnos(self, function: str) -> tuple[int, ...]:
        if function not in self._errnos:
            row = self._native.table_row(function)
            self._errnos[function] = tuple(row[4]) if row else ()
        return self._errnos[function]


def spread(count: int, most: int) -> frozenset[int]:
    """At most so many of the numbers below ``count``: first, last, and evenly between."""
    if count <= most:
        return frozenset(range(count))
    step = (count - 1) / max(most - 1, 1)
    return frozenset(round(number * step) for number in range(most))
