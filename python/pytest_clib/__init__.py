"""pytest-clib: test any C library from Python.

The plugin needs nothing from here: ``pytest --clib=libfoo.so.1`` is enough.

PYTEST_DONT_REWRITE: nothing here asserts, and rewriting costs every session.
"""

# ruff: noqa: E402 (the finder comes first)

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any


class PlainImports:
    """Keeps pytest's hook for assertions away from the modules of this package.

    It takes all that comes with a plugin, and reads and hashes the source of each module
    in every session, even of those that are not to be rewritten.
    """

    @staticmethod
    def find_spec(
        name: str, path: Any = None, _target: Any = None
    ) -> ModuleSpec | None:
        """As the ordinary finder, for modules of this package; else nothing."""
        return PathFinder.find_spec(name, path) if name.startswith(INSIDE) else None


INSIDE = f"{__name__}."
sys.meta_path.insert(0, PlainImports)

from .callbacks import callback
from .findings import Finding, Kind, Place, Severity

__all__ = ["Finding", "Kind", "Place", "Severity", "callback"]
