"""The client's commands, one function each, on top of ``msg``.

All take ``expect`` (the errno that the reply must have; 0 by default) and ``busy`` (the
run must stop with EBUSY and nothing be answered) through ``**how``.
"""

import ctypes as c
import errno
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from . import types as t
from .api import lib
from .constants import *
from .harness import Context, fails, msg, ok


def dma_map_payload(
    addr: int,
    size: int,
    flags: int = VFIO_USER_F_DMA_REGION_RW,
    offset: int = 0,
    argsz: int = 32,
) -> bytes:
    return bytes(
        t.vfio_user_dma_map(
            argsz=argsz, flags=flags, offset=offset, addr=addr, size=size
        )
    )


def dma_map(
    ctx: Context,
    sock: socket.socket,
    addr: int,
    size: int,
    fd: int | None = None,
    *,
    flags: int = VFIO_USER_F_DMA_REGION_RW,
    offset: int = 0,
    **how: Any,
) -> None:
    payload = dma_map_payload(addr, size, flags, offset)
    rights = [] if fd is None else [fd]
    assert msg(ctx, sock, VFIO_USER_DMA_MAP, payload, fds=rights, **how) == b""


def dma_unmap(
    ctx: Context,
    sock: socket.socket,
    addr: int,
    size: int,
    *,
    flags: int = 0,
    argsz: int = 24,
    tail: bytes = b"",
    **how: Any,
) -> bytes:
    """DMA_UNMAP; ``tail`` follows the 24 bytes of the request."""
    request = t.vfio_user_dma_unmap(argsz=argsz, flags=flags, addr=addr, size=size)
    return msg(ctx, sock, VFIO_USER_DMA_UNMAP, bytes(request) + tail, **how)


def dma_unmap_dirty(
    ctx: Context,
    sock: socket.socket,
    addr: int,
    size: int,
    page_size: int,
    bitmap_size: int,
    **how: Any,
) -> bytes:
    """Unmap and fetch the dirty bitmap; the bitmap's bytes."""
    bitmap = t.vfio_user_bitmap(pgsize=page_size, size=bitmap_size)
    payload = dma_unmap(
        ctx,
        sock,
        addr,
        size,
        flags=VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
        argsz=24 + 16 + bitmap_size,
        tail=bytes(bitmap),
        **how,
    )
    if how.get("expect") or how.get("busy"):
        return b""
    assert len(payload) == 24 + 16 + bitmap_size
    assert payload[24:40] == bytes(bitmap)
    return payload[40:]


def region_payload(region: int, offset: int, count: int, data: bytes = b"") -> bytes:
    access = t.vfio_user_region_access(offset=offset, region=region, count=count)
    return bytes(access) + data


def region_read(
    ctx: Context,
    sock: socket.socket,
    region: int,
    offset: int,
    count: int,
    **how: Any,
) -> bytes:
    """REGION_READ; the bytes read (with an error: whatever the reply carries)."""
    request = region_payload(region, offset, count)
    payload = msg(ctx, sock, VFIO_USER_REGION_READ, request, **how)
    if how.get("expect") or how.get("busy") or count == 0:
        return payload
    assert payload[:16] == request
    assert len(payload) == 16 + count
    return payload[16:]


def region_write(
    ctx: Context,
    sock: socket.socket,
    region: int,
    offset: int,
    data: bytes,
    **how: Any,
) -> bytes:
    """REGION_WRITE; the reply's payload (empty once checked)."""
    request = region_payload(region, offset, len(data))
    payload = msg(ctx, sock, VFIO_USER_REGION_WRITE, request + data, **how)
    if how.get("expect") or how.get("busy") or not data:
        return payload
    assert payload == request
    return b""


def cfg_read(
    ctx: Context, sock: socket.socket, offset: int, count: int, **how: Any
) -> bytes:
    return region_read(ctx, sock, VFU_PCI_DEV_CFG_REGION_IDX, offset, count, **how)


def cfg_read_int(ctx: Context, sock: socket.socket, offset: int, count: int) -> int:
    return int.from_bytes(cfg_read(ctx, sock, offset, count), "little")


def cfg_write(
    ctx: Context,
    sock: socket.socket,
    offset: int,
    data: bytes | int,
    size: int = 0,
    **how: Any,
) -> bytes:
    """Write bytes, or a little-endian number of ``size`` bytes, to config space."""
    if isinstance(data, int):
        data = data.to_bytes(size, "little")
    return region_write(ctx, sock, VFU_PCI_DEV_CFG_REGION_IDX, offset, data, **how)


