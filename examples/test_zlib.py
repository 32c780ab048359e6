"""zlib as installed, tested from plain ctypes.

    pytest --clib=libz.so.1 examples/test_zlib.py

Nothing in here knows of pytest-clib, but for the last test.
"""

import ctypes as c
import ctypes.util
import zlib

import pytest

z = c.CDLL(ctypes.util.find_library("z") or "libz.so.1")

OK, STREAM_END, DATA_ERROR = 0, 1, -3
NO_FLUSH, FINISH = 0, 4


class Stream(c.Structure):
    _fields_ = [
        ("next_in", c.c_char_p),
        ("avail_in", c.c_uint),
        ("total_in", c.c_ulong),
        ("next_out", c.c_void_p),
        ("avail_out", c.c_uint),
        ("total_out", c.c_ulong),
        ("msg", c.c_char_p),
        ("state", c.c_void_p),
        ("zalloc", c.c_void_p),
        ("zfree", c.c_void_p),
        ("opaque", c.c_void_p),
        ("data_type", c.c_int),
        ("adler", c.c_ulong),
        ("reserved", c.c_ulong),
    ]


z.zlibVersion.restype = c.c_char_p
z.compress.argtypes = [c.c_char_p, c.POINTER(c.c_ulong), c.c_char_p, c.c_ulong]
z.crc32.argtypes = [c.c_ulong, c.c_char_p, c.c_uint]
z.crc32.restype = c.c_ulong
z.gzopen.argtypes = [c.c_char_p, c.c_char_p]
z.gzopen.restype = c.c_void_p
z.gzwrite.argtypes = [c.c_void_p, c.c_char_p, c.c_uint]
z.gzread.argtypes = [c.c_void_p, c.c_void_p, c.c_uint]
z.gzclose.argtypes = [c.c_void_p]
for name in ("deflate", "inflate"):
    getattr(z, name).argtypes = [c.POINTER(Stream), c.c_int]
for name in ("deflateEnd", "inflateEnd"):
    getattr(z, name).argtypes = [c.POINTER(Stream)]
z.deflateInit_.argtypes = [c.POINTER(Stream), c.c_int, c.c_char_p, c.c_int]
z.inflateInit_.argtypes = [c.POINTER(Stream), c.c_char_p, c.c_int]

TEXT = b"the quick brown fox jumps over the lazy dog. " * 200


@pytest.fixture
def deflating():
    stream = Stream()
    started = z.deflateInit_(stream, 6, z.zlibVersion(), c.sizeof(stream))
    assert started == OK
    yield stream
    z.deflateEnd(stream)


@pytest.fixture
def inflating():
    stream = Stream()
    assert z.inflateInit_(stream, z.zlibVersion(), c.sizeof(stream)) == OK
    yield stream
    z.inflateEnd(stream)


def feed(step, stream, data, room, flush):
    out = c.create_string_buffer(room)
    stream.next_in, stream.avail_in = data, len(data)
    stream.next_out, stream.avail_out = c.addressof(out), room
    result = step(stream, flush)
    return result, out.raw[: room - stream.avail_out]


def test_compress_is_understood_by_python():
    size = c.c_ulong(len(TEXT))
    packed = c.create_string_buffer(size.value)

    assert z.compress(packed, size, TEXT, len(TEXT)) == OK

    assert zlib.decompress(packed.raw[: size.value]) == TEXT


def test_deflate_then_inflate_gives_the_same(deflating, inflating):
    result, packed = feed(z.deflate, deflating, TEXT, 10_000, FINISH)
    assert result == STREAM_END

    result, text = feed(z.inflate, inflating, packed, 10_000, NO_FLUSH)

    assert result == STREAM_END
    assert text == TEXT


def test_garbage_is_a_data_error_with_a_message(inflating):
    result, _ = feed(z.inflate, inflating, b"no stream of zlib", 100, NO_FLUSH)

    assert result == DATA_ERROR
    assert inflating.msg == b"incorrect header check"


def test_file_is_written_and_read(tmp_path):
    path = str(tmp_path / "file.gz").encode()
    file = z.gzopen(path, b"wb")
    assert z.gzwrite(file, TEXT, len(TEXT)) == len(TEXT)
    assert z.gzclose(file) == OK

    file = z.gzopen(path, b"rb")
    text = c.create_string_buffer(len(TEXT))

    assert z.gzread(file, text, len(TEXT)) == len(TEXT)
    assert text.raw == TEXT
    assert z.gzclose(file) == OK


def test_file_that_is_missing_is_no_file(tmp_path):
    assert z.gzopen(str(tmp_path / "missing" / "file").encode(), b"rb") is None


@pytest.mark.parametrize("data", [b"", b"a", TEXT])
def test_crc_is_pythons(data):
    assert z.crc32(0, data, len(data)) == zlib.crc32(data)


def test_what_a_stream_allocates_is_freed(request):
    if not request.config.getoption("clib", default=None):
        pytest.skip("counting calls needs --clib=libz.so.1")
    clib = request.getfixturevalue("clib")

    stream = Stream()
    z.deflateInit_(stream, 6, z.zlibVersion(), c.sizeof(stream))

    allocated = clib.calls("malloc")
    assert allocated > 0
    z.deflateEnd(stream)
    assert clib.calls("free") == allocated
