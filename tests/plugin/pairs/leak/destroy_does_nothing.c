/*
 * The handle was a local variable of the test, and destroying it does not free it.
 *
 * finds: leak: 1 block (256 bytes) lost: malloc in open_session
 *
 *     def test():
 *         lib.open_session.restype = c.c_void_p
 *         lib.close_session.argtypes = [c.c_void_p]
 *         session = lib.open_session()
 *         assert session
 *         lib.close_session(session)
 */
#include <stdlib.h>

void *open_session(void)
{
	return malloc(256);
}

void close_session(void *session)
{
#ifndef BUG
	free(session);
#endif
}
