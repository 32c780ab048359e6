"""Contexts, clients and messages: what a test needs to be both ends of a connection.

One thread is by turns the client (``send``, ``get_reply``) and the server (``run``);
``msg`` does all three. Client sockets do not block, so that a reply that is missing
fails the test at once instead of hanging it. A ``Context`` owns everything a test
opens on it and closes all of it, also after a failure.
"""

import array
import ctypes as c
import errno
import itertools
import json
import logging
import os
import resource
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pytest

from . import recording
from . import types as t
from .api import get_errno, lib, set_errno
from .constants import *
from .recording import Access as Access
from .recording import DmaCalls, MigrationCalls, Recording, dma_calls
from .recording import DmaInfo as DmaInfo
from .recording import RegionMemory as RegionMemory

logger = logging.getLogger("libvfio-user")
logger.setLevel(logging.DEBUG)

_LEVELS = (
    [logging.CRITICAL] * 3
    + [logging.ERROR, logging.WARNING]
    + [logging.INFO] * 2
    + [logging.DEBUG]
)
_msg_ids = itertools.count(1)
DEFAULT_CAPABILITIES: dict[str, Any] = {
    "max_msg_fds": 8,
    "max_data_xfer_size": VFIO_USER_DEFAULT_MAX_DATA_XFER_SIZE,
}


# For tests of what the kernel says of this process.
without_valgrind = pytest.mark.skipif(
    "vgpreload" in os.environ.get("LD_PRELOAD", ""),
    reason="valgrind has limits, descriptors and mappings of its own",
)


def error_name(number: int) -> str:
    return errno.errorcode.get(number, str(number))


# Calls into the library


def ok(function: Any, *args: Any) -> Any:
    """Call a function that must not fail; return its result."""
    set_errno(0)
    result = function(*args)
    number = get_errno()
    recording.raise_errors()
    failed = result is None or result == -1
    assert not failed, f"{function.__name__}: {error_name(number)}"
    return result


def fails(expected: int, function: Any, *args: Any, result: int | None = -1) -> None:
    """Call a function that must fail with this errno and return ``result``."""
    set_errno(0)
    got = function(*args)
    number = get_errno()
    recording.raise_errors()
    assert got == result, f"{function.__name__} returned {got}, not {result}"
    assert number == expected, (
        f"{function.__name__}: {error_name(number)}, not {error_name(expected)}"
    )


def run(ctx: "Context", expect: int = 0) -> int:
    """Run the server once: it must fail with ``expect``, or not fail if that is 0."""
    if expect:
        fails(expect, lib.vfu_run_ctx, ctx)
        return -1
    return ok(lib.vfu_run_ctx, ctx)


def run_until_idle(ctx: "Context", limit: int = 10_000) -> None:
    """Run the server until it finds nothing more to do."""
    for _ in range(limit):
        if run(ctx) == 0:
            return
    raise AssertionError(f"the server is still busy after {limit} runs")


# Contexts


class LogLine(NamedTuple):
    level: int
    text: str


