/*
 * posix_memalign returns its block through a pointer.
 *
 * finds: leak: 1 block (192 bytes) lost: posix_memalign in fill
 *
 *     def test():
 *         assert lib.fill(7) == 7
 */
#include <stdlib.h>
#include <string.h>

int fill(int value)
{
	void *block;
	int first;

	if (posix_memalign(&block, 64, 192))
		return -1;
	memset(block, value, 192);
	first = *(char *)block;
#ifndef BUG
	free(block);
#endif
	return first;
}
