"""The page of ``--clib-report=x.html``, in a real browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import browser as browsers
import pytest

from pytest_clib import report_html

LEAKY = """
#include <stdlib.h>
#include <sys/mman.h>
static void *kept;
int lose(size_t size) {
    void *block = malloc(size);
    return block == kept;
}
void good(void) { free(malloc(100)); }
int lose_mapping(void) {
    return mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED;
}
"""

SUITE = """
@pytest.mark.parametrize("size", [100, 200])
def test_loses(size):
    lib.lose(c.c_size_t(size))

def test_good():
    lib.good.restype = None
    lib.good()

def test_mapping():
    lib.lose_mapping()

def test_fails():
    assert 1 == 2, "</script><b>markup</b>"

@pytest.mark.skip(reason="not today")
def test_skipped():
    pass
"""


@pytest.fixture(scope="module")
def browser():
    program = browsers.find()
    if program is None:
        pytest.skip("no browser: apt-get install chromium")
    with browsers.Browser(program) as running:
        yield running


@pytest.fixture(scope="module")
def reports(build, tmp_path_factory):
    """Where a small suite has written its report in both forms."""
    folder = tmp_path_factory.mktemp("page")
    library = build(LEAKY)
    prelude = f"import ctypes as c, pytest\nlib = c.CDLL({str(library)!r})\n"
    (folder / "test_it.py").write_text(prelude + SUITE)
    (folder / "pytest.ini").write_text("[pytest]\n")
    files = [f"--clib-report={folder / name}" for name in ("page.html", "page.json")]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])}
    environ.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-q", f"--clib={library}", *files]
    subprocess.run(command, cwd=folder, env=environ, check=False, capture_output=True)
    return folder


@pytest.fixture
def page(reports, browser):
    """The page, opened; and its data."""
    browser.errors.clear()
    browser.open(reports / "page.html")
    return json.loads((reports / "page.json").read_text())


def shown(browser, selector):
    return browser.run(
        f"[...document.querySelectorAll({json.dumps(selector)})]"
        ".filter(node => node.offsetParent !== null).length"
    )


def type_filter(browser, text):
    browser.run(
        "(() => { const box = document.getElementById('search'); "
        f"box.value = {json.dumps(text)}; box.dispatchEvent(new Event('input')); }})()"
    )


def test_shows_everything_without_an_error(browser, page):
    assert shown(browser, "details.group") == 2  # two sizes lost at one place
    assert shown(browser, "#tests tbody tr") == len(page["tests"]) == 6
    assert shown(browser, "svg[role=img]") >= 2
    text = browser.run("document.body.innerText")
    assert "malloc" in text
    assert "libplanted.so" in text
    browser.run(
        "document.querySelectorAll('details.group').forEach(node => node.open = true)"
    )
    browser.run("new Promise(done => setTimeout(done, 0))")
    source = browser.run("document.querySelector('.source code.here').textContent")
    assert "malloc(size)" in source
    assert browser.errors == []


@pytest.mark.usefixtures("page")
def test_filters_findings_and_tests(browser):
    type_filter(browser, "test_mapping")
    assert shown(browser, "details.group") == 1
    assert shown(browser, "#tests tbody tr") == 1
    type_filter(browser, "no such thing")
    assert shown(browser, "details.group") == 0
    assert "No test matches" in browser.run(
        "document.getElementById('tests').innerText"
    )
    type_filter(browser, "")
    browser.run(
        "document.querySelector('#findings .chip[data-name=\"mapping-leak\"]').click()"
    )
    assert shown(browser, "details.group") == 1
    browser.run(
        "document.querySelector('#findings .chip[data-name=\"mapping-leak\"]').click()"
    )
    browser.run("document.querySelector('#tests .chip[data-name=failed]').click()")
    assert shown(browser, "#tests tbody tr") == 1
    assert browser.errors == []


def test_sorts_by_column(browser, page):
    browser.run("document.querySelectorAll('#tests thead button')[5].click()")
    first = browser.run("document.querySelector('#tests tbody tr').innerText")
    assert "test_loses[200]" in first
    sort = browser.run(
        "document.querySelectorAll('#tests thead th')[5].getAttribute('aria-sort')"
    )
    assert sort == "descending"
    peaks = {t["test"].partition("::")[2]: t["peak_bytes"] for t in page["tests"]}
    assert peaks["test_loses[100]"] == 100
    assert peaks["test_loses[200]"] == 200


@pytest.mark.usefixtures("page")
def test_is_used_by_keyboard(browser):
    browser.press("/")
    assert browser.run("document.activeElement.id") == "search"
    browser.press("Escape")
    browser.run("document.querySelector('details.group summary').focus()")
    browser.press("Enter")
    assert browser.run("document.querySelector('details.group').open") is True
    unnamed = browser.run(
        "[...document.querySelectorAll('button,a,input')]"
        ".filter(node => !(node.textContent.trim() || node.labels?.length)).length"
    )
    assert unnamed == 0


@pytest.mark.usefixtures("page")
def test_text_stays_text(browser):
    assert browser.run("document.querySelectorAll('#main b b').length") == 0
    assert "</script><b>markup" in browser.run(
        "document.getElementById('tests').innerText"
    )


@pytest.mark.usefixtures("page")
def test_themes_and_print(browser, tmp_path):
    colours = []
    for scheme in ("light", "dark"):
        browser.look(tmp_path / f"{scheme}.png", scheme=scheme)
        colours.append(browser.run("getComputedStyle(document.body).backgroundColor"))
        if folder := os.environ.get("CLIB_SCREENSHOTS"):
            (tmp_path / f"{scheme}.png").replace(Path(folder, f"report-{scheme}.png"))
    assert colours[0] != colours[1]
    browser.run("document.getElementById('theme').click()")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == colours[0]
    filled = (
        "(() => { window.dispatchEvent(new Event('beforeprint'));"
        " return [...document.querySelectorAll('details.group')]"
        ".filter((group) => group.open && group.querySelector('.body').firstChild).length"
        " })()"
    )
    groups = browser.run("document.querySelectorAll('details.group').length")
    assert browser.run(filled) == groups > 1
    assert browser.pdf().startswith(b"%PDF")
    assert browser.errors == []


def full_report() -> dict:
    """A report with every section, as no single run has them all."""
    place = {"function": "f", "file": "f.c", "line": 2, "module": "/l.so", "offset": 16}
    cell = {
        "function": "malloc",
        "how": "fails with ENOMEM",
        "module": "/l.so",
        "offset": 16,
    }
    return {
        "schema": 1,
        "run": {
            "version": "1",
            "python": "3",
            "platform": "p",
            "started": "s",
            "command": "c",
            "tool": "asan",
        },
        "summary": {
            "tests": 1,
            "injections": 7,
            "seconds": 1.5,
            "findings": {},
            "outcomes": {},
            "interrupted": False,
        },
        "notes": ["a note"],
        "libraries": [],
        "findings": [],
        "tests": [],
        "torture": {
            "cells": [
                {**cell, "class": "crash", "site": place, "count": 3, "tests": 1},
                {**cell, "class": "failed", "site": None, "count": 4, "tests": 2},
            ]
        },
        "coverage": {
            "lines": 3,
            "covered": 2,
            "tests": ["t::a", "t::b"],
            "sets": [[0], [0, 1]],
            "files": [
                {
                    "file": "f.c",
                    "lines": 3,
                    "covered": 2,
                    "hits": {"1": 4, "2": 0, "3": 1},
                    "reached": {"1": 1, "3": 0},
                    "source": ["int f(void) {", "  return 1 < 2;", "}"],
                }
            ],
        },
        "scripts": [
            {
                "name": "read",
                "test": "t::a",
                "threads": 1,
                "instances": 1,
                "operations": 100,
                "operations_per_second": 5e4,
                "seconds": 0.002,
                "min_ns": 900,
                "mean_ns": 1200.0,
                "p50_ns": 1000,
                "p90_ns": 1900,
                "p99_ns": 3000,
                "p999_ns": 5000,
                "max_ns": 9000,
                "histogram": [[1000, 60], [2000, 30], [4000, 9], [9000, 1]],
                "allocations_per_operation": 0.0,
                "system_calls_per_operation": 2.0,
                "bytes_per_operation": 0.0,
                "instructions_per_operation": None,
            }
        ],
        "comparisons": [
            {
                "a": "read",
                "b": "write",
                "test": "t::a",
                "ratios": [0.8] * 9,
                "median": 0.8,
                "low": 0.7,
                "high": 0.9,
                "verdict": "read",
            }
        ],
        "sources": {"f.c": {"1": "int f(void) {", "2": "  return 1 < 2;", "3": "}"}},
    }


def test_torture_coverage_and_scripts(browser, tmp_path):
    path = tmp_path / "full.html"
    path.write_text(report_html.render(full_report()), encoding="utf-8")
    browser.errors.clear()
    browser.open(path)
    browser.run("document.querySelector('#torture td button.bad').click()")
    assert "f.c:2" in browser.run("document.getElementById('sites').innerText")
    browser.run("document.querySelector('#coverage td button').click()")
    assert shown(browser, "#coverage code.miss") == 1
    browser.run("document.getElementById('L1').focus()")
    browser.press("Enter")
    assert "t::b" in browser.run("document.getElementById('coverage').innerText")
    assert shown(browser, "#scripts svg path.area") == 1
    assert (
        "time ratio 0.800 (0.700 to 0.900 with 95 % confidence, 9 pairs): read is faster"
        in browser.run("document.getElementById('scripts').innerText")
    )
    assert "66.6 %" in browser.run("document.getElementById('summary').innerText")
    assert browser.errors == []


def test_throughput_over_threads(browser, tmp_path):
    report = full_report()
    (run,) = report["scripts"]
    report["scripts"] = [
        {**run, "threads": threads, "operations_per_second": rate}
        for threads, rate in ((1, 5e4), (4, 15e4), (2, 9e4))
    ]
    path = tmp_path / "throughput.html"
    path.write_text(report_html.render(report), encoding="utf-8")
    browser.errors.clear()
    browser.open(path)

    told = browser.run(
        "document.querySelector('#scripts svg:has(path.line)').getAttribute('aria-label')"
    )
    assert told.endswith(
        "50 k per second with 1 threads, 90 k per second with 2 threads, "
        "150 k per second with 4 threads"
    )
    assert shown(browser, "#scripts svg path.area") == 3
    assert browser.errors == []
