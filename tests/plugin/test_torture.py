"""Torture and single injections, as users run them."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from pytest_clib import _native, _torture_fds

SOURCE = r"""
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static char *state;

int set(const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL)
        return -1;
    free(state);
    state = copy;
    return 0;
}

int length(void) { return (int)strlen(state); }

char *twice(const char *text)
{
    char *room = malloc(2 * strlen(text) + 1);
    strcpy(room, text);
    return strcat(room, text);
}

void drop(char *text) { free(text); }

int reading(int fd, char *byte) { return (int)read(fd, byte, 1); }

int mapped(void)
{
    void *memory = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -1;
    return munmap(memory, 4096);
}
"""
SUITE = """
lib.twice.restype = c.c_void_p
lib.drop.argtypes = [c.c_void_p]
lib.drop.restype = None

def test_twice():
    lib.drop(lib.twice(b"ab"))
"""
ORDERED = """
def test_first():
    assert lib.set(b"one") == 0

def test_second():
    assert lib.length() == 3
    assert lib.set(b"three") == 0

def test_third():
    assert lib.length() == 5
"""


@pytest.fixture
def library(build):
    return build(SOURCE, name="tortured")


def again(finding: dict) -> list[str]:
    """The arguments of a finding's command, after ``python -m pytest``."""
    return shlex.split(finding["command"])[3:]


def test_a_crash_has_its_site_its_place_and_its_command(suite, library):
    outcome = suite.run(SUITE, library, "--clib-torture")

    (finding,) = outcome.findings
    assert finding["kind"] == "crash"
    assert (finding["function"], finding["errno"]) == ("malloc", "ENOMEM")
    assert finding["site"]["function"] == "twice"
    assert finding["place"]["function"] == "twice"
    assert finding["place"]["line"] == finding["site"]["line"] + 1
    assert outcome.result.ret == pytest.ExitCode.TESTS_FAILED
    assert outcome.report["summary"]["injections"] == 1
    repeated = suite.again(*again(finding))
    assert repeated.kinds == ["crash"]
    assert repeated.findings[0]["message"] == finding["message"]
    repeated.result.assert_outcomes(errors=0, failed=1)


def test_tests_that_need_those_before_them_are_tortured_where_they_stand(
    suite, library
):
    outcome = suite.run(ORDERED, library, "--clib-torture")

    outcome.result.assert_outcomes(passed=3)
    assert outcome.findings == []
    assert outcome.report["summary"]["injections"] == 2


def test_a_finding_of_a_later_test_runs_those_before_it_again(suite, library):
    source = ORDERED + SUITE.replace("def test_twice", "def test_twice_at_last")
    outcome = suite.run(source, library, "--clib-torture")

    (finding,) = outcome.findings
    assert finding["command"].endswith("@test_twice_at_last test_it.py")
    repeated = suite.again(*again(finding))
    assert repeated.kinds == ["crash"]
    repeated.result.assert_outcomes(passed=3, failed=1)


def test_sockets_of_earlier_tests_are_not_disturbed(suite, library):
    source = """
ours, theirs = socket.socketpair()

def test_send():
    ours.send(b"ab")

def test_receive():
    byte = c.create_string_buffer(1)
    assert lib.reading(theirs.fileno(), byte) == 1
    assert byte.raw == b"a"

def test_receive_more():
    assert theirs.recv(10) == b"b"
"""
    outcome = suite.run(source, library, "--clib-torture")

    outcome.result.assert_outcomes(passed=3)
    assert outcome.findings == []


def test_a_descriptor_may_go_while_all_are_looked_at(monkeypatch):
    """A thread that an earlier test left closes what it had."""
    reader, writer = os.pipe()
    status = os.fstat

    def fstat(fd):
        found = status(fd)
        if fd == reader:
            os.close(fd)
        return found

    monkeypatch.setattr(os, "fstat", fstat)
    try:
        descriptors = _torture_fds.Descriptors()
        assert descriptors.pairs is not None
        descriptors.close()
    finally:
        monkeypatch.undo()
        os.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader)


