"""Every option of the plugin, on the command line and in the configuration file.

``TABLE`` is the only place where an option is declared: an option ``--clib-held`` has
the ini key ``clib_held``; the command line wins, and lists are joined. Reading them
gives one ``Options``; what cannot be used raises ``pytest.UsageError`` (exit code 4)
with one line. No other module looks into ``config.option``.
"""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import pytest

from . import native

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .inject import Injection


GROUPS = ("memory", "fd", "socket", "file", "mapping", "thread", "time", "process")


class Option(NamedTuple):
    """One option.

    Attributes:
        name: without dashes in front, as in ``clib-report``.
        help: one line.
        kind: ``flag`` (no value), ``text`` (one value) or ``list`` (repeatable).
        metavar: how the value is shown in ``--help``.
        const: for ``text``: what the option means when given without a value;
            ``None`` where a value must be given.
    """

    name: str
    help: str
    kind: Literal["flag", "text", "list"] = "text"
    metavar: str = ""
    const: str | None = None

    @property
    def key(self) -> str:
        """The ini key, which is the name in ``config.option`` too."""
        return self.name.replace("-", "_")


TABLE: tuple[Option, ...] = (
    Option(
        "clib",
        "library under test: a path, a file name or a glob (repeatable)",
        kind="list",
        metavar="LIB",
    ),
    Option(
        "clib-held",
        "also tell what tests leave behind that can still be reached",
        kind="flag",
    ),
    Option(
        "clib-report",
        "write everything found to FILE: a page (.html) or data (.json); repeatable",
        kind="list",
        metavar="FILE",
    ),
    Option(
        "clib-torture",
        "every fallible call of the library fails once in a copy of the test: once per "
        "call site (sites, the default) or once per call (each; each:N tries at most N of "
        "the calls at a site, spread evenly)",
        metavar="sites|each|each:N",
        const="sites",
    ),
    Option(
        "clib-torture-later",
        "with --clib-torture: also this call and all later ones",
        kind="flag",
    ),
    Option(
        "clib-groups",
        "which functions --clib-torture makes fail, separated by commas: memory, fd, "
        "socket, file, mapping, thread, time, process (all of these), python",
        metavar="GROUPS",
    ),
    Option(
        "clib-inject",
        "make exactly this call fail: FUNCTION:N, FUNCTION:N:ERRNO, FUNCTION:N:short, "
        "FUNCTION:N:eof; N+ for all later calls, too; @TEST at the end (repeatable)",
        kind="list",
        metavar="FUNCTION:N[:ERRNO]",
    ),
    Option(
        "clib-timeout",
        "seconds that a test may take with a failure (ten times its own, at least 5)",
        metavar="SECONDS",
    ),
    Option(
        "clib-unnoticed",
        "with --clib-torture: also tell failures that made no difference",
        kind="flag",
    ),
    Option(
        "clib-guard",
        "put the library's blocks at inaccessible pages, so that an overflow (over, the "
        "default, or under) or use after free stops at once",
        metavar="over|under",
        const="over",
    ),
    Option(
        "clib-valgrind",
        "run the session under valgrind: memcheck (the default) or helgrind",
        metavar="memcheck|helgrind",
        const="memcheck",
    ),
    Option(
        "clib-asan",
        "run the session with the ASAN runtime of the library's build",
        kind="flag",
    ),
    Option(
        "clib-coverage",
        "line coverage of the library (built with gcov or LLVM counters), as pages in DIR",
        metavar="DIR",
    ),
    Option(
        "clib-coverage-tests",
        "also tell which tests reach each line (takes a moment for every test)",
        kind="flag",
    ),
    Option(
        "clib-coverage-append",
        "add to what earlier runs of the same build have left in the directory",
        kind="flag",
    ),
    Option(
        "clib-coverage-fail-under",
        "fail if less than this much of the lines, in percent, is covered",
        metavar="PERCENT",
    ),
    Option(
        "clib-coverage-source",
        "which source files count, as a glob (repeatable; all but installed ones); !GLOB: which do not",
        kind="list",
        metavar="GLOB",
    ),
    Option(
        "clib-suppressions",
        "a suppression file for valgrind or LSan; none is needed for Python (repeatable)",
        kind="list",
        metavar="FILE",
    ),
    Option(
        "clib-alias",
        "the library's name for a declaration of another name: PYTHON=C (repeatable)",
        kind="list",
        metavar="PYTHON=C",
    ),
)


