"""Compares the declarations of a suite with those of the library under test.

A ctypes ``Structure`` is a promise about somebody else's memory, and nothing checks it:
a field of the wrong size moves all that follow, a missing ``restype`` cuts a pointer in
half, and the test that passes today crashes on another machine. The library's debug
information knows better. ``check`` compares the two; ``docs/declarations.md`` says what
counts as what.

It runs no code of the suite and imports nothing. It may be called again when more has
been imported.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Any

from . import _abi_cffi as cffi
from . import _abi_collect as collect
from . import _abi_ctypes as reading
from . import garbage
from ._abi_compare import Comparison
from ._abi_library import Library
from ._abi_sources import Sources, file_of
from ._abi_suite import DeclaredCallback, DeclaredFunction, RecordKey
from .findings import Finding, Kind, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from ._abi_library import Place

__all__ = ["Library", "check"]


def check(
    libraries: Iterable[str | Path | Library],
    *,
    rootdir: str | Path,
    aliases: Mapping[str, str] | None = None,
    modules: Iterable[Any] | None = None,
) -> list[Finding]:
    """Everything that the suite declares otherwise than the libraries do.

    Args:
        libraries: libraries under test that are loaded: paths, or ``Library`` objects,
            which save reading the debug information again.
        rootdir: modules below it belong to the suite.
        aliases: the library's name for a declaration of another name, such as
            ``{"Vector": "struct vec3"}``; ``""`` or ``"-"`` leaves one out. A class
            can say the same for itself: ``_clib_name_ = "struct vec3"``.
        modules: the suite's modules, where they are known; else all that are imported
            and lie under ``rootdir``, and the packages that hold a handle of one of
            the libraries.

    Returns:
        Findings of kind ``abi``: an error where memory or a value is misread, a
        warning where it may be. For each declaration at most one of either. A library
        that cannot be compared, or not whole, gets a warning that says why.
    """
    with garbage.kept():  # what is read is kept until the end
        return _check(libraries, str(rootdir), dict(aliases or {}), modules)


def _check(
    libraries: Iterable[str | Path | Library],
    rootdir: str,
    aliases: dict[str, str],
    modules: Iterable[Any] | None,
) -> list[Finding]:
    findings: list[Finding] = []
    opened: list[Library] = []
    for one in libraries:
        library = one if isinstance(one, Library) else read(one)
        if isinstance(library, Library):
            opened.append(library)
        else:
            findings.append(unread(str(one), str(library)))
    suite = Suite([one.path for one in opened], rootdir, modules)
    for library in opened:
        if library.damage:
            findings.append(unread(library.path, library.damage[0]))
        comparison = Comparison(library, aliases, rootdir)
        comparison.add_records(suite.records())
        comparison.add_callbacks(suite.callbacks())
        comparison.add_functions(suite.functions(library))
        findings += comparison.finish()
    return unique(findings)


class Suite:
    """What the imported modules of a suite declare."""

    def __init__(
        self, libraries: list[str], rootdir: str, modules: Iterable[Any] | None
    ) -> None:
        self.objects = collect.Objects()
        self.symbols = collect.Symbols(libraries)
        if modules is None:
            handles = [one for one in self.objects.handles if self.is_handle(one)]
            handles += [one for one in self.cffi_handles() if self.is_named(one)]
            self.modules = collect.modules_of(rootdir, handles)
        else:
            self.modules = {one.__name__: one for one in modules}
        paths = [file_of(one) for one in self.modules.values()]
        self.sources = Sources(one for one in paths if one is not None)
        self.reader = reading.Reader(self.sources)
        backend = sys.modules.get("_cffi_backend")
        self.cffi = cffi.Reader(self.sources, backend.FFI()) if backend else None

    def is_handle(self, handle: Any) -> bool:
        """Whether a CDLL object is one of a library under test."""
        name = object.__getattribute__(handle, "__dict__").get("_name")
        if isinstance(name, str) and os.path.realpath(name) in self.symbols.libraries:
            return True
        namespace = object.__getattribute__(handle, "__dict__")
        functions = [one for one in namespace.values() if is_foreign(one)]
        return any(self.symbols.find(collect.address(one)) for one in functions[:1])

    def cffi_handles(self) -> list[Any]:
        """Library objects of cffi that ``ffi.dlopen`` made, not a compiler."""
        return [
            one
            for one in self.objects.cffi.get("library", [])
            if type(one).__name__ != "Lib" or ".so" in collect.cffi_library_name(one)
        ]

    def is_named(self, handle: Any) -> bool:
        """Whether a library object of cffi was opened by a library's path or name."""
        name = collect.cffi_library_name(handle)
        known = self.symbols.libraries
        return os.path.realpath(name) in known or name in map(os.path.basename, known)

    def records(self) -> list[tuple[RecordKey, str | None]]:
        """Structures and unions, with the C name that they give themselves."""
        found: list[tuple[RecordKey, str | None]] = []
        for kind in collect.records(self.modules):
            says = reading.static(kind, "_clib_name_")
            found.append(
                (self.reader.key(kind), says if isinstance(says, str) else None)
            )
        if self.cffi is not None:
            for ffi in self.ffis():
                for written, key in cffi.records(self.cffi, ffi):
                    found.append((RecordKey(written, key.identity, key.describe), None))
        return found

    def ffis(self) -> list[Any]:
        """The suite's FFI objects whose declarations no compiler has read."""
        known = {
            id(one)
            for module in self.modules.values()
            for one in collect.values(module)
        }
        inline = [one for one in self.objects.cffi.get("ffi", []) if id(one) in known]
        compiled = self.objects.cffi.get("compiled ffi", [])
        return inline + [one for one in compiled if cffi.is_abi_mode(one, self.modules)]

    def callbacks(self) -> list[DeclaredCallback]:
        """Prototypes that the suite's modules give names to."""
        out = []
        for kind, places in collect.callbacks(self.modules).items():
            out.append(
                DeclaredCallback(
                    names=tuple(name for _, name in places),
                    signature=self.reader.prototype(kind),
                    written=functools.partial(self.written_callback, kind, places),
                )
            )
        return out

    def written_callback(
        self, kind: type, places: list[tuple[str, str]]
    ) -> tuple[str, Place | None]:
        """How a prototype is written, and where it is given a name."""
        for path, name in places:
            found = self.sources.named(path, name)
            if found is not None:
                return found
        return self.reader.function_type(kind).spelling, None

    def functions(self, library: Library) -> list[DeclaredFunction]:
        """Foreign functions of a library that have been looked up so far."""
        out = []
        for one in self.objects.functions:
            found = self.symbols.find(collect.address(one))
            if found is None or found[0] != library.path:
                continue
            name = object.__getattribute__(one, "__dict__").get("__name__")
            if not isinstance(name, str) or name not in library.exports:
                name = found[1]
            if not name:
                continue
            signature = self.reader.function(one)
            written = functools.partial(self.sources.function, name)
            out.append(DeclaredFunction(name, signature, written))
        if self.cffi is not None:
            for handle in self.cffi_handles():
                for path, function in cffi.functions(self.cffi, handle, self.symbols):
                    if path == library.path:
                        out.append(function)
        # The collector's order, in which they were found, is another in every session.
        return sorted(out, key=lambda one: one.name)


def read(path: str | Path) -> Library | Exception:
    """A library's declarations, or why there are none."""
    try:
        return Library(path)
    except (OSError, ValueError) as error:
        return error


def unread(path: str, why: str) -> Finding:
    """Says that a library's declarations are not all known."""
    return Finding(
        kind=Kind.ABI,
        message=f"not all declarations could be compared: {why}",
        severity=Severity.WARNING,
        library=path,
    )


def is_foreign(one: Any) -> bool:
    """Whether this is a function object of ctypes."""
    return collect.issubclass_of_function(type(one))


def unique(findings: list[Finding]) -> list[Finding]:
    """Each finding once: several function objects may say the same."""
    seen = set()
    out = []
    for one in findings:
        key = (one.library, one.function, one.severity, one.message, one.details)
        if key not in seen:
            seen.add(key)
            out.append(one)
    return out
