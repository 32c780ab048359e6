"""What a suite declares, in one form for ctypes and cffi.

``_abi_ctypes`` and ``_abi_cffi`` make these values, ``_abi_compare`` reads them. Sizes
are bytes unless the name says bits.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._abi_library import Place


@dataclasses.dataclass(frozen=True)
class Declared:
    """A type that the suite declares.

    Attributes:
        kind: ``void``, ``bool``, ``char``, ``int``, ``float``, ``enum``, ``pointer``,
            ``function`` (a pointer to one), ``array``, ``record``, or ``opaque`` for
            what says nothing that could be compared.
        size: in bytes, where it is known.
        spelling: as Python writes it.
        signed: of integers; ``None`` where the declaration does not mean it.
        to: what a pointer points to (``None``: anything), or an array's element.
        count: elements of an array.
        text: a pointer to text that ends in a zero; then ``to`` is its character.
        signature: of a function.
        record: of a record; equal for equal classes.
        default: nobody wrote it: ctypes' own result type.
    """

    kind: str
    size: int | None
    spelling: str
    signed: bool | None = None
    to: Declared | None = None
    count: int = 0
    text: bool = False
    signature: DeclaredSignature | None = None
    record: RecordKey | None = None
    default: bool = False


@dataclasses.dataclass(frozen=True)
class RecordKey:
    """Names a record of the suite; ``describe`` reads it when it is wanted.

    Two are equal if they have the same ``identity``.
    """

    name: str = dataclasses.field(compare=False)
    identity: Any
    describe: Callable[[], DeclaredRecord | None] = dataclasses.field(
        compare=False, repr=False
    )


@dataclasses.dataclass(frozen=True)
class DeclaredSignature:
    """A function's signature; ``arguments`` is ``None`` if none were declared."""

    result: Declared
    arguments: tuple[Declared, ...] | None
    variadic: bool = False
    identity: Any = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True)
class DeclaredField:
    """A field, with those of anonymous members in their place."""

    name: str
    bit: int
    width: int
    type: Declared
    is_bit_field: bool
    spelling: str
    place: Place | None = None


@dataclasses.dataclass(frozen=True)
class DeclaredRecord:
    """A structure or union."""

    key: RecordKey
    keyword: str
    size: int
    fields: tuple[DeclaredField, ...]
    place: Place | None
    spelling: str


@dataclasses.dataclass(frozen=True)
class DeclaredFunction:
    """A foreign function."""

    name: str
    signature: DeclaredSignature
    place: Place | None
    spelling: str


@dataclasses.dataclass(frozen=True)
class DeclaredCallback:
    """A prototype for callbacks, under the names that the suite gives it."""

    names: tuple[str, ...]
    signature: DeclaredSignature
    place: Place | None
    spelling: str
