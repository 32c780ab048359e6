/*
 * Memory that cannot be had is asked for again and again.
 *
 * finds: hang: in run, when malloc in run fails with ENOMEM from then on
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

int run(void)
{
	void *block;
	int tries = 0;

	do {
		block = malloc(8);
#ifndef BUG
		if (block == NULL && ++tries == 3)
			return -1;
#endif
	} while (block == NULL);
	free(block);
	return 0;
}