def test_fixtures_of_wider_scope_are_set_up_and_torn_down_once(suite, library):
    source = """
@pytest.fixture(scope="module")
def once(request):
    with open("log", "a") as log:
        log.write("up\\n")
    yield
    with open("log", "a") as log:
        log.write("down\\n")

@pytest.fixture
def own():
    lib.set(b"own")
    yield

def test_one(once, own):
    lib.set(b"x")

def test_two(once, own):
    lib.set(b"y")
"""
    outcome = suite.run(source, library, "--clib-torture")

    outcome.result.assert_outcomes(passed=2)
    assert (suite.pytester.path / "log").read_text() == "up\ndown\n"
    assert outcome.report["summary"]["injections"] == 2


class Screen:
    """What a terminal shows of what is written to it, as far as pytest and a bar need."""

    def __init__(self) -> None:
        self.lines = [""]
        self.row = self.column = 0
        self.shown: set[str] = set()

    def write(self, text: str) -> None:
        for command, count, letter, char in re.findall(
            r"(\x1b\[([\d;]*)([A-Za-z]))|([\s\S])", text
        ):
            if command:
                self._command(letter, int(count or 1) if letter in "AG" else 0)
            elif char == "\n":
                self.row += 1
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif char == "\r":
                self.column = 0
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = (
                    line[: self.column] + char + line[self.column + 1 :]
                )
                self.column += 1
                self.shown.add(self.lines[self.row])

    def _command(self, letter: str, count: int) -> None:
        if letter == "A":
            self.row -= count
        elif letter == "G":
            self.column = count - 1
        elif letter == "J":
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
        else:
            assert letter == "m", letter


def test_the_bar_leaves_no_trace(suite, library):
    source = """
def test_mapped():
    lib.mapped()

def test_prints():
    print("and")
    print("more")
"""
    suite.write(source, library)
    terminal, end = os.openpty()
    command = [sys.executable, "-m", "pytest", "-s", f"--clib={library}"]
    run = subprocess.Popen(
        [*command, "--clib-torture", "-p", "no:cacheprovider"],
        cwd=suite.pytester.path,
        env={**os.environ, "TERM": "xterm"},
        stdout=end,
    )
    os.close(end)
    written = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while data := os.read(terminal, 1 << 16):
            written += data
    os.close(terminal)
    screen = Screen()
    screen.write(written.decode())

    assert run.wait() == pytest.ExitCode.OK
    form = re.compile(
        r"\[#*\.*\] torture: 0/2 tests, \d+ injections, \d+/s, 0:\d\d left"
    )
    assert any(form.fullmatch(line) for line in screen.shown)
    assert not any("/2 tests" in line for line in screen.lines)
    start = screen.lines.index("test_it.py .and")
    assert screen.lines[start + 1 : start + 3] == ["more", "."]


def test_a_failed_unmapping_is_no_leak(suite, library):
    outcome = suite.run("def test():\n    lib.mapped()\n", library, "--clib-torture")

    assert outcome.findings == []
    assert outcome.report["summary"]["injections"] >= 2


def test_output_of_copies_is_not_shown(suite, library):
    source = "def test():\n    print('printed')\n    assert lib.set(b'x') == 0\n"
    outcome = suite.run(source, library, "--clib-torture", "-rP")

    assert outcome.text.count("printed") == 1
    assert outcome.report["summary"]["injections"] == 1


def test_workers_share_the_work_and_one_finding_has_all_tests(suite, library):
    source = SUITE + "\ndef test_again():\n    test_twice()\n"
    outcome = suite.run(source, library, "--clib-torture", "-n2")

    (finding,) = outcome.findings
    assert finding["count"] == 2
    outcome.result.assert_outcomes(passed=2)


