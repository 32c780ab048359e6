/*
 * memory,
 *
 * finds: fd-leak: 1 descriptor lost: memfd_create in probe
 *
 *     def test():
 *         assert lib.probe() == 0
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

int probe(void)
{
	int fd = memfd_create("scratch", 0);

	if (fd < 0)
		return -1;
#ifndef BUG
	close(fd);
#endif
	return 0;
}
