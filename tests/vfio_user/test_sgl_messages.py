"""vfu_sgl_read and vfu_sgl_write by message: the server asks, the client answers.

``vfu_sgl_*`` wait for the answer. In most tests it is already in the socket when the
library asks: the client knows what will be asked, except for the message id, and a
``Memory`` thread, blocking on its own socket, answers where the id is needed.
"""

import contextlib
import ctypes
import errno
import os
import resource
import socket
import threading

import pytest

from .commands import *
from .harness import *

ADDR = 0x10_0000
SIZE = 16 * PAGE_SIZE
FILE_IO = VFIO_USER_F_DMA_REGION_RW | VFIO_USER_F_DMA_REGION_FILE_IO


class Memory:
    """Client memory behind a socket, served by a thread.

    ``tamper`` may change an answer: it gets the request's header, its access structure
    and the answer, and returns the bytes to send instead.
    """

    def __init__(self, sock: socket.socket, tamper=None) -> None:
        self.sock = sock
        self.sock.setblocking(True)
        self.data = bytearray(SIZE)
        self.requests: list[tuple[int, int, int]] = []
        self.headers: list[t.vfio_user_header] = []
        self.tamper = tamper
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            if not (more := self.sock.recv(count - len(data))):
                raise EOFError
            data += more
        return data

    def _serve(self) -> None:
        try:
            while True:
                header = t.vfio_user_header.from_buffer_copy(self._exactly(16))
                body = self._exactly(header.msg_size - 16)
                answer = self._answer(header, body)
                if answer is None:
                    return
                self.sock.sendall(answer)
        except (EOFError, ConnectionError):
            pass
        except BaseException as exc:
            self.error = exc

    def _answer(self, header, body):
        access = t.vfio_user_dma_region_access.from_buffer_copy(body)
        self.headers.append(header)
        self.requests.append((header.cmd, access.addr, access.count))
        at = access.addr - ADDR
        content = b""
        if header.cmd == VFIO_USER_DMA_READ:
            content = bytes(self.data[at : at + access.count])
        elif len(body) == 16 + access.count:
            self.data[at : at + access.count] = body[16:]
        answer = frame(
            header.cmd,
            bytes(access) + content,
            msg_id=header.msg_id,
            flags=VFIO_USER_F_TYPE_REPLY,
        )
        if self.tamper is not None:
            return self.tamper(header, access, answer)
        return answer

    def stop(self) -> None:
        with contextlib.suppress(OSError):  # it may be gone already
            self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        if self.error is not None:
            raise self.error


def error_reply(number, payload=b""):
    """A tampering that answers with an error."""
    flags = VFIO_USER_F_TYPE_REPLY | VFIO_USER_F_ERROR

    def tamper(header, _access, _answer):
        return frame(
            header.cmd, payload, msg_id=header.msg_id, flags=flags, error_no=number
        )

    return tamper


@pytest.fixture
def memories():
    made = []
    yield made
    for memory in made:
        memory.stop()


@pytest.fixture
def device(ctx):
    ctx.dma = setup_dma(ctx)
    ctx.reset = setup_reset(ctx)
    realize(ctx)
    return ctx


@pytest.fixture
def start(device, memories, fds):
    """Connect with a twin socket, map one region, and serve the client's memory."""

    def start(tamper=None, flags=VFIO_USER_F_DMA_REGION_RW, fd=None, **caps):
        device.main, twin = connect_twin(device, **caps)
        dma_map(device, device.main, ADDR, SIZE, fd, flags=flags)
        memories.append(Memory(twin, tamper))
        return memories[-1]

    return start


def read(ctx, offset, count, flags=0, expect=0):
    sgl = addr_to_sgl(ctx, ADDR + offset, count)
    buffer = ctypes.create_string_buffer(count)
    if expect:
        fails(expect, lib.vfu_sgl_read, ctx, sgl, 1, buffer, flags)
    else:
        ok(lib.vfu_sgl_read, ctx, sgl, 1, buffer, flags)
    return buffer.raw


