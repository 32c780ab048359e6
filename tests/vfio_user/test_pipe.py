"""The pipe transport: one client on standard input and output, no descriptors."""

import contextlib
import errno
import os

import pytest

from .commands import *
from .harness import *

pytestmark = pytest.mark.extension  # a build option of upstream's


class Pipes:
    """The process's standard input and output, turned into a client's pipes."""

    def __init__(self) -> None:
        self.saved = os.dup(0), os.dup(1)
        server_in, self.to_server = os.pipe()
        self.from_server, server_out = os.pipe()
        os.dup2(server_in, 0)
        os.dup2(server_out, 1)
        os.close(server_in)
        os.close(server_out)
        os.set_blocking(self.from_server, False)

    def send(self, cmd, payload=b""):
        os.write(self.to_server, frame(cmd, payload))

    def receive(self, cmd, expect=0):
        return check_reply(os.read(self.from_server, 1 << 16), cmd, expect=expect)

    def hang_up(self):
        os.close(self.to_server)
        self.to_server = -1

    def close(self):
        for number, fd in enumerate(self.saved):
            os.dup2(fd, number)
            os.close(fd)
        for fd in (self.to_server, self.from_server):
            if fd >= 0:
                os.close(fd)


@contextlib.contextmanager
def client(new_ctx):
    """A realized context on pipes, and the pipes.

    Inside the test and not a fixture: pytest's own capturing changes descriptor 1
    between the two.
    """
    pipes = Pipes()
    try:
        ctx = new_ctx(trans=VFU_TRANS_PIPE, flags=0)
        ctx.region = RegionMemory(64)
        setup_region(ctx, 0, 64, ctx.region)
        ctx.reset = setup_reset(ctx)
        realize(ctx)
        yield ctx, pipes
        ctx.destroy()
    finally:
        pipes.close()


def test_poll_descriptor(new_ctx):
    with client(new_ctx) as (ctx, pipes):
        assert lib.vfu_get_poll_fd(ctx) == -1
        pipes.send(VFIO_USER_VERSION, version_payload())
        ok(lib.vfu_attach_ctx, ctx)
        assert lib.vfu_get_poll_fd(ctx) == 0


def test_requests_until_the_end(new_ctx):
    with client(new_ctx) as (ctx, pipes):
        pipes.send(VFIO_USER_VERSION, version_payload())
        ok(lib.vfu_attach_ctx, ctx)
        reply = pipes.receive(VFIO_USER_VERSION)
        assert reply.payload.endswith(b"\0")
        pipes.send(VFIO_USER_REGION_WRITE, region_payload(0, 8, 4, b"pipe"))
        pipes.hang_up()
        fails(errno.ENOTCONN, lib.vfu_run_ctx, ctx)
        reply = pipes.receive(VFIO_USER_REGION_WRITE)
        assert len(reply.payload) == 16
        assert ctx.region.memory[8:12] == b"pipe"
        assert ctx.reset.calls == [VFU_RESET_LOST_CONN]


def test_refused_version(new_ctx):
    with client(new_ctx) as (ctx, pipes):
        pipes.send(VFIO_USER_VERSION, version_payload(major=3))
        fails(errno.EINVAL, lib.vfu_attach_ctx, ctx)
        pipes.receive(VFIO_USER_VERSION, errno.EINVAL)


def test_standard_streams_are_not_closed(new_ctx):
    with client(new_ctx) as (ctx, _):
        ctx.destroy()
        assert {0, 1} <= set(open_fds())
