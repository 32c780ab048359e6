/*
 * Only the first page is unmapped: what remains is lost.
 *
 * finds: mapping-leak: 1 mapping (8192 bytes) lost: mmap in ring_buffer
 *
 *     def test():
 *         assert lib.ring_buffer() == 0
 */
#include <sys/mman.h>

int ring_buffer(void)
{
	char *p = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return -1;
#ifdef BUG
	return munmap(p, 4096);
#else
	return munmap(p, 3 * 4096);
#endif
}
