/*
 * A mapping has grown, but is unmapped with its old size.
 *
 * finds: mapping-leak: 1 mapping (12288 bytes) lost: mremap in grow
 *
 *     def test():
 *         assert lib.grow() == 0
 */
#define _GNU_SOURCE
#include <sys/mman.h>

int grow(void)
{
	char *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	p = mremap(p, 4096, 4 * 4096, MREMAP_MAYMOVE);
	if (p == MAP_FAILED)
		return -1;
#ifdef BUG
	return munmap(p, 4096);
#else
	return munmap(p, 4 * 4096);
#endif
}
