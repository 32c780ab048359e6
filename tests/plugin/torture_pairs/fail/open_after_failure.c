/*
 * A failed start leaves the state at started.
 *
 * finds: failed
 *
 *     def test(clib):
 *         with clib.fail("malloc"):
 *             assert lib.start() == -1
 *         assert lib.started() == 0
 */
#include <stdlib.h>

static int running;

int started(void)
{
	return running;
}

int start(void)
{
	void *block;

#ifdef BUG
	running = 1;
#endif
	block = malloc(8);
	if (block == NULL)
		return -1;
	free(block);
	running = 1;
	return 0;
}
