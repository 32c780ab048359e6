/*
 * Aligned memory is memory.
 *
 * finds: leak: 1 block (4096 bytes) lost: aligned_alloc in is_aligned
 *
 *     def test():
 *         assert lib.is_aligned() == 1
 */
#include <stdint.h>
#include <stdlib.h>

int is_aligned(void)
{
	void *page = aligned_alloc(4096, 4096);
	int yes = (uintptr_t)page % 4096 == 0;

#ifndef BUG
	free(page);
#endif
	return yes;
}