def get_device_info(ctx: Context, sock: socket.socket, argsz: int = 16, **how: Any):
    request = bytes(t.vfio_user_device_info(argsz=argsz))
    payload = msg(ctx, sock, VFIO_USER_DEVICE_GET_INFO, request, **how)
    return t.vfio_user_device_info.from_buffer_copy(payload) if payload else None


def region_info_payload(index: int, argsz: int = 32) -> bytes:
    return bytes(t.vfio_region_info(argsz=argsz, index=index))


def get_region_info(
    ctx: Context, sock: socket.socket, index: int, argsz: int = 32
) -> t.vfio_region_info:
    """GET_REGION_INFO with room for no capabilities."""
    payload = msg(
        ctx,
        sock,
        VFIO_USER_DEVICE_GET_REGION_INFO,
        region_info_payload(index, argsz),
    )
    assert len(payload) == 32
    return t.vfio_region_info.from_buffer_copy(payload)


def set_irqs_payload(
    index: int, flags: int, start: int, count: int, data: bytes = b"", argsz: int = 20
) -> bytes:
    request = t.vfio_irq_set(
        argsz=argsz, flags=flags, index=index, start=start, count=count
    )
    return bytes(request) + data


def set_irqs(
    ctx: Context,
    sock: socket.socket,
    index: int,
    flags: int,
    start: int,
    count: int,
    data: bytes = b"",
    *,
    fds: Iterable[int] = (),
    argsz: int | None = None,
    **how: Any,
) -> None:
    argsz = 20 + len(data) if argsz is None else argsz
    request = set_irqs_payload(index, flags, start, count, data, argsz)
    payload = msg(ctx, sock, VFIO_USER_DEVICE_SET_IRQS, request, fds=fds, **how)
    assert payload == b""


SET_EVENTFDS = VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_DATA_EVENTFD
TRIGGER_NONE = VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_DATA_NONE
TRIGGER_BOOL = VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_DATA_BOOL


def feature_payload(flags: int, data: bytes = b"", argsz: int | None = None) -> bytes:
    argsz = 8 + len(data) if argsz is None else argsz
    return bytes(t.vfio_user_device_feature(argsz=argsz, flags=flags)) + data


def device_feature(
    ctx: Context,
    sock: socket.socket,
    flags: int,
    data: bytes = b"",
    argsz: int | None = None,
    **how: Any,
) -> bytes:
    """DEVICE_FEATURE; what follows the 8 bytes of the reply's feature header."""
    request = feature_payload(flags, data, argsz)
    payload = msg(ctx, sock, VFIO_USER_DEVICE_FEATURE, request, **how)
    if how.get("expect") or how.get("busy"):
        return payload
    reply = t.vfio_user_device_feature.from_buffer_copy(payload)
    assert reply.flags == flags
    return payload[8:]


def set_mig_state(ctx: Context, sock: socket.socket, state: int, **how: Any) -> bytes:
    data = bytes(t.vfio_user_device_feature_mig_state(device_state=state))
    flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE
    payload = device_feature(ctx, sock, flags, data, **how)
    if not (how.get("expect") or how.get("busy")):
        assert payload == data
    return payload


def get_mig_state(ctx: Context, sock: socket.socket) -> int:
    flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE
    data = device_feature(ctx, sock, flags, argsz=16)
    state = t.vfio_user_device_feature_mig_state.from_buffer_copy(data)
    assert (len(data), state.data_fd) == (8, 0)
    return state.device_state


def mig_data_read(
    ctx: Context,
    sock: socket.socket,
    size: int,
    argsz: int | None = None,
    **how: Any,
) -> bytes:
    """MIG_DATA_READ; the data that the device gave (the reply is padded to size)."""
    argsz = 8 + size if argsz is None else argsz
    request = bytes(t.vfio_user_mig_data(argsz=argsz, size=size))
    payload = msg(ctx, sock, VFIO_USER_MIG_DATA_READ, request, **how)
    if how.get("expect"):
        return payload
    reply = t.vfio_user_mig_data.from_buffer_copy(payload)
    assert len(payload) == 8 + size
    assert reply.argsz == 8 + reply.size
    assert payload[8 + reply.size :] == bytes(size - reply.size)
    return payload[8 : 8 + reply.size]


