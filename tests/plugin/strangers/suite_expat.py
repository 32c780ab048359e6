"""expat: a document, and one that is wrong."""

import ctypes as c

lib = c.CDLL("libexpat.so.1", use_errno=True)
lib.XML_ParserCreate.restype = c.c_void_p
lib.XML_ParserCreate.argtypes = [c.c_char_p]
lib.XML_Parse.argtypes = [c.c_void_p, c.c_char_p, c.c_int, c.c_int]
lib.XML_ParserFree.argtypes = [c.c_void_p]
lib.XML_ParserFree.restype = None

DOCUMENT = b'<?xml version="1.0"?><a x="1"><b>text &amp; more</b><c/></a>'


def parse(document):
    parser = lib.XML_ParserCreate(None)
    assert parser
    status = lib.XML_Parse(parser, document, len(document), 1)
    lib.XML_ParserFree(parser)
    return status


def test_document():
    assert parse(DOCUMENT) == 1


def test_wrong_document():
    assert parse(b"<a><b></a>") == 0
