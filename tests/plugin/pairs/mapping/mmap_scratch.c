/*
 * Scratch memory from the kernel is not given back.
 *
 * finds: mapping-leak: 1 mapping (8192 bytes) lost: mmap in zeroes
 *
 *     def test():
 *         assert lib.zeroes() == 0
 */
#include <sys/mman.h>

int zeroes(void)
{
	char *p = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int sum = p[0] + p[8191];

#ifndef BUG
	munmap(p, 8192);
#endif
	return sum;
}
