"""Where the suite declares what: a look at the source text of its modules.

ctypes keeps no line numbers, and tells no alias from the type that it stands for. Both
are read from the syntax tree, for files that are asked about, and once. What cannot be
found (generated code, tables) has a place without a line, or none; nothing depends on
it but what is shown.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._abi_library import Place

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclasses.dataclass
class ClassSource:
    """A class statement: its place, and text and place of each entry of ``_fields_``."""

    place: Place
    fields: dict[str, tuple[str, Place]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class FileSource:
    """What one file says.

    Attributes:
        classes: by qualified name.
        names: assignments to plain names: text and place of the last.
        attributes: assignments of ``argtypes`` and ``restype``, by function and
            attribute.
        mentions: first line that names a function, as attribute or in quotes.
        cdefs: texts given to ``ffi.cdef``, with the line they begin at.
    """

    path: str
    classes: dict[str, ClassSource] = dataclasses.field(default_factory=dict)
    names: dict[str, tuple[str, Place]] = dataclasses.field(default_factory=dict)
    attributes: dict[tuple[str, str], tuple[str, Place]] = dataclasses.field(
        default_factory=dict
    )
    mentions: dict[str, Place] = dataclasses.field(default_factory=dict)
    cdefs: list[tuple[str, int]] = dataclasses.field(default_factory=list)


class Sources:
    """The files of the modules that declare something."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = list(dict.fromkeys(paths))

    @functools.cache  # noqa: B019 - lives as long as one check
    def text(self, path: str) -> bytes:
        """The text of one file; empty if it cannot be read."""
        try:
            return Path(path).read_bytes()
        except OSError:
            return b""

    def files_with(self, *words: str) -> Iterable[FileSource]:
        """Files with one of these words; only these are parsed, which takes a while."""
        for path in self.paths:
            text = self.text(path)
            if any(word.encode() in text for word in words):
                yield self.file(path)

    @functools.cache  # noqa: B019 - lives as long as one check
    def file(self, path: str) -> FileSource:
        """One file; empty if it cannot be read or is no Python."""
        found = FileSource(path)
        try:
            tree = ast.parse(self.text(path), path)
        except (SyntaxError, ValueError, RecursionError):
            return found
        with contextlib.suppress(RecursionError):
            Visitor(found).visit(tree)
        return found

    def class_in(self, module: Any, qualname: str) -> ClassSource | None:
        """The class statement of a class."""
        path = file_of(sys.modules.get(module)) if isinstance(module, str) else None
        return self.file(path).classes.get(qualname) if path else None

    def module_place(self, module: Any) -> Place | None:
        """A module's file, where nothing closer is known."""
        path = file_of(sys.modules.get(module)) if isinstance(module, str) else None
        return Place(path, 0) if path else None

    def assigns(self, function: str, attribute: str) -> bool:
        """Whether any file sets this attribute of a function of this name.

        Tables and loops that set it are not seen; a file that names the function only
        in quotes, or sets the attribute of something without a name, may do that.
        """
        for source in self.files_with(attribute):
            if (function, attribute) in source.attributes:
                return True
            if ("", attribute) in source.attributes and function in source.mentions:
                return True
        return False

    def function(self, name: str) -> tuple[list[str], Place | None]:
        """The statements that declare a foreign function, and where."""
        for source in self.files_with("argtypes", "restype"):
            found = [
                source.attributes[key]
                for key in ((name, "argtypes"), (name, "restype"))
                if key in source.attributes
            ]
            if found:
                return [text for text, _ in found], found[0][1]
        for source in self.files_with(name):
            if name in source.mentions:
                return [], source.mentions[name]
        return [], None

    def named(self, path: str, name: str) -> tuple[str, Place] | None:
        """The assignment to a plain name in a file."""
        return self.file(path).names.get(name)

    def cdef(self, pattern: Any) -> Place | None:
        """The first line of a ``cdef`` that a compiled pattern matches."""
        for source in self.files_with("cdef"):
            for text, line in source.cdefs:
                match = pattern.search(text)
                if match:
                    above = text.count("\n", 0, match.start(1))
                    return Place(source.path, line + above)
        return None


