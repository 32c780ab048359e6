"""What is held and what is lost, and on whom it is put."""

from __future__ import annotations

import pytest
from handle_library import DECLARED, HANDLES


@pytest.mark.parametrize("options", [(), ("--clib-valgrind",)])
def test_handle_in_a_local_variable_is_lost(suite, handles, options):
    """Under valgrind a number that is gone stays in memory, and looks like a pointer."""
    outcome = suite.run(
        DECLARED + "def test():\n    handle = lib.make()\n    assert handle\n",
        handles,
        *options,
    )

    outcome.result.assert_outcomes(passed=1, errors=1)
    assert outcome.kinds == ["leak"]
    assert outcome.findings[0]["size"] == 100


HELD = {
    "module global": "def test():\n    global kept\n    kept = lib.make()\n",
    "list": "kept = []\ndef test():\n    kept.append(lib.make())\n",
    "tuple": "kept = []\ndef test():\n    kept.append((1, lib.make()))\n",
    "dictionary": "kept = {}\ndef test():\n    kept['a'] = {'b': lib.make()}\n",
    "dictionary key": "kept = {}\ndef test():\n    kept[lib.make()] = None\n",
    "instance": """\
class Owner: pass
owner = Owner()
def test():
    owner.handle = lib.make()
""",
    "slots": """\
class Owner:
    __slots__ = ["handle"]
owner = Owner()
def test():
    owner.handle = lib.make()
""",
    "ctypes variable": "kept = c.c_void_p()\ndef test():\n    kept.value = lib.make()\n",
    "ctypes array": "kept = (c.c_void_p * 9)()\ndef test():\n    kept[5] = lib.make()\n",
    "large ctypes array": """\
kept = (c.c_void_p * 100000)()
def test():
    kept[99999] = lib.make()
""",
    "ctypes structure": """\
class Pair(c.Structure):
    _fields_ = [("x", c.c_long), ("y", c.c_long), ("z", c.c_long), ("p", c.c_void_p)]
kept = Pair()
def test():
    kept.p = lib.make()
""",
    "ctypes pointer": """\
kept = []
def test():
    kept.append(c.cast(lib.make(), c.POINTER(c.c_int)))
""",
    "bytes": "kept = []\ndef test():\n    kept.append(lib.make().to_bytes(8, 'little'))\n",
    "bytearray": """\
kept = bytearray(80)
def test():
    kept[16:24] = lib.make().to_bytes(8, 'little')
""",
    "array": """\
import array
kept = array.array("L", [0] * 4)
def test():
    kept[2] = lib.make()
""",
    "memoryview": """\
kept = memoryview(bytearray(800)).cast("L")
def test():
    kept[77] = lib.make()
""",
    "cffi pointer": """\
import cffi
kept = []
def test():
    kept.append(cffi.FFI().cast("void *", lib.make()))
""",
    "cffi array": """\
import cffi
ffi = cffi.FFI()
kept = ffi.new("void *[50]")
def test():
    kept[49] = ffi.cast("void *", lib.make())
""",
    "closure": """\
kept = []
def test():
    handle = lib.make()
    kept.append(lambda: handle)
""",
    "generator": """\
def generate():
    handle = lib.make()
    yield handle
    yield handle
kept = generate()
def test():
    assert next(kept)
""",
    "default argument": """\
def test():
    global later
    def later(handle=lib.make()):
        return handle
""",
    "class attribute": """\
class Test:
    def test(self):
        type(self).handle = lib.make()
""",
    "thread": """\
ready, end = threading.Event(), threading.Event()
def hold():
    handle = lib.make()
    ready.set()
    end.wait()
    assert handle
thread = threading.Thread(target=hold, daemon=True)
def test():
    thread.start()
    ready.wait()
""",
    "weak reference's finalizer": """\
import weakref
class Owner: pass
owner = Owner()
def test():
    weakref.finalize(owner, lib.destroy, lib.make())
""",
}


