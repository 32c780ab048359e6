/*
 * dup opens as well: the original may be closed, the copy is not.
 *
 * finds: fd-leak: 1 descriptor lost: dup in probe
 *
 *     def test():
 *         assert lib.probe() == 0
 */
#define _GNU_SOURCE
#include <unistd.h>

int probe(void)
{
	int fd = dup(1);

	if (fd < 0)
		return -1;
#ifndef BUG
	close(fd);
#endif
	return 0;
}
