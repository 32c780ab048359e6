/*
 * The file stays open when it cannot be looked at.
 *
 * finds: fd-leak: of open lost in run, when fstat in run fails
 *
 *     def test():
 *         lib.run()
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <dirent.h>
#include <stdio.h>
#include <pthread.h>

int run(void)
{
	struct stat status;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;

	if (fstat(fd, &status) != 0) {
#ifndef BUG
		close(fd);
#endif
		return -1;
	}
	close(fd);
	return 0;
}
