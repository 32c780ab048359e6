"""The hooks that pytest calls; what they do is in the other modules.

- This module declares options and markers, and registers ``Execution`` where tests are
  executed and ``Display`` where they are shown: both in one process, or the one in the
  workers of pytest-xdist and the other in its controller.
- Findings travel from one to the other on the reports of tests
  (``report.clib_findings``) and, what belongs to no test, in the worker's output.
- Without ``--clib`` nothing is registered, and nothing is touched.
- What a session does not use is not imported: most of what is here costs nothing then.

PYTEST_DONT_REWRITE: nothing here asserts.
"""

# ruff: noqa: PLC0415 (imported where it is used)

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING

import pytest

from . import PlainImports, garbage, marks, native, options, scripts

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from types import ModuleType

    from .display import Display
    from .fixture import Clib
    from .options import Options


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    options.add(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> None:
    """Prepare what must be so before a conftest is looked for, and loads the library."""
    if options.bind_values(args):
        known = parser.parse_known_args(args, copy.copy(early_config.option))
        known.confcutdir = early_config.known_args_namespace.confcutdir
        early_config.known_args_namespace = known
    _start_tool(early_config)
    _settle(early_config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(
    config: pytest.Config,
) -> Generator[None, int | None, int | None]:
    """The session is over, and all of it undone: a process under a tool ends here."""
    status = yield
    if "pytest_clib.roles" in sys.modules and status is not None:
        from . import roles

        if roles.folder(config) is not None and roles.is_command(config):
            from . import leaving

            if config.option.clib_valgrind or config.getini("clib_valgrind"):
                leaving.leave_valgrind(int(status))
            leaving.leave_with_destructors(int(status))
    return status


def pytest_configure(config: pytest.Config) -> None:
    """Read the options, and begin if a library is named."""
    config.addinivalue_line("markers", marks.HELP)
    config.addinivalue_line("markers", scripts.HELP)
    chosen = options.read(config)
    if not chosen.active:
        return
    with garbage.kept():  # modules stay, so a collection meanwhile finds nothing
        _begin(config, chosen)


def pytest_unconfigure() -> None:
    """Let go of what keeps the configuration until the interpreter's last moment."""
    if PlainImports in sys.meta_path:
        sys.meta_path.remove(PlainImports)


def _begin(config: pytest.Config, chosen: Options) -> None:
    from .display import Display

    module, reason = native.load()
    display = Display(config, chosen)
    if module is None:
        display.notes.append(f"pytest-clib {reason}; nothing is checked")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(display, "clib-display")
        config.pluginmanager.register(scripts.ScriptTable(), "clib-script-table")
    if chosen.tool and _is_controller(config):
        from . import supervisor, workers

        tool = supervisor.wanted(chosen)
        if tool is not None:
            config.pluginmanager.register(workers.UnderTool(tool), "clib-workers")
    if module is not None and not _is_controller(config):
        _register_checks(config, chosen, module, display)


def _register_checks(
    config: pytest.Config, chosen: Options, module: ModuleType, display: Display
) -> None:
    """Register what watches the tests, in a process that executes some."""
    from .execution import CallbackPhases, Execution
    from .run import Run

    execution = Execution(Run(module, chosen, config))
    config.pluginmanager.register(execution, "clib-execution")
    config.pluginmanager.register(CallbackPhases(execution), "clib-callbacks")
    config.pluginmanager.register(scripts.Scripts(execution.run), "clib-scripts")
    if chosen.reports:
        from .measures import Measures

        config.pluginmanager.register(Measures(execution.run), "clib-measures")
    if chosen.torture or chosen.inject or chosen.guard:
        from .torture import Torture

        torture = Torture(execution.run, display.torture_progress)
        config.pluginmanager.register(torture, "clib-torture")
    execution.run.start()
    if chosen.tool or chosen.coverage is not None:
        from . import tools

        tools.attach(execution.run, config)


@pytest.fixture
def clib(request: pytest.FixtureRequest) -> Iterator[Clib]:
    """The libraries under test: their calls counted, made to fail, replaced; their leaks."""
    from .fixture import opened

    with opened(request) as made:
        yield made


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Tell markers that make no sense before anything runs."""
    for item in items:
        marks.read(item)
        scripts.read(item)


def _start_tool(early_config: pytest.Config) -> None:
    """Say where coverage goes, or run the whole session under a tool, which ends here."""
    chosen = early_config.known_args_namespace
    if chosen.help or chosen.version:
        return
    if not (
        chosen.clib_valgrind or chosen.clib_asan or chosen.clib_coverage
    ) and not any(
        map(early_config.getini, ("clib_valgrind", "clib_asan", "clib_coverage"))
    ):
        return
    from . import roles

    roles.claim(early_config)
    try:
        early = options.read_early(early_config)
        is_child = roles.folder(early_config) is not None
        is_worker = roles.is_worker()
        if early.coverage is not None:
            from . import coverage

            fresh = not (is_child or is_worker or early.coverage_append)
            coverage.prepare(early.coverage, fresh=fresh)
        if is_child or is_worker or roles.are_workers_wanted(chosen):
            return
        from . import supervisor

        tool = supervisor.wanted(early)
        if tool is None and roles.is_command(early_config):
            tool = supervisor.NoTool()
        if tool is None:
            return
        status = supervisor.run(early_config, tool)
        if roles.is_command(early_config):
            from .leaving import leave

            leave(status)
    except pytest.UsageError as error:
        print(f"ERROR: {error}", file=sys.stderr)  # noqa: T201 (as pytest says it later)
        status = int(pytest.ExitCode.USAGE_ERROR)
    raise SystemExit(status)


def _settle(early_config: pytest.Config) -> None:
    """Load what a session needs, if it checks anything, and leave it out of collections."""
    chosen = early_config.known_args_namespace
    if chosen.help or chosen.version:
        return
    if not chosen.clib and not early_config.getini("clib"):
        return
    from . import roles

    if roles.is_command(early_config) or roles.is_worker():
        with garbage.kept():
            from . import display, execution, run

            del display, execution, run
        garbage.settle()


def _is_controller(config: pytest.Config) -> bool:
    """Whether pytest-xdist runs the tests in other processes."""
    return bool(getattr(config.option, "tx", None)) and not hasattr(
        config, "workerinput"
    )