@pytest.mark.parametrize("options", [(), ("-n1",)], ids=["alone", "worker"])
def test_a_finding_is_told_as_soon_as_it_is_known(suite, library, options):
    """Who stops a long session for good has what was found until then."""
    source = SUITE + "\ndef test_again():\n    test_twice()\n    os._exit(1)\n"
    suite.write(source, library)

    outcome = suite.again(f"--clib={library}", "--clib-torture", *options)

    shown = itertools.takewhile(
        lambda line: "= clib =" not in line, outcome.result.outlines
    )
    told = [line for line in shown if "clib: crash: " in line]
    assert len(told) == 1
    assert "when malloc in twice fails" in told[0]


@pytest.fixture
def socket_server(suite):
    """A machine with a worker, for all that pytest-xdist can tell; its port."""
    command = [sys.executable, "-u", "-m", "execnet.script.socketserver"]
    server = subprocess.Popen(
        [*command, "127.0.0.1:0"],
        cwd=suite.pytester.mkdir("machine"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield re.findall(r"\d+", server.stdout.readline())[-1]
    finally:
        server.kill()
        server.communicate()


def test_workers_behind_sockets(suite, library, socket_server):
    suite.write(SUITE, library)
    outcome = suite.again(
        *(f"--clib={library}", "--clib-torture"),
        *("--dist=loadfile", f"--tx=socket=127.0.0.1:{socket_server}"),
        *(f"--rsyncdir={suite.pytester.path}", str(suite.pytester.path / "test_it.py")),
    )

    outcome.result.assert_outcomes(passed=1, warnings=2)
    assert outcome.kinds == ["crash"]
    assert outcome.report["summary"]["injections"] == 1


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--clib-inject=maloc:1", "near it: malloc"),
        ("--clib-inject=malloc:1:ENOMM", ", ENOMEM"),
        ("--clib-inject=malloc:1:shrt", "near it: short"),
        ("--clib-inject=malloc:1:999", "a name like ENOMEM"),
        ("--clib-inject=malloc:0", "counted from 1"),
        ("--clib-inject=malloc:99999999999999999999", "counted from 1, to"),
        ("--clib-inject=malloc", "expected FUNCTION:N"),
        ("--clib-inject=malloc:x", "expected FUNCTION:N"),
        ("--clib-inject=malloc:1:short", "transfers no bytes"),
        ("--clib-inject=write:1:eof", "does not read"),
        ("--clib-inject=write:1:short=0", "a number from 1"),
        ("--clib-inject=write:1:EIO:short", "one too many"),
        ("--clib-torture=some", "expected sites, each, or each:N"),
        ("--clib-torture=each:0", "N from 1"),
        ("--clib-torture=each:", "N from 1"),
        ("--clib-torture=sites:3", "expected sites, each, or each:N"),
        ("--clib-groups=memroy", "near it: memory"),
        ("--clib-timeout=soon", "number of seconds"),
        ("--clib-unnoticed", "nothing without --clib-torture"),
        ("--clib-torture-later", "nothing without --clib-torture"),
    ],
)
def test_bad_options_are_usage_errors_of_one_line(suite, library, option, expected):
    outcome = suite.run(SUITE, library, option)

    assert outcome.result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [x for x in outcome.result.stderr.lines if x.startswith("ERROR: ")]
    assert option.split("=")[0] in line
    assert expected in line


LOOP = """\
#include <stdlib.h>

int turns(int count)
{
    char *last = NULL;
    for (int i = 0; i < count; i++) {
        free(last);
        last = malloc(8);
        if (i == count - 1)
            *(volatile char *)last = 1;
        else if (!last)
            return -1;
    }
    free(last);
    return 0;
}
"""


