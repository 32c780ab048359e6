"""What the user may write, and what is said when it cannot be used."""

from __future__ import annotations

import subprocess

import pytest

CLEAN = "int add(int a, int b) { return a + b; }\n"
TEST = "def test(): assert lib.add(1, 2) == 3\n"


def usage_error(suite, *args: str) -> str:
    """The one line that a usage error is."""
    suite.pytester.makepyfile("def test(): pass")
    result = suite.pytester.runpytest_subprocess(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in result.stderr.lines if line.strip()]
    assert len(lines) == 1, result.stderr.str()
    assert "Traceback" not in result.stdout.str()
    return lines[0]


def test_path_that_does_not_exist_is_a_usage_error(suite):
    assert usage_error(suite, "--clib=./nowhere.so") == (
        "ERROR: --clib=./nowhere.so: no such file"
    )


def test_file_that_is_not_elf_is_a_usage_error(suite):
    (suite.pytester.path / "text.so").write_text("GROUP ( libc.so.6 )\n")

    assert usage_error(suite, "--clib=./text.so").endswith("not an ELF file")


def test_directory_is_a_usage_error(suite):
    (suite.pytester.path / "folder").mkdir()

    assert "Is a directory" in usage_error(suite, "--clib=./folder")


def test_static_archive_is_a_usage_error(suite):
    (suite.pytester.path / "lib.a").write_bytes(b"!<arch>\n")

    assert "a static archive" in usage_error(suite, "--clib=./lib.a")


def test_object_file_is_a_usage_error(suite, build):
    library = build(CLEAN).read_bytes()
    (suite.pytester.path / "lib.o").write_bytes(library[:16] + b"\1\0" + library[18:])

    assert "an object file" in usage_error(suite, "--clib=./lib.o")


def test_foreign_architecture_is_a_usage_error(suite, build):
    library = build(CLEAN).read_bytes()
    (suite.pytester.path / "arm.so").write_bytes(
        library[:18] + b"\xb7\0" + library[20:]
    )

    assert usage_error(suite, "--clib=./arm.so").endswith(
        "built for AArch64, not for x86-64"
    )


def test_big_endian_is_a_usage_error(suite, build):
    library = build(CLEAN).read_bytes()
    (suite.pytester.path / "big.so").write_bytes(library[:5] + b"\2" + library[6:])

    assert "big-endian" in usage_error(suite, "--clib=./big.so")


@pytest.mark.parametrize("length", [10, 64, 100, 5000])
def test_truncated_file_is_a_usage_error(suite, build, length):
    library = build(CLEAN).read_bytes()
    (suite.pytester.path / "cut.so").write_bytes(library[:length])

    assert "truncated" in usage_error(suite, "--clib=./cut.so")


def test_statically_linked_program_is_a_usage_error(suite):
    program = suite.pytester.path / "static"
    source = suite.pytester.makefile(".c", "int main(void) { return 0; }")
    subprocess.run(["cc", "-static", "-o", program, source], check=True)

    assert "a static object" in usage_error(suite, "--clib=./static")


def test_empty_name_is_a_usage_error(suite):
    assert "is empty" in usage_error(suite, "--clib=")


def test_report_of_unknown_kind_is_a_usage_error(suite):
    line = usage_error(suite, "--clib=libz.so", "--clib-report=out.txt")

    assert "out.txt: the name must end in .json" in line


def test_report_in_no_directory_is_a_usage_error(suite):
    line = usage_error(suite, "--clib=libz.so", "--clib-report=no/out.json")

    assert "there is no directory" in line


def test_report_without_library_is_a_usage_error(suite):
    assert "name one with --clib=LIB" in usage_error(suite, "--clib-report=out.json")


def test_alias_without_two_names_is_a_usage_error(suite):
    line = usage_error(suite, "--clib=libz.so", "--clib-alias=iovec_t")

    assert line == "ERROR: --clib-alias=iovec_t: expected PYTHON_NAME=C_NAME"


def test_library_that_is_never_loaded_is_told_at_the_end(suite):
    suite.pytester.makepyfile("def test(): pass")

    outcome = suite.again("--clib=libnever.so.3")

    assert outcome.result.ret == 0
    outcome.result.stdout.fnmatch_lines(
        ["clib: --clib=libnever.so.3 was never loaded; nothing of it was checked"]
    )


@pytest.mark.parametrize(
    "spec", ["libplanted.so", "libpl*.so", "{above}/*/libplanted.so"]
)
def test_library_is_named_by_file_name_or_glob(suite, build, spec):
    library = build(CLEAN)
    suite.write(TEST, library)

    outcome = suite.again(f"--clib={spec.format(above=library.parent.parent)}")

    assert outcome.result.ret == 0
    assert [lib["path"] for lib in outcome.report["libraries"]] == [str(library)]


def test_relative_path_is_seen_from_the_directory_of_the_invocation(suite, build):
    library = build(CLEAN)
    (suite.pytester.path / "here.so").symlink_to(library)
    suite.write(TEST, library)

    outcome = suite.again("--clib=./here.so")

    assert [lib["path"] for lib in outcome.report["libraries"]] == [str(library)]


def test_configuration_file_names_libraries_too(suite, build):
    library = build(CLEAN)
    suite.write(TEST, library)
    suite.pytester.makeini(f"[pytest]\nclib = {library}\nclib_held = true\n")

    outcome = suite.again()

    assert [lib["path"] for lib in outcome.report["libraries"]] == [str(library)]


def test_without_the_option_nothing_is_touched(suite, build):
    suite.write(
        TEST + "def test_check(): assert lib.add.errcheck is None\n", build(CLEAN)
    )

    result = suite.pytester.runpytest_subprocess()

    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*clib*found*")


def test_plugin_is_switched_off_by_its_name(suite, build, monkeypatch):
    for name in ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTEST_PLUGINS"):
        monkeypatch.delenv(name)  # its name is that of its entry point
    suite.write(TEST, build(CLEAN))

    result = suite.pytester.runpytest_subprocess("-p", "no:clib")

    result.assert_outcomes(passed=1)
    refused = suite.pytester.runpytest_subprocess("-p", "no:clib", "--clib=libz.so")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR


def test_help_shows_the_options_in_one_group(suite):
    result = suite.pytester.runpytest_subprocess("--help")

    result.stdout.fnmatch_lines(
        ["testing a C library (pytest-clib):", "*--clib=LIB*", "*--clib-held*"]
    )


def test_a_file_behind_an_option_with_an_optional_value_is_a_file(suite, build):
    """In a folder whose conftest.py has to be found, too."""
    library = build(CLEAN)
    below = suite.pytester.mkdir("below")
    (below / "conftest.py").write_text(
        "def pytest_addoption(parser): parser.addoption('--theirs')\n"
    )
    (below / "test_it.py").write_text("def test(): pass\n")
    suite.pytester.makepyfile("def test_not_this(): assert False")

    result = suite.pytester.runpytest_subprocess(
        f"--clib={library}", "--clib-torture", "below/test_it.py", "--theirs=1"
    )

    result.assert_outcomes(passed=1)
