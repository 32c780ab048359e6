/*
 * The element before the first is written.
 *
 * finds: overflow: underflow of a block of 32 bytes, 4 bytes before
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

int run(void)
{
	volatile int *values = malloc(8 * sizeof(int));
#ifdef BUG
	int at = 7 - 8;
#else
	int at = 0;
#endif

	if (values == NULL)
		return -1;
	values[at] = 1;
	free((void *)values);
	return 0;
}
