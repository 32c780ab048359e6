/*
 * So is an epoll instance,
 *
 * finds: fd-leak: 1 descriptor lost: epoll_create1 in probe
 *
 *     def test():
 *         assert lib.probe() == 0
 */
#define _GNU_SOURCE
#include <sys/epoll.h>
#include <unistd.h>

int probe(void)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd < 0)
		return -1;
#ifndef BUG
	close(fd);
#endif
	return 0;
}
