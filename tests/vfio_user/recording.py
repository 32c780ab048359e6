"""Callbacks that write down how they were called and answer what the test says.

A ``Recording`` is handed to C as ``recording.c``. Exceptions raised in a callback
cannot pass through C, and ctypes would only print them: they are kept in ``errors``
here and raised by the harness after the call into the library returns.
"""

import ctypes as c
import errno
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from . import types as t
from .api import set_errno

errors: list[BaseException] = []


def raise_errors() -> None:
    """Raise the first exception that a callback left behind."""
    if errors:
        first, errors[:] = errors[0], []
        raise first


class Recording:
    """One C callback: ``calls`` has the arguments (without the context) of each call.

    ``action`` is called with the same arguments and may return the answer; ``fail``
    queues errnos to fail with, one a call; otherwise the answer is ``default``.
    """

    def __init__(
        self,
        prototype: Any,
        copy: Callable[..., Any] | None = None,
        default: int | None = 0,
    ) -> None:
        self.calls: list[Any] = []
        self.contexts: list[int | None] = []
        self.action: Callable[..., Any] | None = None
        self.default = default
        self._copy = copy
        self._failures: deque[int] = deque()
        self.c = prototype(self._called)

    def fail(self, *errnos: int) -> None:
        """Make the next calls return -1 with these errnos, in this order (0: pass)."""
        self._failures.extend(errnos)

    @property
    def count(self) -> int:
        return len(self.calls)

    def _called(self, ctx: int | None, *args: Any) -> Any:
        try:
            return self._answer_call(ctx, args)
        except BaseException as exc:
            errors.append(exc)
            set_errno(errno.EFAULT)
            return None if self.default is None else -1

    def _answer_call(self, ctx: int | None, args: tuple[Any, ...]) -> int | None:
        self.contexts.append(ctx)
        if self._copy is not None:
            self.calls.append(self._copy(*args))
        else:
            self.calls.append(args[0] if len(args) == 1 else args)
        answer = self.default
        if self.action is not None:
            result = self.action(*args)
            answer = self.default if result is None else result
        if self._failures and (number := self._failures.popleft()):
            set_errno(number)
            return -1
        return answer


class DmaInfo(NamedTuple):
    """A copy of vfu_dma_info_t, which is only valid inside its callback."""

    addr: int
    size: int
    vaddr: int | None
    mapping: tuple[int | None, int]
    page_size: int
    prot: int

    @classmethod
    def copy(cls, info: Any) -> "DmaInfo":
        i = info.contents
        return cls(
            i.iova.iov_base or 0,
            i.iova.iov_len,
            i.vaddr,
            (i.mapping.iov_base, i.mapping.iov_len),
            i.page_size,
            i.prot,
        )


class DmaCalls(NamedTuple):
    register: Recording
    unregister: Recording


def dma_calls() -> DmaCalls:
    return DmaCalls(
        Recording(t.vfu_dma_register_cb_t, DmaInfo.copy, default=None),
        Recording(t.vfu_dma_unregister_cb_t, DmaInfo.copy, default=None),
    )


class Access(NamedTuple):
    """One call of a region callback; ``data`` is what was written, or None."""

    offset: int
    count: int
    data: bytes | None

    @property
    def is_write(self) -> bool:
        return self.data is not None


class RegionMemory(Recording):
    """A region callback over a bytearray of the region's size."""

    def __init__(self, size: int) -> None:
        self.memory = bytearray(size)
        super().__init__(t.vfu_region_access_cb_t, self._access)
        self.action = self._answer

    @staticmethod
    def _access(buf: Any, count: int, offset: int, is_write: bool) -> Access:
        return Access(offset, count, buf[:count] if is_write else None)

    def _answer(self, buf: Any, count: int, offset: int, is_write: bool) -> int:
        if is_write:
            self.memory[offset : offset + count] = buf[:count]
        else:
            data = bytes(self.memory[offset : offset + count])
            c.memmove(buf, data, len(data))
        return count


class MigrationCalls:
    """The three migration callbacks, over ``outgoing`` and ``incoming`` bytes."""

    def __init__(self) -> None:
        self.outgoing = bytearray()
        self.incoming = bytearray()
        self.transition = Recording(t.migration_transition_t)
        self.read_data = Recording(t.migration_data_t, lambda _buf, count: count)
        self.write_data = Recording(t.migration_data_t, c.string_at)
        self.read_data.action = self._read
        self.write_data.action = self._write

    def _read(self, buf: int, count: int) -> int:
        data = bytes(self.outgoing[:count])
        del self.outgoing[:count]
        c.memmove(buf, data, len(data))
        return len(data)

    def _write(self, buf: int, count: int) -> int:
        self.incoming += c.string_at(buf, count)
        return count

    def c_struct(self, version: int) -> t.vfu_migration_callbacks_t:
        return t.vfu_migration_callbacks_t(
            version=version,
            transition=self.transition.c,
            read_data=self.read_data.c,
            write_data=self.write_data.c,
        )
