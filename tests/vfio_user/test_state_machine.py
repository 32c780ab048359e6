"""Random legal and illegal sequences, checked against a model of the device.

Every step says what must come of it before it is made: the reply's error, the
callbacks, what can be reached afterwards. Requests arrive whole or in two pieces; the
device quiesces at once, later, or not at all; clients go at any time, also while
a request waits. LIBVFIO_USER_SECONDS has new sequences tried for that long (`make
fuzz-sequences`); without it, they are few, and the same ones each time.
"""

import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from .commands import *
from .harness import *
from .migration import *

BAR_SIZE = 256
VECTORS = 4
MAX_REGIONS = 3
STRIDE = 0x10_0000
# Commands that a stopped device takes.
WHILE_STOPPED = {
    VFIO_USER_REGION_READ,
    VFIO_USER_REGION_WRITE,
    VFIO_USER_DEVICE_FEATURE,
    VFIO_USER_MIG_DATA_READ,
    VFIO_USER_DEVICE_RESET,
    VFIO_USER_DEVICE_GET_INFO,
    VFIO_USER_DMA_UNMAP,
}
# Each command with the payload that it needs at least.
SHORTEST = {
    VFIO_USER_DMA_MAP: 32,
    VFIO_USER_DMA_UNMAP: 24,
    VFIO_USER_DEVICE_GET_INFO: 16,
    VFIO_USER_DEVICE_GET_REGION_INFO: 32,
    VFIO_USER_DEVICE_GET_IRQ_INFO: 16,
    VFIO_USER_DEVICE_SET_IRQS: 20,
    VFIO_USER_REGION_READ: 16,
    VFIO_USER_REGION_WRITE: 16,
    VFIO_USER_DEVICE_FEATURE: 8,
    VFIO_USER_MIG_DATA_READ: 8,
    VFIO_USER_MIG_DATA_WRITE: 8,
}

# What the device answers when it is asked to be quiet.
quiesces = st.sampled_from([0, 0, 0, errno.EBUSY, errno.EIO])
# How far into a message it is cut in two; None: it is not.
cuts = st.sampled_from([None, None, None, 1, 15, 16, 17, 24])
slots = st.integers(0, 3)
offsets = st.integers(0, BAR_SIZE + 8)
states = st.sampled_from([*TO_CALLBACK, 0, 5, 7, 8, 1000])


@dataclass
class Region:
    size: int
    fd: int | None
    dirty: set[int] = field(default_factory=set)


@dataclass
class Waiting:
    """A request that waits for the device to be quiet; cmd None: a lost client."""

    cmd: int | None
    msg_id: int = 0
    expect: int = 0
    answer: bytes = b""
    apply: Callable[[], None] = lambda: None


