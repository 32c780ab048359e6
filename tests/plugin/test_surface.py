"""The public surface, and the stub of the native module, are what is written."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest_clib
from pytest_clib import _native, findings, options

PACKAGE = Path(pytest_clib.__file__).parent


def stub_names(body: list[ast.stmt]) -> set[str]:
    return {
        node.name
        for node in body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
    }


def built_names(owner: object) -> set[str]:
    return {name for name in vars(owner) if not name.startswith("_")}


def test_package_exports_what_it_lists():
    assert sorted(pytest_clib.__all__) == pytest_clib.__all__
    assert all(hasattr(pytest_clib, name) for name in pytest_clib.__all__)
    assert (PACKAGE / "py.typed").exists()


def test_stub_names_what_the_native_module_has():
    stub = ast.parse((PACKAGE / "_native.pyi").read_text())

    assert stub_names(stub.body) == built_names(_native)


def test_stub_names_the_members_of_each_class():
    stub = ast.parse((PACKAGE / "_native.pyi").read_text())
    classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}

    stated = {
        name: stub_names(node.body) for name, node in classes.items() if name[0] != "_"
    }
    built = {name: built_names(getattr(_native, name)) for name in stated}
    assert stated == built


def test_stub_has_the_parameters_of_each_function():
    stub = ast.parse((PACKAGE / "_native.pyi").read_text())
    stated = {
        node.name: [argument.arg for argument in node.args.args + node.args.kwonlyargs]
        for node in stub.body
        if isinstance(node, ast.FunctionDef)
    }

    built = {
        name: list(inspect.signature(getattr(_native, name)).parameters)
        for name in stated
    }
    assert stated == built


def test_finding_survives_the_way_through_json():
    place = findings.Place("f", "f.c", 3, "lib.so", 16)
    finding = findings.Finding(
        kind=findings.Kind.LEAK,
        message="lost",
        test="t.py::t",
        severity=findings.Severity.WARNING,
        library="/lib.so",
        function="malloc",
        errno="ENOMEM",
        site=place,
        backtrace=(place, place),
        details="a\nb",
        command="pytest",
        count=2,
        size=3,
    )

    assert findings.Finding.from_dict(finding.to_dict()) == finding


def test_every_option_has_a_help_line():
    assert all(
        option.help and option.name.startswith("clib") for option in options.TABLE
    )
