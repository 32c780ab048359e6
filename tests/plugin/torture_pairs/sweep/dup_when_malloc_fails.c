/*
 * The copy of the descriptor stays open.
 *
 * finds: fd-leak: of dup lost in run, when malloc in run fails
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
	int copy = dup(1);
	if (copy < 0)
		return -1;
	block = malloc(8);
	if (block == NULL) {
#ifndef BUG
		close(copy);
#endif
		return -1;
	}
	free(block);
	close(copy);
	return 0;
}
