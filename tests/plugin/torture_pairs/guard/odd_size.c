/*
 * A byte is written into what alignment leaves free.
 *
 * finds: overflow: of a block of 5 bytes, 5 bytes after the start
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

int run(void)
{
	volatile char *block = malloc(5);
#ifdef BUG
	const int at = 5;
#else
	const int at = 4;
#endif

	if (block == NULL)
		return -1;
	block[at] = 'x';
	free((void *)block);
	return 0;
}
