"""Wrong declarations of abi_library.c, each with a twin that is right.

Every case is ``Case(name, wrong, right, severity, subject, says)``: the source of a
module's declarations, and what the finding about the wrong one must be.
"""

from __future__ import annotations

from typing import NamedTuple

CTYPES = """\
import ctypes as c
from ctypes import *
lib = CDLL(PATH)
"""

CFFI = """\
import cffi
ffi = cffi.FFI()
"""


class Case(NamedTuple):
    name: str
    wrong: str
    right: str
    severity: str
    subject: str
    says: str


def structure(body: str, name: str = "sample", base: str = "Structure") -> str:
    return f"class {name}({base}):\n    _fields_ = [{body}]\n"


SAMPLE = "('id', c_uint32), ('stamp', c_uint64), ('level', c_int16), ('mode', c_int)"
GOOD = structure(SAMPLE)


def sample(old: str, new: str) -> str:
    assert old in SAMPLE
    return structure(SAMPLE.replace(old, new))


RECORD = (
    "('name', c_char_p), ('weight', c_double), ('first', sample),"
    " ('history', c_uint16 * 6)"
)


def record(old: str, new: str) -> str:
    assert old in RECORD
    return GOOD + structure(RECORD.replace(old, new), "record_t")


def tagged(first: str, inner: str = "c_uint32") -> str:
    return f"""\
class halves(Structure):
    _fields_ = [('low', {inner}), ('high', {inner})]
class both(Union):
    _anonymous_ = ('parts',)
    _fields_ = [('number', c_uint64), ('parts', halves)]
class tagged(Structure):
    _anonymous_ = ('either',)
    _fields_ = [('kind', {first}), ('either', both), ('check', c_uint32)]
"""


VISIT = "visit_cb = CFUNCTYPE(c_ssize_t, c_void_p, c_uint64, POINTER(sample))\n"