class Visitor(ast.NodeVisitor):
    """Collects a ``FileSource``."""

    def __init__(self, found: FileSource) -> None:
        self.found = found
        self.scope: list[str] = []
        self.aliases: dict[str, str] = {}

    def place(self, node: ast.expr | ast.stmt) -> Place:
        return Place(self.found.path, node.lineno)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        qualname = ".".join([*self.scope, node.name])
        source = ClassSource(self.place(node))
        self.found.classes[qualname] = source
        for statement in node.body:
            targets, value = assignment(statement)
            names = [one.id for one in targets if isinstance(one, ast.Name)]
            if "_fields_" in names and value is not None:
                self.add_fields(source, value)
        self.inside(node, [node.name])

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.inside(node, [node.name, "<locals>"])

    visit_AsyncFunctionDef = visit_FunctionDef

    def inside(self, node: ast.AST, names: list[str]) -> None:
        self.scope.extend(names)
        self.generic_visit(node)
        del self.scope[-len(names) :]

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self.assigned(target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assigned(node.target, node.value)
        self.generic_visit(node)

    def assigned(self, target: ast.expr, value: ast.expr) -> None:
        text = unparse(value)
        if isinstance(target, ast.Name):
            self.found.names[target.id] = (text, self.place(target))
            if isinstance(value, ast.Attribute):
                self.aliases[target.id] = value.attr
        if not isinstance(target, ast.Attribute):
            return
        if target.attr in ("argtypes", "restype"):
            function = self.function_name(target.value)
            line = f"{unparse(target)} = {text}"
            key = (function, target.attr)
            self.found.attributes.setdefault(key, (line, self.place(target)))
        elif target.attr == "_fields_":
            name = unparse(target.value)
            source = self.found.classes.setdefault(
                name, ClassSource(self.place(target))
            )
            self.add_fields(source, value)

    def function_name(self, node: ast.expr) -> str:
        """Name of the function whose attribute is set; empty if that is computed."""
        if isinstance(node, ast.Attribute):
            return node.attr
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id, "")
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            return str(node.slice.value)
        return ""

    def add_fields(self, source: ClassSource, value: ast.expr) -> None:
        if not isinstance(value, (ast.List, ast.Tuple)):
            return
        for entry in value.elts:
            if not isinstance(entry, (ast.Tuple, ast.List)) or len(entry.elts) < 2:
                continue
            name = entry.elts[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                text = unparse(entry.elts[1])
                if len(entry.elts) > 2:
                    text += f", {unparse(entry.elts[2])} bits"
                source.fields[name.value] = (text, self.place(entry))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.found.mentions.setdefault(node.attr, self.place(node))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and node.value.isidentifier():
            self.found.mentions.setdefault(node.value, self.place(node))

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr == "cdef":
            for one in node.args[:1]:
                if isinstance(one, ast.Constant) and isinstance(one.value, str):
                    self.found.cdefs.append((one.value, one.lineno))
        self.generic_visit(node)


def assignment(node: ast.stmt) -> tuple[list[ast.expr], ast.expr | None]:
    """Targets and value of an assignment of either form."""
    if isinstance(node, ast.Assign):
        return node.targets, node.value
    if isinstance(node, ast.AnnAssign):
        return [node.target], node.value
    return [], None


def unparse(node: ast.AST) -> str:
    """Source text of an expression, on one line."""
    return " ".join(ast.unparse(node).split())


def file_of(module: Any) -> str | None:
    """The source file of a module, without running its ``__getattr__``."""
    try:
        namespace = object.__getattribute__(module, "__dict__")
    except AttributeError:
        return None
    found = namespace.get("__file__") if isinstance(namespace, dict) else None
    return found if isinstance(found, str) and found.endswith(".py") else None