@pytest.mark.parametrize("source", HELD.values(), ids=HELD.keys())
def test_handle_that_is_still_known_is_held(suite, handles, source):
    outcome = suite.run(DECLARED + source, handles)

    outcome.result.assert_outcomes(passed=1)
    assert outcome.findings == []


WAITS = """\
#include <stdlib.h>
#include <unistd.h>

static int touch(char *block) { return *(volatile char *)block = 1; }

/* Waits; what it needs after that is in registers only. Before that it loses a block, if asked to. */
int serve(int fd, int lose)
{
    char *a, *b, *c, *d, *e, *f, byte;
    if (lose)
        touch(malloc(100));
    a = malloc(101), b = malloc(102), c = malloc(103), d = malloc(104), e = malloc(105), f = malloc(106);
    long got = read(fd, &byte, 1);
    touch(a), touch(b), touch(c), touch(d), touch(e), touch(f);
    free(a), free(b), free(c), free(d), free(e), free(f);
    return got;
}
"""
WAITING = """\
def in_read(thread):
    with open(f"/proc/self/task/{thread.native_id}/syscall") as call:
        return call.read().split()[0] == "0"

def test():
    end, other = os.pipe()
    thread = threading.Thread(target=lib.serve, args=(end, LOSE), daemon=True)
    thread.start()
    while not in_read(thread):
        os.sched_yield()
"""


@pytest.mark.parametrize("options", [[], ["--clib-torture", "--clib-groups=fd"]])
@pytest.mark.parametrize("lose", [0, 1])
def test_thread_that_waits_in_the_library_holds_what_it_has(
    suite, build, lose, options
):
    library = build(WAITS, "-O2", name="waits")
    outcome = suite.run(WAITING.replace("LOSE", str(lose)), library, *options)

    outcome.result.assert_outcomes(passed=1, errors=lose)
    assert outcome.kinds == ["leak"] * lose
    assert all("(100 bytes)" in finding["message"] for finding in outcome.findings)


@pytest.mark.parametrize("source", HELD.values(), ids=HELD.keys())
def test_what_is_held_is_told_when_asked(suite, handles, source):
    outcome = suite.run(DECLARED + source, handles, "--clib-held")

    outcome.result.assert_outcomes(passed=1)
    assert outcome.kinds == ["held"]
    outcome.result.stdout.fnmatch_lines(
        ["*held (warning): 1 block (100 bytes) still held*"]
    )


def test_failed_test_holds_its_handle_in_the_traceback(suite, handles):
    outcome = suite.run(
        DECLARED
        + "def test():\n    handle = lib.make()\n    assert not handle\n"
        + "def test_next():\n    pass\n",
        handles,
    )

    outcome.result.assert_outcomes(failed=1, passed=1)
    assert outcome.findings == []


@pytest.mark.parametrize("option", ["--clib-held", "--clib-valgrind"])
def test_what_a_failed_test_left_is_told_at_the_end_when_asked(suite, handles, option):
    """What it failed with must not hold it then, also if no other test came after it."""
    outcome = suite.run(
        DECLARED + "def test():\n    handle = lib.make()\n    assert not handle\n",
        handles,
        option,
        "-p",
        "no:rerunfailures",  # it keeps the tracebacks of all tests
    )

    outcome.result.assert_outcomes(failed=1)
    lost = [finding for finding in outcome.findings if finding["kind"] != "held"]
    assert [(one["kind"], one["severity"]) for one in lost] == [("leak", "warning")]
    assert lost[0]["test"].endswith("::test")
    assert "ended early" in lost[0]["details"]
    assert "--clib-held" in lost[0]["command"]


@pytest.mark.parametrize("option", ["--clib-held", "--clib-valgrind"])
def test_what_a_test_that_was_stopped_here_left_is_not_told(suite, build, option):
    library = build(
        HANDLES + "void call(void (*callback)(void)) { callback(); }\n", name="calls"
    )
    outcome = suite.run(
        DECLARED
        + """
lib.call.restype = None

@c.CFUNCTYPE(None)
def raises():
    raise ValueError

def test():
    handle = lib.make()
    lib.call(raises)
    lib.destroy(handle)
""",
        library,
        option,
    )

    outcome.result.assert_outcomes(failed=1)
    assert [kind for kind in outcome.kinds if kind != "held"] == ["callback-exception"]


