"""Finds what a suite declares, among the modules and objects that are already there.

Nothing is imported and no attribute of anybody's object is asked for by name: modules
are read through their dictionaries, and classes through ``__subclasses__``, so that
lazy modules stay lazy and properties do not run. What belongs to the suite: modules
under the root directory, and the packages of modules that hold a handle of a library
under test.
"""

from __future__ import annotations

import _ctypes
import ctypes
import gc
import os
import sys
from typing import TYPE_CHECKING, Any, ClassVar

from ._abi_sources import file_of
from ._native import by_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OWN_PACKAGE = __name__.partition(".")[0]
SITE_PACKAGES = ("site-packages", "dist-packages")
# Classes of cffi, by module and name: cffi may not be installed.
CFFI_CLASSES = {
    ("cffi.api", "FFI"): "ffi",
    ("_cffi_backend", "FFI"): "compiled ffi",
    ("cffi.api", "FFILibrary"): "library",
    ("_cffi_backend", "Lib"): "library",
}


class DlInfo(ctypes.Structure):
    """``Dl_info`` of ``dladdr(3)``."""

    _fields_: ClassVar[Any] = [
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    ]


class Objects:
    """Live objects of interest: one walk over what the collector knows."""

    def __init__(self) -> None:
        objects = gc.get_objects()
        groups = dict.fromkeys([ctypes.CDLL, *subclasses(ctypes.CDLL)], "handle")
        groups.update(dict.fromkeys(subclasses(_ctypes.CFuncPtr), "function"))
        if "_cffi_backend" in sys.modules:
            groups.update((kind, group_of(kind)) for kind in set(map(type, objects)))
        groups = {kind: group for kind, group in groups.items() if group}
        self.cffi: dict[str, list[Any]] = by_type(objects, groups)
        self.handles: list[Any] = self.cffi.pop("handle", [])
        self.functions: list[Any] = self.cffi.pop("function", [])


def group_of(kind: type) -> str:
    """What an instance of a class is to us; empty if nothing."""
    mro = type.__getattribute__(kind, "__mro__")
    if ctypes.CDLL in mro:
        return "handle"
    if _ctypes.CFuncPtr in mro:
        return "function"
    namespace = type.__getattribute__(kind, "__dict__")
    module = namespace.get("__module__")
    if not isinstance(module, str):
        module = kind.__module__ if type(kind) is type else ""
    # cffi gives each library's class the library's name, but not as its qualified one.
    name = type.__getattribute__(kind, "__qualname__").rpartition(".")[2]
    return CFFI_CLASSES.get((module, name), "")


def cffi_library_name(handle: Any) -> str:
    """What was given to ``ffi.dlopen``; for a compiled module, the module's name."""
    kind = type(handle)
    if kind.__name__.startswith("FFILibrary_"):
        return kind.__name__.removeprefix("FFILibrary_")
    if kind.__name__ == "Lib":
        return repr(handle).partition("'")[2].rpartition("'")[0]
    return ""


class Symbols:
    """Which library and symbol an address belongs to, as the loader knows it."""

    def __init__(self, libraries: Iterable[str]) -> None:
        self.libraries = {os.path.realpath(one): one for one in libraries}
        self._dladdr = ctypes.CDLL(None).dladdr
        self._dladdr.argtypes = (ctypes.c_void_p, ctypes.POINTER(DlInfo))
        self._dladdr.restype = ctypes.c_int
        self._real: dict[bytes, str] = {}

    def find(self, address: int | None) -> tuple[str, str] | None:
        """Library under test and symbol at an address; ``None`` if it is in neither."""
        info = DlInfo()
        if not address or not self._dladdr(address, ctypes.byref(info)):
            return None
        file = info.dli_fname
        if not file:
            return None
        if file not in self._real:
            self._real[file] = os.path.realpath(os.fsdecode(file))
        library = self.libraries.get(self._real[file])
        if library is None:
            return None
        exact = info.dli_sname is not None and info.dli_saddr == address
        return library, info.dli_sname.decode() if exact else ""


