"""What an ended child means: nothing wrong, or a finding that is the library's.

Classes, in the order in which they are looked for:

- ``crash``, ``abort``, ``oom-abort``, ``hang``, ``overflow``, ``use-after-free``: the
  native record has a fatal signal or the time limit, and nothing but C libraries, hooks and
  the library itself stands between the place of the fault and the library;
- ``exit``: the library called ``exit`` or one of its kin, and the child told nothing;
- ``leak``, ``fd-leak``, ``mapping-leak``: something was lost that is not lost without the failure;
- ``unnoticed``, on request: the test passed, and the library made the very calls that it
  makes without the failure.

Everything else is counted, and is no finding: a test that fails cleanly, a crash outside of the
library, a test that waits for ever for what the library could not send.
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

from . import places
from .findings import Finding, Kind, Place, Severity
from .inject import Injection, errno_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._torture_child import Ended
    from .run import Run

LEAKS = {
    "memory": Kind.LEAK,
    "descriptor": Kind.FD_LEAK,
    "mapping": Kind.MAPPING_LEAK,
}
NOUNS = {"memory": "block", "descriptor": "descriptor", "mapping": "mapping"}
GUARD_KINDS = {
    "overflow": Kind.OVERFLOW,
    "underflow": Kind.OVERFLOW,
    "use-after-free": Kind.USE_AFTER_FREE,
    "double-free": Kind.USE_AFTER_FREE,
    "invalid-free": Kind.USE_AFTER_FREE,
}
RUST_OOM = re.compile(r"memory allocation of \d+ bytes failed")
LAST_WORDS = re.compile(
    r"Assertion .* failed|panicked at|free\(\)|malloc|double free|corrupt|terminate"
)

# What these were to give back is still there when they fail, and nobody lost it.
RELEASES = frozenset({"munmap", "mremap", "close", "closedir", "fclose", "shmdt"})

# A failure of these says nothing that could be acted on.
NOT_NOTICED = frozenset({"close", "closedir", "munmap", "mq_close", "free", "madvise"})


@dataclasses.dataclass(frozen=True)
class Baseline:
    """How the test goes without a failure.

    Attributes:
        passed: it passed.
        lost: what it loses all the same.
        calls: its fallible calls, as (function, stack).
    """

    passed: bool = True
    lost: frozenset[tuple[Any, ...]] = frozenset()
    calls: tuple[tuple[str, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What one child showed.

    Attributes:
        category: how it is counted.
        findings: with what they are grouped by.
        injected: whether the call was made to fail at all.
    """

    category: str
    findings: tuple[tuple[tuple[Any, ...], Finding], ...] = ()
    injected: bool = True


