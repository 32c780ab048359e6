/*
 * The file stays open when memory is short.
 *
 * finds: fd-leak: of open lost in run, when malloc in run fails
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
	char *buffer;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	buffer = malloc(64);
	if (buffer == NULL) {
#ifndef BUG
		close(fd);
#endif
		return -1;
	}
	free(buffer);
	close(fd);
	return 0;
}
