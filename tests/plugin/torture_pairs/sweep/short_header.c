/*
 * A short read is taken for a whole header.
 *
 * finds: crash: in run, when read in run transfers 1 byte
 *
 *     def test():
 *         lib.run()
 */
#include <string.h>
#include <unistd.h>

static char body[64];

int run(void)
{
	struct { unsigned length; unsigned kind; } header = { 1u << 30, 0 };
	unsigned sent[2] = { 8, 1 };
	ssize_t got;
	int fds[2];

	if (pipe(fds) != 0)
		return -1;
	if (write(fds[1], sent, sizeof(sent)) != sizeof(sent)) {
		close(fds[0]);
		close(fds[1]);
		return -1;
	}
	got = read(fds[0], &header, sizeof(header));
	close(fds[0]);
	close(fds[1]);
#ifdef BUG
	if (got < 0)
#else
	if (got != sizeof(header))
#endif
		return -1;
	memset(body, 0, header.length);
	return 0;
}
