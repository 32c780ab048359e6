"""Torture where it is shown: findings of all tests together, counts, and progress.

In the only process, or in the controller of pytest-xdist. What the tests found comes on their
reports, so that an interrupted run shows what it has.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from .findings import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .inject import Injection
    from .options import Options

WORDS = {
    "passed": "passed",
    "failed": "failed cleanly",
    "unnoticed": "made no difference",
    "lost": "lost something",
    "missed": "did not come to pass",
    "waited": "made the test wait",
    "elsewhere": "ended it outside of the library",
    "left out": "left out, since the same failure made others wait",
    "beyond": "calls beyond those asked for at one site",
}
REFRESH = 0.2  # seconds
MOST_NOTES = 10


class Sweep:
    """Collects what the copies showed."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._groups: dict[Any, tuple[Finding, set[str]]] = {}
        self._began = time.monotonic()
        self._drawn = 0.0
        self.counts: Counter[str] = Counter()
        self.tests = 0
        self.total = 0
        self._notes: list[str] = []

    def add(self, data: Mapping[str, Any]) -> list[Finding]:
        """Take what one test's report tells; the findings that are like none before."""
        known = len(self._groups)
        self.counts.update(data["counts"])
        for name in data["counts"]:  # also what counts to nothing
            self.counts[name] += 0
        self.tests += 1 if data["counts"] else 0
        found = [(key, Finding.from_dict(fields)) for key, fields in data["found"]]
        from ._torture_results import merge  # noqa: PLC0415 (only with torture)

        merge(self._groups, found)
        for note in data["notes"]:
            if note not in self._notes:
                self._notes.append(note)
        return [finding for finding, _ in list(self._groups.values())[known:]]

    def findings(self) -> list[Finding]:
        """One a group, as far as it came."""
        if not self._groups:
            return []
        from ._torture_results import merged  # noqa: PLC0415 (only with torture)

        return merged(self._groups)

    def never(self) -> list[str]:
        """Values of ``--clib-inject`` that came to nothing in every test."""
        return [
            name.removeprefix("inject ")
            for name in self._injections()
            if not self.counts[name]
        ]

    def _injections(self) -> dict[str, Injection]:
        """What the user asked for, by the name that it is counted under."""
        return {f"inject {i.spec(test=i.test)}": i for i in self._options.inject}

    def notes(self, tests: int, *, interrupted: bool) -> list[str]:
        """Lines for the summary."""
        notes: list[str] = []
        if self._options.torture:
            seconds = time.monotonic() - self._began
            injections = self.counts["injections"]
            parts = [
                f"{self.counts[name]} {words}"
                for name, words in WORDS.items()
                if self.counts[name]
            ]
            ends = [
                f"{count} {name}"
                for name, count in sorted(self.counts.items())
                if name not in WORDS and name != "injections" and " " not in name
            ]
            notes.append(
                f"torture: {injections} injections in {tests} "
                f"test{'s' if tests != 1 else ''}, {seconds:.1f} s: "
                + (", ".join(parts + ends) or "no fallible call was made")
            )
            if interrupted:
                notes.append(
                    "torture: interrupted; the findings are those of the tests before"
                )
        notes.extend(
            f"--clib-{name.replace(' ', '=', 1)} never happened: no test with a node id "
            f"that ends in {injection.test!r} was run"
            for name, injection in self._injections().items()
            if injection.test and name not in self.counts and tests
        )
        shown = self._notes[:MOST_NOTES]
        notes.extend(shown)
        if len(self._notes) > len(shown):
            notes.append(f"and {len(self._notes) - len(shown)} more of this kind")
        return notes

    def progress(
        self, tests: float, counts: Mapping[str, int]
    ) -> tuple[float, str] | None:
        """Which share is done, and what to say; ``None`` if it is too early for another.

        Args:
            tests: how many are done, with the share of the one that runs.
            counts: of the test that runs.
        """
        now = time.monotonic()
        if now - self._drawn < REFRESH:
            return None
        self._drawn = now
        seconds = now - self._began
        injections = self.counts["injections"] + counts.get("injections", 0)
        total = f"/{self.total}" if self.total else ""
        text = (
            f"torture: {int(tests)}{total} tests, {injections} injections, "
            f"{injections / seconds:.0f}/s"
        )
        share = tests / self.total if self.total else 0.0
        if share:
            left = int(max(seconds / share - seconds, 0))
            text += f", {left // 60}:{left % 60:02} left"
        found = len(self._groups)
        if found:
            text += f", {found} finding{'s' if found != 1 else ''}"
        return share, text
