/*
 * Two cleanups free the same block.
 *
 * finds: abort: in run, when malloc in run fails
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

int run(void)
{
	char *first = malloc(16), *second;

	if (first == NULL)
		return -1;
	second = malloc(16);
	if (second == NULL) {
		free(first);
#ifdef BUG
		goto out;
#else
		return -1;
#endif
	}
	free(second);
out:
	free(first);
	return 0;
}
