/*
 * The library ends the process when memory is short.
 *
 * finds: exit: exit(3) in run, when malloc in run fails
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
		exit(3);
#else
		return -1;
#endif
	free(block);
	return 0;
}
