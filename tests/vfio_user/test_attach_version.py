"""Attaching a client and negotiating the protocol version."""

import errno
import json
import os
import resource
import socket

import pytest

from .harness import *


def negotiated(reply):
    """The capabilities of a VERSION reply, and its version."""
    version = t.vfio_user_version.from_buffer_copy(reply.payload)
    text = reply.payload[4:]
    assert text.endswith(b"\0")
    return version, json.loads(text[:-1])["capabilities"]


def refuse(ctx, payload, cmd=VFIO_USER_VERSION):
    """Attach with a VERSION that must be refused, with a reply that says so."""
    sock = open_client(ctx)
    msg_id = send(sock, cmd, payload)
    fails(errno.EINVAL, lib.vfu_attach_ctx, ctx)
    receive(sock, cmd, msg_id, errno.EINVAL)
    assert is_closed(sock)
    return sock


@pytest.fixture
def realized(ctx):
    realize(ctx)
    return ctx


def test_nobody_waiting(realized):
    fails(errno.EAGAIN, lib.vfu_attach_ctx, realized)


def test_attached_already(realized):
    connect_client(realized)
    fails(errno.EINVAL, lib.vfu_attach_ctx, realized)


def test_without_json_the_defaults_hold(realized):
    sock = open_client(realized)
    reply = attach(realized, sock, version_payload(text=b""))
    version, capabilities = negotiated(reply)
    assert (version.major, version.minor) == (0, 1)
    assert capabilities == {
        "max_msg_fds": SERVER_MAX_MSG_FDS,
        "max_data_xfer_size": SERVER_MAX_DATA_XFER_SIZE,
    }
    disconnect(realized, sock)


@pytest.mark.parametrize(("client", "server"), [(0, 0), (1, 1), (2, 2), (7, 2)])
def test_minor_is_the_smaller_of_both(realized, client, server):
    sock = open_client(realized)
    version, _ = negotiated(attach(realized, sock, version_payload(minor=client)))
    assert version.minor == server


def test_page_size_is_told_with_migration_only(realized):
    setup_migration(realized)
    sock = open_client(realized)
    _, capabilities = negotiated(attach(realized, sock))
    assert capabilities["migration"] == {"pgsize": PAGE_SIZE}


@pytest.mark.parametrize(
    "text",
    [
        b"{}\0",
        b'{"capabilities":{}}\0',
        b'{"capabilities":{"max_msg_fds":1024}}\0',
        b'{"capabilities":{"max_msg_fds":0}}\0',
        b'{"capabilities":{"max_data_xfer_size":4}}\0',
        b'{"capabilities":{"migration":{"pgsize":0}}}\0',
        b'{"capabilities":{"migration":{}}}\0',
        b'{"capabilities":{"twin_socket":{"supported":false}}}\0',
        b' {\n"capabilities" :\t{ } }\0',
    ],
)
def test_accepted_json(realized, text):
    setup_migration(realized)
    attach(realized, open_client(realized), version_payload(text=text))


def test_unknown_keys_are_ignored_at_every_level(realized):
    setup_migration(realized)
    text = json.dumps(
        {
            "new": [1, 2.5, None],
            "capabilities": {
                "pgsizes": 4096,
                "max_dma_maps": 65535,
                "max_msg_fds": 16,
                "migration": {"max_bitmap_size": 1 << 28, "pgsize": PAGE_SIZE},
                "twin_socket": {"supported": False, "colour": "red"},
                "future": {"deep": {"deeper": True}},
            },
        }
    )
    payload = version_payload(text=text.encode() + b"\0", minor=0)
    attach(realized, open_client(realized), payload)


