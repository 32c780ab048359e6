/*
 * Both ends of a pipe are lost on an error path.
 *
 * finds: fd-leak: 2 descriptors lost: pipe2 in watch
 *
 *     def test():
 *         assert lib.watch(-1) == -1
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>

int watch(int pid)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return -2;
	if (pid < 0) {
#ifndef BUG
		close(ends[0]);
		close(ends[1]);
#endif
		return -1;
	}
	close(ends[0]);
	close(ends[1]);
	return 0;
}
