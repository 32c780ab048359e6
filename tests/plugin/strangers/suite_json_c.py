"""json-c, as a program uses it: every pointer is looked at before it is used."""

import ctypes as c

lib = c.CDLL("libjson-c.so.5", use_errno=True)
for name in ("json_tokener_parse", "json_object_new_object", "json_object_new_string"):
    getattr(lib, name).restype = c.c_void_p
    getattr(lib, name).argtypes = (
        [c.c_char_p] if "object_new_object" not in name else []
    )
lib.json_object_to_json_string.restype = c.c_char_p
lib.json_object_to_json_string.argtypes = [c.c_void_p]
lib.json_object_object_add.argtypes = [c.c_void_p, c.c_char_p, c.c_void_p]
lib.json_object_put.argtypes = [c.c_void_p]


def test_parse_and_print():
    parsed = lib.json_tokener_parse(b'{"name": "value", "list": [1, 2.5, true]}')
    assert parsed
    text = lib.json_object_to_json_string(parsed)
    lib.json_object_put(parsed)
    assert text is None or b"name" in text


def test_build():
    top = lib.json_object_new_object()
    assert top
    value = lib.json_object_new_string(
        b"a value that is long enough not to be kept inside"
    )
    if value and lib.json_object_object_add(top, b"key", value) != 0:
        lib.json_object_put(value)
    lib.json_object_put(top)