@pytest.mark.parametrize(
    ("mode", "calls", "kinds"),
    [
        ("sites", 1, []),
        ("each", 10, ["crash"]),
        ("each:1", 1, []),
        ("each:2", 2, ["crash"]),
        ("each:4", 4, ["crash"]),
        ("each:10", 10, ["crash"]),
    ],
)
def test_how_many_calls_of_a_site_are_tried(suite, build, mode, calls, kinds):
    suite.write("def test():\n    lib.turns(10)\n", build(LOOP))
    outcome = suite.again(f"--clib={build(LOOP)}", "--clib-torture", mode, "test_it.py")

    outcome.result.assert_outcomes(passed=1)
    assert outcome.report["summary"]["injections"] == calls
    assert outcome.kinds == kinds
    beyond = f"{10 - calls} calls beyond those asked for at one site"
    assert (beyond in outcome.text) == (mode in ("each:1", "each:2", "each:4"))


def test_an_injection_that_never_happens_is_said(suite, library):
    outcome = suite.run(SUITE, library, "--clib-inject=malloc:7")

    outcome.result.assert_outcomes(passed=1)
    assert (
        "--clib-inject=malloc:7 never happened in test_it.py::test_twice"
        in outcome.text
    )
    assert "it makes 1 call of malloc" in outcome.text
    assert outcome.result.ret == pytest.ExitCode.TESTS_FAILED


def test_an_injection_for_a_test_that_does_not_run_is_said(suite, library):
    outcome = suite.run(SUITE, library, "--clib-inject=malloc:1@test_thrice")

    outcome.result.assert_outcomes(passed=1)
    assert "no test with a node id that ends in 'test_thrice' was run" in outcome.text
    assert outcome.result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_crash_leaves_fixtures_to_the_tests_after_it(suite, library):
    source = (
        SUITE
        + """
@pytest.fixture
def own(tmp_path):
    yield tmp_path

def test_crash(own):
    test_twice()

def test_after(own):
    assert lib.set(b"x") == 0
"""
    )
    outcome = suite.run(source, library, "--clib-inject=malloc:1@test_crash")

    outcome.result.assert_outcomes(passed=2, errors=1)
    assert outcome.kinds == ["crash"]
    assert "never happened" not in outcome.text
    assert outcome.report["summary"]["injections"] == 1


def test_an_injection_happens_in_the_test_itself(suite, library):
    source = "def test():\n    assert lib.set(b'x') == 0\n"
    outcome = suite.run(source, library, "--clib-inject=strdup:1:ENOMEM")

    outcome.result.assert_outcomes(failed=1)
    assert "assert -1 == 0" in outcome.text


@pytest.mark.skipif(shutil.which("gdb") is None, reason="needs gdb")
def test_a_debugger_stops_where_it_crashes(suite, library):
    suite.write(ORDERED + SUITE, library)
    inject = "--clib-inject=malloc:1:ENOMEM@test_twice"
    done = subprocess.run(
        [
            *("gdb", "-nx", "-batch", "-ex", "run", "-ex", "backtrace 3", "--args"),
            *(sys.executable, "-m", "pytest", f"--clib={library}", inject),
        ],
        cwd=suite.pytester.path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "received signal SIGSEGV" in done.stdout, done.stdout + done.stderr
    assert re.search(r"#[01] .*\btwice \(text=.* \"ab\"\)", done.stdout), done.stdout


def test_groups_choose_what_fails(suite, library):
    outcome = suite.run(SUITE, library, "--clib-torture", "--clib-groups=file,socket")

    assert outcome.findings == []
    assert outcome.report["summary"]["injections"] == 0


def test_a_test_that_waits_for_ever_is_no_finding(suite, library):
    source = """
def test():
    ours, theirs = socket.socketpair()
    if lib.set(b"x") != 0:
        ours.recv(1)
"""
    outcome = suite.run(source, library, "--clib-torture", "--clib-timeout=1")

    assert outcome.findings == []
    assert "1 made the test wait" in outcome.text


def test_an_interrupt_leaves_a_partial_report(suite, library):
    source = (
        SUITE
        + """
def test_long():
    lib.set(b"x")
    if os.getpid() == PARENT:
        os.kill(PARENT, 2)

PARENT = os.getpid()
"""
    )
    outcome = suite.run(source, library, "--clib-torture")

    assert outcome.kinds == ["crash"]
    assert "torture: interrupted" in outcome.text
    assert outcome.result.ret == pytest.ExitCode.INTERRUPTED


def test_ctrl_c_in_the_middle_of_a_fork_is_not_lost(suite, library):
    source = """
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), 2))

def test():
    assert lib.set(b"x") == 0
"""
    outcome = suite.run(source, library, "--clib-torture")

    assert outcome.result.ret == pytest.ExitCode.INTERRUPTED
    assert "torture: interrupted" in outcome.text


def test_ctrl_c_ends_a_copy_that_hangs(suite, library):
    suite.write(
        "def test():\n"
        "    if lib.set(b'x') != 0:\n"
        "        open('waiting', 'w').close()\n"
        "        pair = socket.socketpair()\n"
        "        pair[0].recv(1)\n",
        library,
    )
    command = [sys.executable, "-m", "pytest", f"--clib={library}", "--clib-torture"]
    run = subprocess.Popen(
        [*command, "--clib-timeout=600"],
        cwd=suite.pytester.path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    waiting = suite.pytester.path / "waiting"
    while not waiting.exists() and run.poll() is None:
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)
    output, _ = run.communicate(timeout=60)

    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)


