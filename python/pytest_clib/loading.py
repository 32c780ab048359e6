"""Notices when the process loads objects, so that libraries loaded late are hooked.

What loads objects is wrapped: ctypes' ``dlopen``, the loader of extension modules, and
cffi's. What is loaded in another way (by the library itself, or by compiled cffi code) is
found at the next of these, or when the next phase of a test begins.

An audit hook would be told of ctypes' loads as well, but of every ``id()`` and attribute
lookup, too: it makes the whole session slower, and cannot be removed.
"""

from __future__ import annotations

import _ctypes
import ctypes
import functools
import importlib.machinery
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Watch:
    """Calls ``rescan`` whenever something may have been loaded."""

    def __init__(self, rescan: Callable[[], object]) -> None:
        self._rescan: Callable[[], object] | None = rescan
        self._undo: list[tuple[Any, str, Any]] = []

    def start(self) -> None:
        """Begin to watch."""
        self._wrap(ctypes, "_dlopen")  # what CDLL calls
        self._wrap(_ctypes, "dlopen")
        self._wrap(importlib.machinery.ExtensionFileLoader, "create_module")
        self._wrap(importlib.machinery.ExtensionFileLoader, "exec_module")
        self.wrap_cffi()

    def stop(self) -> None:
        """Put everything back."""
        self._rescan = None
        for owner, name, original in reversed(self._undo):
            setattr(owner, name, original)
        self._undo.clear()

    def wrap_cffi(self) -> None:
        """Watch ``ffi.dlopen`` of cffi as soon as it has been imported."""
        backend = sys.modules.get("_cffi_backend")
        if backend is not None and not hasattr(backend.load_library, "__wrapped__"):
            self._wrap(backend, "load_library")

    def _wrap(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if self._rescan is not None:
                self._rescan()
                self.wrap_cffi()
            return result

        self._undo.append((owner, name, original))
        setattr(owner, name, wrapper)