def test_skipped_test_holds_its_handle_too(suite, handles):
    outcome = suite.run(
        DECLARED
        + "def test():\n    handle = lib.make()\n    pytest.skip(str(handle))\n",
        handles,
    )

    outcome.result.assert_outcomes(skipped=1)
    assert outcome.findings == []


def test_failed_setup_holds_its_handle_too(suite, handles):
    outcome = suite.run(
        DECLARED
        + "@pytest.fixture\n"
        + "def broken():\n    handle = lib.make()\n    assert not handle\n"
        + "def test(broken):\n    pass\n",
        handles,
    )

    outcome.result.assert_outcomes(errors=1)
    assert outcome.findings == []


def test_failed_test_that_lost_something_is_told_both(suite, handles):
    outcome = suite.run(
        DECLARED + "def test():\n    lib.make()\n    assert not 'reached'\n", handles
    )

    outcome.result.assert_outcomes(failed=1, errors=1)
    assert outcome.kinds == ["leak"]


def test_what_a_session_fixture_holds_is_not_the_tests(suite, handles):
    outcome = suite.run(
        DECLARED
        + """
@pytest.fixture(scope="session")
def handle():
    handle = lib.make()
    yield handle
    lib.destroy(handle)

def test_one(handle):
    assert handle

def test_two(handle):
    assert handle
""",
        handles,
    )

    outcome.result.assert_outcomes(passed=2)
    assert outcome.findings == []


def test_fixture_that_lost_something_is_named(suite, handles):
    outcome = suite.run(
        DECLARED
        + """
@pytest.fixture(scope="module")
def forgetful():
    return lib.make()

def test_one(forgetful):
    pass

def test_two(forgetful):
    pass
""",
        handles,
    )

    outcome.result.assert_outcomes(passed=2, errors=1)
    outcome.result.stdout.fnmatch_lines(
        ["*acquired in fixture 'forgetful' (module scope)"]
    )
    assert outcome.findings[0]["test"] == "test_it.py::test_two"


def test_handle_lost_by_a_later_test_is_put_on_the_one_that_made_it(suite, handles):
    outcome = suite.run(
        DECLARED
        + """
kept = []

def test_makes():
    kept.append(lib.make())

def test_forgets():
    kept.clear()
""",
        handles,
    )

    outcome.result.assert_outcomes(passed=2)
    assert [f["test"] for f in outcome.findings] == ["test_it.py::test_makes"]
    assert "lost since" in outcome.findings[0]["details"]
    assert outcome.result.ret == pytest.ExitCode.TESTS_FAILED


def test_garbage_in_cycles_is_collected_before_anything_is_said(suite, handles):
    outcome = suite.run(
        DECLARED
        + """
class Handle:
    def __init__(self, inner=None):
        self.me, self.inner, self.handle = self, inner, lib.make()

    def __del__(self):
        lib.destroy(self.handle)

def test():
    Handle(Handle(Handle()))
""",
        handles,
    )

    outcome.result.assert_outcomes(passed=1)
    assert outcome.findings == []


def test_old_bytes_in_the_interpreters_memory_hold_nothing(suite, handles):
    outcome = suite.run(
        DECLARED
        + """\
import random
def test():
    handle = lib.make().to_bytes(8, "little")
    # Whole arenas of text and addresses; one text in a hundred stays, with its pool.
    everything = [handle * 2 if i % 100 else random.randbytes(16) for i in range(300_000)]
    global kept
    kept = everything[::100]
""",
        handles,
    )

    outcome.result.assert_outcomes(passed=1, errors=1)
    assert outcome.kinds == ["leak"]


