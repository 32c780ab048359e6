/*
 * The context is freed, the descriptor in it is not closed.
 *
 * finds: fd-leak: 1 descriptor lost: eventfd in waiter_new
 *
 *     def test():
 *         lib.waiter_new.restype = c.c_void_p
 *         lib.waiter_free.argtypes = [c.c_void_p]
 *         lib.waiter_free(lib.waiter_new())
 */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct waiter {
	long flags, count;
	int fd;
};

struct waiter *waiter_new(void)
{
	struct waiter *w = calloc(1, sizeof(*w));

	w->fd = eventfd(0, 0);
	return w;
}

void waiter_free(struct waiter *w)
{
#ifndef BUG
	close(w->fd);
#endif
	free(w);
}
