/*
 * memcpy copies more than there is room for.
 *
 * finds: overflow: of a block of 48 bytes
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>
#include <string.h>

static char source[64];

int run(void)
{
	char *block = malloc(48);
#ifdef BUG
	volatile size_t size = 64;
#else
	volatile size_t size = 48;
#endif

	if (block == NULL)
		return -1;
	memcpy(block, source, size);
	free(block);
	return 0;
}