def modules_of(rootdir: str, handles: Iterable[Any]) -> dict[str, Any]:
    """The suite's modules by name, in the order they were imported."""
    wanted = {id(one) for one in handles}
    root = os.path.join(os.path.realpath(rootdir), "")  # noqa: PTH118 - wants the slash
    standard = os.path.join(os.path.dirname(os.__file__), "")  # noqa: PTH118, PTH120
    out: dict[str, Any] = {}
    packages: set[str] = set()
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name, module in list(sys.modules.items()):
        path = file_of(module)
        if path is None or name.partition(".")[0] == OWN_PACKAGE:
            continue
        files[name] = path
        if path.startswith(standard) and not is_installed(path):
            continue
        folder, _, file = path.rpartition("/")
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        real = f"{folders[folder]}/{file}"
        if real.startswith(root) and not is_installed(real):
            out[name] = module
        elif wanted and not wanted.isdisjoint(map(id, values(module))):
            packages.add(name.partition(".")[0])
    if packages:
        for name, module in list(sys.modules.items()):
            if name in files and name.partition(".")[0] in packages:
                out.setdefault(name, module)
    return out


def is_installed(path: str) -> bool:
    """Whether a file lies in a folder of installed packages."""
    return any(part in path for part in SITE_PACKAGES)


def values(module: Any) -> list[Any]:
    """What a module's names stand for."""
    return list(namespace_of(module).values())


def namespace_of(module: Any) -> dict[Any, Any]:
    """A module's dictionary, found without running its ``__getattr__``."""
    try:
        namespace = object.__getattribute__(module, "__dict__")
    except AttributeError:
        return {}
    return namespace if isinstance(namespace, dict) else {}


def subclasses(base: type) -> Iterator[type]:
    """All classes below a class, each once."""
    seen: set[type] = set()
    todo: list[type] = list(type.__subclasses__(base))
    while todo:
        kind = todo.pop(0)
        if kind in seen:
            continue
        seen.add(kind)
        yield kind
        todo.extend(type.__subclasses__(kind))


def records(modules: dict[str, Any]) -> list[type]:
    """Structures and Unions that the suite's modules define, in a stable order."""
    found = []
    for base in (_ctypes.Structure, _ctypes.Union):
        for kind in subclasses(base):
            module = type.__getattribute__(kind, "__dict__").get("__module__")
            # The byte-swapped twin of a type is ctypes' own business.
            if isinstance(module, str) and module in modules:
                found.append(kind)
    return found


def callbacks(modules: dict[str, Any]) -> dict[type, list[tuple[str, str]]]:
    """Prototypes that modules give names to: class to (file, name)."""
    found: dict[type, list[tuple[str, str]]] = {}
    prototypes = {id(kind): kind for kind in subclasses(_ctypes.CFuncPtr)}
    for module in modules.values():
        path = file_of(module)
        if path is None:
            continue
        for name, one in list(namespace_of(module).items()):
            kind = prototypes.get(id(one))
            if kind is not None and isinstance(name, str):
                places = found.setdefault(kind, [])
                if all(known != name for _, known in places):
                    places.append((path, name))
    return found


def is_class(one: object) -> bool:
    """Whether an object is a class, without asking it (``__class__`` may be code)."""
    return type in type.__getattribute__(type(one), "__mro__")


def issubclass_of_function(kind: type) -> bool:
    """Whether a class is a prototype, asked without its metaclass."""
    return _ctypes.CFuncPtr in type.__getattribute__(kind, "__mro__")


def address(function: Any) -> int | None:
    """The address that a foreign function object calls."""
    try:
        return ctypes.cast(function, ctypes.c_void_p).value
    except (ctypes.ArgumentError, TypeError, ValueError):
        return None
