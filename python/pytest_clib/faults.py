"""Single faults in a test: calls that fail (``clib.fail``) and functions that are replaced (``clib.mock``).

Both are about calls that the libraries under test make, and about no others. Both end with the
test whatever happens, and earlier at the end of their ``with`` block.
"""

from __future__ import annotations

import ctypes
import errno as errnos
import traceback
from typing import TYPE_CHECKING, Any, final

from . import _prototypes
from .findings import Finding, Kind
from .inject import errno_number

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from .run import Run


@final
class Fail:
    """A failure in force; see ``Clib.fail``."""

    def __init__(  # noqa: PLR0917 (made by Clib.fail only)
        self,
        run: Run,
        function: str,
        errno: int | str | None,
        nth: int,
        count: int | None,
        returns: int | None,
        short: int | None,
    ) -> None:
        if isinstance(errno, str):
            errno = errno_number(run.native, errno)
        if errno is not None and errno not in errnos.errorcode:
            raise ValueError(f"there is no errno {errno}")
        if returns is not None and short is not None:
            raise ValueError("a call that returns at once cannot be short")
        if nth < 1 or (count is not None and count < 1):
            raise ValueError(f"nth={nth}, count={count}: calls are counted from 1")
        self.function = function
        self._run = run
        action, value = "fail", 0
        if short is not None:
            action, value = ("short", short) if short else ("eof", 0)
        elif returns is not None:
            action, value = "return", returns
        self._plan: int | None = run.native.arm(
            function,
            nth,
            action=action,
            value=value,
            errno=errno,
            count=0 if count is None else count,
        )
        self._outcome: tuple[int, int] = (0, 0)

    @property
    def matched(self) -> int:
        """How many calls of the function there were since it began."""
        return self._now()[0]

    @property
    def happened(self) -> int:
        """How many calls failed."""
        return self._now()[1]

    def stop(self) -> None:
        """End it; again does nothing."""
        if self._plan is not None:
            self._outcome = (self._run.native.disarm(self._plan) or (0, 0, None))[:2]
            self._plan = None

    def _now(self) -> tuple[int, int]:
        if self._plan is not None:
            self._outcome = (self._run.native.outcome(self._plan) or (0, 0, None))[:2]
        return self._outcome

    def __enter__(self) -> Fail:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


@final
class Mock:
    """A replacement in force; see ``Clib.mock``.

    Attributes:
        function: the name of the function that is replaced.
        original: calls the function that is replaced, with ctypes' conversions.
        exceptions: what the replacement raised.
    """

    # A library may have copied the address: what was a replacement stays callable.
    _kept: list[object] = []  # noqa: RUF012 (for the life of the process)

    def __init__(
        self,
        run: Run,
        function: str,
        replacement: Callable[..., Any],
        prototype: Any,
        error: Any,
    ) -> None:
        if not callable(replacement):
            raise TypeError(f"the replacement of {function} cannot be called")
        run.rescan()
        kind = _prototypes.find(run, function, prototype)
        self.function = function
        self.exceptions: list[BaseException] = []
        self._replacement = replacement
        self._error = _error_value(kind) if error is ... else error
        self._answers: list[Any] = []
        self._pointer = kind(self._call)
        self._kept.append(self._pointer)
        address = ctypes.cast(self._pointer, ctypes.c_void_p).value
        self._native: Any = run.native.Mock(function, address)
        self.original = kind(self._native.original)

    def _call(self, *arguments: Any) -> Any:
        try:
            return self._converted(self._replacement(*arguments))
        except BaseException as exception:  # noqa: BLE001 (C cannot pass it on)
            self.exceptions.append(exception)
            return self._error

    def _converted(self, result: Any) -> Any:
        """What ctypes can hand to C; a result that it cannot is an exception here."""
        kind = self._pointer._restype_
        if kind is None:
            return None
        if isinstance(result, ctypes._SimpleCData):  # noqa: SLF001 (has no public name)
            result = result.value
        if kind is ctypes.c_char_p and isinstance(result, bytes):
            raise TypeError(
                f"the mock of {self.function} must return an address, not bytes: "
                "C keeps it, and Python does not"
            )
        if kind is ctypes.c_void_p and result is None:
            return 0
        kind(result)
        return result

    def stop(self) -> None:
        """Put back what was there before; again does nothing."""
        if self._native is not None:
            self._native.stop()
            self._native = None

    def __enter__(self) -> Mock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def findings(self, test: str, command: str) -> list[Finding]:
        """What its exceptions mean for the test."""
        return [
            Finding(
                kind=Kind.MOCK_EXCEPTION,
                message=f"{type(error).__name__} in the mock of {self.function}: {error}",
                test=test,
                function=self.function,
                details="".join(traceback.format_exception(error)).rstrip(),
                command=command,
            )
            for error in self.exceptions
        ]


def _error_value(kind: Any) -> Any:
    """What C gets from a mock that raises: the usual sign of failure."""
    restype = kind._restype_
    if restype is None:
        return None
    if issubclass(restype, ctypes._Pointer) or restype in {  # noqa: SLF001
        ctypes.c_void_p,
        ctypes.c_char_p,
    }:
        return None if restype is not ctypes.c_void_p else 0
    if issubclass(restype, (ctypes.Structure, ctypes.Union)):
        return restype()
    if restype in {ctypes.c_float, ctypes.c_double}:
        return 0.0
    if restype is ctypes.c_bool:
        return False
    return restype(-1).value
