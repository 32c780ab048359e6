"""Exceptions in callbacks fail the test that caused them.

ctypes and cffi hand an exception in a callback to ``sys.unraisablehook`` and go on: C sees
zero, and the test may pass. Here such an exception is kept, and raised

- when the foreign call that led to the callback returns, if ctypes made that call with a
  function that has no ``errcheck`` of its own;
- otherwise at the end of the phase of the test.

``callback`` is for code that can say what C shall get: the prototype's function with an
error value and an errno.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

    Hook = Callable[[sys.UnraisableHookArgs], object]
    Watch = tuple[Hook, Hook]

FUNCFLAG_USE_ERRNO = 8  # of ctypes, which does not export it
MARKS = ("ctypes callback function", "cffi callback")
MOCKS = ("unittest.mock", "mock.mock")


@dataclasses.dataclass(eq=False, repr=False)
class Caught:
    """An exception that a callback ended with.

    Attributes:
        exception: what was raised.
        callback: name of the Python function.
        caller: where the foreign call was made, as ``file:line``, or ``""``.
        line: the source text of that line, or ``""``.
        foreign: name of the foreign function, once it is known.
        thread: identity of the thread that ran the callback.
        reported: it was raised in Python already.
    """

    exception: BaseException
    callback: str
    caller: str = ""
    line: str = ""
    foreign: str = ""
    thread: int = dataclasses.field(default_factory=threading.get_ident)
    reported: bool = False

    def note(self) -> str:
        """Which foreign function was running."""
        running = f"the foreign function {self.foreign}" if self.foreign else ""
        if self.line:
            place = f"{self.line!r} ({self.caller})"
            running = f"{running}, called by {place}" if running else place
        return f"in the callback {self.callback}, while {running or 'no Python'} ran"


class Callbacks:
    """Catches exceptions in callbacks while it is watching; one per run."""

    def __init__(self) -> None:
        self._caught: list[Caught] = []
        self._undo: Callable[[], None] | None = None

    def start(self) -> None:
        """Give functions of libraries loaded from now on a check of their own."""
        original = ctypes.CDLL.__getitem__
        check = self._errcheck

        @functools.wraps(original)
        def getitem(library: ctypes.CDLL, name: Any) -> Any:
            function = original(library, name)
            if not isinstance(library, ctypes.PyDLL):
                function.errcheck = check
            return function

        ctypes.CDLL.__getitem__ = getitem  # type: ignore[method-assign]

        _Kept.watcher = self

        def undo() -> None:
            _Kept.watcher = None
            ctypes.CDLL.__getitem__ = original  # type: ignore[method-assign]

        self._undo = undo

    def stop(self) -> None:
        """Undo ``start``. Functions that were made meanwhile keep a check that passes."""
        if self._undo is not None:
            self._undo()
            self._undo = None

    def watch(self) -> Watch:
        """Catch exceptions of callbacks from now on; others go where they went."""
        before = sys.unraisablehook

        def hook(unraisable: sys.UnraisableHookArgs) -> None:
            if not self._catch(unraisable):
                before(unraisable)

        sys.unraisablehook = hook
        return hook, before

    def unwatch(self, watch: Watch) -> None:
        """Undo ``watch``, whose result this takes."""
        hook, before = watch
        if sys.unraisablehook is hook:
            sys.unraisablehook = before

    def keep(self, kept: list[object]) -> list[object]:
        """Callbacks made from now on live as long as ``kept``; tells the list before."""
        before, _Kept.callbacks = _Kept.callbacks, kept
        return before

    def take(self) -> list[Caught]:
        """What was caught since the last time."""
        caught, self._caught = self._caught, []
        return caught

    def add(self, caught: Caught) -> None:
        """Note an exception that someone else caught (``callback``, a mock)."""
        self._caught.append(caught)

    def _catch(self, unraisable: sys.UnraisableHookArgs) -> bool:
        message = unraisable.err_msg or ""
        exception = unraisable.exc_value
        if exception is None or not any(mark in message for mark in MARKS):
            return False
        if unraisable.exc_traceback is not None:
            trace = without_mocks(unraisable.exc_traceback)
            exception = exception.with_traceback(trace)
        name = getattr(unraisable.object, "__qualname__", "") or _name_in(message)
        caller = _foreign_caller(unraisable.exc_traceback)
        self.add(Caught(exception, name, *_place(caller)))
        return True

    def _errcheck(self, result: Any, function: Any, _arguments: Any) -> Any:
        """Raise what a callback of this call ended with, now that Python is back."""
        __tracebackhide__ = True
        if self._caught:
            here = threading.get_ident()
            for caught in self._caught:
                if caught.thread == here and not caught.reported:
                    caught.reported = True
                    caught.foreign = function.__name__
                    add_note(caught.exception, caught.note())
                    raise caught.exception
        return result


class _Kept:
    """Callbacks that C may still call; whoever begins something makes it the list."""

    watcher: Callbacks | None = None
    callbacks: list[object] = []  # noqa: RUF012 (replaced, never shared)


def callback(
    prototype: Callable[..., Any], *, error: object = ..., errno: int | None = None
) -> Callable[[Callable[..., Any]], Any]:
    """Make a Python function a callback whose exceptions are not lost.

    When the function raises, C gets ``error`` at once, with ``errno``, and the exception
    is raised as soon as control is back in Python. The callback stays alive until the
    test, or the fixture of wider scope, in which it was made is over; outside of a
    test, for ever::

        @pytest_clib.callback(quiesce_cb_t, error=-1, errno=errno.EBUSY)
        def quiesce(ctx): ...

    Args:
        prototype: what ``ctypes.CFUNCTYPE`` returned.
        error: what C gets when the function raises. It must be given unless the
            prototype has no result.
        errno: what C finds in ``errno`` then; ``None`` leaves it as it is.

    Raises:
        TypeError: ``prototype`` is no prototype, or ``error`` is missing.
    """
    restype = getattr(prototype, "_restype_", ...)
    if not isinstance(prototype, type) or restype is ...:
        raise TypeError(f"not a prototype made by ctypes.CFUNCTYPE: {prototype!r}")
    if error is ...:
        if restype is not None:
            raise TypeError("callback() needs error=: the prototype has a result")
        error = None
    kind = prototype if errno is None else _with_errno(prototype)

    def decorate(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def guarded(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except BaseException as exception:  # noqa: BLE001 (C cannot pass it on)
                _note(exception, function)
                if errno is not None:
                    ctypes.set_errno(errno)
                return error

        made = kind(guarded)
        _Kept.callbacks.append(made)
        return made

    return decorate


def _note(exception: BaseException, function: Callable[..., Any]) -> None:
    if _Kept.watcher is None:
        trace = exception.__traceback__
        sys.excepthook(type(exception), exception, trace)
        return
    caller = sys._getframe(1).f_back  # noqa: SLF001 (documented)
    name = getattr(function, "__qualname__", repr(function))
    _Kept.watcher.add(Caught(exception, name, *_place(caller)))


def _with_errno(prototype: Any) -> Any:
    """The prototype with ``use_errno``: without it ctypes does not hand errno to C."""
    return type(
        prototype.__name__,
        (prototype,),
        {
            "_flags_": prototype._flags_ | FUNCFLAG_USE_ERRNO,
            "_restype_": prototype._restype_,
            "_argtypes_": prototype._argtypes_,
        },
    )


def add_note(exception: BaseException, note: str) -> None:
    """``exception.add_note``, which 3.10 lacks; pytest shows either."""
    if hasattr(exception, "add_note"):
        exception.add_note(note)
    else:
        notes = getattr(exception, "__notes__", None)
        if notes is None:
            notes = exception.__notes__ = []  # type: ignore[attr-defined]
        notes.append(note)


def without_mocks(trace: TracebackType) -> TracebackType:
    """The traceback without the frames in which a mock calls its ``side_effect``.

    A mock that raises by itself stays: its last frame says what went wrong.
    """
    entries = []
    entry: TracebackType | None = trace
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    kept = entries.pop()
    for entry in reversed(entries):
        mocked = entry.tb_frame.f_globals.get("__name__") in MOCKS
        if not mocked or kept.tb_frame.f_globals.get("__name__") in MOCKS:
            entry.tb_next = kept
            kept = entry
    return kept


def _foreign_caller(trace: TracebackType | None) -> FrameType | None:
    """The frame that called into C: the one behind the callback's first frame."""
    if trace is not None:
        return trace.tb_frame.f_back
    # A result that could not be converted: the callback's frame is gone already.
    return sys._getframe(3)  # noqa: SLF001 (documented)


def _place(frame: FrameType | None) -> tuple[str, str]:
    if frame is None:
        return "", ""
    summary = traceback.extract_stack(frame, limit=1)[0]
    return f"{summary.filename}:{summary.lineno}", summary.line or ""


def _name_in(message: str) -> str:
    """The function's name in messages like ``... <function on_read at 0x7f...>``."""
    _, _, rest = message.partition("<function ")
    return rest.partition(" at ")[0] or "of unknown name"
