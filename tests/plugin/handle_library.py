"""A library whose handles can be lost, and how a suite declares it."""

HANDLES = """\
#include <stdlib.h>

void *make(void) { return calloc(1, 100); }
void destroy(void *handle) { free(handle); }
"""
DECLARED = """\
lib.make.restype = c.c_void_p
lib.destroy.argtypes = [c.c_void_p]
lib.destroy.restype = None
"""
