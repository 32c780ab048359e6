/*
 * Failure is looked for as 0.
 *
 * finds: failed
 *
 *     def test(clib):
 *         with clib.fail("eventfd", errno.EMFILE):
 *             assert lib.start() == -1
 */
#include <sys/eventfd.h>
#include <unistd.h>

int start(void)
{
	int fd = eventfd(0, EFD_CLOEXEC);

#ifdef BUG
	if (!fd)
#else
	if (fd < 0)
#endif
		return -1;
	close(fd);
	return 0;
}