NUMBERS = """\
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* Full of small numbers, as anything with sizes, counts and flags is. */
static struct state { int numbers[200]; int fd; } *state;

CONSTRUCTOR void begin(void) {
    if (state != NULL) return;
    state = calloc(1, sizeof *state);
    for (int i = 0; i < 200; i++) state->numbers[i] = i;
    state->fd = -1;
}
int load(int keep) {
    int fd = open("/dev/null", O_RDONLY);
    if (fd < 0) return -1;
    if (keep) state->fd = fd;
    void *room = malloc(100);
    if (room == NULL) return -1; /* and the descriptor stays open */
    free(room);
    close(fd);
    state->fd = -1;
    return 0;
}
"""


@pytest.mark.parametrize("when", ["as it is loaded", "later"])
@pytest.mark.parametrize(("keep", "kinds"), [(0, ["fd-leak"]), (1, [])])
def test_a_small_number_that_is_no_descriptor_holds_none(
    suite, build, keep, kinds, when
):
    early = "__attribute__((constructor))" if when == "as it is loaded" else ""
    outcome = suite.run(
        f"lib.begin.restype = None\nlib.begin()\ndef test():\n    lib.load({keep})\n",
        build(f"#define CONSTRUCTOR {early}\n{NUMBERS}", name="numbers"),
        "--clib-torture",
    )

    outcome.result.assert_outcomes(passed=1)
    assert outcome.kinds == kinds


def test_copies_get_high_numbers_and_the_test_itself_does_not(suite, library):
    source = """
def test():
    lib.set(b"a")
    with open("numbers", "a") as numbers:
        print(numbers.fileno(), file=numbers)
"""
    outcome = suite.run(source, library, "--clib-torture")

    outcome.result.assert_outcomes(passed=1)
    numbers = (suite.pytester.path / "numbers").read_text().split()
    assert [int(number) >= 200 for number in numbers] == [True, True, False]


