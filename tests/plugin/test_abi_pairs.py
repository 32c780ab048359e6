"""Each wrong declaration is found, and its right twin is not."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import abi_declarations as declared
import pytest

from pytest_clib import Kind, abi

HERE = Path(__file__).parent
NUMBERS = itertools.count()
CC = shlex.split(os.environ.get("CC", "cc"))


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("abi") / "libabi.so"
    command = [
        "gcc",
        "-g",
        "-O1",
        "-shared",
        "-fPIC",
        "-o",
        out,
        HERE / "abi_library.c",
    ]
    subprocess.run(command, check=True)
    return out


@pytest.fixture
def check(built, tmp_path):
    """Imports declarations and compares them with a copy of the library of their own."""
    library = tmp_path / "libabi.so"
    shutil.copy(built, library)
    imported = []

    def run(source, **keywords):
        name = f"abi_case_{next(NUMBERS)}"
        path = tmp_path / f"{name}.py"
        path.write_text(source.replace("PATH", repr(str(library))))
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        imported.append(module)
        spec.loader.exec_module(module)
        return abi.check([library], rootdir=tmp_path, **keywords)

    yield run
    for module in imported:
        del sys.modules[module.__name__]


def ids(cases):
    return [case.name.replace(" ", "-") for case in cases]


def ctypes_source(text):
    return declared.CTYPES + text


def assert_found(findings, case):
    found = [one for one in findings if one.function == case.subject]
    assert found, [one.message for one in findings]
    text = "\n".join(line for one in found for line in one.lines())
    assert case.says in text
    hit = next(one for one in found if case.says in "\n".join(one.lines()))
    assert str(hit.severity) == case.severity
    assert hit.kind is Kind.ABI


@pytest.mark.parametrize("case", declared.CTYPES_CASES, ids=ids(declared.CTYPES_CASES))
def test_ctypes_wrong(check, case):
    assert_found(check(ctypes_source(case.wrong)), case)


@pytest.mark.parametrize("case", declared.CTYPES_CASES, ids=ids(declared.CTYPES_CASES))
def test_ctypes_right(check, case):
    assert check(ctypes_source(case.right)) == []


@pytest.mark.parametrize("case", declared.CFFI_CASES, ids=ids(declared.CFFI_CASES))
def test_cffi_wrong(check, case):
    pytest.importorskip("cffi")
    assert_found(check(case.wrong), case)


@pytest.mark.parametrize("case", declared.CFFI_CASES, ids=ids(declared.CFFI_CASES))
def test_cffi_right(check, case):
    pytest.importorskip("cffi")
    assert check(case.right) == []
