"""zlib: one call, and a stream."""

import ctypes as c

lib = c.CDLL("libz.so.1", use_errno=True)
lib.compress.argtypes = [c.c_char_p, c.POINTER(c.c_ulong), c.c_char_p, c.c_ulong]
lib.uncompress.argtypes = lib.compress.argtypes
lib.gzopen.restype = c.c_void_p
lib.gzopen.argtypes = [c.c_char_p, c.c_char_p]
lib.gzputs.argtypes = [c.c_void_p, c.c_char_p]
lib.gzclose.argtypes = [c.c_void_p]

DATA = b"some text " * 50


def test_round_trip():
    room = c.c_ulong(2000)
    packed = c.create_string_buffer(room.value)
    assert lib.compress(packed, c.byref(room), DATA, len(DATA)) == 0
    back = c.c_ulong(2000)
    plain = c.create_string_buffer(back.value)
    assert lib.uncompress(plain, c.byref(back), packed.raw, room.value) == 0
    assert plain.raw[: back.value] == DATA


def test_file(tmp_path):
    file = lib.gzopen(bytes(tmp_path / "x.gz"), b"wb")
    assert file
    lib.gzputs(file, b"line\n")
    assert lib.gzclose(file) == 0
