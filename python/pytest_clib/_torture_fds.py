"""A forked copy shares open files with its parent: this gives it its own where it matters.

What a copy writes to, reads from, or leaves unread in a socket that both have would meet the
parent's own test, and all later copies. So, before it goes on, a copy replaces

- both ends of connected stream and seqpacket sockets that this process has both ends of
  (UNIX and loopback), with what is queued in them;
- pipes that this process has both ends of, and event counters, with what is in them;
- files that have a position.

Sockets that listen cannot be copied: the parent takes what copies left waiting there out of
the queue, and puts back the socket's name if a copy removed it. Descriptors whose other end is
in another process are left alone (a worker's channel to its controller is one).

What a copy opens has a number of its own kind: low ones, which may stand anywhere as sizes and
counts, are taken while there are copies.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import resource
import socket
import stat
import struct
from pathlib import Path
from typing import NamedTuple

from ._native import put_in_place

_DIAGNOSE = 20  # SOCK_DIAG_BY_FAMILY
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_SHOW = 4 | 0x10  # UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN
_PEER, _QUEUE, _SHUTDOWN = 2, 4, 6
_DONE, _ERROR = 3, 2
_RECEIVING = frozenset({0, 17, 19, 45, 47})  # read, pread64, readv, recvfrom, recvmsg
_MOST_QUEUED = 1 << 20
_MOST_PASSED = 64
_FIRST = 200  # what is opened in a copy has a number from here on
_NEEDED = 800  # numbers above it, for what a test opens
_TIMEOUTS = (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO)


class Unix(NamedTuple):
    """A UNIX socket as the kernel tells it."""

    peer: int
    waiting: int
    shutdown: int


class Pair(NamedTuple):
    """Two ends of one connection: descriptors of each, most often one."""

    family: int
    kind: int
    ends: tuple[tuple[int, ...], tuple[int, ...]]
    shutdown: tuple[int, int]


class Listener(NamedTuple):
    """A listening socket."""

    fd: int
    path: str
    inode: int
    kept: str


class Descriptors:
    """What this process has open, looked at once a test.

    Args:
        ours: an event counter that copies share with their parent.
    """

    def __init__(self, ours: int = -1) -> None:
        self._ours = ours
        self.pairs: list[Pair] = []
        self._pipes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self._counters: list[tuple[tuple[int, ...], int, bool]] = []
        self._files: list[int] = []
        self._listeners: list[Listener] = []
        self._survey()
        self._taken = _take_low_numbers()

    def isolate(self) -> None:
        """In a copy: make what is shared its own."""
        for pair in self.pairs:
            with contextlib.suppress(OSError):
                _replace_pair(pair)
        for readers, writers in self._pipes:
            with contextlib.suppress(OSError):
                _replace_pipe(readers, writers)
        for fds, count, semaphore in self._counters:
            with contextlib.suppress(OSError):
                flags = os.EFD_SEMAPHORE if semaphore else 0
                put_in_place(os.eventfd(count, flags), fds)
        for fd in self._files:
            with contextlib.suppress(OSError):
                flags = fcntl.fcntl(fd, fcntl.F_GETFL) & ~(os.O_CREAT | os.O_EXCL)
                made = os.open(f"/proc/self/fd/{fd}", flags & ~os.O_TRUNC)
                os.lseek(made, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_SET)
                put_in_place(made, (fd,))

    def restore(self) -> None:
        """In the parent, after a copy: undo what it did to sockets that listen."""
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                _drain(listener.fd)
            if listener.path and _inode(listener.path) != listener.inode:
                with contextlib.suppress(OSError):
                    Path(listener.path).unlink(missing_ok=True)
                    os.link(listener.kept, listener.path)

    def close(self) -> None:
        """Forget what was kept, and give the numbers back."""
        for fd in self._taken:
            os.close(fd)
        for listener in self._listeners:
            if listener.kept:
                Path(listener.kept).unlink(missing_ok=True)

    def _survey(self) -> None:
        inodes: dict[int, list[int]] = {}
        pipes: dict[int, dict[int, list[int]]] = {}
        for name in list(Path("/proc/self/fd").iterdir()):
            fd = int(name.name)
            try:
                status = os.fstat(fd)
                if stat.S_ISSOCK(status.st_mode):
                    inodes.setdefault(status.st_ino, []).append(fd)
                elif stat.S_ISFIFO(status.st_mode):
                    ends = pipes.setdefault(status.st_ino, {})
                    ends.setdefault(_access(fd), []).append(fd)
                elif stat.S_ISREG(status.st_mode):
                    self._file(fd)
                elif not stat.S_IFMT(status.st_mode):
                    self._counter(fd)
            except OSError:
                continue  # the directory's own, or closed meanwhile by another thread
        if inodes:
            self._sockets(inodes)
        for ends in pipes.values():
            readers, writers = ends.get(os.O_RDONLY), ends.get(os.O_WRONLY)
            if readers and writers:
                self._pipes.append((tuple(readers), tuple(writers)))

    def _file(self, fd: int) -> None:
        name = Path(f"/proc/self/fd/{fd}").readlink()
        if fd > 2 and not str(name).endswith(" (deleted)") and name.is_absolute():
            self._files.append(fd)

    def _counter(self, fd: int) -> None:
        info = Path(f"/proc/self/fdinfo/{fd}").read_text(
            encoding="ascii", errors="replace"
        )
        fields = dict(line.partition(":")[::2] for line in info.splitlines())
        if "eventfd-count" not in fields or fd == self._ours:
            return
        count = int(fields["eventfd-count"], 16)
        semaphore = fields.get("eventfd-semaphore", "0").strip() == "1"
        self._counters.append(((fd,), count, semaphore))

    def _sockets(self, inodes: dict[int, list[int]]) -> None:
        kernel = _unix_sockets()
        names: dict[tuple[object, object], list[int]] = {}
        seen: set[int] = set()
        for inode, fds in inodes.items():
            try:
                sock = socket.socket(fileno=os.dup(fds[0]))
            except OSError:
                continue  # closed meanwhile by another thread, or as garbage
            with sock:
                if _listens(sock):
                    self._listen(sock, fds[0])
                elif sock.family == socket.AF_UNIX:
                    known = kernel.get(inode)
                    peer = known.peer if known else 0
                    if known and peer in kernel and peer in inodes and peer not in seen:
                        seen.add(inode)
                        ends = (tuple(fds), tuple(inodes[peer]))
                        closed = (known.shutdown, kernel[peer].shutdown)
                        self.pairs.append(Pair(sock.family, sock.type, ends, closed))
                elif sock.type == socket.SOCK_STREAM:
                    with contextlib.suppress(OSError):
                        mine, theirs = sock.getsockname(), sock.getpeername()
                        names[mine, theirs] = fds
        for (mine, theirs), fds in names.items():
            other = names.get((theirs, mine))
            if other is not None and fds < other:
                ends = (tuple(fds), tuple(other))
                family = socket.AF_INET6 if ":" in str(mine) else socket.AF_INET
                self.pairs.append(Pair(family, socket.SOCK_STREAM, ends, (0, 0)))

    def _listen(self, sock: socket.socket, fd: int) -> None:
        path = sock.getsockname() if sock.family == socket.AF_UNIX else ""
        if not isinstance(path, str) or not path.startswith("/"):
            self._listeners.append(Listener(fd, "", 0, ""))
            return
        inode = _inode(path)
        kept = f"{path}.clib-{os.getpid()}"
        with contextlib.suppress(OSError):
            Path(kept).unlink(missing_ok=True)
            os.link(path, kept)
            self._listeners.append(Listener(fd, path, inode, kept))
            return
        self._listeners.append(Listener(fd, "", 0, ""))


def waits_for_peer(pid: int) -> bool:
    """Whether a process waits on a socket whose other end leaves unread what was sent.

    Then it is the other end that does not go on. Asked from outside, while it waits.
    """
    try:
        call = Path(f"/proc/{pid}/syscall").read_text(encoding="ascii").split()
        if len(call) < 2 or int(call[0]) not in _RECEIVING:
            return False
        link = str(Path(f"/proc/{pid}/fd/{int(call[1], 16)}").readlink())
    except (OSError, ValueError):
        return False
    kind, _, inode = link.rstrip("]").partition(":[")
    if kind != "socket":
        return False
    kernel = _unix_sockets()
    mine = kernel.get(int(inode))
    peer = kernel.get(mine.peer) if mine else None
    return peer is not None and peer.waiting > 0


def _take_low_numbers() -> list[int]:
    """Descriptors with all numbers below the first that copies are to use.

    None if a limit of the process leaves few above it.
    """
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < _FIRST + _NEEDED:
        return []
    taken: list[int] = []
    with contextlib.suppress(OSError):
        fd = os.open("/dev/null", os.O_RDONLY)
        while fd < _FIRST:
            taken.append(fd)
            fd = os.dup(fd)
        os.close(fd)
    return taken


def _access(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE


def _inode(path: str) -> int:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return 0


def _listens(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


def _drain(fd: int) -> None:
    """Take out of a queue whose connections are over."""
    sock = socket.socket(fileno=os.dup(fd))
    before = os.get_blocking(fd)
    with sock:
        os.set_blocking(fd, False)
        try:
            while True:
                sock.accept()[0].close()
        except OSError:
            return
        finally:
            os.set_blocking(fd, before)


def _unix_sockets() -> dict[int, Unix]:
    """All UNIX sockets by inode, from the kernel's socket monitoring."""
    found: dict[int, Unix] = {}
    request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW, 0, 0)
    header = struct.pack("=IHHII", 16 + len(request), _DIAGNOSE, _DUMP, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 4) as netlink:
            netlink.settimeout(1.0)
            netlink.send(header + request)
            while True:
                data = netlink.recv(1 << 16)
                while data:
                    size, kind, *_ = struct.unpack_from("=IHHII", data)
                    if kind in {_DONE, _ERROR}:
                        return found
                    inode, known = _unix_socket(data[16:size])
                    found[inode] = known
                    data = data[(size + 3) & ~3 :]
    except OSError:
        return found


