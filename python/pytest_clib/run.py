"""One run of a suite with libraries under test: what the checks share.

A ``Run`` exists where tests are executed: in the only process, or in each worker of
pytest-xdist. It owns the native session, knows the libraries found so far, and collects
findings. It knows nothing of how they are shown.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import loading
from .callbacks import Callbacks
from .leaks import Leaks
from .library import Library

if TYPE_CHECKING:
    from types import ModuleType

    import pytest

    from .findings import Finding
    from .options import Options


class Run:
    """The checks, and what they share; one per process that executes tests."""

    def __init__(
        self, native: ModuleType | Any, options: Options, config: pytest.Config
    ) -> None:
        self.native = native
        self.options = options
        self.config = config
        self.libraries: list[Library] = []
        self.findings: list[Finding] = []
        self.native_session = native.Session(
            list(options.libraries), guard=options.guard or None
        )
        self._generation = (-1, -1)
        self._watch = loading.Watch(self.rescan)
        self.checks: list[Any] = []  # see ``tools``
        self.callbacks = Callbacks()
        self.leaks = Leaks(self)

    def start(self) -> None:
        """Begin to watch for the libraries; those that are loaded are hooked already."""
        self._find_libraries()
        self._watch.start()
        self.callbacks.start()

    def stop(self) -> None:
        """Put everything back."""
        self._watch.stop()
        self.callbacks.stop()
        self.native_session.stop()

    def rescan(self) -> None:
        """Hook what has been loaded since the last look."""
        generation = self.native.generation()
        if generation != self._generation:
            self.native_session.rescan()
            self._find_libraries()
            self._generation = generation

    def _find_libraries(self) -> None:
        known = len(self.libraries)
        for (
            number,
            path,
            spec,
            build_id,
            bias,
            _,
            _,
            _,
            functions,
        ) in self.native_session.libraries()[known:]:
            debug = self.native.has_debug_info(path)
            self.libraries.append(
                Library(number, path, spec, build_id or "", bias, functions, debug)
            )

    def library(self, number: int) -> Library:
        """The library that the native session calls ``number``."""
        if number >= len(self.libraries):
            self._find_libraries()
        return self.libraries[number]

    def never_loaded(self) -> list[str]:
        """The ``--clib`` values that nothing matched."""
        matched = self.native_session.matched()
        return [
            spec
            for spec, was in zip(self.options.libraries, matched, strict=True)
            if not was
        ]

    def command(self, test: str, *extra: str) -> str:
        """The command that runs ``test`` again, with more arguments if given."""
        specs = [f"--clib={spec}" for spec in self.options.libraries]
        words = ["python", "-m", "pytest", *specs, *extra]
        if test:
            words.append(self._from_here(test))
        return shlex.join(words)

    def _from_here(self, test: str) -> str:
        """The node id as the directory of the invocation sees it."""
        file, colons, rest = test.partition("::")
        here = self.config.invocation_params.dir
        path = Path(self.config.rootpath, file)
        shown = path.relative_to(here) if path.is_relative_to(here) else path
        return f"{shown}{colons}{rest}"