class Judge:
    """Makes verdicts; symbolises each address once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._places: dict[tuple[int, bool], list[Place]] = {}
        self._ranges: list[tuple[int, int, str, int]] = []

    def judge(
        self,
        ended: Ended,
        injection: Injection | None,
        baseline: Baseline,
        test: str,
        command: Any,
        *,
        unnoticed: bool = False,
    ) -> Verdict:
        """The verdict on a child.

        Args:
            ended: how it ended.
            injection: the planned failure, if there was one.
            baseline: the test without it.
            test: node id.
            command: from the injection as it really was to the command line.
            unnoticed: also tell failures that were not noticed.
        """
        count, injected, left, end = ended.snapshot
        first = injected[0] if injected else None
        told = ended.told
        case = _Case(self, injection, first, test, command)
        if injection is not None and not count and end is None:
            return Verdict("missed", injected=False)
        if end is not None and told is None:
            if end[0] == "hang" and ended.peer:
                return Verdict("waited")
            return case.ended(end, left, ended.output)
        if told is None:
            if left is not None:
                return case.exited(left)
            return case.vanished(ended)
        found = [*case.damaged(told.get("damage", ())), *case.lost(told, baseline)]
        if found:
            return Verdict("lost", tuple(found))
        phases = told["phases"]
        failed = [name for _, name, _ in phases if name and name != "skip"]
        if (
            unnoticed
            and injection is not None
            and baseline.passed
            and not failed
            and tuple(map(tuple, told.get("calls", ()))) == baseline.calls
            and injection.function not in NOT_NOTICED
        ):
            return Verdict("unnoticed", (case.unnoticed(),))
        return Verdict("failed" if failed else "passed")

    def at(self, address: int, *, exact: bool = False) -> list[Place]:
        """The places of a return address, or with ``exact`` of an address."""
        key = (address, exact)
        if key not in self._places:
            self._places[key] = (
                places.of_address(self._run.native, address)
                if exact
                else places.of_return(self._run.native, address)
            )
        return self._places[key]

    def library_at(self, address: int) -> tuple[str, int]:
        """Path of the library under test at an address, and its load bias."""
        if len(self._ranges) != len(self._run.libraries):
            self._ranges = [
                (start, end, path, bias)
                for _, path, _, _, bias, start, end, *_ in (
                    self._run.native_session.libraries()
                )
            ]
        for start, end, path, bias in self._ranges:
            if start <= address < end:
                return path, bias
        return "", 0

    def trail(self, addresses: list[int], *, first_exact: bool) -> tuple[Place, ...]:
        """From the innermost frame of a library under test to its outermost."""
        inside = [bool(self.library_at(address)[0]) for address in addresses]
        if not any(inside):
            return ()
        start = inside.index(True)
        end = start
        while end < len(addresses) and inside[end]:
            end += 1
        found: list[Place] = []
        for number in range(start, end):
            exact = first_exact and number == 0
            found.extend(self.at(addresses[number], exact=exact))
        return tuple(found[: places.MOST_FRAMES])

    def stable(self, address: int) -> tuple[str, int]:
        """An address as it is in every process: library and offset."""
        path, bias = self.library_at(address)
        return path, address - bias


class _Case:
    """One child, as it is made into findings."""

    def __init__(
        self,
        judge: Judge,
        injection: Injection | None,
        injected: tuple[Any, ...] | None,
        test: str,
        command: Any,
    ) -> None:
        self._judge = judge
        self._injection = injection
        self._injected = injected
        self._test = test
        self._command = command

    def ended(
        self, end: tuple[Any, ...], left: tuple[Any, ...] | None, output: str
    ) -> Verdict:
        """A fatal signal, or the time limit."""
        kind, number, _, address, backtrace, blame, _, guard, _ = end
        if blame != "library":
            return Verdict("waited" if kind == "hang" else "elsewhere")
        trail = self._judge.trail(backtrace, first_exact=True)
        where = self._where(backtrace)
        details: list[str] = []
        if kind == "hang":
            what, name = Kind.HANG, "hang"
        elif guard is not None:
            what = GUARD_KINDS.get(guard[0], Kind.OVERFLOW)
            name, details = self._guard(guard, address)
        elif kind == "abort":
            out_of_memory = RUST_OOM.search(output)
            what = Kind.OOM_ABORT if out_of_memory else Kind.ABORT
            name = out_of_memory[0] if out_of_memory else "abort"
            if not out_of_memory and left is not None and left[6] not in {"", "abort"}:
                name = left[6]
            details = [line for line in output.splitlines() if LAST_WORDS.search(line)]
            details = details[-2:]
        else:
            what = Kind.CRASH
            name = f"{signal.Signals(number).name} at {address:#x}"
        return Verdict(str(what), (self._make(what, name, trail, where, details),))

    def exited(self, left: tuple[Any, ...]) -> Verdict:
        """The library ended the process."""
        _, _, code, _, backtrace, _, function, _, _ = left
        trail = self._judge.trail(backtrace, first_exact=False)
        name = f"{function}({code})"
        found = self._make(Kind.EXIT, name, trail, self._where(backtrace), [])
        return Verdict("exit", (found,))

    def vanished(self, ended: Ended) -> Verdict:
        """It ended without a word."""
        if ended.killed:
            return Verdict("waited")
        return Verdict("elsewhere")

    def lost(
        self, told: dict[str, Any], baseline: Baseline
    ) -> Iterable[tuple[tuple[Any, ...], Finding]]:
        """What was lost because of the failure."""
        groups: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
        releasing = self._injection is not None and self._injection.function in RELEASES
        for held in told["lost"]:
            kind, function, site, backtrace, _, _, _ = held
            if releasing and kind != "memory":
                continue
            key = (kind, function, site, tuple(backtrace))
            if key not in baseline.lost:
                groups.setdefault((kind, function, site), []).append(held)
        direct = [g for g in groups.values() if any(h[6] == "lost" for h in g)]
        for group in direct or groups.values():
            kind, function, site, backtrace, _, _, _ = group[0]
            size = sum(held[4] for held in group)
            noun = NOUNS[kind] + ("s" if len(group) != 1 else "")
            of = f" ({size} bytes)" if size else ""
            trail = self._judge.trail([site, *backtrace[1:]], first_exact=False)
            name = f"{len(group)} {noun} of {function}{of} lost"
            yield self._make(LEAKS[kind], name, trail, self._judge.stable(site), [])

    def damaged(
        self, damage: Iterable[tuple[Any, ...]]
    ) -> Iterable[tuple[tuple[Any, ...], Finding]]:
        """What the guard found around blocks, where no page was touched."""
        for fault, noticed in damage:
            kind, _, _, allocated, _ = fault
            what = GUARD_KINDS.get(kind, Kind.OVERFLOW)
            name, details = self._guard(fault, 0)
            if noticed:
                details.append("noticed when it was freed")
                details.extend(
                    f"  {p}" for p in self._judge.trail(noticed, first_exact=False)
                )
            trail = self._judge.trail(allocated, first_exact=False)
            where = self._judge.stable(allocated[0]) if allocated else ("", 0)
            yield self._make(what, name, trail, where, details)

    def unnoticed(self) -> tuple[tuple[Any, ...], Finding]:
        """The failure made no difference."""
        return self._make(
            Kind.UNNOTICED,
            "nothing changed",
            (),
            ("", 0),
            ["the test passed, and the library made the same calls as without it"],
        )

    def _guard(self, fault: tuple[Any, ...], address: int) -> tuple[str, list[str]]:
        kind, size, offset, allocated, freed = fault
        where = (
            f"{offset} bytes after the start"
            if offset >= 0
            else f"{-offset} bytes before"
        )
        name = f"{kind} of a block of {size} bytes, {where}"
        if address and kind in {"double-free", "invalid-free"}:
            name = f"{kind} of a block of {size} bytes"
        details = []
        for title, frames in (("allocated", allocated), ("freed", freed)):
            trail = self._judge.trail(list(frames), first_exact=False)
            if trail:
                details.append(f"{title} at {trail[0]}")
                details.extend(f"  by {place}" for place in trail[1:])
        return name, details

    def _where(self, backtrace: list[int]) -> tuple[str, int]:
        for address in backtrace:
            path, offset = self._judge.stable(address)
            if path:
                return path, offset
        return "", 0

    def _make(
        self,
        kind: Kind,
        name: str,
        trail: tuple[Place, ...],
        where: tuple[str, int],
        details: list[str],
    ) -> tuple[tuple[Any, ...], Finding]:
        """A finding, and what it is grouped by: injected site, class, place."""
        place = trail[0] if trail else None
        at = f" in {place.function}" if place is not None and place.function else ""
        function, errno, site, callers, cause = self._cause()
        library = where[0] or self._library()
        shown = (place.file, place.line, place.function) if place else where
        key = (
            str(kind),
            function,
            self._site(),
            shown if place and place.file else where,
        )
        finding = Finding(
            kind=kind,
            message=f"{name}{at}{cause}",
            test=self._test,
            severity=Severity.WARNING if kind is Kind.UNNOTICED else Severity.ERROR,
            library=library,
            function=function,
            errno=errno,
            site=site,
            backtrace=callers,
            details="\n".join(details),
            command=self._again(),
            place=place,
            trail=trail[1:],
        )
        return key, finding

    def _cause(self) -> tuple[str, str, Place | None, tuple[Place, ...], str]:
        injected = self._injected
        if injected is None or self._injection is None:
            return "", "", None, (), ""
        function, number, action, _, site, backtrace, *_ = injected
        how = self._injection.how(number)
        errno = errno_name(number) if action not in {"short", "eof"} else ""
        frames = self._judge.trail([site, *backtrace[1:]], first_exact=False)
        by = f" in {frames[0].function}" if frames and frames[0].function else ""
        cause = f", when {function}{by} {how}"
        return function, errno, frames[0] if frames else None, frames[1:], cause

    def _site(self) -> tuple[str, int]:
        return self._judge.stable(self._injected[4]) if self._injected else ("", 0)

    def _library(self) -> str:
        return self._site()[0]

    def _again(self) -> str:
        injected = self._injected
        if injected is None or self._injection is None:
            return str(self._command(None, 0))
        return str(self._command(self._injection, injected[1]))


def merge(
    groups: dict[tuple[Any, ...], tuple[Finding, set[str]]],
    found: Iterable[tuple[tuple[Any, ...], Finding]],
) -> None:
    """Add findings to groups: one stands for all, and tests are counted.

    It is the first, or better the first that is shown again by its test alone.
    """
    for key, finding in found:
        known, tests = groups.get(key, (finding, set()))
        simpler = "@" in known.command and "@" not in finding.command
        groups[key] = (finding if simpler else known, tests)
        tests.add(finding.test)


def merged(groups: dict[tuple[Any, ...], tuple[Finding, set[str]]]) -> list[Finding]:
    """One finding a group, the worst and most frequent first."""
    order = [str(kind) for kind in Kind]
    severe = Counter({"crash": 4, "abort": 3, "oom-abort": 3, "exit": 3, "hang": 2})
    found = [finding._replace(count=len(tests)) for finding, tests in groups.values()]
    return sorted(
        found,
        key=lambda f: (
            -severe[str(f.kind)],
            order.index(str(f.kind)),
            -f.count,
            f.message,
        ),
    )


def exit_status(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit status {os.WEXITSTATUS(status)}"
