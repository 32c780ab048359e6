/*
 * Shared memory is closed, but stays mapped when its owner is freed.
 *
 * finds: mapping-leak: 1 mapping (65536 bytes) lost: mmap in queue_new
 *
 *     def test():
 *         lib.queue_new.restype = c.c_void_p
 *         lib.queue_free.argtypes = [c.c_void_p]
 *         lib.queue_free(lib.queue_new())
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct queue {
	void *memory;
	long head, tail, waiting[8];
};

struct queue *queue_new(void)
{
	struct queue *q = calloc(1, sizeof(*q));
	int fd = memfd_create("queue", MFD_CLOEXEC);

	if (ftruncate(fd, 65536)) {
		close(fd);
		free(q);
		return NULL;
	}
	q->memory = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return q;
}

void queue_free(struct queue *q)
{
#ifndef BUG
	munmap(q->memory, 65536);
#endif
	free(q);
}