def _unix_socket(data: bytes) -> tuple[int, Unix]:
    inode = struct.unpack_from("=BBBBI", data)[4]
    at = 16
    attributes: dict[int, bytes] = {}
    while at < len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        attributes[kind] = data[at + 4 : at + size]
        at += (size + 3) & ~3
    peer = int.from_bytes(attributes.get(_PEER, b""), "little")
    waiting = int.from_bytes(attributes.get(_QUEUE, b"")[:4], "little")
    shutdown = int.from_bytes(attributes.get(_SHUTDOWN, b""), "little")
    return inode, Unix(peer, waiting, shutdown)


def _replace_pair(pair: Pair) -> None:
    made = _new_pair(pair)
    for number in (0, 1):
        old = socket.socket(pair.family, pair.kind, fileno=os.dup(pair.ends[number][0]))
        with old:
            _copy_queue(old, made[1 - number])
            for option in _TIMEOUTS:
                value = old.getsockopt(socket.SOL_SOCKET, option, 16)
                made[number].setsockopt(socket.SOL_SOCKET, option, value)
    for number in (0, 1):
        how = pair.shutdown[number]
        if how:
            made[number].shutdown(how - 1)
        put_in_place(made[number].detach(), pair.ends[number])


def _new_pair(pair: Pair) -> tuple[socket.socket, socket.socket]:
    if pair.family == socket.AF_UNIX:
        return socket.socketpair(socket.AF_UNIX, pair.kind)
    host = "::1" if pair.family == socket.AF_INET6 else "127.0.0.1"
    with socket.socket(pair.family, pair.kind) as listener:
        listener.bind((host, 0))
        listener.listen(1)
        here = socket.socket(pair.family, pair.kind)
        here.connect(listener.getsockname())
        return here, listener.accept()[0]


