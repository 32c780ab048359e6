/*
 * The argument is lost when the thread cannot be made.
 *
 * finds: leak: lost in run, when pthread_create in run fails
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

static void *work(void *argument)
{
	free(argument);
	return NULL;
}

int run(void)
{
	pthread_t thread;
	int *argument = malloc(sizeof(*argument));
	if (argument == NULL)
		return -1;
	if (pthread_create(&thread, NULL, work, argument) != 0) {
#ifndef BUG
		free(argument);
#endif
		return -1;
	}
	pthread_join(thread, NULL);
	return 0;
}
