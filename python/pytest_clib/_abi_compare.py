"""Compares all that a suite declares with one library.

Order matters: records are matched by name first; those that have no match of their own
are then compared with what the library expects where they are used. A declaration is
reported once, under its own name, however often it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _abi_report as report
from ._abi_records import agreement, compare_records
from ._abi_suite import DeclaredCallback
from ._abi_types import Role, Types, Uses
from .findings import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._abi_library import CPrototype, CRecord, Library, Place
    from ._abi_suite import (
        DeclaredFunction,
        DeclaredRecord,
        DeclaredSignature,
        RecordKey,
    )
    from ._abi_types import Problem
    from .findings import Finding

IGNORED = ("", "-")
PREFIXES = ("struct_", "union_", "_")
SUFFIXES = ("_t", "_s", "_st", "_struct", "_")


class Comparison:
    """One library's share of a check."""

    def __init__(
        self, library: Library, aliases: Mapping[str, str], rootdir: str
    ) -> None:
        self.library = library
        self.aliases = aliases
        self.rootdir = rootdir
        self.uses = Uses()
        self.types = Types(library, self.uses)
        self.findings: list[Finding] = []
        self._matched: dict[RecordKey, list[CRecord]] = {}
        self._named: dict[Any, DeclaredCallback] = {}
        self._callbacks: set[tuple[Any, str]] = set()

    # -- records ---------------------------------------------------------------

    def add_records(self, keys: Iterable[tuple[RecordKey, str | None]]) -> None:
        """Structures and Unions, each with the name that it says it has in C."""
        for key, says in keys:
            if key in self._matched:
                continue
            candidates = self.candidates(key, says)
            if candidates is None:
                self._matched[key] = []
            elif candidates:
                suite = key.describe()
                if suite is not None:
                    self.compare_with(suite, key, candidates)

    def candidates(
        self, key: RecordKey, says: str | None
    ) -> list[tuple[CRecord, float]] | None:
        """The library's records that may be meant, and how many names must agree.

        ``None``: not to be compared at all.
        """
        written = self.aliases.get(key.name, says)
        if written is not None:
            if written in IGNORED:
                return None
            return [(one, 0.0) for one in self.library.records(written)]
        found = self.library.records(key.name)
        if found:
            # One name in common tells it from a namesake, or from a placeholder.
            return [(one, 1e-9) for one in found]
        out = []
        for name in spellings(key.name):
            out += [(one, 1.0) for one in self.library.records(name)]
        return out

    def compare_with(
        self,
        suite: DeclaredRecord,
        key: RecordKey,
        candidates: list[tuple[CRecord, float]],
    ) -> None:
        """Compares with all candidates, and reports the one that fits best."""
        fitting = [one for one, share in candidates if agreement(suite, one) >= share]
        if not fitting:
            return
        self._matched[key] = fitting
        self.report_best(suite, fitting, prefix=False)

    def report_best(
        self, suite: DeclaredRecord, candidates: list[CRecord], *, prefix: bool
    ) -> None:
        best: tuple[list[Problem], CRecord] | None = None
        for one in candidates:
            problems = compare_records(self.types, suite, one, prefix=prefix)
            if best is None or badness(problems) < badness(best[0]):
                best = (problems, one)
        if best is not None and best[0]:
            problems, of = best
            details = report.record_details(suite, of, problems, self.rootdir)
            name = suite.key.name
            self.findings += report.findings(self.library.path, name, problems, details)

    # -- functions and callbacks -----------------------------------------------

    def add_functions(self, functions: Iterable[DeclaredFunction]) -> None:
        """Foreign functions by the name of their symbol."""
        for one in functions:
            written = self.aliases.get(one.name)
            if written in IGNORED:
                continue
            of = self.library.function(written or one.name)
            if of is None:
                continue
            problems = self.types.signature(one.signature, of.prototype, callback=False)
            if problems:
                details = report.function_details(
                    one,
                    of.spelling,
                    of.prototype,
                    of.place,
                    problems=problems,
                    rootdir=self.rootdir,
                )
                self.findings += report.findings(
                    self.library.path, one.name, problems, details
                )

    def add_callbacks(self, callbacks: Iterable[DeclaredCallback]) -> None:
        """Prototypes by the names that the suite gives them."""
        self._named = {one.signature.identity: one for one in callbacks}
        for one in self._named.values():
            for name in one.names:
                written = self.aliases.get(name, name)
                if written in IGNORED:
                    continue
                for of, spelling, place in self.library.prototypes(written):
                    self.callback(one, name, of, spelling, place)

    def callback(
        self,
        one: DeclaredCallback,
        name: str,
        of: CPrototype,
        spelling: str,
        place: Place | None,
    ) -> None:
        key = (one.signature.identity, signature_text(of))
        if key in self._callbacks:
            return
        self._callbacks.add(key)
        problems = self.types.signature(one.signature, of, callback=True)
        if problems:
            details = report.function_details(
                one, spelling, of, place, problems=problems, rootdir=self.rootdir
            )
            self.findings += report.findings(self.library.path, name, problems, details)

    # -- what was met on the way -----------------------------------------------

    def finish(self) -> list[Finding]:
        """Compares what is known by its use only; then all findings."""
        for _ in range(16):  # each round may meet more
            records, callbacks = self.uses.records, self.uses.callbacks
            if not records and not callbacks:
                break
            self.uses.records, self.uses.callbacks = [], []
            for declared, of, spelling in callbacks:
                if declared.signature is not None:
                    self.used_callback(
                        declared.signature, declared.spelling, of, spelling
                    )
            self.used_records(records)
        return self.findings

    def used_callback(
        self, signature: DeclaredSignature, written: str, of: CPrototype, spelling: str
    ) -> None:
        one = self._named.get(signature.identity)
        if one is None:
            one = DeclaredCallback((), signature, lambda: (written, None))
        name = " = ".join(one.names) or written
        self.callback(one, name, of, spelling, None)

    def used_records(self, uses: list[tuple[RecordKey, int, Role]]) -> None:
        """Records without a match of their own name, by what they are used as."""
        by_key: dict[RecordKey, dict[int, set[Role]]] = {}
        for key, ident, role in uses:
            if key not in self._matched:
                by_key.setdefault(key, {}).setdefault(ident, set()).add(role)
        for key, targets in by_key.items():
            suite = key.describe()
            if suite is None:
                continue
            records = [self.library.record(ident) for ident in targets]
            fitting = [one for one in records if agreement(suite, one) >= 0.5]
            if not fitting:
                continue
            self._matched[key] = fitting
            # A result may be looked at through its first fields alone.
            roles = set().union(*targets.values())
            self.report_best(suite, fitting, prefix=roles <= {Role.RESULT})


def badness(problems: list[Problem]) -> tuple[int, int]:
    """How far off: errors, then warnings."""
    errors = sum(1 for one in problems if one.severity is Severity.ERROR)
    return errors, len(problems) - errors


def spellings(name: str) -> list[str]:
    """Names that C programmers and generators of bindings use for the same thing."""
    out = []
    bare = name
    for prefix in PREFIXES:
        bare = bare.removeprefix(prefix)
    for suffix in SUFFIXES:
        if bare.endswith(suffix):
            bare = bare.removesuffix(suffix)
            break
    snake = "".join(
        f"_{one.lower()}" if one.isupper() and at else one.lower()
        for at, one in enumerate(bare)
    )
    for one in (bare, snake, bare.lower()):
        out += [one, f"{one}_t", f"_{one}", f"{one}_s"]
    return [one for one in dict.fromkeys(out) if one and one != name]


def signature_text(of: CPrototype) -> str:
    """A signature as text: units declare the same one each for itself."""
    parts = [of.result, *(one for _, one in of.parameters)]
    return f"{', '.join(one.spelling for one in parts)}{'...' if of.variadic else ''}"
