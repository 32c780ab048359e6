"""The report as one page that needs nothing else: no network, no other file.

The page is the data of the JSON report, a style and a script that draws it
(``report_page/``). Nothing of the data becomes markup here or there.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

_PAGE = Path(__file__).with_name("report_page")


def render(report: dict[str, Any]) -> str:
    """The page for a report."""
    # Inside a script element only "<" could end it early; in JSON it stands in strings alone.
    data = json.dumps(report, separators=(",", ":")).replace("<", "\\u003c")
    names = ", ".join(Path(library["path"]).name for library in report["libraries"])
    parts = {
        "@TITLE@": html.escape(f"{names or 'pytest-clib'}: report"),
        "@STYLE@": _read("page.css"),
        "@SCRIPT@": _read("plots.js") + _read("page.js"),
        "@DATA@": data,  # last: what is in the data stays as it is
    }
    page = _read("page.html")
    for mark, text in parts.items():
        before, _, after = page.partition(mark)
        page = before + text + after
    return page


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the page.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_text(render(report), encoding="utf-8")


def _read(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")