def add(parser: pytest.Parser) -> None:
    """Declare the options of ``TABLE`` to pytest."""
    group = parser.getgroup("clib", "testing a C library (pytest-clib)")
    for option in TABLE:
        flag = f"--{option.name}"
        if option.kind == "flag":
            group.addoption(
                flag,
                dest=option.key,
                action="store_true",
                default=None,
                help=option.help,
            )
        elif option.kind == "list":
            group.addoption(
                flag,
                dest=option.key,
                action="append",
                default=None,
                metavar=option.metavar,
                help=option.help,
            )
        elif option.const is not None:
            group.addoption(
                flag,
                dest=option.key,
                nargs="?",
                const=option.const,
                default=None,
                metavar=option.metavar,
                help=option.help,
            )
        else:
            group.addoption(
                flag,
                dest=option.key,
                default=None,
                metavar=option.metavar,
                help=option.help,
            )
        ini_type: Literal["bool", "args", "string"] = (
            "bool"
            if option.kind == "flag"
            else "args"
            if option.kind == "list"
            else "string"
        )
        parser.addini(option.key, option.help, type=ini_type, default=None)


class Options(NamedTuple):
    """The options of one run, checked.

    Attributes:
        libraries: the specifications of ``--clib``; without any, the plugin is idle.
        held: whether what is still reachable is told.
        reports: files to write.
        aliases: from a name in Python to the library's name for it.
        torture: ``sites``, ``each``, or ``""``.
        torture_most: how many calls at one site ``each`` tries in a test; 0 for all.
        torture_later: whether lasting failures are tried, too.
        groups: the functions that torture makes fail.
        inject: single failures.
        timeout: seconds, or 0 for what suits the test.
        unnoticed: whether failures that made no difference are told.
        guard: ``over``, ``under``, or ``""``.
        valgrind: ``memcheck``, ``helgrind``, or ``""``.
        asan: whether the session runs with ASAN's runtime.
        suppressions: files for valgrind or LSan.
        coverage: directory for the pages of coverage.
        coverage_tests: whether it is told which tests reach a line.
        coverage_append: whether earlier runs count, too.
        coverage_fail_under: percent of lines.
        coverage_sources: globs of source files that count.
    """

    libraries: tuple[str, ...] = ()
    held: bool = False
    reports: tuple[Path, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    torture: str = ""
    torture_most: int = 0
    torture_later: bool = False
    groups: tuple[str, ...] = GROUPS
    inject: tuple[Injection, ...] = ()
    timeout: float = 0.0
    unnoticed: bool = False
    guard: str = ""
    valgrind: str = ""
    asan: bool = False
    suppressions: tuple[Path, ...] = ()
    coverage: Path | None = None
    coverage_tests: bool = False
    coverage_append: bool = False
    coverage_fail_under: float = 0.0
    coverage_sources: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        """Whether a library under test was named at all."""
        return bool(self.libraries)

    @property
    def tool(self) -> str:
        """What the session runs under: ``memcheck``, ``helgrind``, ``asan``, ``""``."""
        return self.valgrind or ("asan" if self.asan else "")


def bind_values(args: list[str]) -> bool:
    """Write ``--clib-torture test.py`` as ``--clib-torture=sites test.py``.

    An option that may have a value would else take the file behind it for one.

    Returns:
        Whether ``args`` was changed.
    """
    optional = {f"--{option.name}": option for option in TABLE if option.const}
    before = list(args)
    for index, word in enumerate(before[:-1]):
        option = optional.get(word)
        behind = before[index + 1]
        if option and behind[0:1] != "-" and not _is_value(option, behind):
            args[index] = f"{word}={option.const}"
    return args != before


def _is_value(option: Option, word: str) -> bool:
    """Whether a word behind an option that may have a value is that value."""
    values = option.metavar.split("|")
    return word in values or re.sub(r":\d+$", ":N", word) in values


def read(config: pytest.Config) -> Options:
    """The options of ``config``.

    Raises:
        pytest.UsageError: a value cannot be used; the message is one line.
    """
    libraries = tuple(_library(config, spec) for spec in _list(config, "clib"))
    torture, most = _torture(_text(config, "clib_torture"))
    options = Options(
        libraries=tuple(dict.fromkeys(libraries)),
        held=_flag(config, "clib_held"),
        reports=tuple(_report(config, name) for name in _list(config, "clib_report")),
        aliases=tuple(_alias(text) for text in _list(config, "clib_alias")),
        torture=torture,
        torture_most=most,
        torture_later=_flag(config, "clib_torture_later"),
        groups=_groups(_text(config, "clib_groups")),
        inject=tuple(
            dict.fromkeys(_injection(text) for text in _list(config, "clib_inject"))
        ),
        timeout=_seconds(_text(config, "clib_timeout")),
        unnoticed=_flag(config, "clib_unnoticed"),
        guard=_choice(config, "clib_guard", ("over", "under")),
        valgrind=_choice(config, "clib_valgrind", ("memcheck", "helgrind")),
        asan=_flag(config, "clib_asan"),
        suppressions=tuple(
            _file(config, "clib-suppressions", name)
            for name in _list(config, "clib_suppressions")
        ),
        coverage=_folder(config, _text(config, "clib_coverage")),
        coverage_tests=_flag(config, "clib_coverage_tests"),
        coverage_append=_flag(config, "clib_coverage_append"),
        coverage_fail_under=_percent(_text(config, "clib_coverage_fail_under")),
        coverage_sources=tuple(_list(config, "clib_coverage_source")),
    )
    _check_together(options)
    return options


def _check_together(options: Options) -> None:
    if not options.active:
        for name, given, what in (
            ("clib-report", options.reports, "nothing to report"),
            ("clib-torture", options.torture, "no calls to make fail"),
            ("clib-inject", options.inject, "no calls to make fail"),
            ("clib-guard", options.guard, "no memory to guard"),
            ("clib-valgrind", options.valgrind, "no errors to tell apart"),
            ("clib-coverage", options.coverage, "no lines to count"),
            ("clib-asan", options.asan, "nothing to find the runtime for"),
        ):
            if given:
                raise pytest.UsageError(
                    f"--{name}: {what} without a library; name one with --clib=LIB"
                )
    if options.valgrind and options.asan:
        raise pytest.UsageError("--clib-valgrind and --clib-asan exclude each other")
    if options.guard and (options.valgrind or options.asan):
        raise pytest.UsageError(
            "--clib-guard means nothing under valgrind or ASAN, which watch memory themselves"
        )
    if options.coverage is None and (
        options.coverage_fail_under or options.coverage_sources
    ):
        raise pytest.UsageError(
            "--clib-coverage-fail-under and --clib-coverage-source mean nothing without "
            "--clib-coverage=DIR"
        )
    if options.suppressions and not (options.valgrind or options.asan):
        raise pytest.UsageError(
            "--clib-suppressions means nothing without --clib-valgrind or --clib-asan"
        )
    if options.torture and options.inject:
        raise pytest.UsageError("--clib-torture and --clib-inject exclude each other")
    for name, given in (
        ("clib-torture-later", options.torture_later),
        ("clib-unnoticed", options.unnoticed),
    ):
        if given and not options.torture:
            raise pytest.UsageError(f"--{name} means nothing without --clib-torture")


def read_early(config: pytest.Config) -> Options:
    """The options, before any conftest is loaded, which may add options of its own.

    Raises:
        pytest.UsageError: a value cannot be used; the message is one line.
    """
    early = types.SimpleNamespace(
        option=config.known_args_namespace,
        getini=config.getini,
        invocation_params=config.invocation_params,
        rootpath=config.rootpath,
    )
    return read(cast("pytest.Config", early))


def _flag(config: pytest.Config, key: str) -> bool:
    value = getattr(config.option, key)
    return bool(config.getini(key)) if value is None else bool(value)


def _list(config: pytest.Config, key: str) -> Iterable[str]:
    return [*(config.getini(key) or ()), *(getattr(config.option, key) or ())]


def _text(config: pytest.Config, key: str) -> str:
    value = getattr(config.option, key)
    return str(config.getini(key) or "" if value is None else value)


def _choice(config: pytest.Config, key: str, values: tuple[str, ...]) -> str:
    value = _text(config, key)
    if value and value not in values:
        raise pytest.UsageError(
            f"--{key.replace('_', '-')}={value}: expected " + " or ".join(values)
        )
    return value


def _torture(text: str) -> tuple[str, int]:
    """What is tried, and at most how many calls at one site; 0 for all."""
    if text in ("", "sites", "each"):
        return text, 0
    mode, _, number = text.partition(":")
    if mode != "each" or not number.isdecimal() or int(number) < 1:
        raise pytest.UsageError(
            f"--clib-torture={text}: expected sites, each, or each:N with N from 1"
        )
    return mode, int(number)


def _groups(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, (name.strip() for name in text.split(","))))
    known = (*GROUPS, "python")
    for name in names:
        if name not in known:
            import difflib  # noqa: PLC0415 (a mistake was made)

            near = difflib.get_close_matches(name, known, 1, 0.5)
            raise pytest.UsageError(
                f"--clib-groups={text}: there is no group {name!r}; "
                + (f"near it: {near[0]}" if near else "there are " + ", ".join(known))
            )
    return names or GROUPS


