"""What is lost: held by a library, but no longer reachable from anything alive.

The native walk does the work; this module says where it begins, what it must not look
into, and which Python types own memory that only they know the way to.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

# Their instances hold nothing of a library's.
PASSED = [str, float, type, FunctionType, BuiltinFunctionType, ModuleType, type(None)]

# The base of everything with a buffer, which has no public name.
CDATA: Any = ctypes.c_int.__mro__[-2]

INVERTED = 2**64 - 1  # minus an address: what no scan takes for a pointer
THREAD_HEAP = 64 << 20  # heaps of threads begin at multiples of this
ANONYMOUS_FIELDS = 5  # of a line in /proc/self/maps; a name would be the sixth

OPTIMIZED = 1  # co_flags: locals live in the frame, and f_locals is a copy

# Of that copy: the frame's, ours, and the argument's. One more is the program's own.
COPY_REFERENCES = 3


def leads_to(
    native: ModuleType | Any,
    held: list[Any],
    namespaces: Iterable[dict[str, Any]],
    variables: Iterable[tuple[int, int]] = (),
    skip: Iterable[object] = (),
) -> list[bool]:
    """For each of ``held``, whether it is plainly held by variables.

    Looks at the values in ``namespaces`` and what these contain, but for the objects in
    ``skip``, at the memory of ``variables``, as (address, bytes), and no further: fast, and
    right when it says yes.
    """
    return native.leads_to(  # type: ignore[no-any-return]
        held,
        list(namespaces),
        skip=list(skip),
        passed=PASSED,
        owner_types=owner_types(),
        buffer_of=buffer_of,
        buffers=list(variables),
    )


def classify(
    native: ModuleType | Any, held: list[Any], skip: Iterable[object] = ()
) -> list[str]:
    """How each of ``held`` can be reached: ``reachable``, ``lost`` or ``indirect``.

    Args:
        native: the native module.
        held: what the ledger has.
        skip: objects that nothing is reached through: they end with the test, or are
            numbers from before.
    """
    gc.unfreeze()  # what collections pass over (``garbage``) is alive
    objects = gc.get_objects()
    objects.append(sys.modules)
    objects.extend(_thread_values())
    memory = Memory()
    return native.reach(  # type: ignore[no-any-return]
        held,
        objects,
        skip=list(skip),
        owner_types=owner_types(),
        buffer_of=buffer_of,
        exclude=memory.exclude,
        mappings=memory.anonymous if uses_arenas() else [],
        heaps=memory.heaps,
    )


class Memory:
    """The mappings of the process, as far as a scan must know them.

    Attributes:
        exclude: memory that is not to be scanned, as (address, bytes): the stack of the
            main thread when that is the one that asks, since it runs pytest, and what
            the test's calls left on it is over; and the dynamic loader's variables,
            where the address of its cache outlives the cache.
        anonymous: writable mappings without a file, where arenas are, as (start, end);
            inverted, since a library's own may be among them.
        heaps: the C library's heaps, as (start, end).
    """

    def __init__(self) -> None:
        """The mappings at this moment."""
        self.exclude: list[tuple[int, int]] = []
        self.anonymous: list[tuple[int, int]] = []
        self.heaps: list[tuple[int, int]] = []
        in_main = threading.current_thread() is threading.main_thread()
        with open("/proc/self/maps", "rb") as maps:  # noqa: PTH123
            for line in maps:
                fields = line.split()
                first, _, last = fields[0].partition(b"-")
                start, end = int(first, 16), int(last, 16)
                name = fields[-1] if len(fields) > ANONYMOUS_FIELDS else b""
                if not name and fields[1].startswith(b"rw"):
                    self.anonymous.append((INVERTED - start, INVERTED - end))
                    if start % THREAD_HEAP == 0:
                        self.heaps.append((start, end))
                elif name == b"[heap]":
                    self.heaps.append((start, end))
                elif b"/ld-linux" in name or (in_main and name == b"[stack]"):
                    self.exclude.append((start, end - start))


def uses_arenas() -> bool:
    """Whether small Python objects live in arenas of CPython's own."""
    return os.environ.get("PYTHONMALLOC", "").removesuffix("_debug") != "malloc"


def owner_types() -> list[type]:
    """Types whose instances own memory, of those that have been imported."""
    types: list[type] = [CDATA]
    for module, name in (("_cffi_backend", "__CDataOwn"), ("array", "array")):
        owner = getattr(sys.modules.get(module), name, None)
        if owner is not None:
            types.append(owner)
    return types


def buffer_of(owner: Any) -> tuple[int, int] | None:
    """The memory that ``owner`` owns, as (address, bytes).

    Memory that it only points to is not its own, and may be gone.
    """
    if isinstance(owner, CDATA):
        if not owner._b_needsfree_:
            return None
        return ctypes.addressof(owner), ctypes.sizeof(owner)
    array = sys.modules.get("array")
    if array is not None and isinstance(owner, array.array):
        address, items = owner.buffer_info()
        return address, items * owner.itemsize
    return _cffi_buffer(owner)


def _cffi_buffer(owner: Any) -> tuple[int, int] | None:
    backend: Any = sys.modules["_cffi_backend"]
    # PyObject_HEAD, the type's description, then the pointer to the data.
    pointer_at = id(owner) + 3 * ctypes.sizeof(ctypes.c_void_p)
    try:
        size = len(backend.buffer(owner))
    except TypeError:  # a callback or a handle: the pointer is all that there is
        return pointer_at, ctypes.sizeof(ctypes.c_void_p)
    return ctypes.c_size_t.from_address(pointer_at).value, size


def _thread_values() -> list[object]:
    """What the local variables of other threads' running functions hold.

    This thread runs pytest and nothing of the test any more.
    """
    values: list[object] = []
    here = threading.get_ident()
    for thread, top in sys._current_frames().items():  # noqa: SLF001 (documented)
        frame = top if thread != here else None
        while frame is not None:
            if frame.f_code.co_flags & OPTIMIZED:
                copy = frame.f_locals
                values.extend(copy.values())
                if type(copy) is dict and sys.getrefcount(copy) <= COPY_REFERENCES:
                    copy.clear()  # before 3.13 the frame keeps it, and what is in it
            frame = frame.f_back
    return values
