"""What the declaration check compares, what it leaves alone, and how it says it."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from pytest_clib import Severity, _abi_sources, abi

HERE = Path(__file__).parent
NUMBERS = itertools.count()
CC = shlex.split(os.environ.get("CC", "cc"))
PRELUDE = "import ctypes as c\nfrom ctypes import *\n"
OPEN = PRELUDE + "lib = CDLL(PATH)\n"
SAMPLE = "[('id', c_uint32), ('stamp', c_uint64), ('level', c_int16), ('mode', c_int)]"
SHORT = SAMPLE.replace("c_uint64", "c_uint32")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("abi") / "libabi.so"
    source = HERE / "abi_library.c"
    subprocess.run([*CC, "-g", "-shared", "-fPIC", "-o", out, source], check=True)
    return out


@pytest.fixture
def library(built, tmp_path):
    return Path(shutil.copy(built, tmp_path / "libabi.so"))


@pytest.fixture
def load(library, tmp_path, monkeypatch):
    """Imports a module of the suite; ``PATH`` in it is the library."""

    def run(source, folder=tmp_path):
        name = f"abi_suite_{next(NUMBERS)}"
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.replace("PATH", repr(str(library))))
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return run


@pytest.fixture
def check(library, tmp_path):
    return lambda **keywords: abi.check([library], rootdir=tmp_path, **keywords)


def test_both_declarations_stand_side_by_side(load, check):
    module = load(OPEN + f"class sample(Structure):\n    _fields_ = {SHORT}\n")
    (found,) = check()
    lines = found.lines()

    assert lines[0] == ("abi: sample, stamp: at byte 4 here, at byte 8 in the library")
    text = "\n".join(lines)
    here = Path(module.__file__).name
    assert f"{here}:4" in text
    assert f"{HERE / 'abi_library.c'}:12" in text
    row = next(line for line in lines if "stamp: c_uint32" in line)
    assert row.lstrip().startswith("!")
    assert "uint64_t stamp" in row
    assert f"stamp: {here}:5 | {HERE / 'abi_library.c'}:14" in text
    assert found.library.endswith("libabi.so")
    assert found.count == 3  # all fields after the first have moved
    assert found.severity is Severity.ERROR


def test_a_function_shows_its_statement_and_its_prototype(load, check):
    load(OPEN + "lib.sample_write.argtypes = (c_void_p, c_char_p, c_size_t)\n")
    (found,) = check()

    assert "lib.sample_write.argtypes = (c_void_p, c_char_p, c_size_t)" in found.details
    expected = "ssize_t sample_write(struct sample *one, const void *data, size_t size)"
    assert expected in found.details
    assert f"{HERE / 'abi_library.c'}:" in found.details
    assert "! result: c_int (default)" in found.details


def test_errors_and_warnings_of_one_record_are_two_findings(load, check):
    fields = SAMPLE.replace("('id', c_uint32)", "('id', c_int32)")
    fields = fields.replace("('mode', c_int)", "('mode', c_int * 2)")
    load(OPEN + f"class sample(Structure):\n    _fields_ = {fields}\n")
    severities = [str(one.severity) for one in check()]

    assert severities == ["error", "warning"]


@pytest.mark.parametrize("name", ["struct sample", "sample"])
def test_an_alias_names_the_record(load, check, name):
    load(OPEN + "class Point(Structure):\n    _fields_ = [('x', c_int)]\n")

    assert check() == []
    (found,) = check(aliases={"Point": name})
    assert "4 bytes here, 24 bytes in the library" in found.message


@pytest.mark.parametrize("nothing", ["", "-"])
def test_an_alias_of_nothing_leaves_a_declaration_out(load, check, nothing):
    load(
        OPEN + f"class sample(Structure):\n    _fields_ = {SHORT}\n"
        "lib.sample_write.restype = c_int\n"
        "done_cb = CFUNCTYPE(c_int)\n"
    )

    assert len(check()) == 3
    names = ("sample", "sample_write", "done_cb")
    assert check(aliases=dict.fromkeys(names, nothing)) == []


def test_an_alias_names_a_callback(load, check):
    load(OPEN + "Visitor = CFUNCTYPE(c_int, c_void_p, c_uint64, c_void_p)\n")

    assert check() == []
    (found,) = check(aliases={"Visitor": "visit_cb"})
    assert found.function == "Visitor"


LEFT_ALONE = {
    "an opaque structure": "class sample(Structure):\n    pass\n"
    "lib.sample_new.restype = POINTER(sample)\n",
    "a placeholder": "class hidden(Structure):\n    _fields_ = [('_', c_byte)]\n"
    "class sample(Structure):\n    _fields_ = [('_opaque', c_byte)]\n"
    "lib.sample_ready.argtypes = [POINTER(sample)]\n"
    "lib.sample_ready.restype = c_bool\n",
    "a namesake": "class value(Structure):\n"
    "    _fields_ = [('name', c_char * 40), ('unit', c_char * 8)]\n",
    "a namesake of another manner": "class Options(Structure):\n"
    "    _fields_ = [('fast', c_int), ('unrelated', c_int)]\n",
    "any pointer": "lib.sample_mean.argtypes = [c_void_p, c_size_t]\n"
    "lib.sample_mean.restype = c_double\n"
    "lib.record_name.argtypes = [c_char_p]\nlib.record_name.restype = c_char_p\n",
    "an address as a number": "lib.sample_new.restype = c_size_t\n",
    "bytes for a buffer": "lib.sample_write.restype = c_ssize_t\n"
    "lib.sample_write.argtypes = [c_void_p, POINTER(c_byte), c_size_t]\n",
    "more arguments than C names": "lib.sample_log.argtypes = [c_char_p, c_int, c_int]\n",
    "converters": "class Text:\n    @classmethod\n    def from_param(cls, value):\n"
    "        return c_char_p(value)\n"
    "lib.sample_log.argtypes = [Text]\n",
    "an array for a pointer": "lib.sample_span.argtypes = [c_void_p, c_uint64 * 1, "
    "POINTER(c_uint64)]\nlib.sample_span.restype = None\n",
    "a result that nobody wants": "lib.sample_new.restype = None\n",
    "fields split and joined": "class record_t(Structure):\n    _fields_ = ["
    "('name', c_void_p), ('w_low', c_uint32), ('w_high', c_uint32),"
    "('raw', c_byte * 24), ('history', c_uint32 * 3)]\n",
    "bytes for a pointer of another name": "class hooks(Structure):\n    _fields_ = ["
    "('visit', c_void_p), ('_raw', c_byte * 8)]\n",
    "fields of other names": "class sample(Structure):\n    _fields_ = ["
    "('id', c_uint32), ('when', c_uint64), ('how_loud', c_int16), ('state', c_uint32)]\n",
    "explicit padding": "class sample(Structure):\n    _pack_ = 1\n    _fields_ = ["
    "('id', c_uint32), ('_1', c_uint32), ('stamp', c_uint64), ('level', c_int16),"
    "('_2', c_byte * 2), ('mode', c_uint)]\n",
    "names for Python": "class sample(Structure):\n    _fields_ = ["
    "('id_', c_uint32), ('Stamp', c_uint64), ('level', c_int16), ('mode', c_int)]\n",
    "a flexible end": "class packet(Structure):\n    _fields_ = ["
    "('size', c_uint32), ('payload', c_ubyte * 60)]\n",
    "big-endian fields": "class packet(BigEndianStructure):\n"
    "    _fields_ = [('size', c_uint32)]\n",
    "a function of another library": "strlen = CDLL(None).strlen\n"
    "strlen.restype = c_char\n",
}


@pytest.mark.parametrize("case", LEFT_ALONE, ids=lambda name: name.replace(" ", "-"))
def test_left_alone(load, check, case):
    load(OPEN + LEFT_ALONE[case])

    assert check() == []


def test_inherited_and_anonymous_fields_are_compared_where_they_lie(load, check):
    source = (
        "class Base(Structure):\n    _fields_ = [('id', c_uint32), ('stamp', c_uint64)]\n"
        "class sample(Base):\n    _fields_ = [('level', LEVEL), ('mode', c_int)]\n"
    )
    load(OPEN + source.replace("LEVEL", "c_int16"))
    assert check() == []
    load(OPEN + source.replace("LEVEL", "c_int8"))
    (found,) = check()
    assert found.message.startswith("sample, level: c_byte (1 byte) here")


def test_fields_given_later_are_found_in_the_source(load, check):
    module = load(
        OPEN + f"class sample(Structure):\n    pass\n\nsample._fields_ = {SHORT}\n"
    )
    (found,) = check()

    assert f"stamp: {Path(module.__file__).name}:7 |" in found.details


def test_a_table_of_functions_is_not_called_undeclared(load, check):
    load(
        OPEN + "for name, kind in [('sample_free', None), ('sample_new', c_int)]:\n"
        "    getattr(lib, name).restype = kind\n"
    )
    (found,) = check()

    assert found.message.startswith("sample_new, result: c_int (4 bytes) here")
    assert "no restype" not in found.message


def test_a_declaration_is_reported_once(load, check):
    source = (
        f"class sample(Structure):\n    _fields_ = {SHORT}\n"
        "visit_cb = CFUNCTYPE(c_int, c_void_p, c_uint64, POINTER(sample))\n"
        "lib.sample_each.argtypes = [POINTER(sample), visit_cb, c_void_p]\n"
        "lib.sample_ready.argtypes = [POINTER(sample)]\n"
        "lib.sample_ready.restype = c_bool\n"
        "class hooks(Structure):\n"
        "    _fields_ = [('visit', visit_cb), ('done', c_void_p)]\n"
    )
    load(OPEN + source)

    assert sorted(one.function for one in check()) == ["sample", "visit_cb"]


class Explosive(types.ModuleType):
    """A module that must not be touched."""

    def __getattribute__(self, name):
        raise RuntimeError(name)


class Proxy:
    """An object that pretends to be anything, and does not like to be asked."""

    @property
    def __class__(self):
        raise RuntimeError("asked for its class")

    def __getattr__(self, name):
        raise RuntimeError(name)


def test_odd_modules_are_not_disturbed(load, check, monkeypatch):
    module = load(OPEN + f"class sample(Structure):\n    _fields_ = {SHORT}\n")
    explosive = Explosive("abi_explosive")
    object.__getattribute__(explosive, "__dict__")["__file__"] = None
    monkeypatch.setitem(sys.modules, "abi_explosive", explosive)
    monkeypatch.setitem(sys.modules, "abi_proxy", Proxy())
    monkeypatch.setitem(sys.modules, "abi_none", None)
    module.proxy = Proxy()
    module.explosive = explosive
    module.itself = module

    assert [one.function for one in check()] == ["sample"]


def test_nothing_is_imported(load, check):
    load(OPEN)
    check()  # what the check itself needs
    before = set(sys.modules)
    check()

    assert set(sys.modules) == before


def test_modules_outside_the_root_are_not_the_suite(load, check, tmp_path):
    load(
        PRELUDE + f"class sample(Structure):\n    _fields_ = {SHORT}\n",
        folder=tmp_path.parent / f"{tmp_path.name}-elsewhere",
    )

    assert check() == []


def test_a_binding_outside_the_root_is(load, check, tmp_path):
    load(
        OPEN + f"class sample(Structure):\n    _fields_ = {SHORT}\n",
        folder=tmp_path.parent / f"{tmp_path.name}-site-packages",
    )

    assert [one.function for one in check()] == ["sample"]


def test_a_handle_kept_in_an_object_is_found(load, check):
    load(
        PRELUDE + "class Binding:\n    def __init__(self):\n"
        "        self.lib = CDLL(PATH)\n        self.lib.sample_new.argtypes = [c_int]\n"
        "binding = Binding()\n"
    )

    assert [one.function for one in check()] == ["sample_new"]


def test_cffi_out_of_line_without_a_compiler(check, library, tmp_path, monkeypatch):
    cffi = pytest.importorskip("cffi")
    ffi = cffi.FFI()
    ffi.cdef(
        "struct sample { uint32_t id; uint32_t stamp; int16_t level; int mode; };"
        "int sample_write(void *, const char *, size_t);"
    )
    name = f"abi_out_of_line_{next(NUMBERS)}"
    ffi.set_source(name, None)
    ffi.emit_python_code(str(tmp_path / f"{name}.py"))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(name)
    monkeypatch.setitem(sys.modules, name, module)
    module.handle = module.ffi.dlopen(str(library))

    assert sorted(one.function for one in check()) == ["sample_write", "struct sample"]


def test_a_library_without_debug_information_is_said_to_be(load, check, library):
    load(OPEN + f"class sample(Structure):\n    _fields_ = {SHORT}\n")
    bare = library.with_suffix(".bare")  # the process has the other mapped
    subprocess.run(
        [shutil.which("strip"), "--strip-debug", "-o", bare, library], check=True
    )
    bare.replace(library)
    (found,) = check()

    assert found.severity is Severity.WARNING
    assert "no debug information" in found.message
    assert str(library) in found.message


def test_a_library_that_is_gone_is_said_to_be(check, library):
    library.unlink()
    (found,) = check()

    assert found.severity is Severity.WARNING
    assert "No such file" in found.message


def test_debug_information_that_is_damaged_does_no_harm(load, check, library):
    load(OPEN + f"class sample(Structure):\n    _fields_ = {SHORT}\n")
    whole = library.read_bytes()
    library.unlink()  # the process has it mapped
    at = whole.index(b"sample_age\0")
    library.write_bytes(whole[:at] + bytes(200) + whole[at + 200 :])
    check()
    library.write_bytes(whole[: len(whole) // 2])
    (found,) = check()

    assert found.severity is Severity.WARNING


RUST = """
#![crate_type = "cdylib"]
use std::ffi::{c_int, c_void};
#[repr(C)] pub struct Sample { pub id: u32, pub stamp: u64 }
pub type Visit = Option<unsafe extern "C" fn(*mut c_void, u64) -> isize>;
#[repr(C)] pub struct Hooks { pub visit: Visit, pub context: *mut c_void }
#[unsafe(no_mangle)] pub unsafe extern "C" fn rust_each(
    hooks: *const Hooks, sample: *const Sample, _unused: usize) -> isize {
    unsafe { (*hooks).visit.map_or(0, |visit| visit((*hooks).context, (*sample).stamp)) }
}
#[unsafe(no_mangle)] pub extern "C" fn rust_double(number: c_int) -> c_int { number * 2 }
#[unsafe(no_mangle)] pub extern "C" fn rust_nothing() {}
"""
RUST_SUITE = OPEN + (
    "class Sample(Structure):\n    _fields_ = [('id', c_uint32), ('stamp', STAMP)]\n"
    "Visit = CFUNCTYPE(RESULT, c_void_p, c_uint64)\n"
    "class Hooks(Structure):\n    _fields_ = [('visit', Visit), ('context', c_void_p)]\n"
    "lib.rust_each.argtypes = [POINTER(Hooks), POINTER(Sample), c_size_t]\n"
    "lib.rust_each.restype = RESULT\n"
    "lib.rust_double.argtypes = [c_int]\n"
    "lib.rust_nothing.restype = None\n"
)


@pytest.mark.parametrize("optimised", [False, True])
def test_a_library_in_rust(load, check, library, tmp_path, optimised):
    source = tmp_path / "library.rs"
    source.write_text(RUST)
    library.unlink()
    command = ["rustc", "-g", "--edition=2024", "-o", library, source]
    subprocess.run([*command, "-O"] if optimised else command, check=True)
    load(RUST_SUITE.replace("STAMP", "c_uint64").replace("RESULT", "c_ssize_t"))
    assert check() == []
    load(RUST_SUITE.replace("STAMP", "c_uint16").replace("RESULT", "c_int"))

    assert {one.function for one in check()} == {"Sample", "Visit", "rust_each"}


def test_the_library_describes_itself(library):
    found = abi.Library(library)

    assert "sample_new" in found.exports
    function = found.function("sample_log")
    assert function.spelling == "int sample_log(const char *format, ...)"
    assert function.prototype.variadic
    assert found.function("no_such_function") is None
    (record,) = found.records("struct sample")
    assert [field.name for field in record.fields] == ["id", "stamp", "level", "mode"]
    assert ctypes.sizeof(ctypes.c_int) * 6 == record.size


SPREAD = '''\
import ctypes as c
lib = c.CDLL(None)
other = [
    1,
]

class Late(c.Structure):
    """Text at
