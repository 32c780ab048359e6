/*
 * and a watch on files.
 *
 * finds: fd-leak: 1 descriptor lost: inotify_init1 in probe
 *
 *     def test():
 *         assert lib.probe() == 0
 */
#define _GNU_SOURCE
#include <sys/inotify.h>
#include <unistd.h>

int probe(void)
{
	int fd = inotify_init1(0);

	if (fd < 0)
		return -1;
#ifndef BUG
	close(fd);
#endif
	return 0;
}
