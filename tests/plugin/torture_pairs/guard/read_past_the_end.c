/*
 * One element too many is read.
 *
 * finds: overflow: of a block of 16 bytes
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

int run(void)
{
	long *values = calloc(2, sizeof(long));
	long sum = 0;
	int at;
#ifdef BUG
	const int count = 3;
#else
	const int count = 2;
#endif

	if (values == NULL)
		return -1;
	for (at = 0; at < count; at++)
		sum += ((volatile long *)values)[at];
	free(values);
	return (int)sum;
}
