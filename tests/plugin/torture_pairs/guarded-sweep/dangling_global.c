/*
 * After a failure a variable points to a block that is free.
 *
 * finds: use-after-free: when malloc in refill fails
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

static volatile char *cache;

static int refill(void)
{
	free((void *)cache);
#ifndef BUG
	cache = NULL;
#endif
	char *fresh = malloc(16);
	if (fresh == NULL)
		return -1;
	cache = fresh;
	cache[0] = 'x';
	return 0;
}

int run(void)
{
	int result;

	refill();
	refill();
	result = cache != NULL ? cache[0] : -1;
	free((void *)cache);
	cache = NULL;
	return result;
}
