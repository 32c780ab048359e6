"""Failures look as without the plugin, but what they went through is not parsed whole."""

from __future__ import annotations

import itertools
import re

import pytest

EMPTY = "int nothing(void) { return 0; }\n"
BINDINGS = '''\
"""Bindings: what tests call."""
import contextlib
import functools

TEXT = """
def not_a_function():
    raise ValueError
"""

def plain(call):
    # first of all
    return call(
        1,
        2,
    )

def wrapped(function):
    @functools.wraps(function)
    def wrapper(*args):
        """Text
that begins at the margin
"""
        return function(*args)

    return wrapper

@wrapped
@functools.lru_cache(
    maxsize=1
)
def decorated(call):
    if call is None:
        return 0
    elif call:
        return plain(call)
    else:
        return None
# a comment at the margin

class Handle:
    def __init__(self, call): self.call = call
    def one(self): return decorated(self.call)

    @property
    def two(self):
        try:
            return self.one()
        except KeyError:
            pass
        finally:
            self.call = None

    async def three(self):
        with contextlib.suppress(KeyError):
            return [one for one in
                    [self.two]]

    def four(self,
             other=None):
        return (lambda:
                self.three().send(None))()


def last(call):
	return Handle(call).four()
'''
TESTS = """\
import contextlib, binding, pytest

def fails(*args):
    assert args == (
        1,
        3,
    )

def test_function():
    binding.plain(fails)

def test_everything():
    binding.last(fails)

class TestClass:
    @pytest.mark.parametrize("call", [fails], ids=["fails"])
    def test_method(self, call):
        with contextlib.ExitStack():
            binding.Handle(call).four(
                None,
            )

    def test_class_body(self):
        class Body:
            value = binding.plain(fails)

    def test_evaluated(self):
        eval("binding.plain(fails)", globals())

    def test_chained(self):
        try:
            binding.plain(fails)
        except AssertionError as error:
            raise ValueError("told again") from error

@pytest.fixture
def broken():
    yield
    binding.decorated(fails)

def test_fixture(broken):
    pass

def test_raises():
    with pytest.raises(KeyError):
        binding.plain(fails)
"""


def failures(lines: list[str]) -> list[str]:
    """The lines that show failures, without addresses."""
    shown = itertools.dropwhile(lambda line: "= ERRORS =" not in line, lines)
    end = re.compile("clib: |=+ short test summary")
    shown = itertools.takewhile(lambda line: not end.match(line), shown)
    return [re.sub("0x[0-9a-f]+", "0x", line) for line in shown]


@pytest.mark.parametrize("style", ["auto", "long", "short"])
def test_failures_look_as_without_the_plugin(suite, build, style):
    library = build(EMPTY)
    suite.pytester.makepyfile(binding=BINDINGS)
    suite.write(TESTS, library)

    with_it = suite.again(f"--clib={library}", f"--tb={style}").result
    without = suite.pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", f"--tb={style}"
    )

    with_it.assert_outcomes(failed=7, passed=1, errors=1)
    assert failures(with_it.outlines) == failures(without.outlines)


def test_what_a_failure_went_through_is_not_parsed_whole(suite, build):
    library = build(EMPTY)
    suite.pytester.makepyfile(binding=BINDINGS + "x = 1\n" * 500)
    suite.pytester.makeconftest(
        """\
        import ast
        parse, sizes = ast.parse, [0]

        def measured(source, *args, **kwargs):
            sizes.append(len(source.split()))
            return parse(source, *args, **kwargs)

        def pytest_collection_finish():
            ast.parse = measured

        def pytest_terminal_summary(terminalreporter):
            terminalreporter.write_line(f"{len(sizes)} texts of {max(sizes)} words")
        """
    )
    suite.write(TESTS, library)

    outcome = suite.again(f"--clib={library}", "-k", "function or fixture")

    outcome.result.assert_outcomes(failed=1, passed=1, errors=1)
    sizes = next(line for line in outcome.result.outlines if "texts of" in line)
    texts, words = int(sizes.split()[0]), int(sizes.split()[3])
    assert texts > 5
    assert words < 60
