/*
 * a timer,
 *
 * finds: fd-leak: 1 descriptor lost: timerfd_create in probe
 *
 *     def test():
 *         assert lib.probe() == 0
 */
#define _GNU_SOURCE
#include <sys/timerfd.h>
#include <unistd.h>

int probe(void)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, 0);

	if (fd < 0)
		return -1;
#ifndef BUG
	close(fd);
#endif
	return 0;
}
