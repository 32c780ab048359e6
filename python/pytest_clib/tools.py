"""The debugging tools that a session runs under, as checks of a ``Run``.

A check has ``start_test(test)``, ``end_test(test)`` and ``finish()``; the last two tell findings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import asan, coverage, resume, supervisor, valgrind

if TYPE_CHECKING:
    import pytest

    from .run import Run


def attach(run: Run, config: pytest.Config) -> None:
    """Add the checks that the options ask for, where tests are executed."""
    folder = supervisor.folder()
    options = run.options
    if options.coverage is not None:
        run.checks.append(
            coverage.Coverage(run, options.coverage, by_test=options.coverage_tests)
        )
    if folder is None or not (options.valgrind or options.asan):
        return
    check: valgrind.Valgrind | asan.Asan
    if options.valgrind:
        check = valgrind.Valgrind(run, folder, options.valgrind)
    else:
        check = asan.Asan(run, folder)
    run.checks.append(check)
    if not hasattr(config, "workerinput"):
        plugin = resume.Resume(folder, config, check.explain)
        config.pluginmanager.register(plugin, "clib-resume")
