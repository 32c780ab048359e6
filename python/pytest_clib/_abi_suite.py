"""What a suite declares, in one form for ctypes and cffi.

``_abi_ctypes`` and ``_abi_cffi`` make these values, ``_abi_compare`` reads them. Sizes
are bytes unless the name says bits. Where something is written, and how, is looked up
(``written``) only for what is to be shown.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._abi_library import Place

    Written = Callable[[], tuple[str, Place | None]]  # its text, and where it stands


@dataclasses.dataclass(eq=False, repr=False)
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


class RecordKey:
    """Names a record of the suite; ``describe`` reads it when it is wanted.

    Two are equal if they have the same ``identity``.
    """

    def __init__(
        self, name: str, identity: Any, describe: Callable[[], DeclaredRecord | None]
    ) -> None:
        self.name = name
        self.identity = identity
        self.describe = describe

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordKey) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


class DeclaredSignature(NamedTuple):
    """A function's signature; ``arguments`` is ``None`` if none were declared."""

    result: Declared
    arguments: tuple[Declared, ...] | None
    variadic: bool = False
    identity: Any = None


class DeclaredField(NamedTuple):
    """A field, with those of anonymous members in their place."""

    name: str
    bit: int
    width: int
    type: Declared
    is_bit_field: bool
    written: Written


class DeclaredRecord(NamedTuple):
    """A structure or union."""

    key: RecordKey
    keyword: str
    size: int
    fields: tuple[DeclaredField, ...]
    written: Written


class DeclaredFunction(NamedTuple):
    """A foreign function."""

    name: str
    signature: DeclaredSignature
    written: Written


class DeclaredCallback(NamedTuple):
    """A prototype for callbacks, under the names that the suite gives it."""

    names: tuple[str, ...]
    signature: DeclaredSignature
    written: Written