class Device(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.fds_before = open_fds()
        self.dir = tempfile.mkdtemp(prefix="vfu-")
        self.fds = Fds()
        self.files = [self.fds.memfd(2 * STRIDE, b"%d" % i) for i in range(4)]
        self.sock: Any = None
        self.waiting: Waiting | None = None
        self.regions: dict[int, Region] = {}
        self.logging = 0
        self.state = RUNNING
        self.vectors: dict[int, int] = {}
        self.bar = bytearray(BAR_SIZE)
        # Callbacks that must have been made, and how often quiesce.
        self.registered: list[int] = []
        self.unregistered: list[int] = []
        self.resets: list[int] = []
        self.transitions: list[int] = []
        self.asked = 0

    @initialize(pci_type=st.sampled_from([VFU_PCI_TYPE_CONVENTIONAL, 3]))
    def create(self, pci_type: int) -> None:
        self.ctx = create_ctx(f"{self.dir}/sock")
        pci_init(self.ctx, pci_type)
        self.memory = RegionMemory(BAR_SIZE)
        flags = VFU_REGION_FLAG_RW | VFU_REGION_FLAG_MEM
        setup_region(self.ctx, 0, BAR_SIZE, self.memory, flags)
        self.dma = setup_dma(self.ctx, MAX_REGIONS)
        self.quiesce = setup_quiesce(self.ctx)
        self.reset = setup_reset(self.ctx)
        self.migration = setup_migration(self.ctx)
        setup_irqs(self.ctx, VFU_DEV_MSIX_IRQ, VECTORS)
        self.sock = serve(self.ctx)

    # One request, and what must come of it

    def request(
        self,
        cmd: int,
        payload: bytes = b"",
        *,
        expect: int = 0,
        answer: bytes = b"",
        apply: Callable[[], None] = lambda: None,
        quiesce: int | None = None,
        cut: int | None = None,
        fds: tuple[int, ...] = (),
        flags: int = 0,
    ) -> None:
        """``quiesce`` is the device's answer if it must be asked; None: it must not."""
        if self.state in (STOP, STOP_COPY) and cmd not in WHILE_STOPPED:
            expect, quiesce = errno.EINVAL, None
        self.asked += quiesce is not None
        self.quiesce.fail(*[quiesce] * (quiesce is not None))
        data = frame(cmd, payload, flags=flags)
        msg_id = int.from_bytes(data[:2], "little")
        if cut is not None and cut < len(data):
            send_bytes(self.sock, data[:cut], fds)
            assert run(self.ctx) == 0
            no_reply(self.sock)
            send_bytes(self.sock, data[cut:])
        else:
            send_bytes(self.sock, data, fds)
        if quiesce == errno.EBUSY:
            run(self.ctx, errno.EBUSY)
            no_reply(self.sock)
            self.waiting = Waiting(cmd, msg_id, expect, answer, apply)
            return
        expect = quiesce or expect
        run(self.ctx)
        if flags & VFIO_USER_F_NO_REPLY:
            no_reply(self.sock)
        else:
            got = receive(self.sock, cmd, msg_id, expect)
            assert not got.fds
            assert expect or got.payload == answer
        if not expect:
            apply()

    def lose_client(self) -> None:
        """What the device must have been told once its client has gone."""
        self.unregistered += sorted(self.regions)
        self.regions.clear()
        self.resets.append(VFU_RESET_LOST_CONN)
        self.logging, self.state = 0, RUNNING
        self.vectors.clear()
        self.sock = None

    attached = precondition(lambda self: self.sock is not None and not self.waiting)

    # Clients

    @precondition(lambda self: self.sock is None and not self.waiting)
    @rule()
    def connect(self) -> None:
        self.sock = connect_client(self.ctx)

    @precondition(lambda self: self.sock is None and not self.waiting)
    @rule()
    def run_without_client(self) -> None:
        run(self.ctx, errno.ENOTCONN)

    @attached
    @rule(quiesce=quiesces, partly=st.binary(max_size=15))
    def disconnect(self, quiesce: int, partly: bytes) -> None:
        send_bytes(self.sock, partly) if partly else None
        hang_up(self.sock)
        self.asked += 1
        self.quiesce.fail(quiesce)
        run(self.ctx, quiesce or errno.ENOTCONN)
        if quiesce == errno.EBUSY:
            self.waiting = Waiting(None)
            return
        if quiesce:
            self.asked += 1  # it is asked again
            run(self.ctx, errno.ENOTCONN)
        self.lose_client()

    @precondition(lambda self: self.waiting and self.waiting.cmd and self.sock)
    @rule()
    def disconnect_while_waiting(self) -> None:
        hang_up(self.sock)
        self.sock = None
        run(self.ctx, errno.EBUSY)

    # Quiesce

    @precondition(lambda self: self.waiting)
    @rule()
    def run_while_waiting(self) -> None:
        run(self.ctx, errno.EBUSY)

    @precondition(lambda self: not self.waiting)
    @rule()
    def quiesced_without_reason(self) -> None:
        fails(errno.EINVAL, lib.vfu_device_quiesced, self.ctx, 0)

    @precondition(lambda self: self.waiting)
    @rule(result=st.sampled_from([0, 0, errno.EIO]))
    def quiesced(self, result: int) -> None:
        waiting, self.waiting = self.waiting, None
        ok(lib.vfu_device_quiesced, self.ctx, result)
        if waiting.cmd is None:
            if result:  # nothing was done; the next run asks again
                self.asked += 1
            run(self.ctx, errno.ENOTCONN)
            self.lose_client()
            return
        expect = result or waiting.expect
        if not expect:
            waiting.apply()
        if self.sock is None:
            # The reply fails; the device was quiet already, and is not asked again.
            run(self.ctx, errno.ENOTCONN)
            self.lose_client()
            return
        got = receive(self.sock, waiting.cmd, waiting.msg_id, expect)
        assert not got.fds
        assert expect or got.payload == waiting.answer

    # Registers

    @attached
    @rule(offset=offsets, data=st.binary(max_size=16), cut=cuts, silent=st.booleans())
    def bar_write(
        self, offset: int, data: bytes, cut: int | None, silent: bool
    ) -> None:
        request = region_payload(0, offset, len(data))
        bad = offset + len(data) > BAR_SIZE or self.state == STOP_COPY

        def apply() -> None:
            self.bar[offset : offset + len(data)] = data

        self.request(
            VFIO_USER_REGION_WRITE,
            request + data,
            expect=errno.EINVAL if bad else 0,
            answer=request if data else b"",
            apply=apply,
            cut=cut,
            flags=VFIO_USER_F_NO_REPLY if silent else 0,
        )

    @attached
    @rule(offset=offsets, count=st.sampled_from([0, 1, 4, 64, 1 << 20, 0xFFFF_FFFF]))
    def bar_read(self, offset: int, count: int) -> None:
        request = region_payload(0, offset, count)
        bad = offset + count > BAR_SIZE or self.state == STOP_COPY
        self.request(
            VFIO_USER_REGION_READ,
            request,
            expect=errno.EINVAL if bad else 0,
            answer=request + bytes(self.bar[offset : offset + count]) if count else b"",
        )

    @attached
    @precondition(lambda self: self.state != STOP_COPY)
    @rule(count=st.integers(2, 20))
    def burst_of_reads(self, count: int) -> None:
        request = region_payload(0, 0, 8)
        frames = [frame(VFIO_USER_REGION_READ, request, msg_id=i) for i in range(count)]
        send_bytes(self.sock, b"".join(frames))
        run_until_idle(self.ctx)
        reply = request + bytes(self.bar[:8])
        received = self.sock.recv(1 << 17)
        size = 16 + len(reply)
        assert len(received) == count * size
        for i in range(count):
            got = check_reply(received[i * size : (i + 1) * size], msg_id=i)
            assert got.payload == reply

    @attached
    @rule(quiesce=quiesces, cut=cuts)
    def device_reset(self, quiesce: int, cut: int | None) -> None:
        self.request(
            VFIO_USER_DEVICE_RESET,
            apply=lambda: self.resets.append(VFU_RESET_DEVICE),
            quiesce=quiesce,
            cut=cut,
        )

    # Client memory

    def home(self, addr: int) -> int | None:
        """Where the region with this address begins."""
        for base, region in self.regions.items():
            if base <= addr < base + region.size:
                return base
        return None

    def map_error(self, addr: int, size: int, fd: int | None) -> int | None:
        """What mapping must give; None: it is there already, just so."""
        for base, region in self.regions.items():
            if (base, region.size) == (addr, size):
                return None if region.fd == fd else errno.EINVAL
            if base < addr + size and addr < base + region.size:
                return errno.EINVAL
        small = self.logging > size and fd is not None
        full = len(self.regions) == MAX_REGIONS
        return errno.EINVAL if full or small or not size else 0

    @attached
    @rule(
        slot=slots,
        pages=st.sampled_from([0, 1, 2, 16, 300]),
        with_file=st.booleans(),
        quiesce=quiesces,
        cut=cuts,
    )
    def map(
        self, slot: int, pages: int, with_file: bool, quiesce: int, cut: int | None
    ) -> None:
        addr, size = slot * STRIDE, pages * PAGE_SIZE
        fd = self.files[slot] if with_file else None
        error = self.map_error(addr, size, fd)

        def apply() -> None:
            if error is not None:
                self.regions[addr] = Region(size, fd)
                self.registered.append(addr)

        self.request(
            VFIO_USER_DMA_MAP,
            dma_map_payload(addr, size),
            expect=error or 0,
            apply=apply,
            quiesce=quiesce,
            cut=cut,
            fds=() if fd is None else (fd,),
        )

    @attached
    @rule(
        slot=slots,
        pages=st.sampled_from([0, 1, 2, 16, 300]),
        quiesce=quiesces,
        everything=st.booleans(),
    )
    def unmap(self, slot: int, pages: int, quiesce: int, everything: bool) -> None:
        addr, size = slot * STRIDE, pages * PAGE_SIZE
        if everything:
            addr = size = 0
        elif addr in self.regions and pages == 2:
            size = self.regions[addr].size
        request = bytes(
            t.vfio_user_dma_unmap(
                argsz=24, flags=2 if everything else 0, addr=addr, size=size
            )
        )
        found = addr in self.regions and self.regions[addr].size == size

        def apply() -> None:
            gone = sorted(self.regions) if everything else [addr]
            for base in gone:
                del self.regions[base]
            self.unregistered.extend(gone)

        self.request(
            VFIO_USER_DMA_UNMAP,
            request,
            expect=0 if everything or found else errno.ENOENT,
            answer=request,
            apply=apply,
            quiesce=quiesce,
        )

    @precondition(lambda self: self.regions)
    @rule(slot=slots, page=st.integers(0, 300))
    def device_writes(self, slot: int, page: int) -> None:
        addr = slot * STRIDE + page * PAGE_SIZE
        base = self.home(addr)
        if base is None:
            assert not is_mapped(self.ctx, addr)
            return
        region, offset = self.regions[base], addr - base
        sgl = addr_to_sgl(self.ctx, addr, PAGE_SIZE)
        if region.fd is None:
            assert not lib.vfu_sg_is_mappable(self.ctx, sgl)
            return
        mapped_bytes(sgl_get(self.ctx, sgl)[0])[:2] = b"%d%d" % (slot, page % 10)
        lib.vfu_sgl_put(self.ctx, sgl, None, 1)
        got = os.pread(region.fd, 2, offset)
        assert got == b"%d%d" % (slot, page % 10)
        if self.logging:
            region.dirty.add(offset // self.logging)

    # Migration and dirty pages

    def feature(self, flags: int, data: bytes, **how: Any) -> None:
        request = feature_payload(flags, data)
        self.request(VFIO_USER_DEVICE_FEATURE, request, answer=request, **how)

    @attached
    @rule(state=states, quiesce=quiesces)
    def migrate(self, state: int, quiesce: int) -> None:
        path = [] if state == self.state else STEPS.get((self.state, state))

        def apply() -> None:
            self.transitions += [TO_CALLBACK[step] for step in path]
            self.state = state

        self.feature(
            VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
            bytes(t.vfio_user_device_feature_mig_state(device_state=state)),
            expect=errno.EINVAL if path is None else 0,
            apply=apply,
            quiesce=quiesce,
        )

    @attached
    @rule()
    def migration_state(self) -> None:
        assert get_mig_state(self.ctx, self.sock) == self.state

    @attached
    @rule(data=st.binary(min_size=1, max_size=40))
    def migration_data(self, data: bytes) -> None:
        room = len(data) + 1
        if self.state in (PRE_COPY, STOP_COPY):
            self.migration.outgoing[:] = data
            assert mig_data_read(self.ctx, self.sock, room) == data
            assert mig_data_read(self.ctx, self.sock, room) == b""
        else:
            mig_data_read(self.ctx, self.sock, room, expect=errno.EINVAL)
        if self.state == RESUMING:
            self.migration.incoming.clear()
            mig_data_write(self.ctx, self.sock, data)
            assert self.migration.incoming == data
        else:
            mig_data_write(self.ctx, self.sock, data, expect=errno.EINVAL)

    @attached
    @rule(page=st.sampled_from([0, 1, 4096, 8192, 12288]), quiesce=quiesces)
    def start_logging(self, page: int, quiesce: int) -> None:
        bad = page not in (4096, 8192) or self.logging not in (0, page)
        bad |= any(r.fd is not None and r.size < page for r in self.regions.values())

        def apply() -> None:
            if not self.logging:
                for region in self.regions.values():
                    region.dirty.clear()
            self.logging = page

        self.feature(
            VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
            bytes(t.vfio_user_device_feature_dma_logging_control(page_size=page)),
            expect=errno.EINVAL if bad else 0,
            apply=apply,
            quiesce=quiesce,
        )

    @attached
    @rule(quiesce=quiesces)
    def stop_logging(self, quiesce: int) -> None:
        def apply() -> None:
            self.logging = 0

        self.feature(
            VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
            b"",
            apply=apply,
            quiesce=quiesce,
        )

    @attached
    @rule(slot=slots)
    def report(self, slot: int) -> None:
        """From here to the end of the region, whose beginning this need not be."""
        addr = slot * STRIDE
        base = self.home(addr)
        region = None if base is None else self.regions[base]
        page = self.logging or PAGE_SIZE
        offset = 0 if base is None else addr - base
        length = region.size - offset if region else PAGE_SIZE * 2
        if region is None:
            expect = errno.ENOENT
        else:
            expect = 0 if self.logging and region.fd is not None else errno.EINVAL
        got = dirty_report(self.ctx, self.sock, addr, length, page, expect=expect)
        if not expect:
            reported = {number for number in region.dirty if number >= offset // page}
            assert got == {number - offset // page for number in reported}
            region.dirty -= reported

    # Interrupts

    @attached
    @rule(
        start=st.integers(0, VECTORS), count=st.integers(0, VECTORS), on=st.booleans()
    )
    def set_vectors(self, start: int, count: int, on: bool) -> None:
        bad = start >= VECTORS or start + count > VECTORS or not count
        given = self.fds.eventfds(count if on else 0)

        def apply() -> None:
            for vector in range(start, start + count):
                self.vectors.pop(vector, None)
            if on:
                self.vectors.update(
                    zip(range(start, start + count), given, strict=True)
                )

        self.request(
            VFIO_USER_DEVICE_SET_IRQS,
            set_irqs_payload(VFU_DEV_MSIX_IRQ, SET_EVENTFDS, start, count),
            expect=errno.EINVAL if bad else 0,
            apply=apply,
            fds=tuple(given),
        )

    @precondition(lambda self: self.sock)
    @rule(vector=st.integers(0, VECTORS))
    def trigger(self, vector: int) -> None:
        if vector >= VECTORS:
            fails(errno.EINVAL, lib.vfu_irq_trigger, self.ctx, vector)
        elif vector not in self.vectors:
            fails(errno.ENOENT, lib.vfu_irq_trigger, self.ctx, vector)
        else:
            ok(lib.vfu_irq_trigger, self.ctx, vector)
            assert eventfd_value(self.vectors[vector]) == 1

    # Nonsense

    @attached
    @rule(data=st.data(), cmd=st.sampled_from(sorted(SHORTEST)), quiesce=quiesces)
    def too_short(self, data: Any, cmd: int, quiesce: int) -> None:
        payload = data.draw(st.binary(min_size=1, max_size=SHORTEST[cmd] - 1))
        asks = cmd in (VFIO_USER_DMA_MAP, VFIO_USER_DMA_UNMAP)
        self.request(
            cmd, payload, expect=errno.EINVAL, quiesce=quiesce if asks else None
        )

    @attached
    @rule(
        cmd=st.sampled_from([0, 1, 11, 12, 14, 19, 99, 0xFFFF]),
        payload=st.binary(max_size=64),
        cut=cuts,
    )
    def unknown(self, cmd: int, payload: bytes, cut: int | None) -> None:
        self.request(cmd, payload, expect=errno.EINVAL, cut=cut)

    # Always

    @invariant()
    def callbacks_are_those_expected(self) -> None:
        if not hasattr(self, "ctx"):
            return
        assert [info.addr for info in self.dma.register.calls] == self.registered
        assert [info.addr for info in self.dma.unregister.calls] == self.unregistered
        assert self.reset.calls == self.resets
        assert self.migration.transition.calls == self.transitions
        assert self.quiesce.count == self.asked
        assert self.memory.memory == self.bar

    def teardown(self) -> None:
        failing = not hasattr(self, "ctx")
        if not failing:
            self.unregistered += sorted(self.regions)
            self.resets.append(VFU_RESET_LOST_CONN)
            self.ctx.close()
            self.callbacks_are_those_expected()
        self.fds.close_all()
        shutil.rmtree(self.dir)
        assert open_fds() == self.fds_before


@pytest.mark.extension
def test_random_sequences():
    seconds = os.environ.get("LIBVFIO_USER_SECONDS")
    end = time.monotonic() + float(seconds or 0)
    tried = 0
    while tried == 0 or time.monotonic() < end:
        examples = 60 if seconds is None else 500
        run_state_machine_as_test(
            Device,
            settings=settings(
                max_examples=examples,
                stateful_step_count=50,
                derandomize=seconds is None,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        tried += examples
    sys.stdout.write(f"{tried} sequences\n")
