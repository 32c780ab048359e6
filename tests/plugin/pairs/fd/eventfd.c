/*
 * An event counter is a descriptor.
 *
 * finds: fd-leak: 1 descriptor lost: eventfd in probe
 *
 *     def test():
 *         assert lib.probe() == 0
 */
#define _GNU_SOURCE
#include <sys/eventfd.h>
#include <unistd.h>

int probe(void)
{
	int fd = eventfd(0, EFD_NONBLOCK);

	if (fd < 0)
		return -1;
#ifndef BUG
	close(fd);
#endif
	return 0;
}