def write(ctx, offset, data, flags=0, expect=0):
    sgl = addr_to_sgl(ctx, ADDR + offset, len(data))
    buffer = ctypes.create_string_buffer(data, len(data))
    if expect:
        fails(expect, lib.vfu_sgl_write, ctx, sgl, 1, buffer, flags)
    else:
        ok(lib.vfu_sgl_write, ctx, sgl, 1, buffer, flags)


@pytest.mark.parametrize("flags", [0, VFU_SGL_DIRECT_ACCESS])
def test_message_region(device, start, flags):
    """There is no direct way to it: the flag makes no difference."""
    memory = start()
    write(device, 0x40, b"from the device", flags)
    assert memory.data[0x40:0x4F] == b"from the device"
    assert read(device, 0x40, 15, flags) == b"from the device"
    assert memory.requests == [
        (VFIO_USER_DMA_WRITE, ADDR + 0x40, 15),
        (VFIO_USER_DMA_READ, ADDR + 0x40, 15),
    ]
    no_reply(device.main)


def test_headers_of_the_server(device, start):
    memory = start()
    for _ in range(3):
        read(device, 0, 4)
    assert [h.flags for h in memory.headers] == [VFIO_USER_F_TYPE_COMMAND] * 3
    assert [h.error_no for h in memory.headers] == [0] * 3
    assert len({h.msg_id for h in memory.headers}) == 3


@pytest.mark.parametrize(
    "flags", [VFIO_USER_F_DMA_REGION_RW, FILE_IO], ids=["mapped", "file"]
)
def test_messages_are_used_unless_direct_access_is_asked_for(device, start, fds, flags):
    fd = fds.memfd(SIZE, b"in the file")
    memory = start(flags=flags, fd=fd)
    memory.data[:9] = b"elsewhere"
    assert read(device, 0, 9) == b"elsewhere"
    assert read(device, 0, 11, VFU_SGL_DIRECT_ACCESS) == b"in the file"
    assert len(memory.requests) == 1


@pytest.mark.parametrize("limit", [1, 100, PAGE_SIZE])
def test_transfers_are_cut_to_the_clients_limit(device, start, limit):
    memory = start(max_data_xfer_size=limit)
    length = 2 * limit + limit // 2 + 1
    data = os.urandom(length)
    write(device, 0x10, data)
    assert memory.data[0x10 : 0x10 + length] == data
    assert read(device, 0x10, length) == data
    counts = [count for _, _, count in memory.requests]
    assert max(counts) <= limit
    assert sum(counts) == 2 * length
    starts = [addr for cmd, addr, _ in memory.requests if cmd == VFIO_USER_DMA_READ]
    assert starts == [ADDR + 0x10 + i * limit for i in range(len(starts))]


@pytest.mark.parametrize("number", [errno.EIO, errno.EFAULT, 1, 4095, 4096])
def test_clients_error_comes_through(device, start, number):
    start(error_reply(number))
    read(device, 0, 4, expect=number)
    write(device, 0, b"data", expect=number)


@pytest.mark.parametrize("number", [0, 4097, 0xBEEF, UINT32_MAX])
def test_clients_error_that_is_none(device, start, number):
    start(error_reply(number))
    read(device, 0, 4, expect=errno.EINVAL)


def test_connection_lives_on_after_a_clients_error(device, start):
    memory = start(error_reply(errno.EIO))
    read(device, 0, 4, expect=errno.EIO)
    memory.tamper = None
    memory.data[:4] = b"good"
    assert read(device, 0, 4) == b"good"
    msg(device, device.main, VFIO_USER_DEVICE_RESET)


@pytest.mark.parametrize("done", [1, 2])
def test_data_before_an_error_stays_transferred(device, start, done):
    fail = error_reply(errno.EIO)

    def tamper(header, access, answer):
        late = len(memory.requests) > done
        return fail(header, access, answer) if late else answer

    memory = start(tamper, max_data_xfer_size=16)
    write(device, 0, b"x" * 64, expect=errno.EIO)
    assert memory.data[: 16 * done] == b"x" * 16 * done


def altered(**fields):
    """A tampering with fields of the header or the access of an answer."""

    def tamper(_header, _access, answer):
        header = t.vfio_user_header.from_buffer_copy(answer)
        access = t.vfio_user_dma_region_access.from_buffer_copy(answer, 16)
        for name, change in fields.items():
            target = header if hasattr(header, name) else access
            setattr(target, name, change(getattr(target, name)))
        return bytes(header) + bytes(access) + answer[32:]

    return tamper


