/*
 * A block is freed twice.
 *
 * finds: use-after-free: double-free of a block of 40 bytes
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

int run(void)
{
	void *block = malloc(40);

	free(block);
#ifdef BUG
	free(block);
#endif
	return 0;
}
