/*
 * The same with unittest.
 *
 * finds: leak: 1 block (88 bytes) lost: malloc in stream_open
 *
 *     class Stream(unittest.TestCase):
 *         def setUp(self):
 *             lib.stream_open.restype = c.c_void_p
 *             lib.stream_close.argtypes = [c.c_void_p]
 *             self.stream = lib.stream_open()
 *             self.addCleanup(lib.stream_close, self.stream)
 *
 *         def test(self):
 *             self.assertTrue(self.stream)
 */
#include <stdlib.h>

void *stream_open(void)
{
	return malloc(88);
}

void stream_close(void *stream)
{
#ifndef BUG
	free(stream);
#endif
}
