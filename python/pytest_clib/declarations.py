"""The declaration check, as the run sees it: once, when everything has been declared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import abi

if TYPE_CHECKING:
    from .findings import Finding
    from .run import Run


def check(run: Run) -> list[Finding]:
    """Findings about the ctypes declarations of all modules that are loaded now."""
    return abi.check(
        [library.path for library in run.libraries if library.debug],
        rootdir=run.config.rootpath,
        aliases=dict(run.options.aliases),
    )