def _copy_queue(old: socket.socket, into: socket.socket) -> None:
    """Send what waits at ``old`` to the end that will take its place, unread."""
    space = socket.CMSG_SPACE(_MOST_PASSED * array.array("i").itemsize)
    try:
        data, passed, _, _ = old.recvmsg(
            _MOST_QUEUED, space, socket.MSG_PEEK | socket.MSG_DONTWAIT
        )
    except OSError:
        return
    if data or passed:
        into.setblocking(False)
        with contextlib.suppress(OSError):
            into.sendmsg([data], passed)
        into.setblocking(True)


def _replace_pipe(readers: tuple[int, ...], writers: tuple[int, ...]) -> None:
    reader, writer = os.pipe()
    # Copies what is in the pipe without taking it out, if anything is.
    with contextlib.suppress(OSError):
        old = os.dup(readers[0])
        try:
            _tee(old, writer)
        finally:
            os.close(old)
    put_in_place(reader, readers)
    put_in_place(writer, writers)


def _tee(source: int, target: int) -> None:
    import ctypes  # noqa: PLC0415 (only for pipes)

    libc = ctypes.CDLL(None, use_errno=True)
    nonblocking = 2  # SPLICE_F_NONBLOCK
    libc.tee(source, target, ctypes.c_size_t(_MOST_QUEUED), nonblocking)
