/*
 * What a short write left over is not written.
 *
 * finds: unnoticed: when write in run transfers 1 byte
 *
 *     def test():
 *         assert lib.run() == 0
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE 16

int run(void)
{
	static const char text[SIZE] = "fifteen letters";
	int result = 0, fd = memfd_create("x", MFD_CLOEXEC);
	size_t done = 0;

	if (fd < 0)
		return -1;
	while (result == 0 && done < SIZE) {
		ssize_t put = write(fd, text + done, SIZE - done);

		if (put < 0 && errno != EINTR)
			result = -1;
#ifdef BUG
		if (put > 0)
			break;
#else
		if (put > 0)
			done += (size_t)put;
#endif
	}
	close(fd);
	return result;
}
