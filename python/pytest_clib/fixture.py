"""The fixture ``clib``: what a test may ask about the libraries under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .findings import Finding
    from .run import Run


class Clib:
    """What a test may ask. Made by the fixture ``clib`` for one test."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._before = self._counts()

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


@pytest.fixture
def clib(request: pytest.FixtureRequest) -> Clib:
    """The libraries under test: counts of their calls, and what they lost."""
    execution = request.config.pluginmanager.get_plugin("clib-execution")
    if execution is None:
        display = request.config.pluginmanager.get_plugin("clib-display")
        if display is not None:
            pytest.skip("pytest-clib cannot work here")
        pytest.fail(
            "the fixture clib needs a library under test: --clib=LIB", pytrace=False
        )
    return Clib(execution.run)
