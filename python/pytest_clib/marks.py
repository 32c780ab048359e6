"""``@pytest.mark.clib_allow``: what a test may leave behind or do, and why.

::

    @pytest.mark.clib_allow(leak=2, reason="the parser keeps a pool; see issue 12")
    @pytest.mark.clib_allow(fd_leak="open_log", reason="opened once, closed by the kernel")

Each keyword is a kind of finding with ``_`` for ``-``; its value is how many are allowed
(``True``: any number), or a glob of the function in the library that may do it. Several
markers add up. What makes no sense is told at collection.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from typing import TYPE_CHECKING

import pytest

from .findings import Finding, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = "clib_allow"
HELP = (
    "clib_allow(*, leak=..., reason=...): findings of this kind do not fail the test; the "
    "keyword is any kind of finding, its value a number, True or a glob of the function"
)


@dataclasses.dataclass(eq=False, repr=False)
class Allowance:
    """What one keyword of one marker allows."""

    kind: Kind
    function: str
    left: int | None
    reason: str
    used: bool = False

    def take(self, finding: Finding) -> bool:
        """Whether ``finding`` is allowed; it is counted if so."""
        if finding.kind is not self.kind:
            return False
        places = [finding.site, *finding.backtrace] if finding.site else []
        # What it called (malloc) says nothing about who did it.
        names = {place.function for place in places} or {finding.function}
        if not any(fnmatch.fnmatchcase(name, self.function) for name in names):
            return False
        if self.left is not None:
            if finding.count > self.left:
                return False
            self.left -= finding.count
        self.used = True
        return True


def read(item: pytest.Item) -> list[Allowance]:
    """The allowances of a test.

    Raises:
        pytest.UsageError: a marker makes no sense.
    """
    return [
        allowance
        for mark in item.iter_markers(NAME)
        for allowance in _read_mark(item, mark)
    ]


def _read_mark(item: pytest.Item, mark: pytest.Mark) -> Iterable[Allowance]:
    where = f"{item.nodeid}: @pytest.mark.{NAME}"
    if mark.args:
        raise pytest.UsageError(f"{where} takes keywords only, such as leak=1")
    kinds = dict(mark.kwargs)
    reason = kinds.pop("reason", None)
    if not isinstance(reason, str) or not reason.strip():
        raise pytest.UsageError(f'{where} needs a reason="..."')
    if not kinds:
        raise pytest.UsageError(f"{where} allows nothing; name a kind, such as leak=1")
    known = {str(kind).replace("-", "_"): kind for kind in Kind}
    for key, value in kinds.items():
        if key not in known:
            raise pytest.UsageError(
                f"{where}: no kind of finding is called {key!r}; there are "
                + ", ".join(sorted(known))
            )
        if isinstance(value, str):
            yield Allowance(known[key], value, None, reason)
        elif value is True:
            yield Allowance(known[key], "*", None, reason)
        elif isinstance(value, int) and value > 0:
            yield Allowance(known[key], "*", value, reason)
        else:
            raise pytest.UsageError(
                f"{where}: {key}={value!r} is neither a positive number, True, nor a "
                "function's name"
            )


def filter_allowed(
    findings: Iterable[Finding], allowances: list[Allowance]
) -> list[Finding]:
    """The findings that no allowance takes."""
    return [
        finding
        for finding in findings
        if not any(allowance.take(finding) for allowance in allowances)
    ]