@pytest.mark.parametrize(
    ("tamper", "number"),
    [
        pytest.param(altered(addr=lambda a: a + 1), errno.EINVAL, id="address"),
        pytest.param(altered(count=lambda n: n + 1), errno.EINVAL, id="count"),
        pytest.param(altered(msg_id=lambda i: i ^ 0x55), errno.EPROTO, id="id"),
        pytest.param(altered(flags=lambda _: 0), errno.EINVAL, id="not a reply"),
    ],
)
def test_answers_that_do_not_fit(device, start, tamper, number):
    start(tamper)
    read(device, 0, 4, expect=number)


def test_answer_with_descriptors_leaks_none(device, start, fds):
    def tamper(_header, _access, answer):
        socket.send_fds(memory.sock, [answer], [event, event])

    event = fds.eventfd()
    memory = start(tamper)
    sgl = addr_to_sgl(device, ADDR, 4)
    before = len(open_fds())
    assert lib.vfu_sgl_read(device, sgl, 1, ctypes.create_string_buffer(4), 0) == -1
    assert len(open_fds()) <= before


def test_client_leaves_instead_of_answering(device, start):
    def tamper(_header, _access, _answer):
        memory.sock.shutdown(socket.SHUT_RDWR)
        device.main.shutdown(socket.SHUT_RDWR)

    memory = start(tamper)
    read(device, 0, 4, expect=errno.ENOTCONN)
    run(device, errno.ENOTCONN)
    assert device.reset.calls == [VFU_RESET_LOST_CONN]
    connect_client(device)


@pytest.mark.defect("D43")
def test_connection_lost_in_a_transfer_is_reset_by_the_next_run(device, start):
    """The device still holds entries and is in the middle of something."""

    def tamper(_header, _access, _answer):
        memory.sock.shutdown(socket.SHUT_RDWR)
        device.main.shutdown(socket.SHUT_RDWR)

    memory = start(tamper)
    read(device, 0, 4, expect=errno.ENOTCONN)
    assert device.dma.unregister.count == 0
    assert device.reset.count == 0
    run(device, errno.ENOTCONN)
    assert device.dma.unregister.count == 1
    assert device.reset.calls == [VFU_RESET_LOST_CONN]


@pytest.mark.defect("D47")
@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(error_reply(errno.EIO, bytes(20)), id="error with payload"),
        pytest.param(
            lambda header, access, _answer: frame(
                header.cmd,
                bytes(access) + bytes(access.count + 8),
                msg_id=header.msg_id,
                flags=VFIO_USER_F_TYPE_REPLY,
            ),
            id="too much data",
        ),
    ],
)
def test_surplus_of_an_answer_is_drained(device, start, tamper):
    memory = start(tamper)
    sgl = addr_to_sgl(device, ADDR, 4)
    lib.vfu_sgl_read(device, sgl, 1, ctypes.create_string_buffer(4), 0)
    memory.tamper = None
    memory.data[:4] = b"next"
    assert read(device, 0, 4) == b"next"


def test_without_twin_socket_the_main_one_is_used(device, memories):
    sock = connect_client(device)
    dma_map(device, sock, ADDR, SIZE)
    memories.append(Memory(sock))
    write(device, 8, b"main")
    assert read(device, 8, 4) == b"main"


@pytest.mark.defect("D46")
def test_request_that_crosses_a_transfer_is_served_afterwards(device, memories):
    """On the main socket a request may be on its way when the server asks."""
    crossing = frame(VFIO_USER_DEVICE_GET_INFO, bytes([16]) + bytes(15), msg_id=0x7777)
    replies = []

    def tamper(header, _access, answer):
        if header.cmd == VFIO_USER_DMA_READ:
            return crossing + answer
        return answer

    sock = connect_client(device)
    dma_map(device, sock, ADDR, SIZE)
    memory = Memory(sock, tamper)
    memory.data[:4] = b"data"
    assert read(device, 0, 4) == b"data"
    # From now on the thread only collects what the server sends, and stops at once.
    memory._answer = lambda header, body: replies.append((header, body))
    run(device)
    memory.thread.join()
    [(header, body)] = replies
    assert (header.msg_id, header.cmd) == (0x7777, VFIO_USER_DEVICE_GET_INFO)
    assert len(body) == 16
    assert memory.error is None


