/*
 * The handle is the value of a fixture, which pytest still has when the test ends.
 *
 * finds: leak: 1 block (128 bytes) lost: calloc in device_open
 *
 *     @pytest.fixture
 *     def device():
 *         lib.device_open.restype = c.c_void_p
 *         lib.device_close.argtypes = [c.c_void_p]
 *         handle = lib.device_open()
 *         yield handle
 *         lib.device_close(handle)
 *
 *     def test(device):
 *         assert device
 */
#include <stdlib.h>

void *device_open(void)
{
	return calloc(1, 128);
}

void device_close(void *device)
{
#ifndef BUG
	free(device);
#endif
}
