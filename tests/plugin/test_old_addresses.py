"""Whatever still has the address of a handle that is gone does not hold the next one."""

from __future__ import annotations

import textwrap

import pytest
from handle_library import DECLARED

# Memory that was released last is what malloc gives first.
SOURCE = """\
#include <stdlib.h>

typedef struct handle { long words[120]; } handle;

handle *make(void) {
    handle *made = malloc(sizeof *made);
    if (made != NULL) made->words[0] = 1;
    return made;
}
void destroy(handle *handle) { free(handle); }
"""
KINDS = {
    "number": DECLARED,
    "pointer": """\
lib.make.restype = c.POINTER(c.c_long)
lib.destroy.argtypes = [c.POINTER(c.c_long)]
lib.destroy.restype = None
""",
    "cffi": """\
import cffi
ffi = cffi.FFI()
ffi.cdef("void *make(void); void destroy(void *);")
lib = ffi.dlopen(LIBRARY)
""",
}
# Where the handle is kept: what stands before the tests, and the place.
PLACES = {
    "variable": ("", "globals()['kept']"),
    "attribute": ("class Some: pass\nsome = Some()", "some.kept"),
    "class": ("class Some: pass", "Some.kept"),
    "dictionary": ("some = {}", "some['kept']"),
    "list": ("some = [None]", "some[0]"),
    "cell": (
        """\
def remembered():
    kept = None
    class Cell:
        @property
        def kept(self): return kept
        @kept.setter
        def kept(self, value):
            nonlocal kept
            kept = value
    return Cell()
some = remembered()
""",
        "some.kept",
    ),
    "configuration": ("", "request.config.kept"),
}


@pytest.fixture(scope="module")
def library(build):
    return build(SOURCE, name="kept")


def that_loses(kind: str, where: str) -> str:
    """A suite that makes a handle, destroys it, and loses another one."""
    before, place = PLACES[where]
    return (
        KINDS[kind]
        + textwrap.dedent(before)
        + f"""
def test_makes(request):
    {place} = lib.make()

def test_destroys(request):
    lib.destroy({place})

def test_loses(request):
    lib.make()
"""
    )


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_old_address_does_not_hold_what_is_lost(suite, library, kind, where):
    if kind == "cffi":
        pytest.importorskip("cffi")
    source = that_loses(kind, where).replace("LIBRARY", repr(str(library)))

    outcome = suite.run(source, library)

    outcome.result.assert_outcomes(passed=3, errors=1)
    assert [one["test"].partition("::")[2] for one in outcome.findings] == [
        "test_loses"
    ]


@pytest.mark.parametrize("where", PLACES)
def test_handle_that_took_the_place_of_an_old_one_is_held(suite, library, where):
    _, place = PLACES[where]
    tests = that_loses("pointer", where)
    kept = tests.replace("    lib.make()\n", f"    {place} = lib.make()\n")

    # What is held is looked at again when the session ends.
    outcome = suite.run(
        kept + f"def test_after(request):\n    lib.destroy({place})\n", library
    )

    outcome.result.assert_outcomes(passed=4)
    assert outcome.findings == []


def test_old_address_in_the_librarys_own_memory(suite, build):
    """Its cache has the address of what it released."""
    library = build(
        SOURCE
        + """
static handle *last;
void keep(handle *handle) { last = handle; }
""",
        name="cache",
    )
    outcome = suite.run(
        KINDS["pointer"]
        + """
def test_destroys():
    handle = lib.make()
    lib.keep(handle)
    lib.destroy(handle)

def test_loses():
    lib.make()
""",
        library,
    )

    outcome.result.assert_outcomes(passed=2, errors=1)


def test_old_address_in_a_copy_that_a_call_fails_in(suite, build):
    """In a fork just before the test, addresses are as old as they were."""
    library = build(
        SOURCE
        + """
/* Loses the first when there is no second. */
handle *both(void) {
    handle *first = make(), *second = make();
    if (second == NULL) return NULL;
    destroy(second);
    return first;
}
""",
        name="both",
    )
    outcome = suite.run(
        KINDS["pointer"]
        + """
lib.both.restype = c.POINTER(c.c_long)

def test_before():
    global kept
    kept = lib.make()
    lib.destroy(kept)

def test():
    handle = lib.both()
    if handle:
        lib.destroy(handle)
""",
        library,
        "--clib-torture",
    )

    assert outcome.kinds == ["leak"]


PLACE = """\
#define _GNU_SOURCE
#include <sys/mman.h>

/* Always at the same address, where nobody else puts anything. */
void *make(void) {
    return mmap((void *)0x23456789a000, 4096, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}
void destroy(void *handle) { munmap(handle, 4096); }
"""
BEFORE = """
def test_before():
    global old
    old = lib.make()
    lib.destroy(old)
"""


@pytest.fixture
def place(build):
    return build(PLACE, name="place")


def test_number_of_a_handle_that_is_gone_does_not_hold_the_next_one(suite, place):
    outcome = suite.run(
        DECLARED + BEFORE + "def test():\n    assert lib.make() == old\n", place
    )

    outcome.result.assert_outcomes(passed=2, errors=1)
    assert [one["test"].partition("::")[2] for one in outcome.findings] == ["test"]


def test_such_a_number_in_another_module(suite, place):
    suite.pytester.makepyfile(
        test_other="""
        import test_it

        def test():
            assert test_it.lib.make() == test_it.old
        """
    )
    outcome = suite.run(DECLARED + BEFORE, place, "test_it.py", "test_other.py")

    outcome.result.assert_outcomes(passed=2, errors=1)
    assert [one["test"] for one in outcome.findings] == ["test_other.py::test"]


@pytest.mark.parametrize(
    "test",
    [
        "def test():\n    global old\n    old = lib.make()\n",
        "def test():\n    global new\n    new = lib.make()\n",
        "kept = {}\ndef test():\n    kept[old] = 1\n    kept[lib.make()] = 2\n",
        """\
kept = set()
def test_first():
    kept.add(old)
def test():
    kept.add(lib.make())
""",
        "OLD = 0x23456789a000\ndef test():\n    lib.make()\n",
    ],
    ids=[
        "same variable",
        "another variable",
        "key of a dictionary",
        "member of a set",
        "constant",
    ],
)
def test_handle_that_a_variable_has_is_held_at_an_old_address_too(suite, place, test):
    # What is held is looked at again after one more test.
    outcome = suite.run(
        DECLARED + BEFORE + test + "def test_after():\n    pass\n", place
    )

    outcome.result.assert_outcomes(passed=2 + test.count("def "))
    assert outcome.findings == []
