"""The hooks around each test, where tests are executed.

A phase of a test is left in this order: the test's own code, then exceptions of callbacks
(innermost), then whatever other plugins do, then what was lost (outermost, after all
fixtures have been torn down).
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any, cast

import pytest

from . import excerpts, garbage, marks
from .callbacks import Caught, add_note
from .findings import Finding, Kind, Severity
from .namespaces import Namespaces, Variables

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from _pytest.outcomes import Failed

    from .display import Display
    from .run import Run
else:
    Failed = pytest.fail.Exception

FINDINGS = pytest.StashKey[list[Finding]]()
STOPPED = pytest.StashKey[list[BaseException]]()
KEPT = pytest.StashKey[list[object]]()
INTERRUPTED = pytest.StashKey[bool]()


class Found(Failed):
    """A test lost something: its text is the findings, and there is no traceback."""

    __module__ = "builtins"  # shown without one, as pytest's own

    def __init__(self, findings: list[Finding]) -> None:
        text = "\n\n".join("\n".join(finding.lines()) for finding in findings)
        super().__init__(text, pytrace=False)


class Execution:
    """The plugin object of a process that executes tests."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._kept_before: list[object] = []
        self._namespaces = Namespaces()

    # Collection: libraries are loaded by imports, and callbacks may run there already.

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self) -> Generator[None, Any, Any]:
        """The modules and tests that are made now stay."""
        with garbage.kept():
            result = yield
        return result

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_make_collect_report(self) -> Generator[None, Any, Any]:
        """Catch exceptions of callbacks during an import."""
        watch = self.run.callbacks.watch()
        try:
            report = yield
        finally:
            self.run.callbacks.unwatch(watch)
        self.run.rescan()
        for caught in self.run.callbacks.take():
            if not caught.reported:
                self.run.findings.append(self.callback_finding(caught, ""))
        return report

    def pytest_report_collectionfinish(self) -> list[str]:
        """A line per library that is loaded by now."""
        self.run.rescan()
        display = self.run.config.pluginmanager.get_plugin("clib-display")
        if display is None or self.run.config.option.verbose < 0:
            return []
        return cast("Display", display).introduce(self.run.libraries)

    # Phases, outermost: the ledger.

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """A test begins."""
        item.stash[FINDINGS] = []
        item.stash[STOPPED] = []
        item.stash[INTERRUPTED] = False
        self.run.leaks.start_test(item.nodeid)
        self.run.leaks.old_numbers.look(item, self._namespaces)
        for check in self.run.checks:
            check.start_test(item.nodeid)
        kept: list[object] = []
        item.stash[KEPT] = kept
        self._kept_before = self.run.callbacks.keep(kept)
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """A test is over: see what was lost."""
        stopped = item.stash.setdefault(STOPPED, [])
        try:
            result = yield
        except BaseException as error:
            stopped.append(error)
            self._end_test(item)
            raise
        lost = self._end_test(item)
        if lost:
            raise Found(lost)
        return result

    def _end_test(self, item: pytest.Item) -> list[Finding]:
        """The findings of the ledger that fail the test."""
        kept = item.stash.get(KEPT, None)
        if kept is not None:
            self.run.callbacks.keep(self._kept_before)
            kept.clear()
        stopped = item.stash[STOPPED]
        found = self.run.leaks.end_test(
            failed=bool(stopped),
            stopped=item.stash.get(INTERRUPTED, False),
            skip=lambda: list(_ends_with(item)),
            namespaces=Variables(self._namespaces, item, stopped),
        )
        stopped.clear()
        for check in self.run.checks:
            found.extend(check.end_test(item.nodeid))
        if not found:
            return []
        found = marks.filter_allowed(found, marks.read(item))
        item.stash.setdefault(FINDINGS, []).extend(found)
        return [f for f in found if f.severity is Severity.ERROR]

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: Any, request: Any
    ) -> Generator[None, Any, Any]:
        """What a fixture of wider scope acquires is its own."""
        if fixturedef.scope == "function":
            return (yield)
        name = f"{fixturedef.argname!r} ({fixturedef.scope} scope)"
        kept: list[object] = []
        request.addfinalizer(kept.clear)
        owner = self.run.leaks.start_fixture(fixturedef, name)
        before = self.run.callbacks.keep(kept)
        try:
            return (yield)
        finally:
            self.run.callbacks.keep(before)
            self.run.leaks.resume(owner)

    def pytest_fixture_post_finalizer(self, fixturedef: Any) -> None:
        """A fixture has been torn down."""
        self.run.leaks.fixture_finished(fixturedef)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, Any, Any]:
        """Put the findings on the report of the phase that they belong to."""
        if call.excinfo is None:
            report = yield
        else:
            excerpts.show(call.excinfo)
            with garbage.kept():
                report = yield
        if call.excinfo is not None and call.when != "teardown":
            item.stash.setdefault(STOPPED, []).append(call.excinfo.value)
        found = item.stash.get(FINDINGS, [])
        if found:
            report.clib_findings = [finding.to_dict() for finding in found]
        if found and report.failed and not _shown(call):
            text = "\n\n".join("\n".join(finding.lines()) for finding in found)
            report.sections.append(("clib", text))
        found.clear()
        return report

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(
        self, session: pytest.Session
    ) -> Generator[None, Any, Any]:
        """Judge what is left, compare declarations, and hand everything over."""
        result = yield
        if session.exitstatus == pytest.ExitCode.INTERNAL_ERROR:
            return result
        self.run.findings.extend(self.run.leaks.finish(Variables(self._namespaces)))
        # They do not depend on how a test runs: the session without a tool tells them sooner.
        if not self.run.options.tool and any(lib.debug for lib in self.run.libraries):
            with garbage.kept():
                from . import declarations  # noqa: PLC0415 (needs the debug information)

            self.run.findings.extend(declarations.check(self.run))
        for check in self.run.checks:
            self.run.findings.extend(check.finish())
        output = {
            "findings": [finding.to_dict() for finding in self.run.findings],
            "libraries": [dataclasses.asdict(lib) for lib in self.run.libraries],
            "never": self.run.never_loaded(),
        }
        workeroutput = getattr(session.config, "workeroutput", None)
        if workeroutput is not None:
            workeroutput["clib"] = output
        else:
            display = session.config.pluginmanager.get_plugin("clib-display")
            cast("Display", display).take_output(output)
        return result

    def pytest_unconfigure(self) -> None:
        """Put every call back."""
        self.run.stop()

    def callback_finding(self, caught: Caught, test: str) -> Finding:
        """The finding about an exception in a callback."""
        name = type(caught.exception).__name__
        return Finding(
            kind=Kind.CALLBACK_EXCEPTION,
            message=f"{name} in the callback {caught.callback}: {caught.exception}",
            test=test,
            function=caught.foreign,
            details=caught.note(),
            command=self.run.command(test),
        )


