/*
 * A file is looked at and left open.
 *
 * finds: fd-leak: 1 descriptor lost: open in probe
 *
 *     def test():
 *         assert lib.probe() == 0
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>

int probe(void)
{
	int fd = open("/dev/null", O_RDONLY);

	if (fd < 0)
		return -1;
#ifndef BUG
	close(fd);
#endif
	return 0;
}
