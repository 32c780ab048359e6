/*
 * The mapping stays when memory is short.
 *
 * finds: mapping-leak: of mmap (8192 bytes) lost in run, when malloc in run fails
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
	void *memory = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -1;
	block = malloc(8);
	if (block == NULL) {
#ifndef BUG
		munmap(memory, 8192);
#endif
		return -1;
	}
	free(block);
	munmap(memory, 8192);
	return 0;
}