the margin."""

Late._fields_ = [
    ("size", c.c_int),
]
class Plain(c.Structure):
    _fields_ = [("first", c.c_int),
                ("second", c.c_int32)]
if other:
    lib.strlen.restype = c.c_size_t
else:
    lib.strlen.restype = c.c_int
alias = lib.strnlen
alias.restype = c.c_size_t
visit_t = c.CFUNCTYPE(
    c.c_int,
)
'''


def test_places_are_found_though_only_some_statements_are_parsed(tmp_path, monkeypatch):
    file = tmp_path / "spread.py"
    file.write_text(SPREAD)
    module = types.ModuleType("spread")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "spread", module)
    sources = _abi_sources.Sources([str(file)])

    assert sources.class_in("spread", "Plain").field("second") == (
        "c.c_int32",
        (str(file), 16),
    )
    assert sources.class_in("spread", "Late").field("size")[1].line == 12
    assert sources.class_in("spread", "Late").place.line == 7
    assert sources.function("strlen")[1].line == 18
    assert sources.function("strnlen")[1].line == 22
    assert sources.assigns("strnlen", "restype")
    assert not sources.assigns("strcmp", "restype")
    assert sources.named(str(file), "visit_t") == (
        "c.CFUNCTYPE(c.c_int)",
        (str(file), 23),
    )