@pytest.mark.parametrize("entries", [2, 3])
@pytest.mark.extension
def test_several_entries_by_message(device, start, entries):
    memory = start()
    for i in range(1, entries):
        dma_map(device, device.main, ADDR + i * SIZE, SIZE)
    memory.data.extend(bytes((entries - 1) * SIZE))
    data = os.urandom((entries - 1) * SIZE + 0x40)
    sgl = addr_to_sgl(device, ADDR + 0x20, len(data), entries)
    buffer = ctypes.create_string_buffer(data, len(data))
    ok(lib.vfu_sgl_write, device, sgl, entries, buffer, 0)
    assert memory.data[0x20 : 0x20 + len(data)] == data
    back = ctypes.create_string_buffer(len(data))
    ok(lib.vfu_sgl_read, device, sgl, entries, back, 0)
    assert back.raw == data


@pytest.mark.extension  # upstream follows the entry into freed memory
def test_transfer_without_a_client(device, start):
    memory = start()
    sgl = addr_to_sgl(device, ADDR, 4)
    memory.stop()
    disconnect(device, device.main)
    addr_to_sgl(device, ADDR, 4, expect=errno.ENOENT)
    assert lib.vfu_sgl_read(device, sgl, 1, ctypes.create_string_buffer(4), 0) == -1


def test_transfer_from_a_callback(device, start):
    """A device may fetch a descriptor while it serves a doorbell."""
    region = RegionMemory(64)
    fetched = []

    def doorbell(_buf, count, *_):
        fetched.append(read(device, 0x100, 8))
        return count

    region.action = doorbell
    setup_region(device, VFU_PCI_DEV_BAR0_REGION_IDX, 64, region)
    memory = start()
    memory.data[0x100:0x108] = b"descript"
    region_write(device, device.main, VFU_PCI_DEV_BAR0_REGION_IDX, 0, b"ring")
    assert fetched == [b"descript"]


def test_write_marks_nothing_dirty_by_message(ctx, memories, fds):
    """The client made the change itself and knows of it."""
    setup_dma(ctx)
    setup_migration(ctx)
    realize(ctx)
    sock, twin = connect_twin(ctx)
    dma_map(ctx, sock, ADDR, SIZE, fds.memfd(SIZE))
    memories.append(Memory(twin))
    dirty_start(ctx, sock)
    write(ctx, 0, b"data")
    assert dirty_report(ctx, sock, ADDR, SIZE) == set()


# What is on its way when the server asks


class Client(Memory):
    """A client of one socket: serves its memory, and keeps the replies that it gets.

    ``before`` is sent with the next answer, in front of it.
    """

    def __init__(self, sock) -> None:
        self.replies: list[t.vfio_user_header] = []
        self.before = b""
        super().__init__(sock, self._add)

    def _answer(self, header, body):
        if header.flags & VFIO_USER_F_TYPE_MASK == VFIO_USER_F_TYPE_REPLY:
            self.replies.append(header)
            return b""
        return super()._answer(header, body)

    def _add(self, _header, _access, answer):
        before, self.before = self.before, b""
        return before + answer

    def ids(self) -> list[int]:
        """The ids of all replies, once the server has sent its last."""
        self.sock.shutdown(socket.SHUT_RD)  # what has been sent is still read
        self.thread.join()
        return [header.msg_id for header in self.replies]


@pytest.fixture
def client(device, memories):
    """One socket for both directions, a region of memory, and a doorbell that reads."""
    device.bar = RegionMemory(64)
    device.fetched = []

    def doorbell(_buf, count, *_):
        device.fetched.append(read(device, 0x100, 8))
        return count

    device.bar.action = doorbell
    setup_region(device, BAR0, 64, device.bar)
    device.main = connect_client(device)
    dma_map(device, device.main, ADDR, SIZE)
    memories.append(Client(device.main))
    memories[0].data[0x100:0x108] = b"descript"
    return memories[0]