def test_items_of_another_kind_need_no_module(suite, handles):
    suite.pytester.makeconftest(
        """
        import pytest

        class Line(pytest.Item):
            module = ["not", "one"]

            def runtest(self):
                pass

        def pytest_collect_file(file_path, parent):
            if file_path.suffix == ".line":
                return Lines.from_parent(parent, path=file_path)

        class Lines(pytest.File):
            def collect(self):
                yield Line.from_parent(self, name="line")
        """
    )
    suite.pytester.path.joinpath("a.line").touch()

    outcome = suite.run(DECLARED + "def test():\n    pass\n", handles)

    outcome.result.assert_outcomes(passed=2)
    assert outcome.findings == []


def test_memory_that_was_never_written_holds_nothing_under_memcheck(
    suite, build, monkeypatch
):
    """It has the old bytes, but memcheck knows that they mean nothing."""
    library = build(
        """\
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>

/* Where nobody had anything before: other old bytes do not lead there. */
void *make(void) {
    return mmap((void *)0xf6789a000, 4096, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}
void destroy(void *handle) { munmap(handle, 4096); }
static void **kept;
int fill(void *handle) { /* whether it is there again */
    void *volatile *block = malloc(1000);
    block[50] = handle;
    free((void *)block);
    void **others[9];
    int n = 0;
    do { /* memcheck gives it again at the next but one */
        others[n] = kept = malloc(1000);
    } while (kept != (void **)block && ++n < 9);
    while (n > 0) free(others[--n]);
    return kept == (void **)block;
}
void end(void) { free(kept); }
""",
        name="unwritten",
    )
    monkeypatch.setenv("VALGRIND_OPTS", "--freelist-vol=0")
    outcome = suite.run(
        DECLARED
        + """\
lib.fill.argtypes = [c.c_void_p]
def test():
    assert lib.fill(lib.make())
""",
        library,
        "--clib-valgrind",
    )

    outcome.result.assert_outcomes(passed=1, errors=1)
    assert outcome.kinds == ["mapping-leak"]


def test_block_that_libc_frees_is_gone(suite, handles):
    outcome = suite.run(
        DECLARED
        + """
libc = c.CDLL(None)
libc.free.argtypes = [c.c_void_p]

def test():
    libc.free(lib.make())
""",
        handles,
    )

    outcome.result.assert_outcomes(passed=1)
    assert outcome.findings == []


def test_descriptor_that_python_took_over_is_held(suite, build):
    library = build(
        '#include <fcntl.h>\nint null(void) { return open("/dev/null", O_RDWR); }\n'
    )

    outcome = suite.run(
        "kept = []\ndef test():\n    kept.append(open(lib.null()))\n", library
    )

    outcome.result.assert_outcomes(passed=1)
    assert outcome.findings == []


def test_descriptors_of_python_are_nobodys(suite, handles):
    outcome = suite.run(
        "kept = []\ndef test():\n    os.open('/dev/null', os.O_RDONLY)\n", handles
    )

    outcome.result.assert_outcomes(passed=1)
    assert outcome.findings == []


def test_leak_shows_its_call_site_and_the_command(suite, handles):
    outcome = suite.run(DECLARED + "def test():\n    lib.make()\n", handles)

    finding = outcome.findings[0]
    assert finding["function"] == "calloc"
    assert finding["site"]["function"] == "make"
    assert finding["site"]["file"].endswith("planted.c")
    assert finding["site"]["line"] == 3
    again = suite.pytester.run(*finding["command"].split())
    again.stdout.fnmatch_lines(["*leak: 1 block (100 bytes) lost: calloc in make*"])


def test_leak_in_a_stripped_library_shows_module_and_offset(suite, build):
    library = build(HANDLES, "-s", "-g0")

    outcome = suite.run(DECLARED + "def test():\n    lib.make()\n", library)

    site = outcome.findings[0]["site"]
    assert site["file"] == ""
    assert site["module"] == str(library)
    assert site["offset"] > 0
