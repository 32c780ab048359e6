"""Libraries as Debian ships them, under torture: to the end, and with what is known to be wrong."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("strangers")
LIBRARIES = {
    "json_c": "libjson-c.so.5",
    "zlib": "libz.so.1",
    "expat": "libexpat.so.1",
    "sqlite3": "libsqlite3.so.0",
}


def torture(suite, name: str) -> list[dict]:
    library = LIBRARIES[name]
    try:
        ctypes.CDLL(library)
    except OSError:
        pytest.skip(f"{library} is not installed")
    source = FOLDER / f"suite_{name}.py"
    (suite.pytester.path / f"test_{name}.py").write_text(source.read_text())
    outcome = suite.again(f"test_{name}.py", f"--clib={library}", "--clib-torture")
    assert outcome.report["summary"]["injections"] > 0, outcome.text
    assert json.dumps(outcome.report)
    outcome.result.assert_outcomes(passed=2)
    return [f for f in outcome.findings if f["kind"] != "abi"]


@pytest.mark.parametrize("name", ["zlib", "expat", "sqlite3"])
def test_sound_libraries_have_nothing(suite, name):
    assert torture(suite, name) == []


def test_json_c_crashes_when_strdup_fails(suite):
    found = torture(suite, "json_c")

    crashes = [f for f in found if f["kind"] == "crash"]
    assert any(f["function"] == "strdup" for f in crashes)
    assert all(f["errno"] == "ENOMEM" for f in crashes)
