/*
 * A second connection overwrites the first in a context that a global keeps alive.
 *
 * finds: fd-leak: 1 descriptor lost: socket in reconnect
 *
 *     def test():
 *         lib.reconnect()
 *         lib.reconnect()
 */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct context {
	long connections;
	int fd;
};

static struct context *context;

void reconnect(void)
{
	if (!context) {
		context = calloc(1, sizeof(*context));
		context->fd = -1;
	}
#ifndef BUG
	close(context->fd);
#endif
	context->fd = socket(AF_INET, SOCK_STREAM, 0);
	context->connections++;
}
