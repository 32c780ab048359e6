/*
 * The block is lost when the file cannot be opened.
 *
 * finds: leak: lost in run, when open in run fails
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
	int fd;
	char *buffer = malloc(64);
	if (buffer == NULL)
		return -1;
	fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
#ifndef BUG
		free(buffer);
#endif
		return -1;
	}
	close(fd);
	free(buffer);
	return 0;
}
