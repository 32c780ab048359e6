/*
 * The timer stays open when it cannot be set.
 *
 * finds: fd-leak: of timerfd_create lost in run, when timerfd_settime in run fails
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
	struct itimerspec when = { .it_value.tv_sec = 100 };
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (timer < 0)
		return -1;
	if (timerfd_settime(timer, 0, &when, NULL) != 0) {
#ifndef BUG
		close(timer);
#endif
		return -1;
	}
	close(timer);
	return 0;
}
