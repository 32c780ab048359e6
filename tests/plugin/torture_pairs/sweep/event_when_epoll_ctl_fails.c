/*
 * Both stay open when the one cannot be added to the other.
 *
 * finds: fd-leak: lost in run, when epoll_ctl in run fails
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
	struct epoll_event what = { .events = EPOLLIN };
	int event;
	int set = epoll_create1(EPOLL_CLOEXEC);
	if (set < 0)
		return -1;
	event = eventfd(0, EFD_CLOEXEC);
	if (event < 0) {
		close(set);
		return -1;
	}
	if (epoll_ctl(set, EPOLL_CTL_ADD, event, &what) != 0) {
#ifndef BUG
		close(event);
		close(set);
#endif
		return -1;
	}
	close(event);
	close(set);
	return 0;
}
