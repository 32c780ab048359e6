"""Planted bugs: C files whose first comment says what must be found, and the test that meets it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """A planted bug: its source, what must be found, and the test that meets it."""

    path: Path

    @property
    def folder(self) -> str:
        return self.path.parent.name

    @property
    def file(self) -> str:
        """The name of the Python file for its test."""
        return f"test_{self.path.stem}.py"

    @property
    def name(self) -> str:
        return f"{self.folder}-{self.path.stem}"

    @property
    def _comment(self) -> list[str]:
        text = self.path.read_text().partition("/*\n")[2].partition("\n */")[0]
        return [line[3:] if line != " *" else "" for line in text.splitlines()]

    @property
    def finds(self) -> tuple[str, str]:
        line = next(line for line in self._comment if line.startswith("finds: "))
        kind, _, message = line.removeprefix("finds: ").partition(": ")
        return kind, message

    @property
    def test(self) -> str:
        lines = self._comment
        start = next(i for i, line in enumerate(lines) if line.startswith("finds: "))
        return textwrap.dedent("\n".join(lines[start + 1 :])) + "\n"