@pytest.mark.parametrize(
    "capabilities",
    [
        {"max_msg_fds": "8"},
        {"max_msg_fds": -1},
        {"max_msg_fds": 1025},
        {"max_msg_fds": 10**30},
        {"max_msg_fds": 1.0},
        {"max_msg_fds": True},
        {"max_msg_fds": None},
        {"max_data_xfer_size": "big"},
        {"max_data_xfer_size": None},
        {"migration": "yes"},
        {"migration": 1},
        {"migration": {"pgsize": "4096"}},
        {"migration": {"pgsize": PAGE_SIZE - 1}},
        {"migration": {"pgsize": 2 * PAGE_SIZE}},
        {"twin_socket": True},
        {"twin_socket": {"supported": 1}},
        {"twin_socket": {"supported": "true"}},
        "a string",
        1,
    ],
    ids=str,
)
def test_refused_capabilities(realized, capabilities):
    setup_migration(realized)
    refuse(realized, version_payload(capabilities))


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b'{"capabilities":{"max_msg_fds":8}}',
        b"{\0",
        b'"\0',
        b'{"capabilities":null}\0',
        b"null\0",
        b"\0",
        b"{{}}\0",
        b"not json\0",
    ],
    ids=repr,
)
def test_refused_json(realized, text):
    refuse(realized, version_payload(text=text))


# Text that has to be read although nothing in it means anything: (value of a key, or text).
VALUES = [
    *("0", "-0", "-12.5e+3", "1E9", "2e-7", "12345678901234567890123", "true", "null"),
    *('""', r'"\" \\ \/ \b\f\n\r\t"', r'"\u00e9\uD83D\uDE00"', '"\u00e9"'),
    *("[]", "[ ]", "[[],[]]", '[1,"a",{"b":[true,false]}]', "{}"),
    *("[" * 25 + "]" * 25, '{"a":' * 25 + "1" + "}" * 25),
    pytest.param("[" * 100 + "]" * 100, marks=pytest.mark.extension),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:20])
def test_values_that_are_passed_over(realized, value):
    text = f'{{"x":{value},"capabilities":{{"y":{value},"max_msg_fds":0}}}}\0'
    attach(realized, open_client(realized), version_payload(text=text.encode()))


@pytest.mark.parametrize("text", ["[1,{}]", '"text"', "12", "true"])
def test_text_that_is_no_object_announces_nothing(realized, text):
    sock = open_client(realized)
    attach(realized, sock, version_payload(text=text.encode() + b"\0"))


BAD_VALUES = [
    *(
        "01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "-",
        "-a",
        "+1",
        "tru",
        "nul",
        "fals",
        "NaN",
        "'a'",
    ),
    *("[1,]", "[,1]", "[1 2]", "[}", "[", "/**/1", ""),
    *('{"a"}', '{"a":}', '{"a":1,}', "{a:1}", '{"a":1 "b":2}', '{"a":1]', '{"a" 1}'),
    *(r'"\x"', r'"\u12g4"', r'"\u12"', '"\n"', '"a', '"\\'),
    *("[" * 129 + "]" * 129, '{"a":' * 129 + "1" + "}" * 129),
]


@pytest.mark.extension  # json-c takes some of these
@pytest.mark.parametrize("value", BAD_VALUES, ids=lambda value: str(value)[:20])
def test_values_that_are_none(realized, value):
    refuse(realized, version_payload(text=f'{{"x":{value}}}\0'.encode()))


@pytest.mark.extension
@pytest.mark.parametrize("text", ["{}{}", "{} x", "[]]", "1 2", "", " ", "}", "]"])
def test_text_that_is_not_one_value(realized, text):
    refuse(realized, version_payload(text=text.encode() + b"\0"))


@pytest.mark.extension
@pytest.mark.parametrize("text", [b'{"\xff":1}\0', b'{"x":"\xc3"}\0'])
def test_text_that_is_not_utf_8(realized, text):
    refuse(realized, version_payload(text=text))


@pytest.mark.extension  # json-c takes no NUL in names
@pytest.mark.parametrize(
    ("name", "is_known"),
    [
        (r"\u0063apabilities", True),
        (r"cap\u0061biliti\u0065\u0073", True),
        (r"c\u0061pabilities\u0000", False),
        (r"\u0163apabilities", False),
        ("cap", False),
        ("capabilitiesX", False),
        (r"c\napabilities", False),
        (r"\/capabilities", False),
        *((rf"c\{letter}", False) for letter in 'bfnrt"\\/'),
    ],
)
def test_names_are_compared_by_what_they_mean(realized, name, is_known):
    """A value that this capability cannot have is refused if the name is its."""
    payload = version_payload(text=f'{{"{name}":1}}\0'.encode())
    if is_known:
        refuse(realized, payload)
    else:
        attach(realized, open_client(realized), payload)


