"""Where the suite declares what: a look at the source text of its modules.

ctypes keeps no line numbers, and tells no alias from the type that it stands for. Both
are read from the syntax tree of those statements that name what is asked for, and only for
what is to be shown: a suite without a mistake is not parsed. What cannot be
found (generated code, tables) has a place without a line, or none; nothing depends on
it but what is shown.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
import sys
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import garbage
from ._abi_library import Place

if TYPE_CHECKING:
    from collections.abc import Iterable


# Most statements have none inside of them.
SIMPLE = (ast.Expr, ast.Return, ast.Import, ast.ImportFrom, ast.AugAssign, ast.Assert)
# A line with anything else at the left margin begins a statement, if it is not inside of a text.
GOES_ON = b" \t\r\n#)]}"
ALIAS = re.compile(rb"\w+\s*=\s*[\w.]+\.\w+\s*$")
BODIES = frozenset({"body", "handlers", "cases", "orelse", "finalbody"})


class ClassSource:
    """A class statement: its place, and the entries of ``_fields_`` by name."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.fields: dict[str, list[ast.expr]] = {}

    def field(self, name: str) -> tuple[str, Place] | None:
        """Text and place of an entry."""
        entry = self.fields.get(name)
        if entry is None:
            return None
        text = unparse(entry[1])
        if len(entry) > 2:
            text += f", {unparse(entry[2])} bits"
        return text, Place(self.place.file, entry[0].lineno)


class FileSource:
    """What one file says: its statements are looked at, their text only when asked for.

    Attributes:
        path: the file.
        classes: by qualified name.
        names: assignments to plain names: target and value of the last.
        attributes: assignments of ``argtypes`` and ``restype``, by function and
            attribute.
    """

    def __init__(self, path: str, tree: ast.Module) -> None:
        self.path = path
        self.classes: dict[str, ClassSource] = {}
        self.names: dict[str, tuple[ast.expr, ast.expr]] = {}
        self.attributes: dict[tuple[str, str], tuple[ast.expr, ast.expr]] = {}
        self._tree = tree
        Statements(self).look(tree.body, "")

    def place(self, node: ast.expr | ast.stmt) -> Place:
        """Where something stands."""
        return Place(self.path, node.lineno)

    def attribute(self, key: tuple[str, str]) -> tuple[str, Place]:
        """Text and place of the assignment of an attribute."""
        target, value = self.attributes[key]
        return f"{unparse(target)} = {unparse(value)}", self.place(target)

    @functools.cached_property
    def mentions(self) -> dict[str, Place]:
        """First line that names a function, as attribute or in quotes."""
        lines: dict[str, int] = {}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Attribute):
                name = node.attr
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                name = node.value
            else:
                continue
            lines[name] = min(node.lineno, lines.get(name, node.lineno))
        return {name: Place(self.path, line) for name, line in lines.items()}

    @functools.cached_property
    def cdefs(self) -> list[tuple[str, int]]:
        """Texts given to ``ffi.cdef``, with the line they begin at."""
        return [
            (one.value, one.lineno)
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "cdef"
            for one in node.args[:1]
            if isinstance(one, ast.Constant) and isinstance(one.value, str)
        ]


