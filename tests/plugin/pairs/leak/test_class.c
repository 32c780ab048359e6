/*
 * The handle was an attribute of the test's object.
 *
 * finds: leak: 1 block (80 bytes) lost: malloc in cursor_open
 *
 *     class TestCursor:
 *         def setup_method(self):
 *             lib.cursor_open.restype = c.c_void_p
 *             lib.cursor_close.argtypes = [c.c_void_p]
 *             self.cursor = lib.cursor_open()
 *
 *         def teardown_method(self):
 *             lib.cursor_close(self.cursor)
 *
 *         def test(self):
 *             assert self.cursor
 */
#include <stdlib.h>

void *cursor_open(void)
{
	return malloc(80);
}

void cursor_close(void *cursor)
{
#ifndef BUG
	free(cursor);
#endif
}
