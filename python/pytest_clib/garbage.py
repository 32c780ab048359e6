"""Garbage collection, put off for a moment."""

from __future__ import annotations

import contextlib
import gc
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


def age() -> None:
    """What is there stays: the next look at young objects need not go through it."""
    if not gc.get_freeze_count():  # what others have frozen stays frozen
        gc.freeze()
        gc.unfreeze()
