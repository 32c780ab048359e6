"""Runs the whole session again, in a child process under a tool (valgrind, ASAN's runtime).

The pytest that the user started becomes the supervisor: before anything is collected it
starts the same command line under the tool and waits. The child shares terminal and
working directory, so that it looks like the session itself. What the two share is a
directory: the tool's own output, and a journal of the tests (``resume``). The child takes its
name out of the environment, so that a pytest that a test starts has nothing to do with it.

With coverage alone the tool is none: the child is there to be followed by another.

If the child dies in a test (an ASAN report that the library's build does not survive, a
fatal signal), another one is started: it shows what is known of the tests before, the dead
one as failed with what the tool said, and runs the rest.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from . import asan, resume, roles, valgrind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .options import Options

MOST_CHILDREN = 200  # a session in which so many tests die says enough


class Tool(Protocol):
    """What a session can run under."""

    name: str

    def command(self, folder: Path) -> list[str]:
        """Words before the interpreter.

        Raises:
            pytest.UsageError: it cannot be used here; the message says what to do.
        """

    def environ(self, folder: Path) -> dict[str, str]:
        """Variables for the child."""


class NoTool:
    """The session as it is, where only what was seen before a crash must not be lost."""

    name = ""

    def command(self, folder: Path) -> list[str]:  # noqa: ARG002
        """Nothing stands before the interpreter."""
        return []

    def environ(self, folder: Path) -> dict[str, str]:  # noqa: ARG002
        """Nothing is needed."""
        return {}


def wanted(options: Options) -> Tool | None:
    """The tool that the options ask for."""
    if options.valgrind:
        return valgrind.Tool(options.valgrind, options.suppressions)
    if options.asan:
        return asan.Tool(options.libraries, options.suppressions)
    return None


def run(config: pytest.Config, tool: Tool) -> int:
    """Run the session under ``tool``, and tell its exit status.

    Raises:
        pytest.UsageError: the tool cannot be used.
    """
    shared = Path(tempfile.mkdtemp(prefix="pytest-clib-"))
    try:
        command = [*tool.command(shared), *_interpreter(config)]
        environ = {
            **os.environ,
            **tool.environ(shared),
            roles.FOLDER: str(shared),
        }
        with _terminal(config):
            return _children(shared, command, environ, config.invocation_params.dir)
    finally:
        shutil.rmtree(shared, ignore_errors=True)


def _children(
    shared: Path, command: list[str], environ: dict[str, str], cwd: Path
) -> int:
    """One after another, until one comes to the end; the exit status of the last."""
    status = 0
    for _ in range(MOST_CHILDREN):
        status = _run(command, environ, cwd)
        journal = resume.Journal(shared)
        if journal.finished or journal.running is None:
            break
        journal.died(status)
        print(  # noqa: T201 (the child's terminal is ours)
            f"\nclib: the process died in {journal.running}: {_end(status)}; "
            "the other tests go on in a new one",
            flush=True,
        )
    else:
        print(f"clib: {MOST_CHILDREN} tests ended the process; stopped")  # noqa: T201
    if status < 0:
        print(f"clib: the session was {_end(status)}", flush=True)  # noqa: T201
        return int(pytest.ExitCode.INTERNAL_ERROR)
    return status


@contextlib.contextmanager
def _terminal(config: pytest.Config) -> Iterator[None]:
    """Meanwhile input and output are the user's, and not what pytest puts in their place."""
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    if capture is None:
        yield
        return
    capture.suspend(in_=True)
    try:
        yield
    finally:
        capture.resume()


def _run(command: list[str], environ: dict[str, str], cwd: Path) -> int:
    with subprocess.Popen(command, env=environ, cwd=cwd) as child:
        ended: list[int] = []

        def end(number: int, _: object) -> None:
            ended.append(number)  # who ends the supervisor means the session
            child.terminate()

        before = signal.signal(signal.SIGTERM, end)
        try:
            while True:
                try:
                    status = child.wait()
                    if ended:
                        raise SystemExit(128 + ended[0])
                    return status  # noqa: TRY300 (the loop is for what is caught)
                except (  # noqa: PERF203 (the child has it, too, and ends)
                    KeyboardInterrupt
                ):  # the child has got it, too, and ends in its way
                    continue
        finally:
            signal.signal(signal.SIGTERM, before)


def _interpreter(config: pytest.Config) -> list[str]:
    """This very command line, with the interpreter's own file."""
    args = [str(arg) for arg in config.invocation_params.args]
    words = sys.orig_argv[1:]
    if not args or words[-len(args) :] != args:  # pytest.main() in another program
        words = ["-m", "pytest", *args]
    return [interpreter(), *words]


def interpreter() -> str:
    """The interpreter's own file."""
    program = Path(sys.executable or "/proc/self/exe")
    with program.open("rb") as file:
        if file.read(4) != b"\x7fELF":  # a shell script that finds the interpreter
            program = Path("/proc/self/exe").resolve()
    return str(program)


def _end(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"