@pytest.mark.extension  # of duplicates the JSON library may take the first, or both
def test_the_last_of_equal_names_counts(realized):
    good, bad = '{"max_msg_fds":1}', '{"max_msg_fds":-1}'
    for first, last in ((good, bad), (bad, good)):
        text = f'{{"capabilities":{first},"capabilities":{last}}}\0'
        payload = version_payload(text=text.encode())
        if last == bad:
            refuse(realized, payload)
        else:
            attach(realized, open_client(realized), payload)


def test_client_gone_before_the_reply_to_its_version(realized):
    """Its end is closed for reading when the reply is sent."""
    sock = open_client(realized)
    send(sock, VFIO_USER_VERSION, version_payload())
    sock.shutdown(socket.SHUT_RD)
    fails(errno.ECONNRESET, lib.vfu_attach_ctx, realized)
    connect_client(realized)


def test_page_size_is_not_checked_without_migration(realized):
    payload = version_payload({"migration": {"pgsize": 12345}})
    attach(realized, open_client(realized), payload)


@pytest.mark.defect("D41")
@pytest.mark.parametrize("number", [1 << 32, (1 << 32) + 8, -(1 << 32)])
def test_max_msg_fds_is_not_truncated(realized, number):
    refuse(realized, version_payload({"max_msg_fds": number}))


@pytest.mark.defect("D42")
@pytest.mark.parametrize("number", [0, -1, -(1 << 40)])
def test_transfer_size_must_be_positive(realized, number):
    refuse(realized, version_payload({"max_data_xfer_size": number}))


@pytest.mark.parametrize("length", [0, 1, 3])
def test_version_too_short(realized, length):
    refuse(realized, version_payload(text=b"")[:length])


@pytest.mark.parametrize("major", [1, 999])
def test_other_major_is_refused(realized, major):
    refuse(realized, version_payload(major=major))


@pytest.mark.parametrize("cmd", [0, VFIO_USER_DMA_MAP, VFIO_USER_MAX, 999])
def test_first_command_must_be_version(realized, cmd):
    refuse(realized, version_payload(), cmd)


def test_version_with_an_oversized_header(realized):
    sock = open_client(realized)
    send(sock, VFIO_USER_VERSION, size=SERVER_MAX_MSG_SIZE + 1)
    fails(errno.EINVAL, lib.vfu_attach_ctx, realized)
    assert is_closed(sock) or receive(sock, expect=errno.EINVAL)


def test_version_of_the_reply_type(realized):
    sock = open_client(realized)
    send(sock, VFIO_USER_VERSION, version_payload(), flags=VFIO_USER_F_TYPE_REPLY)
    fails(errno.EINVAL, lib.vfu_attach_ctx, realized)


def test_version_is_answered_also_with_no_reply(realized):
    sock = open_client(realized)
    send(sock, VFIO_USER_VERSION, version_payload(), flags=VFIO_USER_F_NO_REPLY)
    ok(lib.vfu_attach_ctx, realized)
    receive(sock, VFIO_USER_VERSION)


def test_version_again_is_an_unknown_command(realized):
    sock = connect_client(realized)
    msg(realized, sock, VFIO_USER_VERSION, version_payload(), expect=errno.EINVAL)


def test_client_gone_before_the_version(realized):
    open_client(realized).close()
    fails(errno.ENOMSG, lib.vfu_attach_ctx, realized)


@pytest.mark.parametrize("length", [1, 15, 17, 19, 25])
def test_client_gone_within_the_version(realized, length):
    sock = open_client(realized)
    send_bytes(sock, frame(VFIO_USER_VERSION, version_payload())[:length])
    sock.close()
    fails(errno.ECONNRESET, lib.vfu_attach_ctx, realized)


