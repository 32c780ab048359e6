/*
 * What a module's fixture acquired is judged when it has been torn down.
 *
 * finds: leak: 1 block (48 bytes) lost: malloc in server_start
 *
 *     @pytest.fixture(scope="module")
 *     def server():
 *         lib.server_start.restype = c.c_void_p
 *         lib.server_stop.argtypes = [c.c_void_p]
 *         handle = lib.server_start()
 *         yield handle
 *         lib.server_stop(handle)
 *
 *     def test_one(server):
 *         assert server
 *
 *     def test(server):
 *         assert server
 */
#include <stdlib.h>

void *server_start(void)
{
	return malloc(48);
}

void server_stop(void *server)
{
#ifndef BUG
	free(server);
#endif
}
