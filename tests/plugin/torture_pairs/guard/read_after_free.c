/*
 * A value is taken from a block that is free.
 *
 * finds: use-after-free: use-after-free of a block of 8 bytes
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

int run(void)
{
	volatile long *value = malloc(sizeof(long));
	long kept;

	if (value == NULL)
		return -1;
	*value = 4;
#ifdef BUG
	free((void *)value);
	kept = *value;
#else
	kept = *value;
	free((void *)value);
#endif
	return (int)kept;
}