RECORDS = [
    Case(
        "a field cut short",
        sample("'stamp', c_uint64", "'stamp', c_uint32"),
        GOOD,
        "error",
        "sample",
        "stamp: at byte 4 here, at byte 8 in the library",
    ),
    Case(
        "a field cut short, hidden by padding",
        structure(SAMPLE.replace("c_uint64", "c_uint32"))
        + "\nclass hooks(Structure):\n"
        "    _fields_ = [('visit', c_int), ('done', c_void_p)]\n",
        GOOD + structure("('visit', c_void_p), ('done', c_void_p)", "hooks"),
        "error",
        "hooks",
        "visit: c_int (4 bytes) here, visit_cb (8 bytes) in the library",
    ),
    Case(
        "a sign",
        sample("'id', c_uint32", "'id', c_int32"),
        GOOD,
        "warning",
        "sample",
        "id: signed (c_int) here, unsigned (uint32_t) in the library",
    ),
    Case(
        "a field left out",
        sample("('stamp', c_uint64), ", ""),
        GOOD,
        "error",
        "sample",
        "level: at byte 4 here, at byte 16 in the library",
    ),
    Case(
        "the last field left out",
        structure("('size', c_uint64)", "packet")
        + structure("('id', c_uint32), ('stamp', c_uint64)"),
        structure("('size', c_uint32)", "packet") + GOOD,
        "error",
        "sample",
        "16 bytes here, 24 bytes in the library, which writes past its end",
    ),
    Case(
        "a field too many",
        structure(SAMPLE + ", ('more', c_uint64)"),
        GOOD,
        "error",
        "sample",
        "32 bytes here, 24 bytes in the library, which does not fill its end",
    ),
    Case(
        "packing forgotten",
        structure("('tag', c_uint8), ('length', c_uint32), ('crc', c_uint16)", "frame"),
        "class frame(Structure):\n    _pack_ = 1\n    _fields_ = "
        "[('tag', c_uint8), ('length', c_uint32), ('crc', c_uint16)]\n",
        "error",
        "frame",
        "length: at byte 4 here, at byte 1 in the library",
    ),
    Case(
        "an int for a pointer",
        record("'name', c_char_p", "'name', c_int"),
        record("'name', c_char_p", "'name', c_void_p"),
        "error",
        "record_t",
        "name: c_int (4 bytes) here, char * (8 bytes) in the library",
    ),
    Case(
        "an integer for a number with a fraction",
        record("c_double", "c_int64"),
        record("c_double", "c_double"),
        "error",
        "record_t",
        "weight: c_long (8 bytes) here, double (8 bytes) in the library",
    ),
    Case(
        "a pointer for a structure in place",
        record("'first', sample", "'first', POINTER(sample)"),
        record("'first', sample", "'first', sample"),
        "error",
        "record_t",
        "first: a pointer (POINTER(sample)) here, struct sample (24 bytes) in the library",
    ),
    Case(
        "an array too short",
        record("c_uint16 * 6", "c_uint16 * 5"),
        record("c_uint16 * 6", "(c_uint16 * 3) * 2"),
        "error",
        "record_t",
        "history: 10 bytes (c_ushort * 5) here, uint16_t [6] (12 bytes) in the library",
    ),
    Case(
        "a structure for a union",
        structure("('word', c_uint32), ('real', c_double)", "value"),
        structure("('word', c_uint32), ('real', c_double)", "value", "Union"),
        "error",
        "value",
        "real: at byte 8 here, at byte 0 in the library",
    ),
    Case(
        "a member of an anonymous union",
        tagged("c_uint8", "c_uint16"),
        tagged("c_uint8"),
        "error",
        "tagged",
        "low: c_ushort (2 bytes) here, uint32_t (4 bytes) in the library",
    ),
    Case(
        "the width of a bit field",
        structure(
            "('fast', c_uint, 1), ('depth', c_uint, 6), ('rate', c_uint, 10)", "options"
        ),
        structure(
            "('fast', c_uint, 1), ('depth', c_uint, 5), ('rate', c_uint, 10)", "options"
        ),
        "error",
        "options",
        "depth: 6 bits here, 5 bits in the library",
    ),
    Case(
        "an enumeration cut short",
        sample("'mode', c_int", "'mode', c_short"),
        sample("'mode', c_int", "'mode', c_uint"),
        "error",
        "sample",
        "mode: at byte 18 here, at byte 20 in the library",
    ),
    Case(
        "another name, with the suffix of a typedef",
        structure(SAMPLE.replace("c_int16", "c_int8"), "sample_t"),
        structure(SAMPLE, "sample_t"),
        "error",
        "sample_t",
        "level: c_byte (1 byte) here, int16_t (2 bytes) in the library",
    ),
    Case(
        "another name, in another manner",
        structure(
            "('size', c_uint32), ('payload', c_uint8 * 4)".replace("32", "64"), "Packet"
        ),
        structure("('size', c_uint32), ('payload', c_uint8 * 4)", "Packet"),
        "error",
        "Packet",
        "size: c_ulong (8 bytes) here, uint32_t (4 bytes) in the library",
    ),
    Case(
        "another name, said by the class",
        "class Thing(Structure):\n    _clib_name_ = 'struct sample'\n    _fields_ = "
        "[('one', c_uint32), ('two', c_uint32)]\n",
        "class Thing(Structure):\n    _clib_name_ = 'struct sample'\n    _fields_ = "
        "[('one', c_uint32), ('two', c_uint64), ('three', c_int16), ('four', c_uint32)]\n",
        "error",
        "Thing",
        "8 bytes here, 24 bytes in the library, which writes past its end",
    ),
    Case(
        "a field renamed, and half as long",
        structure(
            SAMPLE.replace("'stamp', c_uint64", "'_pad', c_uint32), ('time', c_uint32")
        ),
        structure(
            SAMPLE.replace("'stamp', c_uint64", "'_lo', c_uint32), ('_pad', c_uint32")
        )
        .replace("('_lo', c_uint32)", "('time', c_uint64)")
        .replace(" ('_pad', c_uint32),", ""),
        "error",
        "sample",
        "time: byte 8 to byte 12 covers part of stamp",
    ),
]