class Context(c.c_void_p):
    """A ``vfu_ctx_t *`` with all that belongs to it; passes as such to ctypes."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.log: list[LogLine] = []
        self.sockets: list[socket.socket] = []
        self.kept: list[Any] = []
        self._log_fn = t.vfu_log_fn_t(self._logged)

    def _logged(self, _ctx: int | None, level: int, text: bytes) -> None:
        try:
            line = LogLine(level, text.decode())
            self.log.append(line)
            logger.log(_LEVELS[level], "%s", line.text)
        except BaseException as exc:
            recording.errors.append(exc)

    def keep(self, thing: Any) -> Any:
        """Keep a ctypes object alive as long as the context."""
        self.kept.append(thing)
        return thing

    def logged(self, level: int | None = None) -> str:
        """What the library logged, at one level or at all, as one text."""
        return "\n".join(line.text for line in self.log if level in (None, line.level))

    def destroy(self) -> None:
        """vfu_destroy_ctx; nothing if it has been called already."""
        if self.value:
            lib.vfu_destroy_ctx(self)  # callbacks still need the pointer
            self.value = None

    def close(self) -> None:
        """Release everything, whatever state a test left it in."""
        for sock in self.sockets:
            sock.close()
        self.destroy()


def create_ctx(
    path: str,
    *,
    flags: int = LIBVFIO_USER_FLAG_ATTACH_NB,
    trans: int = VFU_TRANS_SOCK,
    dev_type: int = VFU_DEV_TYPE_PCI,
    pvt: int | None = None,
    log_level: int = LOG_DEBUG,
) -> Context:
    """vfu_create_ctx with the log connected. OSError if the library refuses."""
    ctx = Context(path)
    set_errno(0)
    ctx.value = lib.vfu_create_ctx(trans, os.fsencode(path), flags, pvt, dev_type)
    if not ctx.value:
        raise OSError(get_errno(), os.strerror(get_errno()), path)
    ok(lib.vfu_setup_log, ctx, ctx._log_fn, log_level)
    return ctx


def setup_region(
    ctx: Context,
    index: int,
    size: int,
    callback: Recording | None = None,
    flags: int = VFU_REGION_FLAG_RW,
    areas: Sequence[tuple[int, int]] = (),
    fd: int = -1,
    offset: int = 0,
    expect: int = 0,
) -> None:
    """vfu_setup_region; ``areas`` are (start, length) pairs that can be mapped."""
    c_areas = (t.iovec * len(areas))(*areas) if areas else None
    c_callback = ctx.keep(callback).c if callback else t.vfu_region_access_cb_t()
    args = (index, size, c_callback, flags, c_areas, len(areas), fd, offset)
    if expect:
        fails(expect, lib.vfu_setup_region, ctx, *args)
    else:
        ok(lib.vfu_setup_region, ctx, *args)


def setup_dma(
    ctx: Context,
    max_regions: int = 64,
    register: bool = True,
    unregister: bool = True,
) -> DmaCalls:
    """vfu_setup_device_dma with recorded callbacks, or NULL for either."""
    calls = ctx.keep(dma_calls())
    null = t.vfu_dma_register_cb_t()
    ok(
        lib.vfu_setup_device_dma,
        ctx,
        max_regions,
        calls.register.c if register else null,
        calls.unregister.c if unregister else null,
    )
    return calls


def setup_quiesce(ctx: Context, *failures: int) -> Recording:
    """Set a quiesce callback whose next calls fail with these errnos (EBUSY: later)."""
    calls = ctx.keep(Recording(t.vfu_device_quiesce_cb_t, lambda: None))
    calls.fail(*failures)
    lib.vfu_setup_device_quiesce_cb(ctx, calls.c)
    return calls


def setup_reset(ctx: Context) -> Recording:
    calls = ctx.keep(Recording(t.vfu_reset_cb_t))
    ok(lib.vfu_setup_device_reset_cb, ctx, calls.c)
    return calls


def setup_migration(ctx: Context) -> MigrationCalls:
    calls = ctx.keep(MigrationCalls())
    table = calls.c_struct(VFU_MIGR_CALLBACKS_VERS)
    ok(lib.vfu_setup_device_migration_callbacks, ctx, c.byref(table))
    return calls


def setup_irqs(ctx: Context, index: int, count: int) -> None:
    ok(lib.vfu_setup_device_nr_irqs, ctx, index, count)


def pci_init(ctx: Context, pci_type: int = VFU_PCI_TYPE_CONVENTIONAL) -> None:
    ok(lib.vfu_pci_init, ctx, pci_type, 0, 0)


def get_pci_header(ctx: Context) -> t.vfu_pci_hdr_t:
    """The live header of the configuration space: changes show, and can be made."""
    return ok(lib.vfu_pci_get_config_space, ctx).contents.hdr


def get_config_space(ctx: Context, size: int = PCI_CFG_SPACE_SIZE) -> Any:
    """The live configuration space as an array of ``size`` bytes."""
    space = ok(lib.vfu_pci_get_config_space, ctx)
    return c.cast(space, c.POINTER(c.c_uint8 * size)).contents


def realize(ctx: Context) -> None:
    ok(lib.vfu_realize_ctx, ctx)


# Clients


class Reply(NamedTuple):
    header: t.vfio_user_header
    payload: bytes
    fds: list[int]


def open_client(ctx: Context, connect: bool = True) -> socket.socket:
    """A client socket, connected but with nothing negotiated; closed with ``ctx``."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ctx.sockets.append(sock)
    sock.setblocking(False)
    if connect:
        sock.connect(ctx.path)
    return sock


def version_payload(
    capabilities: Any = None, major: int = 0, minor: int = 1, text: Any = None
) -> bytes:
    """VERSION with JSON capabilities, or with ``text`` (bytes) in place of them."""
    if text is None:
        caps = DEFAULT_CAPABILITIES if capabilities is None else capabilities
        text = json.dumps({"capabilities": caps}).encode() + b"\0"
    return bytes(t.vfio_user_version(major=major, minor=minor)) + text


