/*
 * The old address is used after realloc.
 *
 * finds: use-after-free: use-after-free of a block of 16 bytes
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

int run(void)
{
	volatile char *old = malloc(16);
	char *grown;

	if (old == NULL)
		return -1;
	grown = realloc((void *)old, 9000);
	if (grown == NULL) {
		free((void *)old);
		return -1;
	}
#ifdef BUG
	old[0] = 'x';
#else
	grown[0] = 'x';
#endif
	free(grown);
	return 0;
}