def test_context_is_fit_for_the_next_client_after_each_failure(realized):
    for _ in range(3):
        refuse(realized, version_payload(major=5))
        open_client(realized).close()
        fails(errno.ENOMSG, lib.vfu_attach_ctx, realized)
    sock = connect_client(realized)
    disconnect(realized, sock)
    connect_client(realized)


def test_failed_negotiations_leave_no_descriptor(realized):
    before = len(open_fds())
    for _ in range(5):
        refuse(realized, b"").close()
    assert len(open_fds()) == before


@without_valgrind
def test_no_descriptor_left_for_the_client(realized):
    sock = open_client(realized)
    send(sock, VFIO_USER_VERSION, version_payload())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(open_fds())
    fillers = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
    try:
        while True:
            fillers.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        fails(errno.EMFILE, lib.vfu_attach_ctx, realized)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in fillers:
            os.close(fd)
    ok(lib.vfu_attach_ctx, realized)
    receive(sock, VFIO_USER_VERSION)


def test_twin_socket_comes_with_the_reply(realized):
    sock = open_client(realized)
    caps = {"max_msg_fds": 1, "twin_socket": {"supported": True}}
    reply = attach(realized, sock, version_payload(caps))
    [twin] = reply.fds
    os.close(twin)
    _, capabilities = negotiated(reply)
    assert capabilities["twin_socket"] == {"supported": True, "fd_index": 0}


@pytest.mark.parametrize(
    "capabilities",
    [
        {"max_msg_fds": 0, "twin_socket": {"supported": True}},
        {"max_msg_fds": 8, "twin_socket": {"supported": False}},
        {"max_msg_fds": 8, "twin_socket": {}},
    ],
    ids=str,
)
def test_no_twin_socket_unless_it_can_be_sent_and_is_wanted(realized, capabilities):
    reply = attach(realized, open_client(realized), version_payload(capabilities))
    assert reply.fds == []
    assert "twin_socket" not in negotiated(reply)[1]


def test_twin_socket_goes_with_the_connection(realized):
    before = len(open_fds())
    sock, twin = connect_twin(realized)
    assert len(open_fds()) == before + 4
    disconnect(realized, sock)
    assert is_closed(twin)
    twin.close()
    assert len(open_fds()) == before


@pytest.mark.defect("D49")
def test_version_with_descriptors_is_answered(realized, fds):
    sock = open_client(realized)
    before = len(open_fds())
    send(sock, VFIO_USER_VERSION, version_payload(), fds.eventfds(3))
    fails(errno.EINVAL, lib.vfu_attach_ctx, realized)
    receive(sock, VFIO_USER_VERSION, expect=errno.EINVAL)
    assert len(open_fds()) == before + 3


def test_version_with_descriptors_leaks_none(realized, fds):
    sock = open_client(realized)
    send(sock, VFIO_USER_VERSION, version_payload(), fds.eventfds(3))
    before = len(open_fds())
    assert lib.vfu_attach_ctx(realized) == -1
    assert len(open_fds()) == before


def test_client_capabilities_do_not_outlive_the_client(realized):
    calls = setup_migration(realized)
    calls.outgoing += bytes(100)
    sock = connect_client(realized, max_data_xfer_size=4)
    disconnect(realized, sock)
    sock = open_client(realized)
    attach(realized, sock, version_payload(text=b""))
    to_pre_copy(realized, sock)
    request = bytes(t.vfio_user_mig_data(argsz=108, size=100))
    assert len(msg(realized, sock, VFIO_USER_MIG_DATA_READ, request)) == 108


def to_pre_copy(ctx, sock):
    data = bytes(t.vfio_user_device_feature(argsz=16, flags=(1 << 17) | 2))
    data += bytes(
        t.vfio_user_device_feature_mig_state(
            device_state=VFIO_USER_DEVICE_STATE_PRE_COPY
        )
    )
    msg(ctx, sock, VFIO_USER_DEVICE_FEATURE, data)