FUNCTIONS = [
    Case(
        "no result type for a pointer",
        "lib.sample_new.argtypes = [c_int]\n",
        "lib.sample_new.argtypes = [c_int]\nlib.sample_new.restype = c_void_p\n",
        "error",
        "sample_new",
        "no restype, so it is cut to a 4-byte int; it is struct sample * (8 bytes)",
    ),
    Case(
        "no result type, and nothing else either",
        "handle = lib.sample_age\n",
        "lib.sample_age.restype = c_longlong\n",
        "error",
        "sample_age",
        "no restype, so it is cut to a 4-byte int; it is int64_t (8 bytes)",
    ),
    Case(
        "int for ssize_t",
        "lib.sample_write.restype = c_int\n",
        "lib.sample_write.restype = c_ssize_t\n",
        "error",
        "sample_write",
        "result: c_int (4 bytes) here, ssize_t (8 bytes) in the library",
    ),
    Case(
        "void read as an int",
        "lib.sample_free.argtypes = [c_void_p]\n",
        "lib.sample_free.argtypes = [c_void_p]\nlib.sample_free.restype = None\n",
        "warning",
        "sample_free",
        "read as c_int (default); the library returns nothing (void)",
    ),
    Case(
        "an int for a number with a fraction",
        "lib.sample_mean.restype = c_longlong\n",
        "lib.sample_mean.restype = c_double\n",
        "error",
        "sample_mean",
        "result: c_longlong (8 bytes) here, double (8 bytes) in the library".replace(
            "c_longlong", "c_long"
        ),
    ),
    Case(
        "a sign of a result",
        "lib.sample_count.restype = c_int\n",
        "lib.sample_count.restype = c_uint\n",
        "warning",
        "sample_count",
        "result: signed (c_int) here, unsigned (uint32_t) in the library",
    ),
    Case(
        "bool read as an int",
        "lib.sample_ready.restype = c_int\n",
        "lib.sample_ready.restype = c_bool\n",
        "warning",
        "sample_ready",
        "result: c_int (4 bytes) here, _Bool (1 byte) in the library",
    ),
    Case(
        "an argument cut short",
        "lib.sample_write.argtypes = [c_void_p, c_char_p, c_int]\n"
        "lib.sample_write.restype = c_ssize_t\n",
        "lib.sample_write.argtypes = [c_void_p, c_char_p, c_size_t]\n"
        "lib.sample_write.restype = c_ssize_t\n",
        "error",
        "sample_write",
        "argument 3 (size): c_int (4 bytes) here, size_t (8 bytes) in the library",
    ),
    Case(
        "an int for a pointer argument",
        "lib.sample_ready.argtypes = [c_int]\nlib.sample_ready.restype = c_bool\n",
        "lib.sample_ready.argtypes = [c_size_t]\nlib.sample_ready.restype = c_bool\n",
        "error",
        "sample_ready",
        "argument 1 (one): c_int (4 bytes) here, const struct sample * (8 bytes)",
    ),
    Case(
        "too few arguments",
        "lib.sample_mean.argtypes = [c_void_p]\nlib.sample_mean.restype = c_double\n",
        "lib.sample_mean.argtypes = [c_void_p, c_size_t]\n"
        "lib.sample_mean.restype = c_double\n",
        "error",
        "sample_mean",
        "number of arguments: 1 here, 2 in the library",
    ),
    Case(
        "too many arguments",
        "lib.sample_log.argtypes = []\n",
        "lib.sample_log.argtypes = [c_char_p, c_int, c_double]\n",
        "error",
        "sample_log",
        "number of arguments: 0 here, 1 in the library",
    ),
    Case(
        "a pointer to something shorter",
        "lib.sample_span.argtypes = [c_void_p, POINTER(c_uint64), POINTER(c_uint32)]\n"
        "lib.sample_span.restype = None\n",
        "lib.sample_span.argtypes = [c_void_p, POINTER(c_uint64), POINTER(c_ulonglong)]\n"
        "lib.sample_span.restype = None\n",
        "error",
        "sample_span",
        "argument 3 (end): points to c_uint (4 bytes) here, to uint64_t (8 bytes)",
    ),
    Case(
        "a structure by value for a pointer",
        GOOD + "lib.sample_ready.argtypes = [sample]\n"
        "lib.sample_ready.restype = c_bool\n",
        GOOD + "lib.sample_store.argtypes = [sample, c_int]\n",
        "error",
        "sample_ready",
        "a sample by value (24 bytes) here, const struct sample * (8 bytes)",
    ),
    Case(
        "an int for a structure by value",
        "lib.sample_copy.restype = c_int\n",
        GOOD + "lib.sample_copy.restype = sample\n",
        "error",
        "sample_copy",
        "result: c_int (4 bytes) here, struct sample (24 bytes) in the library",
    ),
    Case(
        "wide text",
        "lib.sample_log.argtypes = [c_wchar_p]\n",
        "lib.record_wide.argtypes = [c_wchar_p, c_float]\n"
        "lib.record_wide.restype = c_size_t\n",
        "error",
        "sample_log",
        "text of 4 bytes a character here, const char * in the library",
    ),
    Case(
        "a structure known only by its use",
        structure("('id', c_uint32), ('stamp', c_uint32)", "Entry")
        + "lib.sample_ready.argtypes = [POINTER(Entry)]\n"
        "lib.sample_ready.restype = c_bool\n",
        structure(SAMPLE, "Entry") + "lib.sample_ready.argtypes = [POINTER(Entry)]\n"
        "lib.sample_ready.restype = c_bool\n",
        "error",
        "Entry",
        "stamp: at byte 4 here, at byte 8 in the library",
    ),
    Case(
        "a function made by a prototype",
        "age = CFUNCTYPE(c_int64, c_void_p, c_int)(('sample_age', lib))\n",
        "age = CFUNCTYPE(c_int64, c_void_p, c_int64)(('sample_age', lib))\n",
        "error",
        "sample_age",
        "argument 2 (now): c_int (4 bytes) here, int64_t (8 bytes) in the library",
    ),
]

