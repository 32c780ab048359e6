"""pytest-clib: test any C library from Python.

The plugin needs nothing from here: ``pytest --clib=libfoo.so.1`` is enough.
"""

from __future__ import annotations

from .callbacks import callback
from .findings import Finding, Kind, Place, Severity

__all__ = ["Finding", "Kind", "Place", "Severity", "callback"]
