"""A forked copy of the process runs one test with one call failing, and tells how it went.

The copy is made in the middle of pytest's own course, just before the test's own fixtures
are set up, so that everything before it is there: module fixtures, and what earlier tests
left behind. From there the copy goes on as pytest would, up to the first report; then it
runs the rest itself, tears down the test's own fixtures and no others, and leaves by
``os._exit``. It never returns to what reports, counts, or talks to other processes.

What it has to tell is written to a memory file before it ends. What happens to it is in
the native record, whatever way it ends.

The kernel takes a while to take a process apart. If there is a core for that, a copy that has
nothing more to do closes what it has open and says so; then the next one is made
meanwhile, and goes on when the other is gone.
"""

from __future__ import annotations

import contextlib
import gc
import marshal
import os
import random
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
MOST_DESCRIPTORS = 2**31 - 1
# Without what Python's own does around it to let numbers in that a user wrote.
_SET_RANDOM = super(random.Random, random.random.__self__).setstate  # type: ignore[attr-defined]
WARNS_OF_THREADS = sys.version_info >= (3, 12)
ONE_THREAD = 3  # links of the folder of threads, with `.` and `..`


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


class Channel(NamedTuple):
    """The descriptors by which a child speaks to its parent.

    Attributes:
        told: a memory file for what it has to tell.
        output: one for what it prints.
        done: an event counter that says that it only has to be taken apart; -1 if it need
            not say that.
    """

    told: int
    output: int
    done: int


class Nursery:
    """Makes children, and waits for them; one per process that executes tests.

    Args:
        run: the session.
        roomy: whether there is a core for what is done meanwhile.
    """

    def __init__(self, run: Run, *, roomy: bool) -> None:
        self._run = run
        self._ending: _Process | None = None
        self._interrupts = _Interrupts()
        self._written: list[int] = []
        self._random: tuple[Any, ...] = ()
        self._record = run.native.Record()
        self._channel = Channel(
            told=os.memfd_create("pytest-clib-told", os.MFD_CLOEXEC),
            output=os.memfd_create("pytest-clib-output", os.MFD_CLOEXEC),
            done=os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) if roomy else -1,
        )

    @property
    def done(self) -> int:
        """The event counter that children and their parent share, or -1."""
        return self._channel.done

    def begin_test(self) -> None:
        """Copies of a test are made from here on."""
        self._written = _written()
        self._random = random.getstate()[1]
        self._interrupts.start()

    def end_test(self) -> None:
        """No more of them."""
        self._interrupts.stop()
        self.settle()

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
        os.ftruncate(self._channel.told, 0)
        os.ftruncate(self._channel.output, 0)
        _take(self._channel.done)
        self._record.clear()
        self._record.activate()
        began = time.monotonic()
        # Whatever is made or called for the first time after a fork makes pages the copy's own.
        child = Child(self._run, item, self._channel, finish, accepted)
        self._interrupts.hold()
        try:
            pid = _fork()
        except OSError:
            self._interrupts.resume()
            raise
        if pid == 0:
            if self._ending is not None:
                self._ending.await_end()
            child.start(limit, self._written, self._random)
            begin()
            return None, child
        process = _Process(pid)
        try:
            self._interrupts.resume()
            killed, peer = _wait(process, self._channel.done, limit)
            self.settle()
        except BaseException:
            process.kill()
            process.reap()
            raise
        finally:
            self._record.deactivate()
        status = 0
        if _take(self._channel.done) and not killed:
            self._ending = process
        else:
            status = process.reap()
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

    def settle(self) -> None:
        """Wait until the last child is gone."""
        if self._ending is not None:
            ending, self._ending = self._ending, None
            ending.reap()

    def close(self) -> None:
        """Give the descriptors back."""
        self.settle()
        for descriptor in self._channel:
            if descriptor >= 0:
                os.close(descriptor)

    def _read_told(self) -> dict[str, Any] | None:
        told = self._channel.told
        size = os.fstat(told).st_size
        if not size:
            return None
        data = os.pread(told, size, 0)
        try:
            found = marshal.loads(data)  # noqa: S302 (our own child wrote it)
        except (EOFError, ValueError, TypeError):
            return None
        return found if isinstance(found, dict) else None

    def _read_output(self) -> str:
        output = self._channel.output
        size = os.fstat(output).st_size
        start = max(0, size - MOST_OUTPUT)
        return os.pread(output, size - start, start).decode("utf-8", "replace")


def _written() -> list[int]:
    """The descriptors of what is printed."""
    found = {1, 2}
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            found.add(stream.fileno())  # type: ignore[union-attr]
    return sorted(found)


def _fork() -> int:
    if WARNS_OF_THREADS:
        return _fork_quietly()
    return os.fork()


def _fork_quietly() -> int:
    with warnings.catch_warnings():
        # The child touches nothing that another thread may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


