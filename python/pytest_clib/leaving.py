"""How a process ends that was started for the session alone: the interpreter stays as it is.

To take apart what pytest has imported takes as long as many a suite, and under a tool
twenty times that. What others have asked for at the end is done: threads and executors are
waited for, and Python's ``atexit`` functions run. Imported also under a tool: needs nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn


def leave(status: int) -> NoReturn:
    """End this process at once; nothing of C runs any more."""
    _settle()
    os._exit(status)


def leave_with_destructors(status: int) -> NoReturn:
    """End this process; what is loaded does what it does then (coverage is written)."""
    import ctypes  # noqa: PLC0415 (where nothing is loaded, it has no other use)

    _settle()
    # With the interpreter's lock: no other thread of Python runs meanwhile.
    ctypes.PyDLL(None).exit(status)
    os._exit(status)


def leave_valgrind(status: int) -> NoReturn:
    """End this process as another program, which valgrind does not follow.

    Where it writes XML, it looks for leaks when a process ends, whatever it is told, and
    takes for it what the last look of the session took.
    """
    _settle()
    with contextlib.suppress(OSError):
        os.execv("/bin/sh", ["sh", "-c", f"exit {status}"])  # noqa: S606 (no user's words)
    os._exit(status)


def _settle() -> None:
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 (no other name)
    atexit._run_exitfuncs()  # noqa: SLF001 (the interpreter has no other name for it)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
