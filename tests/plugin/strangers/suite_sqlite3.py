"""sqlite3: a table in memory, and one in a file."""

import ctypes as c

lib = c.CDLL("libsqlite3.so.0", use_errno=True)
lib.sqlite3_open.argtypes = [c.c_char_p, c.POINTER(c.c_void_p)]
lib.sqlite3_exec.argtypes = [c.c_void_p, c.c_char_p, c.c_void_p, c.c_void_p, c.c_void_p]
lib.sqlite3_close.argtypes = [c.c_void_p]

SCRIPT = b"create table t(a); insert into t values(1); select * from t;"


def run(name):
    handle = c.c_void_p()
    status = lib.sqlite3_open(name, c.byref(handle))
    if status == 0:
        status = lib.sqlite3_exec(handle, SCRIPT, None, None, None)
    assert lib.sqlite3_close(handle) == 0
    return status


def test_in_memory():
    assert run(b":memory:") == 0


def test_in_a_file(tmp_path):
    assert run(bytes(tmp_path / "file.db")) == 0
