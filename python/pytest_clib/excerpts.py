"""Failures are shown without a parse of the whole files that they went through.

For each line of a traceback pytest looks for the statement that it is part of, and parses
the whole file for that: in every failed test again, and bindings are one long file. Here
it is given the syntax tree of the function alone, with all line numbers as they are in the
file, and finds the same statement. Where that cannot be, it parses as ever. Nor is the module of a
function looked for, among all that there are, only to read the function's file. What is
shown does not change.

Entries and tracebacks are classes of pytest's that it has no public name for: where they
are not what they were, nothing is done.
"""

from __future__ import annotations

import ast
import contextlib
import linecache
import os
from typing import TYPE_CHECKING, Any

from _pytest._code.code import Code, Frame, Traceback, TracebackEntry
from _pytest._code.source import Source

if TYPE_CHECKING:
    from types import CodeType

    import pytest

STARTS = ("def ", "async def ", "class ", "@")
# A line with one of these does not begin the statement after a function.
GOES_ON = (")", "]", "}", "#")

# Of the failure that is shown: a function may be in its traceback a thousand times.
_TREES: dict[CodeType, ast.Module | None] = {}
_FILES: dict[str, Source | None] = {}


def show(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Show ``excinfo`` in this way."""
    _TREES.clear()
    _FILES.clear()
    with contextlib.suppress(AttributeError, TypeError):
        excinfo.traceback = Excerpts(excinfo.traceback)


class Excerpts(Traceback):
    """A traceback whose entries are ``Excerpt``; it stays one when its start is cut."""

    def __init__(self, entries: Any) -> None:
        super().__init__(Excerpt(one._rawentry, one._repr_style) for one in entries)  # noqa: SLF001

    def cut(self, *args: Any, **kwargs: Any) -> Traceback:
        """As ever."""
        found = super().cut(*args, **kwargs)
        return found if found is self else Excerpts(found)


class Excerpt(TracebackEntry):
    """One entry."""

    __slots__ = ()

    def with_repr_style(self, repr_style: Any) -> TracebackEntry:
        """As ever."""
        return Excerpt(self._rawentry, repr_style)

    @property
    def frame(self) -> Frame:
        """As ever, but that it reads files itself."""
        return ExcerptFrame(self._rawentry.tb_frame)

    def getsource(self, astcache: Any = None) -> Any:
        """The function's lines up to the end of the statement."""
        code = self.frame.code
        if code.raw not in _TREES:
            full = code.fullsource
            tree = None if full is None else function_tree(full.lines, code.raw)
            _TREES[code.raw] = tree
        tree = _TREES[code.raw]
        return super().getsource(astcache if tree is None else {code.path: tree})

    source = property(getsource)


class ExcerptFrame(Frame):
    """A frame."""

    __slots__ = ()

    @property
    def code(self) -> Code:
        """As ever, but that it reads files itself."""
        return ExcerptCode(self.raw.f_code)


class ExcerptCode(Code):
    """A function's code."""

    __slots__ = ()

    @property
    def fullsource(self) -> Source | None:
        """The lines of its file; pytest's way finds the same ones, but the module first."""
        name = self.raw.co_filename
        if name not in _FILES:
            _FILES[name] = source_of(name)
        found = _FILES[name]
        if found is None or self.raw.co_firstlineno > len(found.lines):
            return super().fullsource
        return found


def source_of(file: str) -> Source | None:
    """The lines of ``file``; ``None`` where only its module's loader may have them."""
    if not file.endswith(".py") or not os.path.exists(file):  # noqa: PTH110 (as inspect)
        return None
    linecache.checkcache(file)
    lines = linecache.getlines(file)
    if not lines:
        return None
    source = Source()
    source.lines = [line.rstrip() for line in lines]
    source.raw_lines = lines
    return source


def function_tree(lines: list[str], code: CodeType) -> ast.Module | None:
    """The syntax tree of the function or class that ``code`` is; ``None`` if that cannot be.

    Args:
        lines: those of the whole file.
        code: tells where in them it is.
    """
    start = code.co_firstlineno - 1
    last = max((line or 0 for _, _, line in code.co_lines()), default=0)
    if not 0 <= start < last <= len(lines) or not lines[start].lstrip().startswith(
        STARTS
    ):
        return None
    end = last
    indent = len(lines[start]) - len(lines[start].lstrip())
    while end < len(lines) and is_inside(lines[end], indent):
        end += 1
    margin = lines[start][:indent]
    # The line before opens a block where there is none, the one after ends the last statement.
    before = "\n" * (start - 1) + "if 1:\n" if indent else "\n" * start
    text = "\n".join([*lines[start:end], f"{margin}0"])
    try:
        return ast.parse(before + text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def is_inside(line: str, indent: int) -> bool:
    """Whether a line after one of a function at some indentation belongs to it."""
    text = line.lstrip()
    return not text or len(line) - len(text) > indent or text.startswith(GOES_ON)
