"""Where the plugin cannot work it says so, and the suite runs."""

from __future__ import annotations

import pytest

PRETEND = """\
import platform
import sys
from types import SimpleNamespace

import pytest_clib.native as native

{change}
"""
CHANGES = {
    "macOS": (
        "native.sys = SimpleNamespace(platform='darwin')",
        "needs Linux, and this is darwin",
    ),
    "ARM": (
        "platform.machine = lambda: 'aarch64'",
        "needs x86-64, and this is aarch64",
    ),
    "musl": (
        "platform.libc_ver = lambda: ('', '')",
        "needs glibc, and this is another C library",
    ),
    "damaged": (
        "sys.modules['pytest_clib._native'] = None",
        "its native module cannot be loaded",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_unsupported_platform_is_one_line(suite, change, message):
    suite.pytester.makepyfile(pretend=PRETEND.format(change=change))
    suite.pytester.makepyfile(
        "def test():\n    pass\n\ndef test_clib(clib):\n    pass\n"
    )

    result = suite.pytester.runpytest_subprocess("-p", "pretend", "--clib=libz.so.1")

    assert result.ret == 0
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines([f"clib: pytest-clib {message}*; nothing is checked"])
