/*
 * The cleanup overwrites errno.
 *
 * finds: failed
 *
 *     def test(clib):
 *         with clib.fail("ftruncate", errno.EFBIG), clib.fail("close", errno.EIO):
 *             assert lib.run() == -1
 *         assert c.get_errno() == errno.EFBIG
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

int run(void)
{
	int fd = memfd_create("x", MFD_CLOEXEC);

	if (fd < 0)
		return -1;
	if (ftruncate(fd, 4096) != 0) {
#ifdef BUG
		close(fd);
#else
		int saved = errno;

		close(fd);
		errno = saved;
#endif
		return -1;
	}
	close(fd);
	return 0;
}
