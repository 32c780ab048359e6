/*
 * A socket is made to see whether the family exists.
 *
 * finds: fd-leak: 1 descriptor lost: socket in probe
 *
 *     def test():
 *         assert lib.probe() == 0
 */
#define _GNU_SOURCE
#include <sys/socket.h>
#include <unistd.h>

int probe(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (fd < 0)
		return -1;
#ifndef BUG
	close(fd);
#endif
	return 0;
}