CALLBACKS = [
    Case(
        "the result of a callback",
        GOOD + VISIT.replace("c_ssize_t", "c_int"),
        GOOD + VISIT,
        "error",
        "visit_cb",
        "result: c_int (4 bytes) here, ssize_t (8 bytes) in the library",
    ),
    Case(
        "an argument of a callback",
        GOOD + VISIT.replace("c_uint64", "c_uint32"),
        GOOD + VISIT,
        "error",
        "visit_cb",
        "argument 2: c_uint (4 bytes) here, uint64_t (8 bytes) in the library",
    ),
    Case(
        "a callback that answers nobody",
        "done_cb = CFUNCTYPE(c_int, c_int)\n",
        "done_cb = CFUNCTYPE(None, c_int)\n",
        "warning",
        "done_cb",
        "returns c_int; the library expects nothing (void)",
    ),
    Case(
        "a callback that keeps its answer",
        GOOD + VISIT.replace("c_ssize_t", "None"),
        GOOD + VISIT,
        "error",
        "visit_cb",
        "returns nothing; the library expects ssize_t",
    ),
    Case(
        "a callback of another name, by its use",
        GOOD + "each_t = CFUNCTYPE(c_int, c_void_p, c_uint64, POINTER(sample))\n"
        "lib.sample_each.argtypes = [POINTER(sample), each_t, c_void_p]\n",
        GOOD + "each_t = CFUNCTYPE(c_ssize_t, c_void_p, c_uint64, POINTER(sample))\n"
        "lib.sample_each.argtypes = [POINTER(sample), each_t, c_void_p]\n",
        "error",
        "each_t",
        "result: c_int (4 bytes) here, ssize_t (8 bytes) in the library",
    ),
    Case(
        "a callback in a structure",
        structure(
            "('visit', CFUNCTYPE(c_ssize_t, c_void_p)), ('done', CFUNCTYPE(None, c_long))",
            "hooks",
        ),
        structure(
            "('visit', CFUNCTYPE(c_ssize_t, c_void_p, c_uint64, c_void_p)),"
            " ('done', CFUNCTYPE(None, c_int))",
            "hooks",
        ),
        "error",
        "CFUNCTYPE(None, c_long)",
        "argument 1: c_long (8 bytes) here, int (4 bytes) in the library",
    ),
]


def cffi(declarations: str) -> str:
    return f"{CFFI}ffi.cdef('''\n{declarations}\n''')\nlib = ffi.dlopen(PATH)\n"


CFFI_SAMPLE = "struct sample { uint32_t id; uint64_t stamp; int16_t level; int mode; };"

CFFI_CASES = [
    Case(
        "cffi: a field",
        cffi(CFFI_SAMPLE.replace("uint64_t stamp", "uint32_t stamp")),
        cffi(CFFI_SAMPLE),
        "error",
        "struct sample",
        "stamp: at byte 4 here, at byte 8 in the library",
    ),
    Case(
        "cffi: a typedef without a tag",
        cffi(
            "typedef struct { char *name; float weight; ...; } record_t;".replace(
                " ...;", ""
            )
        ),
        cffi(
            CFFI_SAMPLE + "\ntypedef struct { char *name; double weight;"
            " struct sample first; uint16_t history[6]; } record_t;"
        ),
        "error",
        "record_t",
        "weight: float (4 bytes) here, double (8 bytes) in the library",
    ),
    Case(
        "cffi: a result",
        cffi("int sample_write(void *, const char *, size_t);"),
        cffi("ssize_t sample_write(void *, const char *, size_t);"),
        "error",
        "sample_write",
        "result: int (4 bytes) here, ssize_t (8 bytes) in the library",
    ),
    Case(
        "cffi: an argument",
        cffi("double sample_mean(void *, int);"),
        cffi("double sample_mean(void *, size_t);"),
        "error",
        "sample_mean",
        "argument 2 (count): int (4 bytes) here, size_t (8 bytes) in the library",
    ),
    Case(
        "cffi: a callback",
        cffi(
            "struct sample; int sample_each(struct sample *,"
            " int (*)(void *, uint64_t, const struct sample *), void *);"
        ),
        cffi(
            "struct sample; typedef ssize_t (*visit)(void *, uint64_t, const struct sample *);"
            " int sample_each(struct sample *, visit, void *);"
        ),
        "error",
        "int(*)(void *, uint64_t, struct sample *)",
        "result: int (4 bytes) here, ssize_t (8 bytes) in the library",
    ),
    Case(
        "cffi: a bit field",
        cffi("struct options { unsigned int fast : 1, depth : 4, rate : 10; };"),
        cffi("struct options { unsigned int fast : 1, depth : 5, rate : 10; };"),
        "error",
        "struct options",
        "depth: 4 bits here, 5 bits in the library",
    ),
]

CTYPES_CASES = RECORDS + FUNCTIONS + CALLBACKS