def mig_data_write(
    ctx: Context, sock: socket.socket, data: bytes, size: int | None = None, **how: Any
) -> None:
    size = len(data) if size is None else size
    request = t.vfio_user_mig_data(argsz=8 + size, size=size)
    payload = msg(ctx, sock, VFIO_USER_MIG_DATA_WRITE, bytes(request) + data, **how)
    assert payload == b""


def dirty_start(
    ctx: Context,
    sock: socket.socket,
    page_size: int = PAGE_SIZE,
    ranges: Sequence[tuple[int, int]] = (),
    **how: Any,
) -> bytes:
    control = t.vfio_user_device_feature_dma_logging_control(
        page_size=page_size, num_ranges=len(ranges)
    )
    data = bytes(control) + b"".join(
        bytes(t.vfio_user_device_feature_dma_logging_range(*r)) for r in ranges
    )
    flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START
    return device_feature(ctx, sock, flags, data, **how)


def dirty_stop(ctx: Context, sock: socket.socket, **how: Any) -> None:
    flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP
    device_feature(ctx, sock, flags, **how)


def bitmap_bytes(length: int, page_size: int) -> int:
    """The size of the bitmap for a range: whole 64-bit words."""
    pages = -(-length // page_size)
    return -(-pages // 64) * 8


def dirty_report(
    ctx: Context,
    sock: socket.socket,
    addr: int,
    length: int,
    page_size: int = PAGE_SIZE,
    argsz: int | None = None,
    **how: Any,
) -> set[int]:
    """DMA_LOGGING_REPORT; the numbers of the bits that are set."""
    report = t.vfio_user_device_feature_dma_logging_report(
        iova=addr, length=length, page_size=page_size
    )
    size = bitmap_bytes(length, page_size) if page_size else 8
    argsz = 32 + size if argsz is None else argsz
    flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT
    data = device_feature(ctx, sock, flags, bytes(report), argsz, **how)
    if how.get("expect"):
        return set()
    assert data[:24] == bytes(report)
    assert len(data) == 24 + size
    return bits(data[24:])


def bits(bitmap: bytes) -> set[int]:
    """The numbers of the bits that are set in a little-endian bitmap."""
    number = int.from_bytes(bitmap, "little")
    return {i for i in range(len(bitmap) * 8) if number >> i & 1}


# Translation: calls of the device, not of the client


def sgl_array(count: int) -> Any:
    """Room for ``count`` scatter entries."""
    return (t.dma_sg_t * count)()


def addr_to_sgl(
    ctx: Context,
    addr: int,
    length: int,
    max_entries: int = 1,
    prot: int = PROT_READ | PROT_WRITE,
    expect: int = 0,
) -> Any:
    """Translate; the array of entries, all of which must have been filled."""
    sgl = sgl_array(max_entries)
    args = (ctx, addr, length, sgl, max_entries, prot)
    if expect:
        fails(expect, lib.vfu_addr_to_sgl, *args)
        return None
    assert ok(lib.vfu_addr_to_sgl, *args) == max_entries
    return sgl


def is_mapped(ctx: Context, addr: int, length: int = 1) -> bool:
    """Whether an address translates."""
    sgl = sgl_array(1)
    if lib.vfu_addr_to_sgl(ctx, addr, length, sgl, 1, PROT_NONE) == 1:
        return True
    fails(errno.ENOENT, lib.vfu_addr_to_sgl, ctx, addr, length, sgl, 1, PROT_NONE)
    return False


def sgl_get(ctx: Context, sgl: Any) -> Any:
    """The iovecs of scatter entries."""
    iov = (t.iovec * len(sgl))()
    ok(lib.vfu_sgl_get, ctx, sgl, iov, len(sgl), 0)
    return iov


def touch(ctx: Context, addr: int, length: int = 1, write: bool = True) -> None:
    """Get and put a range, as a device does that wrote it (or only read it)."""
    prot = PROT_READ | (PROT_WRITE if write else 0)
    sgl = addr_to_sgl(ctx, addr, length, prot=prot)
    lib.vfu_sgl_put(ctx, sgl, sgl_get(ctx, sgl), 1)


def mapped_bytes(iov: t.iovec) -> Any:
    """The memory of an iovec, to read and write in place."""
    return (c.c_char * iov.iov_len).from_address(iov.iov_base)