class Sources:
    """The files of the modules that declare something."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = list(dict.fromkeys(paths))
        self._files: dict[tuple[str, tuple[str, ...]], FileSource] = {}
        self._texts: dict[str, Text] = {}
        self._with: dict[tuple[str, ...], list[FileSource]] = {}

    def text(self, path: str) -> Text:
        """The text of one file; empty if it cannot be read."""
        if path not in self._texts:
            try:
                self._texts[path] = Text(Path(path).read_bytes())
            except OSError:
                self._texts[path] = Text(b"")
        return self._texts[path]

    def files_with(self, *words: str) -> list[FileSource]:
        """What files say in statements with one of these words."""
        if words not in self._with:
            sought = [word.encode() for word in words]
            self._with[words] = [
                self.about(path, words)
                for path in self.paths
                if any(word in self.text(path).whole for word in sought)
            ]
        return self._with[words]

    def about(self, path: str, words: tuple[str, ...]) -> FileSource:
        """What one file says in statements with one of these words, and in aliases.

        The rest is not parsed, which takes a while for long files. Empty if the file cannot
        be read or is no Python.
        """
        key = path, words
        if key not in self._files:
            text = self.text(path)
            self._files[key] = (
                parsed(path, text.about(words))
                or parsed(path, text.whole)
                or FileSource(path, ast.Module([], []))
            )
        return self._files[key]

    def class_in(self, module: Any, qualname: str) -> ClassSource | None:
        """The class statement of a class."""
        path = file_of(sys.modules.get(module)) if isinstance(module, str) else None
        if path is None:
            return None
        top = qualname.partition(".")[0]
        plain = f"class {top}", f"def {top}", f"{top}._fields_"
        for words in (plain, (top,)):
            found = self.about(path, words).classes.get(qualname)
            if found is not None:
                return found
        return None

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
            if ("", attribute) in source.attributes:
                mentions = self.about(source.path, (function,)).mentions
                if function in mentions:
                    return True
        return False

    def function(self, name: str) -> tuple[str, Place | None]:
        """The statements that declare a foreign function, and where."""
        for source in self.files_with("argtypes", "restype"):
            found = [
                source.attribute(key)
                for key in ((name, "argtypes"), (name, "restype"))
                if key in source.attributes
            ]
            if found:
                return "\n".join(text for text, _ in found), found[0][1]
        for source in self.files_with(name):
            if name in source.mentions:
                return "", source.mentions[name]
        return "", None

    def named(self, path: str, name: str) -> tuple[str, Place] | None:
        """The assignment to a plain name in a file."""
        for words in ((f"{name} = ",), (name,)):
            source = self.about(path, words)
            if name in source.names:
                target, value = source.names[name]
                return unparse(value), source.place(target)
        return None

    def cdef(self, pattern: Any) -> Place | None:
        """The first line of a ``cdef`` that a compiled pattern matches."""
        for source in self.files_with("cdef"):
            for text, line in source.cdefs:
                match = pattern.search(text)
                if match:
                    above = text.count("\n", 0, match.start(1))
                    return Place(source.path, line + above)
        return None


class Text:
    """The text of a file, cut into its statements at the left margin.

    Attributes:
        whole: all of it.
    """

    def __init__(self, whole: bytes) -> None:
        self.whole = whole

    @functools.cached_property
    def _statements(self) -> list[bytes]:
        found: list[list[bytes]] = [[]]
        for line in self.whole.splitlines(keepends=True):
            if line[0] in GOES_ON:
                found[-1].append(line)
            else:
                found.append([line])
        return [b"".join(lines) for lines in found]

    @functools.cached_property
    def _ends(self) -> list[int]:
        return list(itertools.accumulate(map(len, self._statements)))

    @functools.cached_property
    def _aliases(self) -> list[bytes]:
        """An empty line for each line of a statement, unless that is an alias."""
        return [
            one if ALIAS.match(one) else b"\n" * len(one.splitlines())
            for one in self._statements
        ]

    def about(self, words: Iterable[str]) -> bytes:
        """The statements that name a word, and aliases; an empty line for each line of others."""
        kept = self._aliases.copy()
        for word in map(str.encode, words):
            at = self.whole.find(word)
            while at >= 0:
                number = bisect_right(self._ends, at)
                kept[number] = self._statements[number]
                at = self.whole.find(word, self._ends[number])
        return b"".join(kept)


def parsed(path: str, text: bytes) -> FileSource | None:
    """What a text says; ``None`` if it is no Python."""
    with garbage.kept():
        try:
            return FileSource(path, ast.parse(text, path))
        except (SyntaxError, ValueError, RecursionError):
            return None


class Statements:
    """Fills a ``FileSource``; looks at statements only, since nothing else declares."""

    def __init__(self, found: FileSource) -> None:
        self.found = found
        self.aliases: dict[str, str] = {}

    def look(self, body: list[Any], scope: str) -> None:
        """Look at statements and those inside of them; ``scope`` ends in a dot."""
        for node in body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets, value = assignment(node)
                for target in targets:
                    if value is not None:
                        self.assigned(target, value)
            elif isinstance(node, ast.ClassDef):
                self.add_class(node, scope + node.name)
                self.look(node.body, f"{scope}{node.name}.")
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.look(node.body, f"{scope}{node.name}.<locals>.")
            elif not isinstance(node, SIMPLE):
                for name in node._fields:
                    if name in BODIES:
                        self.look(getattr(node, name), scope)

    def add_class(self, node: ast.ClassDef, qualname: str) -> None:
        source = ClassSource(self.found.place(node))
        self.found.classes[qualname] = source
        for statement in node.body:
            targets, value = assignment(statement)
            names = [one.id for one in targets if isinstance(one, ast.Name)]
            if "_fields_" in names and value is not None:
                add_fields(source, value)

    def assigned(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.found.names[target.id] = target, value
            if isinstance(value, ast.Attribute):
                self.aliases[target.id] = value.attr
        if not isinstance(target, ast.Attribute):
            return
        if target.attr in ("argtypes", "restype"):
            key = (self.function_name(target.value), target.attr)
            self.found.attributes.setdefault(key, (target, value))
        elif target.attr == "_fields_":
            name = unparse(target.value)
            source = self.found.classes.setdefault(
                name, ClassSource(self.found.place(target))
            )
            add_fields(source, value)

    def function_name(self, node: ast.expr) -> str:
        """Name of the function whose attribute is set; empty if that is computed."""
        if isinstance(node, ast.Attribute):
            return node.attr
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id, "")
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            return str(node.slice.value)
        return ""


def add_fields(source: ClassSource, value: ast.expr) -> None:
    """Note the entries of a literal ``_fields_``."""
    if not isinstance(value, (ast.List, ast.Tuple)):
        return
    for entry in value.elts:
        if not isinstance(entry, (ast.Tuple, ast.List)) or len(entry.elts) < 2:
            continue
        name = entry.elts[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            source.fields[name.value] = [entry, *entry.elts[1:]]


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
