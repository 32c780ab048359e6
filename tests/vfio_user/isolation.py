"""Running one test in a forked child, where a crash or a hang is an ordinary failure.

Used for tests of faults that kill or freeze the process, when the library is one that
may have them. The child inherits the fixtures as they are; what it leaves open dies
with it, and the parent tears its own copies down.
"""

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from . import recording

TIME_LIMIT_S = int(
    os.environ.get("LIBVFIO_USER_HANG_S", "10")
)  # only ever reached by a hang


def _run_child(function: Callable[[], Any], report_fd: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(TIME_LIMIT_S)
    outcome: tuple[str, str]
    try:
        function()
        recording.raise_errors()
        outcome = ("passed", "")
    except pytest.skip.Exception as exc:
        outcome = ("skipped", str(exc))
    except BaseException:
        outcome = ("failed", traceback.format_exc())
    with os.fdopen(report_fd, "wb") as report:
        pickle.dump(outcome, report)
    os._exit(0)


def run_isolated(function: Callable[[], Any]) -> None:
    """Run ``function`` in a child; fail with its traceback or the signal it died of."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            _run_child(function, write_end)
        finally:
            os._exit(70)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as report:
        content = report.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGALRM:
            pytest.fail(f"hangs: no result within {TIME_LIMIT_S} s", pytrace=False)
        pytest.fail(f"killed by {signal.Signals(number).name}", pytrace=False)
    if not content:
        pytest.fail(f"exits with {os.WEXITSTATUS(status)}", pytrace=False)
    outcome, text = pickle.loads(content)
    if outcome == "skipped":
        pytest.skip(text)
    if outcome == "failed":
        pytest.fail(text, pytrace=False)
