/*
 * One side of a pair of sockets is kept open.
 *
 * finds: fd-leak: 1 descriptor lost: socketpair in talk
 *
 *     def test():
 *         assert lib.talk() == 0
 */
#include <sys/socket.h>
#include <unistd.h>

int talk(void)
{
	int sides[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sides))
		return -1;
	close(sides[0]);
#ifndef BUG
	close(sides[1]);
#endif
	return 0;
}
