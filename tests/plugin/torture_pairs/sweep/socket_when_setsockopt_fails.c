/*
 * The socket stays open when an option cannot be set.
 *
 * finds: fd-leak: of socket lost in run, when setsockopt in run fails
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
	int on = 1;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0) {
#ifndef BUG
		close(fd);
#endif
		return -1;
	}
	close(fd);
	return 0;
}
