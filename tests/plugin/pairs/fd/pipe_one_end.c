/*
 * One end of a pipe is closed, the other is not.
 *
 * finds: fd-leak: 1 descriptor lost: pipe in through_pipe
 *
 *     def test():
 *         assert lib.through_pipe(b"x") == ord("x")
 */
#include <unistd.h>

int through_pipe(const char *text)
{
	int ends[2];
	char got = 0;

	if (pipe(ends))
		return -1;
	if (write(ends[1], text, 1) != 1 || read(ends[0], &got, 1) != 1)
		got = 0;
	close(ends[0]);
#ifndef BUG
	close(ends[1]);
#endif
	return got;
}
