/*
 * The file stays open when it cannot be mapped.
 *
 * finds: fd-leak: of memfd_create lost in run, when mmap in run fails
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
	void *memory;
	int fd = memfd_create("x", MFD_CLOEXEC);
	if (fd < 0)
		return -1;
	memory = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED) {
#ifndef BUG
		close(fd);
#endif
		return -1;
	}
	munmap(memory, 4096);
	close(fd);
	return 0;
}
