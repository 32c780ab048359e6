"""The check for memory, descriptors and mappings that a library lost in a test.

Everything that a library acquires carries the number of an *owner*: the test that runs,
the module or session fixture that is being set up, or the import of the suite. An owner
is judged when it is over: a test after its teardown, a fixture when it has been torn
down, and what is left at the end of the session. Then:

1. nothing left: done, at the cost of one look at the ledger;
2. garbage is collected until nothing more goes;
3. what is left and cannot be reached is lost, and is a finding (``reach``, ``descriptors``);
4. what can be reached is held, and looked at once more when the session ends. A test that
   failed holds things in its traceback, and had no chance to release them: it is not asked
   again, unless everything is to be told (``--clib-held``, memcheck). Then what it lost
   is a warning.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from . import descriptors, places, reach
from .findings import Finding, Kind, Severity
from .old_numbers import OldNumbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .namespaces import Variables
    from .run import Run

KINDS = {
    "memory": Kind.LEAK,
    "descriptor": Kind.FD_LEAK,
    "mapping": Kind.MAPPING_LEAK,
}
NOUNS = {"memory": "block", "descriptor": "descriptor", "mapping": "mapping"}
MOST_COLLECTIONS = 10
YOUNG = 1  # what a short test left is in the generations up to this one


@dataclasses.dataclass(eq=False, repr=False)
class Owner:
    """Who acquired something: a test, a fixture of wider scope, or the import.

    Attributes:
        number: what the ledger stores; 0 for the import.
        test: node id, or ``""``.
        name: how it is called in a report when it is not a test.
        mark: the ledger's clock when it began.
        failed: it is a test that failed, and may not have come to its end.
    """

    number: int
    test: str
    name: str = ""
    mark: int = 0
    failed: bool = False


class Leaks:
    """The check; one per run.

    Attributes:
        searched: whether the last test left something that variables do not plainly hold, so
            that all memory was searched.
        old_numbers: what holds nothing that is acquired in the running test.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._owners = {0: Owner(0, "", "the import of the suite")}
        self._fixtures: dict[object, Owner] = {}
        self._finished: list[Owner] = []
        self._current = self._owners[0]
        self._judging_late = False
        self._began = False
        self._asks_failed = run.options.held or run.options.valgrind == "memcheck"
        self.searched = False
        self.old_numbers = OldNumbers(run.native)

    @property
    def current(self) -> Owner:
        """Who what is acquired now belongs to."""
        return self._current

    def start_test(self, test: str) -> None:
        """What is acquired from now on belongs to ``test``."""
        if not self._began:
            self._began = True
            self._run.native.remember_heap()
        self._enter(self._new(test))

    def start_fixture(self, key: object, name: str) -> Owner:
        """What is acquired from now on belongs to a fixture of wider scope; tells whose it was."""
        before = self._current
        owner = self._new("", f"fixture {name}")
        self._fixtures[key] = owner
        self._enter(owner)
        return before

    def resume(self, owner: Owner) -> None:
        """What is acquired from now on belongs to ``owner`` again."""
        self._enter(owner)

    def fixture_finished(self, key: object) -> None:
        """The fixture has been torn down: judge it with the test that did so."""
        owner = self._fixtures.pop(key, None)
        if owner is not None:
            self._finished.append(owner)

    def end_test(
        self,
        *,
        failed: bool,
        stopped: bool,
        skip: Callable[[], Iterable[object]],
        namespaces: Variables,
    ) -> list[Finding]:
        """What was lost in the test that began last.

        Args:
            failed: the test failed: its traceback holds things, and nothing of it
                is looked at again.
            stopped: it failed because it was stopped here, with an exception of a callback.
            skip: tells objects that end with the test.
            namespaces: tells where the suite's variables are.
        """
        self.searched = False
        test = self._current
        over = [test, *self._finished]
        self._finished.clear()
        self._enter(self._owners[0])
        numbers = {owner.number for owner in over}
        mark = min(owner.mark for owner in over)
        if not self._left(mark, numbers):
            return []
        test.failed = failed and self._asks_failed and not stopped
        if self._plainly_held(numbers, namespaces.near, but_descriptors=failed):
            if failed and not test.failed:
                self._run.native_session.disown(self._left(mark, numbers))
            return []
        self._collect(mark, numbers)
        if not self._left(mark, numbers):
            return []
        self.searched = True
        findings = self._judge(
            numbers, test.test, skip(), namespaces(), descriptors_too=not failed
        )
        if failed and not test.failed:
            self._run.native_session.disown(self._left(mark, numbers))
        return findings

    def finish(
        self, namespaces: Callable[[], Iterable[dict[str, Any]]]
    ) -> list[Finding]:
        """What was lost by the import, or after the test that acquired it."""
        for owner in [*self._fixtures.values(), *self._finished]:
            self._finished.append(owner)
        everyone = set(self._owners)
        if any(owner.failed for owner in self._owners.values()):
            _forget_last_failure()
        if not self._left(0, everyone) or self._plainly_held(
            everyone, namespaces, but_descriptors=True
        ):
            return []
        self._collect(0, everyone)
        self._judging_late = True
        return self._judge(everyone, "", [], namespaces(), descriptors_too=False)

    def now(self) -> list[Finding]:
        """What the running test has acquired so far and lost (``clib.leaks()``)."""
        numbers = {self._current.number}
        mark = self._current.mark
        self._collect(mark, numbers)
        left = self._left(mark, numbers)
        if not left:
            return []
        session = self._run.native_session
        everything = session.held_since(0)
        states = self._classify(everything, [])
        lost = [
            (held, state)
            for held, state in zip(everything, states, strict=True)
            if held.test in numbers and state != "reachable"
        ]
        return self._findings(lost, self._current.test)

    def _new(self, test: str, name: str = "") -> Owner:
        number = len(self._owners)
        owner = Owner(number, test, name, self._run.native_session.mark())
        self._owners[number] = owner
        return owner

    def _enter(self, owner: Owner) -> None:
        self._current = owner
        self._run.native_session.set_test(owner.number)

    def _left(self, mark: int, numbers: set[int]) -> list[Any]:
        return [
            held
            for held in self._run.native_session.held_since(mark)
            if held.test in numbers
        ]

    def _collect(self, mark: int, numbers: set[int]) -> None:
        """Collect garbage until nothing more goes."""
        gc.collect(YOUNG)
        left = len(self._left(mark, numbers))
        if not left:
            return
        for _ in range(MOST_COLLECTIONS):
            collected = gc.collect()
            before, left = left, len(self._left(mark, numbers))
            if not left or (not collected and left == before):
                return

    def _plainly_held(
        self,
        numbers: set[int],
        namespaces: Callable[[], Iterable[dict[str, Any]]],
        *,
        but_descriptors: bool,
    ) -> bool:
        """Whether the suite's variables hold everything: a cheap look that may miss."""
        if self._run.options.held:
            return False
        everything = self._run.native_session.held_since(0)
        led = reach.leads_to(
            self._run.native,
            everything,
            namespaces(),
            [pair for library in self._run.libraries for pair in library.variables],
            skip=self.old_numbers.objects(),
        )
        if not all(
            yes
            for held, yes in zip(everything, led, strict=True)
            if held.test in numbers and held.kind != "descriptor"
        ):
            return False
        if but_descriptors:
            return True
        open_descriptors = [
            held
            for held in everything
            if held.test in numbers and held.kind == "descriptor"
        ]
        searcher = self._searcher(
            zip(everything, led, strict=True), reachable=True, namespaces=namespaces()
        )
        return all(searcher.holds(int(held.key)) for held in open_descriptors)

    def _searcher(
        self,
        judged: Iterable[tuple[Any, object]],
        *,
        reachable: object,
        namespaces: Iterable[dict[str, Any]],
    ) -> descriptors.Searcher:
        return descriptors.Searcher(
            [
                (int(held.key, 16), held.size)
                for held, state in judged
                if held.kind == "memory" and state == reachable
            ],
            [(library.path, library.bias) for library in self._run.libraries],
            namespaces,
        )

    def _classify(self, held: list[Any], skip: Iterable[object]) -> list[str]:
        skip = [*skip, *self.old_numbers.objects()]
        return reach.classify(self._run.native, held, skip)

    def _judge(
        self,
        numbers: set[int],
        test: str,
        skip: Iterable[object],
        namespaces: Iterable[dict[str, Any]],
        *,
        descriptors_too: bool,
    ) -> list[Finding]:
        session = self._run.native_session
        everything = session.held_since(0)
        states = self._classify(everything, skip)
        judged = list(zip(everything, states, strict=True))
        mine = [(held, state) for held, state in judged if held.test in numbers]
        lost = [
            (held, state)
            for held, state in mine
            if held.kind != "descriptor" and state != "reachable"
        ]
        open_descriptors = [held for held, _ in mine if held.kind == "descriptor"]
        if open_descriptors and descriptors_too:
            searcher = self._searcher(
                judged, reachable="reachable", namespaces=namespaces
            )
            lost.extend(
                (held, "lost")
                for held in open_descriptors
                if not searcher.holds(int(held.key))
            )
        findings = self._findings(lost, test)
        gone = {held.sequence for held, _ in lost}
        session.disown([held for held, _ in lost])
        if self._run.options.held and not self._judging_late:
            still = [(held, "held") for held, _ in mine if held.sequence not in gone]
            findings.extend(self._findings(still, test))
        return findings

    def _findings(self, lost: list[tuple[Any, str]], test: str) -> list[Finding]:
        """One finding for what was lost at the same place."""
        groups: dict[tuple[object, ...], list[tuple[Any, str]]] = defaultdict(list)
        for held, state in lost:
            state_group = "held" if state == "held" else "lost"
            stack = tuple(held.backtrace)
            key = (held.kind, held.site, stack, held.test, state_group)
            groups[key].append((held, state))
        ranked = sorted(
            groups.values(), key=lambda group: all(s == "indirect" for _, s in group)
        )
        return [self._finding(group, test) for group in ranked]

    def _finding(self, group: list[tuple[Any, str]], test: str) -> Finding:
        first = group[0][0]
        # What points to the others says more than they do.
        state = "lost" if any(s == "lost" for _, s in group) else group[0][1]
        site, backtrace = places.of_backtrace(
            self._run.native, first.site, first.backtrace
        )
        size = sum(held.size for held, _ in group)
        owner = self._owners[first.test]
        what = _quantity(len(group), NOUNS[first.kind], size)
        how = {
            "lost": "lost",
            "indirect": "lost with what pointed to it",
            "held": "still held",
        }[state]
        details = []
        if first.kind == "descriptor":
            numbers = ", ".join(held.key for held, _ in group)
            details.append(f"still open: {numbers}")
        if owner.test != (test or owner.test) or owner.name:
            details.append(f"acquired in {owner.name or owner.test}")
        late = self._judging_late and owner.test
        if late and owner.failed:
            details.append("that test ended early, and may not have come to release it")
        elif late:
            details.append("it was held when that test ended, and lost since")
        library = self._run.library(first.library)
        by = f" in {site.function}" if site.function else ""
        return Finding(
            kind=Kind.HELD if state == "held" else KINDS[first.kind],
            severity=Severity.WARNING
            if state == "held" or (late and owner.failed)
            else Severity.ERROR,
            message=f"{what} {how}: {first.function}{by}, {library.name}",
            test=test or owner.test,
            library=library.path,
            function=first.function,
            site=site,
            backtrace=backtrace,
            details="\n".join(details),
            # Else it is not asked what a failed test left.
            command=self._run.command(
                test or owner.test, *["--clib-held"] * bool(late and owner.failed)
            ),
            count=len(group),
            size=size,
        )


def _forget_last_failure() -> None:
    """As pytest does before each test: a traceback holds the variables of its functions."""
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        vars(sys).pop(name, None)


def _quantity(count: int, noun: str, size: int) -> str:
    things = f"{count} {noun}" + ("s" if count != 1 else "")
    if not size:
        return things
    total = " in all" if count != 1 else ""
    return f"{things} ({size} byte{'s' if size != 1 else ''}{total})"
