"""Garbage collection, put off for a moment, and what it need not go through.

A collection goes through all objects that there are, and most of those of a session are pytest's
own: modules, classes and functions that stay to the end. The interpreter's last collections
alone are a tenth of a short session's time.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """No automatic collection meanwhile: for work whose many objects stay in use.

    Whoever calls ``gc.disable`` or ``gc.set_threshold`` meanwhile has the last word.
    """
    before = gc.get_threshold()
    none = (0, *before[1:])
    gc.set_threshold(*none)
    try:
        yield
    finally:
        if gc.get_threshold() == none:
            gc.set_threshold(*before)


def settle() -> None:
    """What is there now stays: no collection goes through it again.

    For a process that ends with the session, before there is anything of the suite's. Who looks for
    what is alive calls ``gc.unfreeze`` first.
    """
    if not _has_handles():
        gc.freeze()


def _has_handles() -> bool:
    """Whether there are libraries that ctypes or cffi have opened, whose functions are to be found later."""
    if "_cffi_backend" in sys.modules:
        return True
    ctypes = sys.modules.get("ctypes")
    if ctypes is None:
        return False
    kinds = ctypes._CFuncPtr.__subclasses__()  # noqa: SLF001 (each library gets its own)
    handles = [kind for kind in kinds if kind.__qualname__.startswith("CDLL.")]
    return len(handles) > 1  # one is ctypes' own, for the interpreter
