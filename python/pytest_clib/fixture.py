"""The fixture ``clib``: what a test may ask about the libraries under test."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from . import faults
from .execution import FINDINGS, Found
from .scripts import Scripting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .findings import Finding
    from .run import Run


class Clib(Scripting):
    """What a test may ask. Made by the fixture ``clib`` for one test."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._run = run
        self._before = self._counts()
        self._active: list[faults.Fail | faults.Mock] = []

    def fail(
        self,
        function: str,
        errno: int | str | None = None,
        *,
        nth: int = 1,
        count: int | None = 1,
        returns: int | None = None,
        short: int | None = None,
    ) -> faults.Fail:
        """Make calls of ``function`` fail that the libraries under test make from now on.

        It holds until the end of the ``with`` block if it is used in one, else of the
        test::

            with clib.fail("sendmsg", errno.EPIPE) as failure:
                assert lib.send_reply(ctx) == -1
            assert failure.happened == 1

        Args:
            function: its name, such as ``"read"`` (``__read_chk`` is meant too).
            errno: number or name; ``None`` for the function's likeliest.
            nth: the first call to fail, from 1.
            count: how many calls fail from there on; ``None``: all.
            returns: return this instead of the function's sign of failure, with
                ``errno`` if given; works for any function. The call is not made.
            short: make the call, and transfer at most this many bytes; 0 for the end
                of the file or connection.

        Raises:
            LookupError: no library under test calls such a function.
            ValueError: the function cannot fail in that way.
        """
        self._run.rescan()
        failure = faults.Fail(self._run, function, errno, nth, count, returns, short)
        self._active.append(failure)
        return failure

    def mock(
        self,
        function: str,
        replacement: Callable[..., Any],
        *,
        prototype: Any = None,
        error: Any = ...,
    ) -> faults.Mock:
        """Replace a function that the libraries under test call.

        It holds until the end of the ``with`` block if it is used in one, else of the
        test. Mocks of one function nest. ``replacement`` may be a ``unittest.mock.Mock``::

            now = unittest.mock.Mock(return_value=0)
            clib.mock("clock_gettime", now)
            lib.tick()
            now.assert_called_once()

        It may call the original: ``mock.original(...)``. An exception in it fails the test.

        Args:
            function: its name; a function of libc, of another library, or one that the
                library exports itself and calls through its own table.
            replacement: called with the converted arguments.
            prototype: what ``ctypes.CFUNCTYPE`` returns, a ctypes function with
                ``argtypes``, or ``(result, argument, ...)``; not needed for functions
                that the library's debug information or the table knows. Arguments
                after ``...`` are not seen.
            error: what C gets when ``replacement`` raises: -1 or ``NULL``.

        Raises:
            LookupError: no library under test calls it, or nobody knows its prototype.
            ValueError: it cannot be replaced (``longjmp``).
            TypeError: ``replacement`` or ``prototype`` is of the wrong type.
        """
        mock = faults.Mock(self._run, function, replacement, prototype, error)
        self._active.append(mock)
        return mock

    def _finish(self, item: pytest.Item) -> None:
        """End what is in force, and fail for exceptions of mocks."""
        findings: list[Finding] = []
        while self._active:
            active = self._active.pop()
            active.stop()
            if isinstance(active, faults.Mock):
                command = self._run.command(item.nodeid)
                findings.extend(active.findings(item.nodeid, command))
        if findings:
            item.stash.setdefault(FINDINGS, []).extend(findings)
            raise Found(findings)

    def calls(self, function: str) -> int:
        """How often the libraries under test called ``function`` since the test began.

        Args:
            function: its name, such as ``"malloc"``; ``read`` means ``__read_chk`` too.

        Raises:
            LookupError: no library under test calls such a function.
        """
        self._run.rescan()
        now: int = self._run.native_session.calls(function)
        return now - self._before.get(function, 0)

    def leaks(self) -> list[Finding]:
        """What the libraries have acquired in this test and lost by now.

        Local variables of functions that still run hold what they point to.
        Nothing is taken out of the ledger: what is still lost at the end of the test
        is a finding all the same.
        """
        return self._run.leaks.now()

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for _, function, calls in self._run.native_session.counts():
            counts[function] = counts.get(function, 0) + calls
        return counts


@contextlib.contextmanager
def opened(request: pytest.FixtureRequest) -> Iterator[Clib]:
    """What the fixture ``clib`` gives, for one test."""
    execution = request.config.pluginmanager.get_plugin("clib-execution")
    if execution is None:
        display = request.config.pluginmanager.get_plugin("clib-display")
        if display is not None:
            pytest.skip("pytest-clib cannot work here")
        pytest.fail(
            "the fixture clib needs a library under test: --clib=LIB", pytrace=False
        )
    made = Clib(execution.run)
    with contextlib.ExitStack() as stack:
        stack.callback(made._finish, request.node)  # noqa: SLF001 (this module's own)
        yield made
