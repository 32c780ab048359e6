"""Numbers in a suite's variables that lead nowhere any more.

An allocator gives addresses again. A variable that still has the number of a handle that was
destroyed then seems to hold the next one, which the next test loses. But a call that
returns an address makes a new ``int``, also for an old value: so an ``int`` that pointed to nothing
at some moment holds nothing that was acquired later.

Looked at are the variables of the suite's modules, but for constants (names in capitals), which may
tell where to map something. A number that anything else refers to as well is let be: it may be a
key of a dictionary, which stands for new numbers of the same value, too.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    import pytest

    from .namespaces import Namespaces


class OldNumbers:
    """The old numbers, as far as they are known; one per run."""

    def __init__(self, native: ModuleType | Any) -> None:
        self._native = native
        self._module: object = None
        # Kept alive, so that no other object is taken for one of them; and how many references it had.
        self._known: dict[int, tuple[int, int]] = {}

    def look(self, item: pytest.Item, suite: Namespaces) -> None:
        """A test begins: note what is old by now.

        All modules are looked at when another one's turn comes, and else that of the test.
        """
        module = getattr(item, "module", None)
        if module is None or module is not self._module:
            self._module = module
            self._known = self._old(suite.modules())
        else:
            self._known.update(self._old([vars(module)]))

    def objects(self) -> Iterator[int]:
        """The numbers, to be known by their identity."""
        for number, references in self._known.values():
            if sys.getrefcount(number) <= references:
                yield number

    def _old(self, namespaces: list[dict[str, Any]]) -> dict[int, tuple[int, int]]:
        old = {}
        for number in self._native.old_numbers(namespaces, self._known):
            references = sys.getrefcount(
                number
            )  # as in ``objects``, with a list for the tuple
            if id(number) in self._known:
                references -= 1
            old[id(number)] = number, references
        return old
