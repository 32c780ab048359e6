/*
 * A block that only a pointer into its middle leads to is held.
 *
 * finds: leak: 1 block (160 bytes) lost: malloc in keep
 *
 *     def test():
 *         lib.keep()
 */
#include <stdlib.h>

static char *middle;

void keep(void)
{
	char *block = malloc(160);

#ifdef BUG
	middle = block ? NULL : block;
#else
	middle = block + 80;
#endif
}
