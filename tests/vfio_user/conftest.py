"""Fixtures and markers of the libvfio-user suite.

The library under test is ``LIBVFIO_USER_SO``, else this checkout's release build.

Two markers say what only a repaired library can pass:

- ``defect("D13")``: fails on upstream's library, by the fault of that number in the
  specification;
- ``extension``: needs something that upstream's library does not offer.

On upstream's library, ``-m "not defect and not extension"`` passes whole. To watch the
others fail there, set ``LIBVFIO_USER_ISOLATE=1``: each of them then runs in a forked
child, so that a crash or a hang is one failed test and not the end of the session.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from . import recording
from .api import library_path
from .harness import Context, Fds, create_ctx
from .isolation import run_isolated

ISOLATE = os.environ.get("LIBVFIO_USER_ISOLATE", "") not in ("", "0")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "defect(*ids): fails on a library with that fault (see conftest)"
    )
    config.addinivalue_line(
        "markers", "extension: needs what upstream's library does not offer"
    )


def pytest_report_header() -> str:
    return f"libvfio-user: {library_path()}"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """With LIBVFIO_USER_ISOLATE, run marked tests in a child."""
    marked = ("defect", "extension")
    if not ISOLATE or not any(pyfuncitem.get_closest_marker(m) for m in marked):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    run_isolated(lambda: pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(autouse=True)
def callback_errors() -> Iterator[None]:
    """An exception in a callback fails the test, whoever made the call."""
    recording.errors.clear()
    yield
    recording.raise_errors()


@pytest.fixture
def fds() -> Iterator[Fds]:
    """Makes descriptors and closes them."""
    made = Fds()
    yield made
    made.close_all()


@pytest.fixture
def new_ctx(
    tmp_path: Path, fds: Fds, callback_errors: None
) -> Iterator[Callable[..., Context]]:
    """Makes contexts (arguments as ``create_ctx``) and always destroys them."""
    made: list[Context] = []

    def make(path: str | None = None, **options: int) -> Context:
        where = str(tmp_path / f"vfu{len(made)}.sock") if path is None else path
        ctx = create_ctx(where, **options)
        made.append(ctx)
        return ctx

    yield make
    for ctx in made:
        ctx.close()


@pytest.fixture
def ctx(new_ctx: Callable[..., Context]) -> Context:
    """A non-blocking context with nothing set up."""
    return new_ctx()
