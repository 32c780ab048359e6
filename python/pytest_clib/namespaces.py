"""Where a suite keeps its variables.

Modules count as the suite's when their file lies outside of the interpreter's own folders
and of installed packages, or beside a test that runs.
"""

from __future__ import annotations

import sys
import sysconfig
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

FOLDERS = tuple(
    {
        path.rstrip("/") + "/"
        for name in ("stdlib", "platstdlib", "purelib", "platlib")
        if (path := sysconfig.get_path(name))
    }
)


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
            ]
        return self._modules

    def of(self, item: pytest.Item | None) -> Iterator[dict[str, Any]]:
        """The globals, with the test's own module and class first."""
        module = getattr(item, "module", None)
        if module is not None:
            yield vars(module)
        cls = getattr(item, "cls", None)
        if cls is not None:
            for base in cls.__mro__[:-1]:
                yield dict(vars(base))
        yield from self.modules()


def _is_of_suite(file: object) -> bool:
    return isinstance(file, str) and not file.startswith(FOLDERS)