def attach(ctx: Context, sock: socket.socket, payload: bytes | None = None) -> Reply:
    """Negotiate on a connected socket; the reply to VERSION."""
    if payload is None:
        payload = version_payload()
    msg_id = send(sock, VFIO_USER_VERSION, payload)
    ok(lib.vfu_attach_ctx, ctx)
    return receive(sock, VFIO_USER_VERSION, msg_id)


def connect_client(ctx: Context, **capabilities: Any) -> socket.socket:
    """Connect and negotiate; keywords override or add client capabilities."""
    sock = open_client(ctx)
    attach(ctx, sock, version_payload({**DEFAULT_CAPABILITIES, **capabilities}))
    return sock


def connect_twin(ctx: Context, **capabilities: Any) -> tuple[socket.socket, ...]:
    """Connect with a twin socket; the main and the twin socket of the client."""
    caps = {**DEFAULT_CAPABILITIES, "twin_socket": {"supported": True}, **capabilities}
    sock = open_client(ctx)
    reply = attach(ctx, sock, version_payload(caps))
    [fd] = reply.fds
    twin = socket.socket(fileno=fd)
    ctx.sockets.append(twin)
    twin.setblocking(False)
    return sock, twin


def serve(ctx: Context, **capabilities: Any) -> socket.socket:
    """Realize the device and connect a client."""
    realize(ctx)
    return connect_client(ctx, **capabilities)


def disconnect(ctx: Context, sock: socket.socket) -> None:
    """Close the client's end and let the server notice."""
    hang_up(sock)
    run(ctx, errno.ENOTCONN)


def hang_up(sock: socket.socket) -> None:
    """Close a connection, also if another process still has the descriptor."""
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()


# Messages


def frame(
    cmd: int,
    payload: bytes = b"",
    *,
    msg_id: int | None = None,
    size: int | None = None,
    flags: int = VFIO_USER_F_TYPE_COMMAND,
    error_no: int = 0,
) -> bytes:
    """A whole message; ``size`` overrides the length that the header announces."""
    header = t.vfio_user_header(
        msg_id=next(_msg_ids) & 0xFFFF if msg_id is None else msg_id,
        cmd=cmd,
        msg_size=16 + len(payload) if size is None else size,
        flags=flags,
        error_no=error_no,
    )
    return bytes(header) + payload


def send_bytes(sock: socket.socket, data: bytes, fds: Iterable[int] = ()) -> None:
    """Send raw bytes, with descriptors if any; all must fit into the socket."""
    ancillary = []
    if numbers := array.array("i", fds):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)]
    sent = sock.sendmsg([data], ancillary)
    assert sent == len(data), f"only {sent} of {len(data)} bytes fit into the socket"


def send(
    sock: socket.socket,
    cmd: int,
    payload: bytes = b"",
    fds: Iterable[int] = (),
    **header: Any,
) -> int:
    """Send one message; its msg_id."""
    data = frame(cmd, payload, **header)
    send_bytes(sock, data, fds)
    return t.vfio_user_header.from_buffer_copy(data).msg_id


def receive(
    sock: socket.socket,
    cmd: int | None = None,
    msg_id: int | None = None,
    expect: int = 0,
) -> Reply:
    """Receive one reply, which must have come with one sendmsg, and check it."""
    try:
        data, ancillary, _flags, _addr = sock.recvmsg(
            1 << 17, socket.CMSG_SPACE(253 * 4), socket.MSG_CMSG_CLOEXEC
        )
    except BlockingIOError:
        raise AssertionError("the server sent no reply") from None
    numbers = array.array("i")
    for level, kind, content in ancillary:
        assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        numbers.frombytes(content)
    reply = check_reply(data, cmd, msg_id, expect)
    return reply._replace(fds=list(numbers))


def check_reply(
    data: bytes,
    cmd: int | None = None,
    msg_id: int | None = None,
    expect: int = 0,
) -> Reply:
    """Take a reply apart: type, size, command, id, and exactly this error."""
    assert len(data) >= 16, f"a reply of {len(data)} bytes"
    header = t.vfio_user_header.from_buffer_copy(data)
    assert header.msg_size == len(data), f"{header} in {len(data)} bytes"
    want_flags = VFIO_USER_F_TYPE_REPLY | (VFIO_USER_F_ERROR if expect else 0)
    assert header.error_no == expect, (
        f"the reply says {error_name(header.error_no)}, not {error_name(expect)}"
    )
    assert header.flags == want_flags, f"{header}"
    assert cmd is None or header.cmd == cmd, f"{header}"
    assert msg_id is None or header.msg_id == msg_id, f"{header}, sent {msg_id}"
    return Reply(header, data[16:], [])


