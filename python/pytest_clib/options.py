"""Every option of the plugin, on the command line and in the configuration file.

``TABLE`` is the only place where an option is declared: an option ``--clib-held`` has
the ini key ``clib_held``; the command line wins, and lists are joined. Reading them
gives one ``Options``; what cannot be used raises ``pytest.UsageError`` (exit code 4)
with one line. No other module looks into ``config.option``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from . import elf, report

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Option:
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
        "write everything found to FILE, as data (.json; repeatable)",
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


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of one run, checked.

    Attributes:
        libraries: the specifications of ``--clib``; without any, the plugin is idle.
        held: whether what is still reachable is told.
        reports: files to write.
        aliases: from a name in Python to the library's name for it.
    """

    libraries: tuple[str, ...] = ()
    held: bool = False
    reports: tuple[Path, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()

    @property
    def active(self) -> bool:
        """Whether a library under test was named at all."""
        return bool(self.libraries)


def read(config: pytest.Config) -> Options:
    """The options of ``config``.

    Raises:
        pytest.UsageError: a value cannot be used; the message is one line.
    """
    libraries = tuple(_library(config, spec) for spec in _list(config, "clib"))
    options = Options(
        libraries=tuple(dict.fromkeys(libraries)),
        held=_flag(config, "clib_held"),
        reports=tuple(_report(config, name) for name in _list(config, "clib_report")),
        aliases=tuple(_alias(text) for text in _list(config, "clib_alias")),
    )
    if options.reports and not options.active:
        raise pytest.UsageError(
            "--clib-report: nothing to report without a library; name one with --clib=LIB"
        )
    return options


def _flag(config: pytest.Config, key: str) -> bool:
    value = getattr(config.option, key)
    return bool(config.getini(key)) if value is None else bool(value)


def _list(config: pytest.Config, key: str) -> Iterable[str]:
    return [*(config.getini(key) or ()), *(getattr(config.option, key) or ())]


def _library(config: pytest.Config, spec: str) -> str:
    """One ``--clib`` value: a path is made absolute and its file looked at."""
    if not spec:
        raise pytest.UsageError("--clib: the name of the library is empty")
    if "/" not in spec or spec.startswith("*"):
        return spec
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


def _alias(text: str) -> tuple[str, str]:
    python, equals, c = text.partition("=")
    if not (python and equals and c):
        raise pytest.UsageError(f"--clib-alias={text}: expected PYTHON_NAME=C_NAME")
    return python, c
