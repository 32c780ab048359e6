"""Where a suite keeps its variables.

Modules count as the suite's when their file lies outside of the interpreter's own folders
and of installed packages, or beside a test that runs.
"""

from __future__ import annotations

import functools
import os
import site
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pytest

OURS = __name__.partition(".")[0]  # where it is installed from a checkout


class Namespaces:
    """The namespaces of a suite; modules are looked for again when there are more."""

    def __init__(self) -> None:
        self._known = 0
        self._modules: list[dict[str, Any]] = []

    def modules(self) -> list[dict[str, Any]]:
        """The globals of the suite's modules."""
        if len(sys.modules) != self._known:
            self._known = len(sys.modules)
            self._modules = [
                vars(module)
                for module in list(sys.modules.values())
                if _is_of_suite(getattr(module, "__file__", None))
                and not getattr(module, "__name__", "").startswith(OURS)
            ]
        return self._modules


class Variables:
    """The variables of a suite, as one test sees them.

    Args:
        suite: the suite's namespaces.
        item: the test, or ``None`` when all are over.
        stopped: the exceptions that ended it; their tracebacks have variables, too.
    """

    def __init__(
        self,
        suite: Namespaces,
        item: pytest.Item | None = None,
        stopped: Iterable[BaseException] = (),
    ) -> None:
        self._suite = suite
        self._item = item
        self._stopped = stopped

    def near(self) -> Iterator[dict[str, Any]]:
        """Those of the test's own module, class, and functions that did not end."""
        for error in self._stopped:
            trace = error.__traceback__
            while trace is not None:
                yield dict(trace.tb_frame.f_locals)
                trace = trace.tb_next
        module = getattr(self._item, "module", None)
        if module is not None:
            yield vars(module)
        cls = getattr(self._item, "cls", None)
        if cls is not None:
            for base in cls.__mro__[:-1]:
                yield dict(vars(base))

    def __call__(self) -> Iterator[dict[str, Any]]:
        """All of them, the near ones first."""
        yield from self.near()
        yield from self._suite.modules()


def _is_of_suite(file: object) -> bool:
    return isinstance(file, str) and not file.startswith(_folders())


@functools.cache
def _folders() -> tuple[str, ...]:
    """The interpreter's own folders, and those of installed packages."""
    folders = [os.path.dirname(os.__file__), *site.getsitepackages()]  # noqa: PTH120
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return tuple({folder.rstrip("/") + "/" for folder in folders})