def test_what_one_test_holds_another_may_lose(suite, build):
    library = build(
        """\
        #include <stdlib.h>
        struct both { void *first, *second; };
        /* What is there after a failure is the caller's. */
        int fill(struct both *both) {
            both->first = both->second = NULL;
            if ((both->first = malloc(10)) == NULL) return -1;
            return (both->second = malloc(20)) == NULL ? -1 : 0;
        }
        void drop(struct both *both) { free(both->first); free(both->second); }
        """,
        name="both",
    )
    outcome = suite.run(
        """
class Both(c.Structure):
    _fields_ = [("first", c.c_void_p), ("second", c.c_void_p)]

lib.drop.restype = None
kept = Both()

def test_keeps():
    if lib.fill(c.byref(kept)) == 0:
        lib.drop(c.byref(kept))

def test_loses():
    mine = Both()
    if lib.fill(c.byref(mine)) == 0:
        lib.drop(c.byref(mine))
""",
        library,
        "--clib-torture",
    )

    assert [(one["kind"], one["test"]) for one in outcome.findings] == [
        ("leak", "test_it.py::test_loses")
    ]


RECEIVES = """\
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* 8 bytes, and a descriptor that may come with them. */
int get(int sock) {
    char data[8];
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr header; } control;
    struct iovec part = { data, sizeof data };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1,
                              .msg_control = &control, .msg_controllen = sizeof control };
    int fd = -1;
    ssize_t size = recvmsg(sock, &message, 0);
    if (size < 0) return -1;
    if (EARLY && size < 8) return -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL) memcpy(&fd, CMSG_DATA(header), sizeof fd);
    if (fd >= 0) close(fd);
    return size < 8 ? -1 : 0;
}
"""


@pytest.mark.parametrize(("early", "kinds"), [(1, ["fd-leak"]), (0, [])])
def test_short_message_that_brings_a_descriptor(suite, build, early, kinds):
    """The first message at that place brings none, and is made short in the first test."""
    outcome = suite.run(
        """
import array, os
SCM = socket.SOL_SOCKET, socket.SCM_RIGHTS

def test_without():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"12345678")
        lib.get(theirs.fileno())

def test_with():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for passed in [], [0]:
            ours.sendmsg([b"12345678"], [(*SCM, array.array("i", passed))] if passed else [])
            lib.get(theirs.fileno())
""",
        build(f"#define EARLY {early}\n{RECEIVES}", name="receives"),
        "--clib-torture",
    )

    outcome.result.assert_outcomes(passed=2)
    assert outcome.kinds == kinds


@pytest.mark.parametrize("cores", [1, 2])
def test_a_copy_goes_on_when_the_one_before_it_is_gone(suite, library, cores):
    """What a process has is given back when the kernel has taken it apart, which takes a while."""
    source = """
import fcntl, mmap, os

def test():
    global kept
    with open("locked", "w+b") as file:
        file.truncate(4096)
        file.flush()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock = "free"
        except BlockingIOError:
            lock = "taken"
        # The mapping keeps the lock.
        kept = mmap.mmap(file.fileno(), 4096), b"a" * (64 << 20)
    lib.set(b"one")
    lib.mapped()
    with open("locks", "a") as locks:
        print(lock, file=locks)
"""
    suite.pytester.makeconftest(
        f"import os\nos.sched_getaffinity = lambda pid: set(range({cores}))\n"
    )
    outcome = suite.run(source, library, "--clib-torture")

    outcome.result.assert_outcomes(passed=1)
    assert outcome.report["summary"]["injections"] > 1
    locks = (suite.pytester.path / "locks").read_text().split()
    assert set(locks) == {"free"}
    assert len(locks) == outcome.report["summary"]["injections"] + 2


def test_copies_get_the_random_numbers_of_the_test_itself(suite, library):
    """Else a copy may not come to the call that is to fail."""
    source = """
import random
random.seed(7)

def test():
    with open("drawn", "a") as file:
        print(random.random(), random.choice(range(1000)), file=file)
    assert lib.set(b"x") == 0
"""
    suite.run(source, library, "--clib-torture")

    drawn = (suite.pytester.path / "drawn").read_text().splitlines()
    assert len(drawn) == 3, "a copy that counts, one with a failure, and the test"
    assert len(set(drawn)) == 1, drawn


def test_a_descriptor_that_finds_no_place_is_closed():
    made = os.dup(0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        _native.put_in_place(made, [2**20])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(made)
