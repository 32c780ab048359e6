/*
 * Of three descriptors in a message the first is used and closed.
 *
 * finds: fd-leak: 2 descriptors lost: recvmsg in receive
 *
 *     def test():
 *         ours, theirs = socket.socketpair()
 *         with ours, theirs, open("/dev/null") as file:
 *             socket.send_fds(ours, [b"x"], [file.fileno()] * 3)
 *             assert lib.receive(theirs.fileno()) == 3
 */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int receive(int from)
{
	char byte, control[CMSG_SPACE(8 * sizeof(int))];
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *header;
	int fds[8], n;

	if (recvmsg(from, &message, 0) != 1)
		return -1;
	header = CMSG_FIRSTHDR(&message);
	n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(header), n * sizeof(int));
#ifdef BUG
	close(fds[0]);
#else
	for (int i = 0; i < n; i++)
		close(fds[i]);
#endif
	return n;
}
