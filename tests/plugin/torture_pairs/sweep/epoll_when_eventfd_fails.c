/*
 * The epoll set stays open.
 *
 * finds: fd-leak: of epoll_create1 lost in run, when eventfd in run fails
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
	int event;
	int set = epoll_create1(EPOLL_CLOEXEC);
	if (set < 0)
		return -1;
	event = eventfd(0, EFD_CLOEXEC);
	if (event < 0) {
#ifndef BUG
		close(set);
#endif
		return -1;
	}
	close(event);
	close(set);
	return 0;
}
