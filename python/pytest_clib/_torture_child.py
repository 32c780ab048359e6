"""A forked copy of the process runs one test with one call failing, and tells how it went.

The copy is made in the middle of pytest's own course, just before the test's own fixtures
are set up, so that everything before it is there: module fixtures, and what earlier tests
left behind. From there the copy goes on as pytest would, up to the first report; then it
runs the rest itself, tears down the test's own fixtures and no others, and leaves by
``os._exit``. It never returns to what reports, counts, or talks to other processes.

What it has to tell is written to a memory file before it ends. What happens to it is in
the native record, whatever way it ends.
"""

from __future__ import annotations

import contextlib
import gc
import marshal
import os
import select
import signal
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from . import descriptors, reach
from ._torture_fds import waits_for_peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .namespaces import Variables
    from .run import Run

CRASHED = 82
EXPIRED = 83
GRACE = 5.0  # seconds that a child has beyond its limit to end by itself
LATE = 0.9  # of the limit: when a child is looked at
MOST_OUTPUT = 1 << 16


class Ended(NamedTuple):
    """How a child ended.

    Attributes:
        told: what it wrote before it left; ``None`` if it did not come so far.
        status: as ``os.waitpid`` gives it.
        snapshot: the native record.
        output: the end of what it printed.
        seconds: how long it took.
        killed: it had to be killed.
        peer: shortly before its limit it waited for another end that did not read.
    """

    told: dict[str, Any] | None
    status: int
    snapshot: tuple[Any, ...]
    output: str
    seconds: float
    killed: bool
    peer: bool = False


