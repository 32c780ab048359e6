/*
 * A failed realloc overwrites the only pointer.
 *
 * finds: leak: lost in run, when realloc in run fails
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

int run(void)
{
	char *buffer = malloc(16);
	char *grown;

	if (buffer == NULL)
		return -1;
#ifdef BUG
	buffer = realloc(buffer, 4096);
	if (buffer == NULL)
		return -1;
#else
	grown = realloc(buffer, 4096);
	if (grown == NULL) {
		free(buffer);
		return -1;
	}
	buffer = grown;
#endif
	free(buffer);
	return 0;
}
