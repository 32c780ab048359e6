"""Scripts: steps in, figures or the step that failed out."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from pytest_clib import _native
from pytest_clib.script import (
    Script,
    ScriptError,
    counter,
    cycle,
    instance,
    random,
    table,
)

SOURCE = """\
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static uint64_t sum, calls, threads_in, most;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

uint64_t total(void) { return sum; }
uint64_t called(void) { return calls; }
uint64_t together(void) { return most; }
void reset(void) { sum = calls = most = 0; }
int add(uint64_t n) {
    pthread_mutex_lock(&lock);
    sum = sum * 31 + n;
    calls++;
    pthread_mutex_unlock(&lock);
    return 7;
}
int meet(pthread_barrier_t *barrier) { pthread_barrier_wait(barrier); return 0; }
int barrier(pthread_barrier_t *barrier, unsigned n) { return pthread_barrier_init(barrier, 0, n); }
unsigned barrier_size(void) { return sizeof(pthread_barrier_t); }
int fails(int number) { errno = number; return -1; }
double half(double x, float y, uint8_t n) { return x / 2 + y * n; }
int echo(int fd, int size) {
    char bytes[256];
    ssize_t got = recv(fd, bytes, size, 0);
    return got < 0 ? -1 : (int)send(fd, bytes, got, 0);
}
int first(const unsigned char *bytes) { return bytes[0]; }
int last9(int a, int b, int c, int d, int e, int f, int g, int h, int i) { return i; }
"""

u64 = ctypes.c_uint64


@pytest.fixture
def lib(build):
    lib = ctypes.CDLL(str(build(SOURCE)), use_errno=True)
    for name in ("total", "called", "together"):
        getattr(lib, name).restype = u64
        getattr(lib, name).argtypes = []
    lib.add.argtypes = [u64]
    lib.fails.argtypes = [ctypes.c_int]
    lib.half.argtypes = [ctypes.c_double, ctypes.c_float, ctypes.c_uint8]
    lib.half.restype = ctypes.c_double
    lib.echo.argtypes = [ctypes.c_int, ctypes.c_int]
    lib.meet.argtypes = [ctypes.c_void_p]
    lib.barrier.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    lib.first.argtypes = [ctypes.c_char_p]
    lib.last9.argtypes = [ctypes.c_int] * 9
    lib.reset.argtypes = []
    lib.reset.restype = None
    lib.reset()
    return lib


@pytest.fixture
def pair():
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def folded(numbers):
    total = 0
    for number in numbers:
        total = (total * 31 + number) % 2**64
    return total


# What a run does


def test_each_iteration_makes_every_step_once_and_the_warm_up_comes_before(lib):
    result = Script().call(lib.add, 1, expect=7).run(times=5, warmup=2)

    assert lib.called() == 7
    assert result.operations == 5


def test_counter_goes_on_from_the_warm_up_and_wraps(lib):
    Script().call(lib.add, counter(10, 5, wrap=3)).run(times=4, warmup=1)

    assert lib.total() == folded([10, 15, 20, 10, 15])


def test_counter_may_go_down(lib):
    Script().call(lib.add, counter(2, -1)).run(times=3, warmup=0)

    assert lib.total() == folded([2, 1, 0])


def test_cycle_begins_again_after_the_last(lib):
    Script().call(lib.add, cycle([3, 1])).run(times=3, warmup=0)

    assert lib.total() == folded([3, 1, 3])


def test_random_numbers_are_the_same_for_the_same_seed_and_within_bounds(pair):
    here, there = pair

    def drawn(seed):
        Script().send(here, random(5, 8, seed=seed).u8).run(times=64, warmup=0)
        return there.recv(64, socket.MSG_WAITALL)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert set(drawn(3)) == {5, 6, 7, 8}


def test_send_call_and_recv_make_a_round_trip(lib, pair):
    here, there = pair
    message = [b"ab", counter(0x0102).u16, b"c"]

    result = (
        Script("echo")
        .send(here, message)
        .call(lib.echo, there.fileno(), 5, expect=5)
        .recv(here, 5, expect=message)
        .run(times=100)
    )

    assert result.operations == 100
    assert result.name == "echo"


def test_descriptors_are_sent_along(pair):
    here, there = pair
    reading, writing = os.pipe()
    try:
        Script().send(here, b"x", fds=[reading, writing]).run(times=1, warmup=0)
        data, fds, _, _ = socket.recv_fds(there, 1, 4)
    finally:
        os.close(reading)
        os.close(writing)
    for fd in fds:
        os.close(fd)

    assert (data, len(fds)) == (b"x", 2)


def test_recv_lets_no_descriptor_stay_open(pair):
    here, there = pair
    before = open_descriptors()

    Script().send(here, b"x", fds=[here]).recv(there, 1).run(times=3)

    assert open_descriptors() == before


def test_wait_returns_when_there_is_something_to_read(pair):
    here, there = pair

    result = Script().send(here, b"x").wait(there).recv(there, 1).run(times=3)

    assert result.operations == 3


def test_arguments_and_results_of_each_kind(lib):
    Script().call(lib.half, 3.0, 0.5, 3, expect=3).run(times=1)
    Script().call(lib.first, b"\xfe", expect=0xFE).run(times=1)
    Script().call(lib.first, b"a", expect=97).run(times=1)
    Script().call(lib.last9, *range(8), -9, expect=-9).run(times=1)
    Script().call(lib.fails, errno.EPIPE, expect=-1, errno=errno.EPIPE).run(times=1)


def test_a_structure_is_passed_by_its_address(lib):
    buffer = (ctypes.c_ubyte * 2)(9, 8)
    lib.first.argtypes = [ctypes.POINTER(ctypes.c_ubyte)]

    Script().call(lib.first, buffer, expect=9).run(times=1)
    Script().call(lib.first, ctypes.byref(buffer), expect=9).run(times=1)


def test_threads_run_at_the_same_time(lib):
    barrier = ctypes.create_string_buffer(lib.barrier_size())
    lib.barrier(barrier, 3)

    # Each call returns only when three threads are in it.
    result = Script().call(lib.meet, barrier, expect=0).run(times=50, threads=3)

    assert (result.operations, result.threads, result.instances) == (150, 3, 3)


def test_instances_have_their_own_numbers_and_share_the_threads(lib):
    pairs = [socket.socketpair() for _ in range(8)]
    try:
        result = (
            Script()
            .send(instance("client"), instance("number").u64)
            .call(lib.echo, instance("server"), 8, expect=8)
            .recv(instance("client"), 8, expect=instance("number").u64)
            .run(
                times=10,
                threads=2,
                instances=[
                    {"client": a, "server": b, "number": 1000 + number}
                    for number, (a, b) in enumerate(pairs)
                ],
            )
        )
    finally:
        for a, b in pairs:
            a.close()
            b.close()

    assert (result.operations, result.threads, result.instances) == (80, 2, 8)


def test_python_goes_on_while_a_script_runs(pair):
    here, there = pair
    answered = []

    def answer():
        answered.append(there.recv(1))
        there.send(b"y")

    thread = threading.Thread(target=answer)
    thread.start()
    Script().send(here, b"x").recv(here, 1, expect=b"y").run(times=1, warmup=0)
    thread.join()

    assert answered == [b"x"]


def test_seconds_end_the_run(lib):
    result = Script().call(lib.add, 1).run(seconds=0.01)

    assert result.operations > 1
    assert result.seconds >= 0.01


# What it tells


def test_figures_are_consistent(lib):
    result = Script().call(lib.add, 1).run(times=1000)

    assert sum(count for _, count in result.histogram) == 1000
    ordered = [
        result.min_ns,
        result.p50_ns,
        result.p90_ns,
        result.p99_ns,
        result.p999_ns,
        result.max_ns,
    ]
    assert ordered == sorted(ordered)
    assert result.min_ns <= result.mean_ns <= result.max_ns
    assert result.operations_per_second == pytest.approx(1000 / result.seconds)


def test_result_survives_the_way_through_data(lib):
    result = Script().call(lib.add, 1).run(times=10)

    assert type(result).from_dict(result.to_dict()) == result


def test_table_has_a_line_for_each_run_and_a_unit_for_each_time(lib):
    script = Script("adding").call(lib.add, 1)
    lines = table([script.run(times=10), script.run(times=20, name="again")]).split(
        "\n"
    )

    assert lines[0].split()[:4] == ["operations", "per", "second", "mean"]
    assert [line.split()[0] for line in lines[1:]] == ["adding", "again"]
    assert " ns" in lines[1]


# What goes wrong


def test_wrong_result_names_step_iteration_and_values(lib, pair):
    here, _ = pair
    script = Script().send(here, b"x").call(lib.fails, errno.EPIPE, expect=0)

    with pytest.raises(ScriptError) as caught:
        script.run(times=3, warmup=0)

    error = caught.value
    assert (error.step, error.iteration, error.instance) == (1, 0, 0)
    assert error.errno == errno.EPIPE
    assert "step 1 (call fails), iteration 0" in str(error)
    assert "returned -1" in str(error)
    assert "where 0 was expected" in str(error)


def test_wrong_errno_is_told(lib):
    script = Script().call(lib.fails, errno.EPIPE, expect=-1, errno=errno.EINVAL)

    with pytest.raises(ScriptError, match="Invalid argument") as caught:
        script.run(times=1)

    assert caught.value.errno == errno.EPIPE


def test_wrong_bytes_are_told_with_where_they_differ(pair):
    here, there = pair
    script = Script().send(here, b"abcd").recv(there, 4, expect=b"abXd")

    with pytest.raises(ScriptError, match="byte 2 differs") as caught:
        script.run(times=1, warmup=0)

    assert caught.value.received == b"abcd"


def test_iteration_that_fails_is_counted_from_0_after_the_warm_up(pair):
    here, there = pair
    wanted = cycle([1, 1, 1, 2])
    script = Script().send(here, b"\1").recv(there, 1, expect=wanted.u8)

    with pytest.raises(ScriptError) as caught:
        script.run(times=10, warmup=1)
    assert caught.value.iteration == 2

    with pytest.raises(ScriptError) as caught:
        script.run(times=10, warmup=4)
    assert caught.value.iteration == -1


def test_instance_that_fails_is_named(lib):
    script = Script().call(lib.fails, instance("n"), expect=-1, errno=5)

    with pytest.raises(ScriptError) as caught:
        script.run(times=1, instances=[{"n": 5}, {"n": 5}, {"n": 6}])

    assert caught.value.instance == 2


def test_receive_that_never_comes_ends_at_the_limit_and_names_the_step(pair):
    here, _ = pair
    script = Script().recv(here, 16)

    with pytest.raises(ScriptError, match=r"step 0 \(recv 16 bytes\).*within 0.1 s"):
        script.run(times=1, step_limit=0.1)


def test_wait_that_never_ends_is_named(pair):
    here, _ = pair

    with pytest.raises(ScriptError, match=r"step 0 \(wait until readable\)"):
        Script().wait(here).run(times=1, step_limit=0.1)


def test_call_that_does_not_return_is_named(lib):
    barrier = ctypes.create_string_buffer(lib.barrier_size())
    lib.barrier(barrier, 2)

    with pytest.raises(ScriptError, match=r"step 0 \(call meet\).*not returned"):
        Script().call(lib.meet, barrier).run(times=1, step_limit=0.1, warmup=0)
    lib.meet(barrier)  # lets the thread that was left behind go


def test_closed_connection_is_told(pair):
    here, there = pair
    there.send(b"xy")
    there.close()

    with pytest.raises(ScriptError, match="closed the connection after 2 bytes"):
        Script().recv(here, 3).run(times=1, warmup=0)


def test_closed_descriptor_is_an_errno():
    with pytest.raises(ScriptError) as caught:
        Script().send(1_000_000, b"x").run(times=1)

    assert caught.value.errno == errno.EBADF


def test_function_without_argument_types_is_refused(lib):
    lib.called.argtypes = None

    with pytest.raises(TypeError, match=r"called has no argtypes: declare"):
        Script().call(lib.called)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda s, lib: s.call(lib.add), "takes 1 arguments.*0 are given"),
        (lambda s, lib: s.call(lib.add, 1, errno=5), "nothing without expect"),
        (
            lambda s, lib: s.call(lib.add, object()),
            "argument 0 of add: <object.*> is no number to pass as c_ulong",
        ),
        (lambda s, lib: s.call(lib.add, "12"), "'12' is no number"),
        (lambda s, lib: s.call(lib.add, 1.5), r"1\.5 is no number"),
        (lambda s, _: s.call(len, "12"), "len is no ctypes function"),
    ],
)
def test_call_that_cannot_be_made_is_refused(lib, step, message):
    with pytest.raises(TypeError, match=message):
        step(Script(), lib)


def test_types_that_need_python_are_refused(lib):
    class Structure(ctypes.Structure):
        _fields_ = (("a", ctypes.c_int),)

    lib.add.argtypes = [Structure]
    with pytest.raises(TypeError, match=r"argument 0 of add.*without Python"):
        Script().call(lib.add, Structure(1))
    lib.add.argtypes = [ctypes.py_object]
    with pytest.raises(TypeError, match="argument 0 of add"):
        Script().call(lib.add, 1)
    lib.add.argtypes, lib.add.restype = [u64], Structure
    with pytest.raises(TypeError, match="add: a result of type"):
        Script().call(lib.add, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"times": 0}, "times = 0"),
        ({"times": -1}, "times = -1"),
        ({"seconds": 0}, "seconds = 0"),
        ({"seconds": float("nan")}, "seconds = nan"),
        ({"threads": 0}, "threads = 0"),
        ({"batch": 0}, "batch = 0"),
        ({"warmup": -1}, "warmup = -1"),
        ({"step_limit": -1.0}, "step_limit = -1"),
    ],
)
def test_options_that_make_no_sense_are_refused(lib, options, message):
    with pytest.raises(ValueError, match=message):
        Script().call(lib.add, 1).run(**options)
    assert lib.called() == 0


def test_times_and_seconds_together_are_refused(lib):
    with pytest.raises(TypeError, match="either times or seconds"):
        Script().call(lib.add, 1).run(times=1, seconds=1)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (Script(), "without steps"),
        (Script().send(0, b""), "step 0 sends no bytes"),
        (Script().recv(0, 0), "step 0 receives no bytes"),
        (Script().recv(0, 1, expect=b"ab"), "receives 1 bytes but expects 2"),
        (Script().wait(instance("fd")), r"must give them"),
    ],
)
def test_script_that_cannot_run_is_refused(script, message):
    with pytest.raises(ValueError, match=message):
        script.run(times=1)


def test_instance_without_a_name_that_is_used_is_refused():
    with pytest.raises(ValueError, match="instance 1 lacks fd"):
        Script().wait(instance("fd")).run(instances=[{"fd": 0}, {"df": 0}])


def test_too_many_descriptors_are_refused():
    with pytest.raises(ValueError, match="254 descriptors: the kernel passes 253"):
        Script().send(0, b"x", fds=[0] * 254)


def test_native_module_refuses_steps_that_it_does_not_know():
    with pytest.raises(ValueError, match='no step is called "jump"'):
        _native.Script([("jump",)])
    with pytest.raises(ValueError, match='no value is called "dice"'):
        _native.Script([("wait", ("dice", 1))])