class Nursery:
    """Makes children, and waits for them; one per process that executes tests."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._record = run.native.Record()
        self._told = os.memfd_create("pytest-clib-told", os.MFD_CLOEXEC)
        self._output = os.memfd_create("pytest-clib-output", os.MFD_CLOEXEC)

    def run(
        self,
        item: pytest.Item,
        limit: float,
        begin: Callable[[], object],
        finish: Callable[[], dict[str, Any]],
        accepted: frozenset[int] | set[int] = frozenset(),
    ) -> tuple[Ended | None, Child | None]:
        """Fork. The parent gets how the child ended; the child gets itself.

        Args:
            item: the test that is about to run.
            limit: seconds that the child has.
            begin: what the child does first.
            finish: what the child adds to what it tells, after its test.
            accepted: digests of things left behind that are known to be held.
        """
        os.ftruncate(self._told, 0)
        os.ftruncate(self._output, 0)
        self._record.clear()
        self._record.activate()
        began = time.monotonic()
        interrupts = _Interrupts()
        with warnings.catch_warnings():
            # The child touches nothing that another thread may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                pid = os.fork()
            except OSError:
                interrupts.resume()
                raise
        if pid == 0:
            child = Child(self._run, item, self._told, finish, accepted)
            child.start(self._output, limit)
            begin()
            return None, child
        try:
            interrupts.resume()
            status, killed, peer = _wait(pid, limit)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        finally:
            self._record.deactivate()
        return (
            Ended(
                told=self._read_told(),
                status=status,
                snapshot=self._record.snapshot(),
                output=self._read_output(),
                seconds=time.monotonic() - began,
                killed=killed,
                peer=peer,
            ),
            None,
        )

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self._told)
        os.close(self._output)

    def _read_told(self) -> dict[str, Any] | None:
        size = os.fstat(self._told).st_size
        if not size:
            return None
        data = os.pread(self._told, size, 0)
        try:
            told = marshal.loads(data)  # noqa: S302 (our own child wrote it)
        except (EOFError, ValueError, TypeError):
            return None
        return told if isinstance(told, dict) else None

    def _read_output(self) -> str:
        size = os.fstat(self._output).st_size
        start = max(0, size - MOST_OUTPUT)
        return os.pread(self._output, size - start, start).decode("utf-8", "replace")


class _Interrupts:
    """Holds Ctrl-C back: in what Python does after a fork, its exception would be lost.

    By a handler, not by a mask: a signal to the process reaches any thread of it.
    """

    def __init__(self) -> None:
        self._came: list[tuple[int, Any]] = []
        self._handler = signal.getsignal(signal.SIGINT)
        self._held = callable(self._handler) and (
            threading.current_thread() is threading.main_thread()
        )
        if self._held:
            signal.signal(signal.SIGINT, lambda *args: self._came.append(args))

    def resume(self) -> None:
        """Let it through from here on, and what came meanwhile."""
        if self._held:
            signal.signal(signal.SIGINT, self._handler)
            handler: Any = self._handler
            for args in self._came:
                handler(*args)


def _wait(pid: int, limit: float) -> tuple[int, bool, bool]:
    """Wait for a child: its status, whether it was killed, and what it waited for.

    It ends itself when its time is up; one that cannot is killed.
    """
    peer = False
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        ended = poll.poll(limit * LATE * 1000)
        if not ended:
            peer = waits_for_peer(pid)
            ended = poll.poll((limit * (1 - LATE) + GRACE) * 1000)
    finally:
        os.close(descriptor)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1], not ended, peer


class Child:
    """The course of a test in a forked copy."""

    def __init__(
        self,
        run: Run,
        item: pytest.Item,
        told: int,
        finish: Callable[[], dict[str, Any]],
        accepted: frozenset[int] | set[int],
    ) -> None:
        self._run = run
        self._item = item
        self._told = told
        self._finish = finish
        self._phases: list[tuple[str, str, str]] = []
        self._raised: list[BaseException] = []
        self.ledger = Ledger(run, self._raised, accepted)
        self._leaving = False

    def start(self, output: int, limit: float) -> None:
        """Become a child: quiet, limited in time, with its crashes recorded."""
        native = self._run.native
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.dup2(output, stream.fileno())  # type: ignore[union-attr]
        os.dup2(output, 1)
        os.dup2(output, 2)
        gc.disable()
        native.crash_install(None, CRASHED)
        native.deadline(limit, EXPIRED)
        self._run.leaks = self.ledger  # type: ignore[assignment]

    def makereport(self, call: pytest.CallInfo[Any]) -> None:
        """A phase is over: run the rest, and leave. Never returns."""
        self._note(call)
        if call.when == "setup" and call.excinfo is None:
            self._note(
                pytest.CallInfo.from_call(
                    lambda: self._item.ihook.pytest_runtest_call(item=self._item),
                    "call",
                )
            )
        self._leaving = True
        sibling: Any = _Sibling(self._item)
        self._note(
            pytest.CallInfo.from_call(
                lambda: self._item.ihook.pytest_runtest_teardown(
                    item=self._item, nextitem=sibling
                ),
                "teardown",
            )
        )
        self.leave()

    def _note(self, call: pytest.CallInfo[Any]) -> None:
        error = call.excinfo.value if call.excinfo is not None else None
        if error is None:
            self._phases.append((call.when, "", ""))
            return
        self._raised.append(error)
        name = (
            "skip" if isinstance(error, pytest.skip.Exception) else type(error).__name__
        )
        with contextlib.suppress(Exception):
            self._phases.append((call.when, name, str(error)[:200]))
            return
        self._phases.append((call.when, name, ""))

    def leave(self) -> None:
        """Tell, and end the process."""
        native = self._run.native
        native.set_enabled(False)
        told = {
            "phases": self._phases,
            "lost": self.ledger.lost,
            "held": self.ledger.digest,
            "error": self.ledger.error,
            **self._finish(),
        }
        data = marshal.dumps(told)
        native.deadline(None, 0)
        os.pwrite(self._told, data, 0)
        os._exit(0)


class _Sibling:
    """Stands for another test of the same module: what they share is left alone."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self.nodeid = item.nodeid
        self.parent = item.parent
        self.session = item.session
        self.config = item.config

    def listchain(self) -> list[object]:
        """From the session to this test, as pytest asks for it."""
        return [*self._item.listchain()[:-1], self]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._item, name)


