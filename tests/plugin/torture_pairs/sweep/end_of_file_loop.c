/*
 * The end of the file is read for ever.
 *
 * finds: hang: in run, when read in run meets the end
 *
 *     def test():
 *         lib.run()
 */
#include <errno.h>
#include <unistd.h>

int run(void)
{
	char buffer[8];
	size_t left = sizeof(buffer);
	int fds[2], result = 0;

	if (pipe(fds) != 0)
		return -1;
	if (write(fds[1], "12345678", 8) != 8)
		result = -1;
	close(fds[1]);
	while (result == 0 && left > 0) {
		ssize_t got = read(fds[0], buffer + sizeof(buffer) - left, left);

		if (got < 0 && errno == EINTR)
			continue;
#ifdef BUG
		if (got < 0)
#else
		if (got <= 0)
#endif
			result = -1;
		else
			left -= (size_t)got;
	}
	close(fds[0]);
	return result;
}
