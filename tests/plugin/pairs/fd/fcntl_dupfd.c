/*
 * fcntl can duplicate, too.
 *
 * finds: fd-leak: 1 descriptor lost: fcntl in probe
 *
 *     def test():
 *         assert lib.probe() == 0
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>

int probe(void)
{
	int fd = fcntl(1, F_DUPFD_CLOEXEC, 3);

	if (fd < 0)
		return -1;
#ifndef BUG
	close(fd);
#endif
	return 0;
}