class CallbackPhases:
    """Looks for new libraries, and raises what callbacks ended with, around the test's own code."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """See ``_phase``."""
        return (yield from self._phase(item))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """See ``_phase``."""
        return (yield from self._phase(item))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """See ``_phase``."""
        return (yield from self._phase(item))

    def _phase(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._execution.run.rescan()
        callbacks = self._execution.run.callbacks
        watch = callbacks.watch()
        try:
            result = yield
        except BaseException as error:
            self._take(item, error)
            raise
        finally:
            callbacks.unwatch(watch)
        pending = self._take(item, None)
        if pending is not None:
            raise pending
        return result

    def _take(
        self, item: pytest.Item, raised: BaseException | None
    ) -> BaseException | None:
        """Make findings of what was caught; the first that nobody has seen yet."""
        everything = self._execution.run.callbacks.take()
        if not everything:
            return None
        pending: BaseException | None = None
        seen: list[BaseException] = []
        found: list[Finding] = []
        for caught in everything:
            error = caught.exception
            if any(error is other for other in seen):
                continue  # it went through several callbacks
            seen.append(error)
            if caught.reported and error is not raised:
                continue  # raised where the call returned, and the test dealt with it
            if not caught.reported:
                add_note(error, caught.note())
                pending = pending or error
            if isinstance(error, Exception):
                finding = self._execution.callback_finding(caught, item.nodeid)
                found.append(finding)
        item.stash[INTERRUPTED] = bool(found) or item.stash.get(INTERRUPTED, False)
        allowed = marks.filter_allowed(found, marks.read(item))
        item.stash.setdefault(FINDINGS, []).extend(allowed)
        return pending if allowed or not found else None


def _shown(call: pytest.CallInfo[Any]) -> bool:
    """Whether the failure itself is the text of the findings."""
    return call.excinfo is not None and isinstance(call.excinfo.value, Found)


def _ends_with(item: pytest.Item) -> Iterator[object]:
    """What pytest still holds of a test that is over."""
    funcargs = getattr(item, "funcargs", None)
    if isinstance(funcargs, dict):
        yield funcargs
    bound = vars(item).get("_obj")
    instance = getattr(bound, "__self__", None)
    if instance is not None and not isinstance(instance, type):
        with contextlib.suppress(TypeError):
            yield vars(instance)
