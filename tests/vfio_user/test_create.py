"""Creating and destroying contexts."""

import errno
import os
import socket
import stat

import pytest

from .harness import *


@pytest.mark.parametrize("flags", [2, 999, -2])
def test_unknown_flags_are_refused(new_ctx, flags):
    with pytest.raises(OSError) as refused:
        new_ctx(flags=flags)
    assert refused.value.errno == errno.EINVAL


@pytest.mark.parametrize("trans", [VFU_TRANS_MAX, 77, -1])
def test_unknown_transport_is_refused(new_ctx, trans):
    with pytest.raises(OSError) as refused:
        new_ctx(trans=trans)
    assert refused.value.errno == errno.ENOTSUP


@pytest.mark.parametrize("dev_type", [1, 4, -1])
def test_only_pci_devices_are_supported(new_ctx, dev_type):
    with pytest.raises(OSError) as refused:
        new_ctx(dev_type=dev_type)
    assert refused.value.errno == errno.ENOTSUP


def test_flags_are_checked_before_the_transport(new_ctx):
    with pytest.raises(OSError) as refused:
        new_ctx(flags=2, trans=VFU_TRANS_MAX, dev_type=4)
    assert refused.value.errno == errno.EINVAL


def test_a_refused_context_leaves_no_file(new_ctx, tmp_path):
    with pytest.raises(OSError):
        new_ctx(dev_type=4)
    assert list(tmp_path.iterdir()) == []


def test_existing_path_is_not_taken_over(new_ctx, tmp_path):
    path = tmp_path / "taken"
    path.write_text("mine")
    with pytest.raises(OSError) as refused:
        new_ctx(str(path))
    assert refused.value.errno == errno.EADDRINUSE
    assert path.read_text() == "mine"


def test_second_context_on_one_path_is_refused(new_ctx):
    first = new_ctx()
    with pytest.raises(OSError) as refused:
        new_ctx(first.path)
    assert refused.value.errno == errno.EADDRINUSE


def test_socket_that_a_dead_server_left_is_not_taken_over(new_ctx, tmp_path):
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    left = path.stat().st_ino
    with pytest.raises(OSError) as refused:
        new_ctx(str(path))
    assert refused.value.errno == errno.EADDRINUSE
    assert path.stat().st_ino == left
    path.unlink()
    new_ctx(str(path)).destroy()
    assert list(tmp_path.iterdir()) == []


def test_directory_that_is_not_writable(new_ctx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # others may not walk down to here
    tmp_path.chmod(0o555)
    before = open_fds()
    user = os.geteuid()
    if user == 0:  # who may write anywhere
        os.seteuid(65534)
    try:
        with pytest.raises(OSError) as refused:
            new_ctx("sock")
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o755)
    assert refused.value.errno == errno.EACCES
    assert open_fds() == before
    assert list(tmp_path.iterdir()) == []


def test_missing_directory(new_ctx, tmp_path):
    with pytest.raises(OSError) as refused:
        new_ctx(str(tmp_path / "missing" / "sock"))
    assert refused.value.errno == errno.ENOENT


def test_path_of_107_bytes_is_the_longest(new_ctx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new_ctx("p" * 107)
    assert stat.S_ISSOCK(os.stat("p" * 107).st_mode)
    with pytest.raises(OSError) as refused:
        new_ctx("p" * 108)
    assert refused.value.errno == errno.ENAMETOOLONG


def test_path_need_not_be_utf8(new_ctx, tmp_path):
    path = os.fsdecode(bytes(tmp_path) + b"/\xff\xfe.sock")
    ctx = new_ctx(path)
    assert os.path.exists(path)
    ctx.destroy()
    assert not os.path.exists(path)


def test_empty_path_is_accepted(new_ctx):
    realize(new_ctx(""))


def test_refused_contexts_leave_no_descriptor(new_ctx, tmp_path):
    before = open_fds()
    for path in (str(tmp_path / "missing" / "sock"), "p" * 200):
        with pytest.raises(OSError):
            new_ctx(path)
    assert open_fds() == before


def test_private_pointer_is_handed_back(new_ctx):
    assert ok(lib.vfu_get_private, new_ctx(pvt=0x1234567890AB)) == 0x1234567890AB
    assert lib.vfu_get_private(new_ctx()) is None


def test_create_realize_destroy(ctx):
    realize(ctx)
    ctx.destroy()


def test_destroying_null_does_nothing():
    lib.vfu_destroy_ctx(None)


def test_destroy_removes_the_socket_and_closes_all(new_ctx):
    before = open_fds()
    ctx = new_ctx()
    assert stat.S_ISSOCK(os.stat(ctx.path).st_mode)
    ctx.destroy()
    assert not os.path.exists(ctx.path)
    assert open_fds() == before


def test_destroy_with_a_client_resets_once_and_never_quiesces(ctx):
    quiesce = setup_quiesce(ctx)
    reset = setup_reset(ctx)
    sock = serve(ctx)
    ctx.destroy()
    assert quiesce.count == 0
    assert reset.calls == [VFU_RESET_LOST_CONN]
    assert not os.path.exists(ctx.path)
    assert is_closed(sock)


def test_destroy_without_a_client_resets_too(ctx):
    reset = setup_reset(ctx)
    realize(ctx)
    ctx.destroy()
    assert reset.calls == [VFU_RESET_LOST_CONN]


def test_destroy_unrealized(ctx):
    pci_init(ctx)
    setup_region(ctx, VFU_PCI_DEV_BAR0_REGION_IDX, 4096)
    ctx.destroy()


def test_client_may_connect_before_realize(ctx):
    sock = open_client(ctx)
    send(sock, VFIO_USER_VERSION, version_payload())
    realize(ctx)
    ok(lib.vfu_attach_ctx, ctx)
    receive(sock, VFIO_USER_VERSION)


def test_poll_fd_is_the_listening_socket_then_the_connection(ctx):
    listening = ok(lib.vfu_get_poll_fd, ctx)
    sock = serve(ctx)
    connection = ok(lib.vfu_get_poll_fd, ctx)
    assert connection != listening
    with socket.socket(fileno=os.dup(connection)) as server_end:
        assert server_end.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0
        credentials = server_end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    assert int.from_bytes(credentials[:4], "little") == os.getpid()
    disconnect(ctx, sock)
    assert ok(lib.vfu_get_poll_fd, ctx) == listening


def test_many_contexts_live_side_by_side(new_ctx):
    made = [new_ctx() for _ in range(20)]
    socks = [serve(ctx) for ctx in made]
    for ctx, sock in zip(made, reversed(socks), strict=True):
        sock.close()
        assert ctx.value
    for ctx in made:
        run(ctx, errno.ENOTCONN)


@pytest.mark.defect("D52")
def test_descriptors_are_not_inherited_by_other_programs(ctx, fds):
    setup_dma(ctx)
    before = set(open_fds())
    realize(ctx)
    sock, twin = connect_twin(ctx)
    mine = {sock.fileno(), twin.fileno()}
    listening = ok(lib.vfu_get_poll_fd, ctx)
    opened = (set(open_fds()) - before - mine) | {listening}
    assert opened
    assert [fd for fd in opened if os.get_inheritable(fd)] == []
