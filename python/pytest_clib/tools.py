"""The debugging tools that a session runs under, as checks of a ``Run``.

A check has ``start_test(test)``, ``end_test(test)`` and ``finish()``; the last two tell findings.
"""

# ruff: noqa: PLC0415 (what a session does not use is not imported)

from __future__ import annotations

from typing import TYPE_CHECKING

from . import roles

if TYPE_CHECKING:
    import pytest

    from .findings import Finding
    from .run import Run


def attach(run: Run, config: pytest.Config) -> None:
    """Add the checks that the options ask for, where tests are executed."""
    folder = roles.folder(config)
    options = run.options
    if options.coverage is not None:
        from . import coverage

        run.checks.append(
            coverage.Coverage(run, options.coverage, by_test=options.coverage_tests)
        )
    if folder is None:
        return
    explain = _nothing
    if options.valgrind:
        from . import valgrind

        check = valgrind.Valgrind(run, folder, options.valgrind)
        run.checks.append(check)
        explain = check.explain
    elif options.asan:
        from . import asan

        watch = asan.Asan(run, folder)
        run.checks.append(watch)
        explain = watch.explain
    if hasattr(config, "workerinput"):
        from . import workers

        run.checks.append(workers.Predecessors(folder, explain))
    else:
        from . import resume

        plugin = resume.Resume(folder, config, run, explain)
        config.pluginmanager.register(plugin, "clib-resume")


def _nothing(test: str, process: int) -> list[Finding]:  # noqa: ARG001
    """What no tool says of a process that died."""
    return []
