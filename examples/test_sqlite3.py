"""SQLite as installed, with a callback and a handle in a fixture.

pytest --clib=libsqlite3.so.0 examples/test_sqlite3.py
"""

import ctypes as c
import ctypes.util

import pytest

sqlite = c.CDLL(ctypes.util.find_library("sqlite3") or "libsqlite3.so.0")

OK, ERROR, ABORT, ROW, DONE = 0, 1, 4, 100, 101

ROW_CALLBACK = c.CFUNCTYPE(
    c.c_int, c.c_void_p, c.c_int, c.POINTER(c.c_char_p), c.POINTER(c.c_char_p)
)

sqlite.sqlite3_open.argtypes = [c.c_char_p, c.POINTER(c.c_void_p)]
sqlite.sqlite3_close.argtypes = [c.c_void_p]
sqlite.sqlite3_exec.argtypes = [
    c.c_void_p,
    c.c_char_p,
    ROW_CALLBACK,
    c.c_void_p,
    c.POINTER(c.c_void_p),
]
sqlite.sqlite3_free.argtypes = [c.c_void_p]
sqlite.sqlite3_errmsg.argtypes = [c.c_void_p]
sqlite.sqlite3_errmsg.restype = c.c_char_p
sqlite.sqlite3_prepare_v2.argtypes = [
    c.c_void_p,
    c.c_char_p,
    c.c_int,
    c.POINTER(c.c_void_p),
    c.c_void_p,
]
for name in ("sqlite3_step", "sqlite3_finalize"):
    getattr(sqlite, name).argtypes = [c.c_void_p]
sqlite.sqlite3_column_int64.argtypes = [c.c_void_p, c.c_int]
sqlite.sqlite3_column_int64.restype = c.c_int64


@pytest.fixture
def database(tmp_path):
    handle = c.c_void_p()
    assert sqlite.sqlite3_open(str(tmp_path / "db").encode(), handle) == OK
    execute(handle, b"CREATE TABLE pair (name TEXT, value INTEGER)")
    yield handle
    assert sqlite.sqlite3_close(handle) == OK


def execute(database, statement, on_row=None):
    callback = ROW_CALLBACK(on_row) if on_row else ROW_CALLBACK()
    return sqlite.sqlite3_exec(database, statement, callback, None, None)


def test_rows_reach_the_callback(database):
    rows = []

    def on_row(_, columns, values, names):
        rows.append({names[i]: values[i] for i in range(columns)})
        return 0

    execute(database, b"INSERT INTO pair VALUES ('one', 1), ('two', 2)")

    assert execute(database, b"SELECT * FROM pair", on_row) == OK
    assert rows == [
        {b"name": b"one", b"value": b"1"},
        {b"name": b"two", b"value": b"2"},
    ]


def test_callback_that_returns_nonzero_stops_the_query(database):
    execute(database, b"INSERT INTO pair VALUES ('one', 1), ('two', 2)")

    assert execute(database, b"SELECT * FROM pair", lambda *_: 1) == ABORT


def test_statement_is_prepared_stepped_and_finalized(database):
    execute(database, b"INSERT INTO pair VALUES ('big', 5000000000)")
    statement = c.c_void_p()
    query = b"SELECT value FROM pair"
    assert sqlite.sqlite3_prepare_v2(database, query, -1, statement, None) == OK

    assert sqlite.sqlite3_step(statement) == ROW
    assert sqlite.sqlite3_column_int64(statement, 0) == 5_000_000_000
    assert sqlite.sqlite3_step(statement) == DONE
    assert sqlite.sqlite3_finalize(statement) == OK


def test_bad_statement_has_a_message_that_is_freed(database):
    message = c.c_void_p()

    result = sqlite.sqlite3_exec(database, b"SELEC", ROW_CALLBACK(), None, message)

    assert result == ERROR
    assert c.string_at(message) == b'near "SELEC": syntax error'
    sqlite.sqlite3_free(message)