def get_reply(sock: socket.socket, expect: int = 0) -> bytes:
    """The payload of the next reply, which must have this error."""
    reply = receive(sock, expect=expect)
    for fd in reply.fds:
        os.close(fd)
    assert not reply.fds, "descriptors that nobody asked for"
    return reply.payload


def no_reply(sock: socket.socket) -> None:
    """The server must not have sent anything."""
    try:
        data = sock.recv(1 << 16)
    except BlockingIOError:
        return
    raise AssertionError(f"{len(data)} bytes that should not have come")


def is_closed(sock: socket.socket) -> bool:
    """Whether the server has closed the connection."""
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def exchange(
    ctx: Context,
    sock: socket.socket,
    cmd: int,
    payload: bytes = b"",
    *,
    expect: int = 0,
    fds: Iterable[int] = (),
    **header: Any,
) -> Reply:
    """One request: sent, served by one run, answered. Descriptors are the caller's."""
    msg_id = send(sock, cmd, bytes(payload), fds, **header)
    run(ctx)
    return receive(sock, cmd, msg_id, expect)


def msg(
    ctx: Context,
    sock: socket.socket,
    cmd: int,
    payload: bytes = b"",
    *,
    expect: int = 0,
    fds: Iterable[int] = (),
    busy: bool = False,
    **header: Any,
) -> bytes:
    """One request and the payload of its reply.

    ``expect`` is the error that the reply must have. With ``busy`` the run must stop
    with EBUSY (the device is quiescing) and no reply come; b"" is returned.
    """
    if busy:
        send(sock, cmd, bytes(payload), fds, **header)
        run(ctx, errno.EBUSY)
        no_reply(sock)
        return b""
    reply = exchange(ctx, sock, cmd, payload, expect=expect, fds=fds, **header)
    for fd in reply.fds:
        os.close(fd)
    assert not reply.fds, "descriptors that nobody asked for"
    return reply.payload


def pump(
    ctx: Context,
    sock: socket.socket,
    data: bytes,
    fds: Iterable[int] = (),
    step: Callable[[], object] | None = None,
) -> None:
    """Send more than the socket holds, letting the server run in between."""
    view = memoryview(data)
    rights = array.array("i", fds)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
    stuck = 0
    while view:
        try:
            sent = sock.sendmsg([view], ancillary)
        except BlockingIOError:
            stuck += 1
            assert stuck < 1000, f"the server does not take the last {len(view)} bytes"
            (step or (lambda: run(ctx)))()
            continue
        stuck = 0
        ancillary = []
        view = view[sent:]


# Descriptors


def open_fds() -> dict[int, str]:
    """The open descriptors of this process and what they refer to."""
    found = {}
    # Valgrind keeps its own above the limit that it shows.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for name in os.listdir("/proc/self/fd"):
        if limit != resource.RLIM_INFINITY and int(name) >= limit:
            continue
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the directory's own descriptor, closed by now
    return found


def eventfd_value(fd: int) -> int:
    """Take the counter of an eventfd; 0 if it was not triggered."""
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


_libc = c.CDLL(None)
_libc.malloc.restype = c.c_void_p
_libc.malloc.argtypes = [c.c_size_t]
_libc.free.argtypes = [c.c_void_p]


def leave_leftovers(size: int, fill: int = 0xFF, count: int = 16) -> None:
    """Free some filled blocks, for whoever reads what it has not written."""
    blocks = [_libc.malloc(size) for _ in range(count)]
    for block in blocks:
        c.memset(block, fill, size)
    for block in blocks:
        _libc.free(block)


class Fds:
    """Descriptors that a test makes; ``close_all`` closes what it did not close."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def add(self, fd: int) -> int:
        self._open.add(fd)
        return fd

    def close(self, *fds: int) -> None:
        for fd in fds:
            self._open.remove(fd)
            os.close(fd)

    def eventfd(self, value: int = 0) -> int:
        return self.add(os.eventfd(value, os.EFD_NONBLOCK | os.EFD_CLOEXEC))

    def eventfds(self, count: int) -> list[int]:
        return [self.eventfd() for _ in range(count)]

    def memfd(self, size: int, content: bytes = b"") -> int:
        fd = self.add(os.memfd_create("client-memory", os.MFD_CLOEXEC))
        os.truncate(fd, size)
        os.pwrite(fd, content, 0)
        return fd

    def pipe(self, flags: int = os.O_CLOEXEC) -> tuple[int, int]:
        read_end, write_end = os.pipe2(flags)
        return self.add(read_end), self.add(write_end)

    def close_all(self) -> None:
        for fd in self._open:
            os.close(fd)
        self._open.clear()