BAR0 = VFU_PCI_DEV_BAR0_REGION_IDX
RING = region_payload(BAR0, 0, 4, b"ring")
RESET = frame(VFIO_USER_DEVICE_RESET, msg_id=0x7001)
ELSEWHERE = ADDR + SIZE
MAP = frame(VFIO_USER_DMA_MAP, dma_map_payload(ELSEWHERE, PAGE_SIZE), msg_id=0x7002)


@pytest.mark.extension
def test_requests_that_cross_inside_a_callback_are_served_in_the_same_run(
    device, client
):
    client.before = RESET + RESET
    send(device.main, VFIO_USER_REGION_WRITE, RING, msg_id=0x7000)
    assert run(device) == 3
    assert device.fetched == [b"descript"]
    assert device.reset.calls == [VFU_RESET_DEVICE] * 2
    assert client.ids() == [0x7000, 0x7001, 0x7001]


@pytest.mark.extension
@pytest.mark.parametrize("cut", [1, 15, 16, 17, 40])
def test_rest_of_a_request_comes_while_a_callback_reads(device, client, fds, cut):
    """Its descriptor came with its beginning, behind the request that is served."""
    client.before = MAP[cut:]
    ring = frame(VFIO_USER_REGION_WRITE, RING, msg_id=0x7000)
    send_bytes(device.main, ring + MAP[:cut], [fds.memfd(PAGE_SIZE, b"mapped")])
    assert run(device) == 2
    assert device.fetched == [b"descript"]
    sgl = addr_to_sgl(device, ELSEWHERE, 6)
    assert bytes(mapped_bytes(sgl_get(device, sgl)[0])) == b"mapped"
    assert client.ids() == [0x7000, 0x7002]


@pytest.mark.extension
def test_requests_around_an_answer(device, client, fds):
    """All is there when the server asks; the last request has a descriptor."""
    read(device, 0x100, 8)  # tells the number of the next command
    client.tamper = lambda *_: b""
    access = t.vfio_user_dma_region_access(addr=ADDR + 0x100, count=8)
    answer = frame(
        VFIO_USER_DMA_READ,
        bytes(access) + b"answered",
        msg_id=client.headers[0].msg_id + 1 & 0xFFFF,
        flags=VFIO_USER_F_TYPE_REPLY,
    )
    send_bytes(device.main, RESET + answer)
    send_bytes(device.main, MAP, [fds.memfd(PAGE_SIZE, b"mapped")])
    assert read(device, 0x100, 8) == b"answered"
    assert run(device) == 2
    sgl = addr_to_sgl(device, ELSEWHERE, 6)
    assert bytes(mapped_bytes(sgl_get(device, sgl)[0])) == b"mapped"
    assert client.ids() == [0x7001, 0x7002]


@pytest.mark.extension
def test_answer_with_descriptors_among_requests(device, client, fds):
    """It is refused; the requests before it are not forgotten."""
    event = fds.eventfd()
    before = len(open_fds())

    def tamper(_header, _access, answer):
        socket.send_fds(client.sock, [RESET + answer], [event])
        return b""

    client.tamper = tamper
    read(device, 0, 8, expect=errno.EFAULT)
    assert len(open_fds()) == before
    assert run(device) == 1
    assert client.ids() == [0x7001]


@pytest.mark.extension
@pytest.mark.parametrize("size", [16, 31, 32, 35])
def test_answer_that_is_too_short(device, client, size):
    def tamper(header, access, _answer):
        content = (bytes(access) + bytes(4))[: size - 16]
        flags = VFIO_USER_F_TYPE_REPLY
        return frame(header.cmd, content, msg_id=header.msg_id, flags=flags)

    client.tamper = tamper
    read(device, 0, 4, expect=errno.EINVAL)
    client.tamper = None
    assert read(device, 0x100, 8) == b"descript"


def run_to_the_end(ctx):
    """Run until the connection is gone."""
    while lib.vfu_run_ctx(ctx) != -1:
        pass
    assert get_errno() == errno.ENOTCONN


