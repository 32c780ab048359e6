/*
 * One element too many is written.
 *
 * finds: overflow: of a block of 32 bytes, 32 bytes after the start in run
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

int run(void)
{
	int *values = malloc(8 * sizeof(int));
	int at;
#ifdef BUG
	const int last = 8;
#else
	const int last = 7;
#endif

	if (values == NULL)
		return -1;
	for (at = 0; at <= last; at++)
		values[at] = at;
	free(values);
	return 0;
}
