"""Whether the native module can be used here, and if not, why: one line.

The plugin must load everywhere. Where it cannot work (not Linux, not x86-64, not
glibc, a damaged installation), it says so once, and the suite runs as without it.
"""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def _unsupported() -> str:
    if sys.platform != "linux":
        return f"needs Linux, and this is {sys.platform}"
    if platform.machine() != "x86_64":
        return f"needs x86-64, and this is {platform.machine()}"
    if sys.implementation.name != "cpython":
        return f"needs CPython, and this is {sys.implementation.name}"
    libc = platform.libc_ver()[0]
    if libc != "glibc":
        return f"needs glibc, and this is {libc or 'another C library'}"
    return ""


def load() -> tuple[ModuleType | None, str]:
    """The native module, or ``None`` with the reason."""
    reason = _unsupported()
    if reason:
        return None, reason
    try:
        from . import _native  # noqa: PLC0415 (absent where it cannot be built)
    except ImportError as error:
        return None, f"its native module cannot be loaded: {error}"
    return _native, ""