class Ledger:
    """Takes the place of the check for leaks: tells addresses, and makes no findings."""

    def __init__(
        self,
        run: Run,
        raised: list[BaseException],
        accepted: frozenset[int] | set[int],
    ) -> None:
        self._run = run
        self._leaks = run.leaks
        self._raised = raised
        self._accepted = accepted
        self._number = run.leaks.current.number
        self._mark = run.native_session.mark()
        self.lost: list[tuple[Any, ...]] = []
        self.digest = 0
        self.error = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._leaks, name)

    def end_test(
        self,
        *,
        failed: bool,
        stopped: bool,
        skip: Callable[[], Iterable[object]],
        namespaces: Variables,
    ) -> list[Any]:
        """Note what was lost since the copy was made; see ``leaks.Leaks.end_test``."""
        del failed, stopped
        try:
            self._end_test(skip, namespaces)
        except Exception as error:  # noqa: BLE001 (told to the parent, which says so)
            self.error = f"{type(error).__name__}: {error}"
        return []

    def _end_test(
        self,
        skip: Callable[[], Iterable[object]],
        namespaces: Variables,
    ) -> None:
        held = self._left()
        if not held:
            return
        self.digest = _digest(held)
        if self.digest in self._accepted:
            return

        def near() -> Iterator[dict[str, Any]]:
            yield from namespaces.near()
            yield from _tracebacks(self._raised)

        def variables() -> Iterator[dict[str, Any]]:
            yield from namespaces()
            yield from _tracebacks(self._raised)

        session = self._run.native_session
        native = self._run.native
        everything = session.held_since(0)
        # A look at fewer variables first: each makes pages the copy's own.
        if any(
            self._plainly_held(native, everything, here) for here in (near, variables)
        ):
            return
        # Garbage of this copy only: what was there before it is frozen, and counts as alive.
        gc.collect()
        if not self._left():
            return
        everything = session.held_since(0)
        # A test that stopped half way holds what its variables hold.
        over = () if self._raised else skip()
        skipped = [*over, *self.old_numbers.objects()]
        states = reach.classify(native, everything, skipped)
        self._judge(everything, states, variables)

    def _left(self) -> list[Any]:
        return [
            held
            for held in self._run.native_session.held_since(self._mark)
            if held.test == self._number
        ]

    def _is_mine(self, held: Any) -> bool:
        return bool(held.test == self._number and held.sequence >= self._mark)

    def _searcher(
        self,
        everything: list[Any],
        reachable: list[bool],
        variables: Callable[[], Iterator[dict[str, Any]]],
    ) -> descriptors.Searcher:
        return descriptors.Searcher(
            [
                (int(held.key, 16), held.size)
                for held, yes in zip(everything, reachable, strict=True)
                if held.kind == "memory" and yes
            ],
            [(library.path, library.bias) for library in self._run.libraries],
            variables(),
        )

    def _plainly_held(
        self,
        native: Any,
        everything: list[Any],
        variables: Callable[[], Iterator[dict[str, Any]]],
    ) -> bool:
        led = reach.leads_to(
            native,
            everything,
            variables(),
            [pair for library in self._run.libraries for pair in library.variables],
            skip=self.old_numbers.objects(),
        )
        mine = [
            (held, yes)
            for held, yes in zip(everything, led, strict=True)
            if self._is_mine(held)
        ]
        if not all(yes for held, yes in mine if held.kind != "descriptor"):
            return False
        searcher = self._searcher(everything, led, variables)
        return all(
            searcher.holds(int(held.key))
            for held, _ in mine
            if held.kind == "descriptor"
        )

    def _judge(
        self,
        everything: list[Any],
        states: list[str],
        variables: Callable[[], Iterator[dict[str, Any]]],
    ) -> None:
        mine = [
            (held, state)
            for held, state in zip(everything, states, strict=True)
            if self._is_mine(held)
        ]
        open_descriptors = [held for held, _ in mine if held.kind == "descriptor"]
        gone = [
            (held, state)
            for held, state in mine
            if held.kind != "descriptor" and state != "reachable"
        ]
        if open_descriptors:
            reachable = [state == "reachable" for state in states]
            searcher = self._searcher(everything, reachable, variables)
            gone.extend(
                (held, "lost")
                for held in open_descriptors
                if not searcher.holds(int(held.key))
            )
        self.lost = [
            (
                held.kind,
                held.function,
                held.site,
                list(held.backtrace),
                held.size,
                held.library,
                state,
            )
            for held, state in gone
        ]


def _digest(held: list[Any]) -> int:
    """What was left behind, whoever asks and wherever it lies."""
    return hash(
        tuple(sorted((h.kind, h.function, h.site, tuple(h.backtrace)) for h in held))
    )


def _tracebacks(raised: list[BaseException]) -> Iterator[dict[str, Any]]:
    """The variables of the functions that a test was in when it stopped."""
    for error in raised:
        trace = error.__traceback__
        while trace is not None:
            yield trace.tb_frame.f_locals
            trace = trace.tb_next
