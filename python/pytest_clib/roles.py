"""What this process is in a session under a tool: supervisor, its child, or a worker.

Asked at the start of every such process, also under the tool, where imports are slow: this
module needs nothing of the others.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import FrameType

FOLDER = "CLIB_TOOL_FOLDER"
_SHARED = pytest.StashKey[Path]()


def claim(config: pytest.Config) -> None:
    """Note that this session is the child of a supervisor, if it is."""
    name = os.environ.pop(FOLDER, None)
    if name:
        config.stash[_SHARED] = Path(name)


def folder(config: pytest.Config) -> Path | None:
    """The directory shared with the supervisor, in its child; ``None`` elsewhere."""
    return config.stash.get(_SHARED, None)


def are_workers_wanted(namespace: Any) -> bool:
    """Whether tests will be executed by workers."""
    return bool(
        getattr(namespace, "numprocesses", None) or getattr(namespace, "tx", None)
    )


def is_command(config: pytest.Config) -> bool:
    """Whether the session is all that this process was started for."""
    args = [str(arg) for arg in config.invocation_params.args]
    before = len(sys.orig_argv) - len(args)
    program = sys.orig_argv[1:before]
    return (
        config.invocation_params.plugins is None
        and sys.orig_argv[before:] == args
        and bool(program)
        and (
            program[-2:] == ["-m", "pytest"]
            or program[-1] == "-mpytest"
            or Path(program[-1]).name in {"pytest", "py.test"}
        )
    )


def has_spare_core(config: pytest.Config) -> bool:
    """Whether this machine has more cores than the session has workers, here or elsewhere."""
    given: dict[str, Any] = getattr(config, "workerinput", {})
    workers: int = given.get("workercount", 1)
    return len(os.sched_getaffinity(0)) > workers


def is_worker() -> bool:
    """Whether this session is a worker, and not a session that a test in one has started."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 (xdist tells a session what it is only later)
    while frame is not None:
        if frame.f_globals.get("__name__") == "__channelexec__":
            return True
        frame = frame.f_back
    return False
