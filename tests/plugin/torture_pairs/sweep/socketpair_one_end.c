/*
 * Only one end is closed on the error path.
 *
 * finds: fd-leak: 1 descriptor of socketpair lost in run, when malloc in run fails
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
	char *block;
	int fds[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
		return -1;
	block = malloc(8);
	if (block == NULL)
		close(fds[1]);
	if (block == NULL) {
#ifndef BUG
		close(fds[0]);
#endif
		return -1;
	}
	free(block);
	close(fds[0]);
	close(fds[1]);
	return 0;
}
