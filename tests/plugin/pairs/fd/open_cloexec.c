/*
 * O_CLOEXEC closes nothing before exec.
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
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -1;
#ifndef BUG
	close(fd);
#endif
	return 0;
}
