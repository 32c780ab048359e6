"""Libraries are hooked whenever and however they are loaded."""

from __future__ import annotations

import sysconfig

import pytest

LEAKS = """\
#include <stdlib.h>

int make(void) { return malloc(10) != NULL; }
"""
LOADS = """\
#include <dlfcn.h>
#include <stddef.h>

void *inner(const char *path) { return dlopen(path, RTLD_NOW); }
void call(void *library)
{
	((int (*)(void))dlsym(library, "make"))();
}
"""
MODULE = """\
#include <Python.h>

static PyObject *lose(PyObject *self, PyObject *unused)
{
	return PyBool_FromLong(malloc(33) != NULL);
}

static PyMethodDef methods[] = { { "lose", lose, METH_NOARGS, NULL }, { 0 } };
static struct PyModuleDef module = { PyModuleDef_HEAD_INIT, "planted", NULL, 0, methods };

PyMODINIT_FUNC PyInit_planted(void)
{
	return PyModule_Create(&module);
}
"""


@pytest.fixture
def leaks(build):
    return build(LEAKS)


@pytest.mark.parametrize(
    "load",
    [
        "c.CDLL(path).make()",
        "c.cdll.LoadLibrary(path).make()",
        "c.CFUNCTYPE(None)(('make', c.CDLL(path)))()",
        "ffi.dlopen(path).make()",
    ],
)
def test_library_loaded_by_the_test_is_hooked_before_its_first_call(suite, leaks, load):
    suite.pytester.makepyfile(
        f"""
import cffi
import ctypes as c

path = {str(leaks)!r}
ffi = cffi.FFI()
ffi.cdef("void make(void);")

def test():
    {load}
"""
    )

    outcome = suite.again("--clib=libplanted.so")

    assert outcome.kinds == ["leak"]


def test_extension_module_imported_by_the_test_is_hooked(suite, build):
    library = build(MODULE, f"-I{sysconfig.get_path('include')}")
    (suite.pytester.path / "planted.so").symlink_to(library)
    suite.pytester.makepyfile(
        "def test():\n    import planted\n    assert planted.lose()\n"
    )

    outcome = suite.again("--clib=planted.so")

    assert outcome.kinds == ["leak"]
    assert outcome.findings[0]["size"] == 33


def test_library_that_a_library_loads_is_hooked_in_the_next_phase(suite, build, leaks):
    loader = build(LOADS, name="loader")
    outcome = suite.run(
        f"""
lib.inner.restype = c.c_void_p
lib.call.argtypes = [c.c_void_p]
lib.call.restype = None

@pytest.fixture
def inner():
    return lib.inner({str(leaks).encode()!r})

def test(inner):
    lib.call(inner)
""",
        loader,
        f"--clib={leaks}",
    )

    assert outcome.kinds == ["leak"]


def test_copy_in_a_wheel_is_matched_by_the_librarys_name(suite, leaks):
    hashed = suite.pytester.path / "libplanted-1a2b3c4d.so.1.2"
    hashed.write_bytes(leaks.read_bytes())
    suite.write("def test():\n    lib.make()\n", hashed)

    outcome = suite.again("--clib=libplanted.so")

    assert outcome.kinds == ["leak"]


def test_library_unloaded_and_loaded_again_is_followed(suite, leaks):
    suite.pytester.makepyfile(
        f"""
import _ctypes
import ctypes as c

path = {str(leaks)!r}

def test_one():
    lib = c.CDLL(path)
    _ctypes.dlclose(lib._handle)

def test_two():
    c.CDLL(path).make()
"""
    )

    outcome = suite.again("--clib=libplanted.so")

    assert [f["test"] for f in outcome.findings] == [
        "test_library_unloaded_and_loaded_again_is_followed.py::test_two"
    ]


@pytest.mark.parametrize(
    ("asked", "threshold"),
    [("", "AT_ALL"), ("gc.set_threshold(4321)", "4321"), ("gc.disable()", "AT_ALL")],
    ids=["as it was", "changed by the suite", "switched off by the suite"],
)
def test_nothing_is_collected_while_tests_are(suite, build, asked, threshold):
    library = build("int nothing(void) { return 0; }\n")
    suite.pytester.makeconftest("import gc\nAT_ALL = gc.get_threshold()[0]\n")
    suite.write(
        "import gc\n"
        "from conftest import AT_ALL\n"
        "HERE = gc.get_threshold()[0]\n"
        f"{asked}\n"
        "def test():\n"
        f"    assert gc.get_threshold()[0] == {threshold}\n"
        f"    assert gc.isenabled() == {'disable' not in asked}\n"
        "    assert AT_ALL > 0 and HERE == 0\n",
        library,
    )

    suite.again(f"--clib={library}").result.assert_outcomes(passed=1)
