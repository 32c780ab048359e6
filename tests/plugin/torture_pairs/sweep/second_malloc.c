/*
 * The first block is lost when the second cannot be had.
 *
 * finds: leak: malloc (16 bytes) lost in run, when malloc in run fails
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
	char *second;
	char *first = malloc(16);
	if (first == NULL)
		return -1;
	second = malloc(32);
	if (second == NULL) {
#ifndef BUG
		free(first);
#endif
		return -1;
	}
	free(first);
	free(second);
	return 0;
}