@pytest.mark.extension
@pytest.mark.parametrize("size", [0, 15, SERVER_MAX_MSG_SIZE + 1, UINT32_MAX])
@pytest.mark.parametrize("reply", [False, True], ids=["request", "answer"])
def test_header_that_cannot_be_comes_instead_of_an_answer(device, client, size, reply):
    """Nothing that follows has a meaning: it is not waited for."""

    def tamper(header, _access, answer):
        flags = VFIO_USER_F_TYPE_REPLY if reply else VFIO_USER_F_TYPE_COMMAND
        broken = {"size": size, "flags": flags, "msg_id": header.msg_id}
        return frame(VFIO_USER_DEVICE_RESET, **broken) + answer

    client.tamper = tamper
    read(device, 0, 8, expect=errno.EINVAL)
    run_to_the_end(device)
    assert device.reset.calls == [VFU_RESET_LOST_CONN]


@pytest.mark.extension
def test_flood_of_requests_instead_of_an_answer(device, client):
    """So much is kept and no more: the client is cut off."""
    flood = frame(VFIO_USER_MAX, bytes(1 << 20)) * 16

    client.tamper = lambda *_: flood
    buffer = ctypes.create_string_buffer(8)
    sgl = addr_to_sgl(device, ADDR, 8)
    fails(errno.ECONNRESET, lib.vfu_sgl_read, device, sgl, 1, buffer, 0)
    assert str(8 << 20) in device.logged(LOG_ERR)
    run_to_the_end(device)
    assert device.reset.calls == [VFU_RESET_LOST_CONN]


def unread_replies(device):
    """Requests that the client sends until the server has a reply that it cannot send."""
    request = frame(VFIO_USER_REGION_READ, region_payload(BAR0, 0, 64), msg_id=0x7003)
    device.bar.action = lambda _buf, count, *_: count
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            send_bytes(device.main, request)
            count += 1
            run(device)
    return count


@pytest.fixture
def clogged(device):
    """The client does not read, and half a reply waits in the server."""
    device.bar = RegionMemory(64)
    setup_region(device, BAR0, 64, device.bar)
    device.main = connect_client(device)
    dma_map(device, device.main, ADDR, SIZE)
    device.count = unread_replies(device)
    return device


@pytest.mark.extension
def test_reply_that_waits_goes_before_our_command(clogged, memories):
    memories.append(Client(clogged.main))
    memories[0].data[:5] = b"later"
    assert read(clogged, 0, 5) == b"later"
    run(clogged)
    ids = memories[0].ids()
    assert set(ids) == {0x7003}
    assert len(ids) <= clogged.count


@pytest.mark.extension
def test_client_leaves_with_a_reply_that_waits(clogged):
    hang_up(clogged.main)
    read(clogged, 0, 5, expect=errno.ENOTCONN)
    assert clogged.reset.count == 0
    run_to_the_end(clogged)
    assert clogged.reset.calls == [VFU_RESET_LOST_CONN]


@pytest.mark.extension
def test_no_transfer_over_a_connection_that_died(device, start):
    def tamper(_header, _access, _answer):
        memory.sock.shutdown(socket.SHUT_RDWR)

    memory = start(tamper)
    read(device, 0, 4, expect=errno.ENOTCONN)
    write(device, 0, b"data", expect=errno.ENOTCONN)
    assert device.reset.count == 0
    run(device, errno.ENOTCONN)


@pytest.mark.extension
def test_client_left_before_the_command(device, start):
    start().stop()
    read(device, 0, 4, expect=errno.ENOTCONN)


@without_valgrind
@pytest.mark.extension
def test_descriptors_of_a_request_that_crosses_are_lost(device, client, fds):
    """There was no room for them when its beginning came: it fails as a whole."""
    memory = fds.memfd(PAGE_SIZE)
    client.before = MAP[20:]
    ring = frame(VFIO_USER_REGION_WRITE, RING, msg_id=0x7000)
    send_bytes(device.main, ring + MAP[:20], [memory])
    with no_descriptors_left():
        assert run(device) == 1
    assert device.fetched == [b"descript"]
    assert not is_mapped(device, ELSEWHERE)
    assert client.ids() == [0x7000, 0x7002]


@contextlib.contextmanager
def no_descriptors_left():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)]
    highest = max(open_fds())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(taken[0]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in taken:
            os.close(fd)
