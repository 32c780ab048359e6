/*
 * A descriptor that came with a message is ignored.
 *
 * finds: fd-leak: 1 descriptor lost: recvmsg in receive
 *
 *     def test():
 *         ours, theirs = socket.socketpair()
 *         with ours, theirs, open("/dev/null") as file:
 *             socket.send_fds(ours, [b"x"], [file.fileno()])
 *             assert lib.receive(theirs.fileno()) == 1
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int receive(int from)
{
	char byte, control[CMSG_SPACE(4 * sizeof(int))];
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *header;

	if (recvmsg(from, &message, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_type != SCM_RIGHTS)
		return -2;
#ifndef BUG
	int fd;

	memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	close(fd);
#endif
	return 1;
}
