/*
 * The library aborts when memory is short.
 *
 * finds: abort: in run, when malloc in run fails
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

int run(void)
{
	void *block = malloc(8);

	if (block == NULL)
#ifdef BUG
		abort();
#else
		return -1;
#endif
	free(block);
	return 0;
}