class _Interrupts:
    """Holds Ctrl-C back while asked to: in what Python does after a fork, its exception would be lost.

    By a handler, not by a mask: a signal to the process reaches any thread of it. The handler
    is there for all copies of a test: to put one in place takes as long as much of a copy.
    """

    def __init__(self) -> None:
        self._came: list[tuple[int, Any]] = []
        self._handler: Any = None
        self._held = False

    def start(self) -> None:
        """Put the handler in place."""
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            self._handler = handler
            signal.signal(signal.SIGINT, self._handle)

    def stop(self) -> None:
        """Put back what was there, and let through what came."""
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            self.resume()
            self._handler = None

    def hold(self) -> None:
        """Let none through from here on."""
        self._held = True

    def resume(self) -> None:
        """Let it through from here on, and what came meanwhile."""
        self._held = False
        came, self._came = self._came, []
        for number, frame in came:
            self._handler(number, frame)

    def _handle(self, number: int, frame: Any) -> None:
        if self._held:
            self._came.append((number, frame))
        else:
            self._handler(number, frame)


class _Process:
    """A child of this process that has not been waited for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self.descriptor = os.pidfd_open(pid)
        except OSError:
            self.kill()
            os.waitpid(pid, 0)
            raise

    def await_end(self) -> None:
        """Wait for its end; for the other children."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        poll.poll()

    def kill(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Wait for its end, and tell its status."""
        os.close(self.descriptor)
        return os.waitpid(self.pid, 0)[1]


def _wait(process: _Process, done: int, limit: float) -> tuple[bool, bool]:
    """Wait for a child to end, or to be done: whether it was killed, and what it waited for.

    It ends itself when its time is up; one that cannot is killed.
    """
    peer = False
    poll = select.poll()
    poll.register(process.descriptor, select.POLLIN)
    if done >= 0:
        poll.register(done, select.POLLIN)
    ended = poll.poll(limit * LATE * 1000)
    if not ended:
        peer = waits_for_peer(process.pid)
        ended = poll.poll((limit * (1 - LATE) + GRACE) * 1000)
    if not ended:
        process.kill()
    return not ended, peer


def _take(counter: int) -> bool:
    """Whether an event counter was not zero, which it is now."""
    if counter < 0:
        return False
    with contextlib.suppress(BlockingIOError):
        return os.eventfd_read(counter) > 0
    return False


class Child:
    """The course of a test in a forked copy."""

    def __init__(
        self,
        run: Run,
        item: pytest.Item,
        channel: Channel,
        finish: Callable[[], dict[str, Any]],
        accepted: frozenset[int] | set[int],
    ) -> None:
        self._run = run
        self._item = item
        self._channel = channel
        self._finish = finish
        self._capture: Any = item.config.pluginmanager.get_plugin("capturemanager")
        self._phases: list[tuple[str, str, str]] = []
        self._raised: list[BaseException] = []
        self.ledger = Ledger(run, self._raised, accepted)

    def start(self, limit: float, written: list[int], numbers: tuple[Any, ...]) -> None:
        """Become a child: limited in time, with its crashes recorded, and what it writes kept.

        Python gives each forked process other random numbers: here they are the test's own.
        """
        native = self._run.native
        native.become_copy(self._channel.output, written, CRASHED, limit, EXPIRED)
        gc.disable()
        _SET_RANDOM(numbers)
        self._run.leaks = self.ledger  # type: ignore[assignment]
        if self._capture is not None:
            _stop_sorting_output(self._capture)

    def makereport(self, call: pytest.CallInfo[Any]) -> None:
        """A phase is over: run the rest, and leave. Never returns."""
        item = self._item
        self._note(call.when, call.excinfo and call.excinfo.value)
        if call.when == "setup" and call.excinfo is None:
            self._run_phase("call", item.ihook.pytest_runtest_call, item=item)
        self._run_phase(
            "teardown",
            item.ihook.pytest_runtest_teardown,
            item=item,
            nextitem=_Sibling(item),
        )
        self.leave()

    def _run_phase(self, when: str, hook: Callable[..., object], **known: Any) -> None:
        error: BaseException | None = None
        try:
            hook(**known)
        except BaseException as raised:  # noqa: BLE001 (whatever it is, the test ended by it)
            error = raised
        self._note(when, error)

    def _note(self, when: str, error: BaseException | None) -> None:
        if error is None:
            self._phases.append((when, "", ""))
            return
        self._raised.append(error)
        name = (
            "skip" if isinstance(error, pytest.skip.Exception) else type(error).__name__
        )
        with contextlib.suppress(Exception):
            self._phases.append((when, name, str(error)[:200]))
            return
        self._phases.append((when, name, ""))

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
        os.pwrite(self._channel.told, data, 0)
        done = self._channel.done
        if done >= 0 and _is_alone():
            os.closerange(0, done)
            os.closerange(done + 1, MOST_DESCRIPTORS)
            os.eventfd_write(done, 1)
        os._exit(0)


def _stop_sorting_output(capture: Any) -> None:
    """What a copy prints goes to one file; pytest need not sort it by phases and reports.

    The fixtures that capture for a test capture as ever.
    """
    capture.resume_global_capture = capture.suspend_global_capture = _nothing
    capture.read_global_capture = _no_output


def _nothing(*_: object, **__: object) -> None:
    pass


def _no_output() -> tuple[str, str]:
    return "", ""


def _is_alone() -> bool:
    """Whether this thread is the only one: then nothing happens any more when it ends."""
    # Not by `Path`: whatever a copy runs first makes pages its own.
    return os.stat("/proc/self/task").st_nlink == ONE_THREAD  # noqa: PTH116


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
