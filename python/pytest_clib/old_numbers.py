"""Numbers in a suite's variables that lead nowhere any more.

Addresses are given again: seldom those of blocks, of which most that were released are set aside, but those of
mappings. A variable that still has the number of a handle that was destroyed then seems to hold the
next one, which the next test loses. But a call that returns an address makes a new ``int``, also
for an old value: so an ``int`` that pointed to nothing at some moment holds nothing that was
acquired later.

Looked at are variables of the suite's modules that were a number or ``None`` when the module got its last
variable, but for constants (names in capitals), which may tell where to map something. A number that
anything else refers to is let be: it may be a key of a dictionary, which then stands for new numbers
of the same value, too.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from .namespaces import Namespaces

LOWEST = 1 << 16  # of what can be an address


class OldNumbers:
    """The old numbers, as far as they are known; one per run."""

    def __init__(self, native: ModuleType | Any) -> None:
        self._native = native
        self._module: ModuleType | None = None
        self._with_tests: set[int] = set()
        # By namespace: how many variables there were, and those that may get a number.
        self._names: dict[int, tuple[int, list[str]]] = {}
        # Kept alive, so that no other object is taken for one of them.
        self._known: dict[int, int] = {}

    def look(self, item: pytest.Item, suite: Namespaces) -> None:
        """A test begins: note what is old by now.

        The variables of its own module are looked at, and when the last test was in another one,
        those of that module, and of modules without tests.
        """
        module = _module_of(item)
        namespaces = [vars(module)] if module is not None else []
        if module is None or module is not self._module:
            if self._module is not None:
                namespaces.append(vars(self._module))
            namespaces += self._without_tests(item, suite)
            self._module = module
            self._known = {id(number): number for number in self.objects()}
        new = [
            number
            for namespace in namespaces
            for number in self._numbers(namespace)
            if id(number) not in self._known
        ]
        if new:
            old = self._native.lead_nowhere(new)
            self._known.update((id(number), number) for number in old)

    def objects(self) -> list[int]:
        """The numbers, to be known by their identity."""
        numbers = list(self._known.values())
        return _referred_to(numbers, OF_ONE_VARIABLE + 1)  # and by the table

    def _numbers(self, namespace: dict[str, Any]) -> list[int]:
        count, names = self._names.get(id(namespace), (0, []))
        if count != len(namespace):
            names = [
                name
                for name, value in namespace.items()
                if (value is None or type(value) is int) and not name.isupper()
            ]
            self._names[id(namespace)] = len(namespace), names
        values = [namespace.get(name) for name in names]
        numbers = [v for v in values if type(v) is int and v >= LOWEST]
        del values
        return _referred_to(numbers, OF_ONE_VARIABLE)

    def _without_tests(
        self, item: pytest.Item, suite: Namespaces
    ) -> list[dict[str, Any]]:
        if not self._with_tests:
            modules = {_module_of(one) for one in item.session.items}
            self._with_tests = {id(vars(one)) for one in modules if one is not None}
        return [one for one in suite.modules() if id(one) not in self._with_tests]


def _module_of(item: pytest.Item) -> ModuleType | None:
    """The module of a test; items of other plugins may have none, or call something else so."""
    module = getattr(item, "module", None)
    return module if isinstance(module, ModuleType) else None


def _references(numbers: list[int]) -> list[int]:
    """How many references each has, those of this look included."""
    return [sys.getrefcount(number) for number in numbers]


def _referred_to(numbers: list[int], times: int) -> list[int]:
    """Those that have so many references, that list's included."""
    counted = zip(numbers, _references(numbers), strict=True)
    return [number for number, references in counted if references == times]


def _of_one_variable() -> int:
    """References that are counted for a number that one variable has; it depends on the interpreter."""
    namespace = {"number": int("1" * 9)}
    return _references([namespace["number"]])[0]


OF_ONE_VARIABLE = _of_one_variable()
