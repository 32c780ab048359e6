"""Exact counts of one row: ``counts.py BENCH.so LIBRARY ROW PARAMETER TIMES``.

Hooks count what the library calls while the row runs in this process; the client's own
calls are not the library's and are not counted. Prints JSON: figures of one operation.
"""

from __future__ import annotations

import ctypes
import json
import sys

from pytest_clib import _native


def main() -> None:
    """Runs the row twice, so that what only the first operations cost is left out."""
    bench_path, library, row, parameter, times = sys.argv[1:]
    session = _native.Session([library])
    bench = ctypes.CDLL(bench_path)
    bench.bench_prepare.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_long]
    bench.bench_run.argtypes = [ctypes.c_long]
    bench.bench_prepare(library.encode(), row.encode(), int(parameter))
    session.rescan()
    bench.bench_run(int(times))
    before = _native.totals()
    bench.bench_run(int(times))
    spent = [now - then for now, then in zip(_native.totals(), before, strict=True)]
    names = ("system_calls", "allocations", "bytes")
    each = {name: total / int(times) for name, total in zip(names, spent, strict=True)}
    print(json.dumps(each))
    session.stop()


main()
