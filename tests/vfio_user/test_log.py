"""vfu_setup_log and vfu_log, and what the library itself says."""

import ctypes
import errno
import os

import pytest

from .commands import *
from .harness import *


def say(ctx, level, text, *args):
    lib.vfu_log(ctx, level, text, *args)


@pytest.mark.parametrize("level", range(8))
def test_levels(ctx, level):
    say(ctx, level, b"said")
    assert ctx.log == [LogLine(level, "said")]


@pytest.mark.parametrize("limit", range(8))
def test_what_is_above_the_limit_is_dropped(new_ctx, limit):
    ctx = new_ctx(log_level=limit)
    for level in range(8):
        say(ctx, level, b"said")
    assert [line.level for line in ctx.log] == list(range(limit + 1))


@pytest.mark.parametrize("level", [-1, 8, 1000])
def test_limits_that_cannot_be(ctx, level):
    fails(errno.EINVAL, lib.vfu_setup_log, ctx, ctx._log_fn, level)
    say(ctx, LOG_DEBUG, b"as before")
    assert "as before" in ctx.logged()


def test_no_handler(ctx):
    ok(lib.vfu_setup_log, ctx, t.vfu_log_fn_t(), LOG_DEBUG)
    say(ctx, LOG_ERR, b"into the void")
    assert ctx.log == []


def test_no_handler_by_default(tmp_path):
    path = os.fsencode(tmp_path / "sock")
    ctx = lib.vfu_create_ctx(VFU_TRANS_SOCK, path, 0, None, VFU_DEV_TYPE_PCI)
    assert ctx
    lib.vfu_log(ctx, LOG_ERR, b"nobody listens")
    lib.vfu_destroy_ctx(ctx)


def test_no_format(ctx):
    say(ctx, LOG_ERR, None)
    assert ctx.log == []


def test_format(ctx):
    say(
        ctx,
        LOG_INFO,
        b"%s %d %#x %5.1f%%|%-4d|%lu",
        b"text",
        ctypes.c_int(-7),
        ctypes.c_uint(0xBEEF),
        ctypes.c_double(99.5),
        ctypes.c_int(3),
        ctypes.c_ulong(UINT64_MAX),
    )
    assert ctx.log[-1].text == f"text -7 0xbeef  99.5%|3   |{UINT64_MAX}"


def test_many_arguments(ctx):
    """More than fit into registers."""
    count = 20
    arguments = [ctypes.c_int(i) for i in range(count)]
    say(ctx, LOG_INFO, b" ".join([b"%d"] * count), *arguments)
    assert ctx.log[-1].text == " ".join(map(str, range(count)))


def test_percent_m_is_the_errno_of_the_caller(ctx):
    set_errno(errno.EXDEV)
    say(ctx, LOG_ERR, b"failed: %m")
    assert ctx.log[-1].text == f"failed: {os.strerror(errno.EXDEV)}"


def test_errno_survives(ctx):
    set_errno(errno.EXDEV)
    say(ctx, LOG_ERR, b"%s", b"x")
    assert get_errno() == errno.EXDEV


def test_errno_survives_a_handler_that_changes_it(ctx):
    def change(_ctx, _level, _text):
        set_errno(errno.ENOSYS)

    handler = ctx.keep(t.vfu_log_fn_t(change))
    ok(lib.vfu_setup_log, ctx, handler, LOG_DEBUG)
    set_errno(errno.EXDEV)
    say(ctx, LOG_ERR, b"x")
    assert get_errno() == errno.EXDEV


@pytest.mark.parametrize("length", [8190, 8191, 8192, 100_000])
def test_long_texts_are_cut(ctx, length):
    say(ctx, LOG_INFO, b"%s", b"x" * length)
    assert ctx.log[-1].text == "x" * min(length, 8191)


def test_handler_gets_the_context(ctx):
    seen = []
    handler = ctx.keep(t.vfu_log_fn_t(lambda who, _level, _text: seen.append(who)))
    ok(lib.vfu_setup_log, ctx, handler, LOG_DEBUG)
    say(ctx, LOG_ERR, b"x")
    assert seen == [ctx.value]


def test_handler_may_be_replaced_by_itself(ctx):
    first = []

    def replace(_ctx, _level, text):
        first.append(text)
        ok(lib.vfu_setup_log, ctx, ctx._log_fn, LOG_DEBUG)

    ok(lib.vfu_setup_log, ctx, ctx.keep(t.vfu_log_fn_t(replace)), LOG_DEBUG)
    say(ctx, LOG_ERR, b"one")
    say(ctx, LOG_ERR, b"two")
    assert first == [b"one"]
    assert ctx.log[-1].text == "two"


def test_each_failed_request_leaves_a_line(ctx):
    sock = serve(ctx)
    ctx.log.clear()
    msg(ctx, sock, VFIO_USER_MAX, b"x", expect=errno.EINVAL)
    assert ctx.logged(LOG_ERR)


def test_normal_operation_is_quiet_below_debug(new_ctx):
    ctx = new_ctx(log_level=LOG_WARNING)
    setup_dma(ctx)
    sock = serve(ctx)
    dma_map(ctx, sock, 0x10000, 0x1000)
    get_device_info(ctx, sock)
    dma_unmap(ctx, sock, 0x10000, 0x1000)
    disconnect(ctx, sock)
    assert ctx.log == []


@pytest.mark.extension
def test_lines_do_not_end_in_newlines(ctx, fds):
    setup_irqs(ctx, VFU_DEV_MSIX_IRQ, 4)
    sock = serve(ctx)
    setup_region(ctx, 0, 4096, flags=99, expect=errno.EINVAL)
    areas, fd = [(0, 9999)], fds.memfd(4096)
    setup_region(ctx, 0, 4096, areas=areas, fd=fd, expect=errno.EINVAL)
    set_irqs(ctx, sock, 77, TRIGGER_NONE, 0, 0, expect=errno.EINVAL)
    request = bytes(t.vfio_irq_info(argsz=16, index=77))
    msg(ctx, sock, VFIO_USER_DEVICE_GET_IRQ_INFO, request, expect=errno.EINVAL)
    msg(ctx, sock, VFIO_USER_MAX, b"x", expect=errno.EINVAL)
    disconnect(ctx, sock)
    assert ctx.log
    assert [line.text for line in ctx.log if line.text.endswith("\n")] == []