def _injection(text: str) -> Injection:
    from . import inject  # noqa: PLC0415 (seldom used)

    module, _ = native.load()
    try:
        return inject.parse(text, module)
    except ValueError as error:
        raise pytest.UsageError(f"--clib-inject={text}: {error}") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = -1.0
    if text and not 0 < seconds < 86400:
        raise pytest.UsageError(
            f"--clib-timeout={text}: expected a number of seconds above 0"
        )
    return seconds


def _library(config: pytest.Config, spec: str) -> str:
    """One ``--clib`` value: a path is made absolute and its file looked at."""
    if not spec:
        raise pytest.UsageError("--clib: the name of the library is empty")
    if "/" not in spec or spec.startswith("*"):
        return spec
    from . import elf  # noqa: PLC0415 (only paths are looked at)

    path = config.invocation_params.dir / Path(spec).expanduser()
    if not path.exists() and (config.rootpath / spec).exists():
        path = config.rootpath / spec  # as written in the configuration file
    if elf.is_glob(spec) and not path.exists():
        return str(path)
    reason = elf.why_unusable(path)
    if reason:
        raise pytest.UsageError(f"--clib={spec}: {reason}")
    return str(path)


def _report(config: pytest.Config, name: str) -> Path:
    from . import report  # noqa: PLC0415 (seldom used)

    path = config.invocation_params.dir / Path(name).expanduser()
    if path.suffix not in report.WRITERS:
        raise pytest.UsageError(
            f"--clib-report={name}: the name must end in " + " or ".join(report.WRITERS)
        )
    if not path.parent.is_dir():
        raise pytest.UsageError(
            f"--clib-report={name}: there is no directory {path.parent}"
        )
    return path


def _folder(config: pytest.Config, name: str) -> Path | None:
    return config.invocation_params.dir / Path(name).expanduser() if name else None


def _percent(text: str) -> float:
    try:
        percent = float(text or 0)
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise pytest.UsageError(
            f"--clib-coverage-fail-under={text}: expected a number from 0 to 100"
        )
    return percent


def _file(config: pytest.Config, option: str, name: str) -> Path:
    path = config.invocation_params.dir / Path(name).expanduser()
    if not path.is_file():
        raise pytest.UsageError(f"--{option}={name}: there is no such file")
    return path


def _alias(text: str) -> tuple[str, str]:
    python, equals, c = text.partition("=")
    if not (python and equals and c):
        raise pytest.UsageError(f"--clib-alias={text}: expected PYTHON_NAME=C_NAME")
    return python, c
