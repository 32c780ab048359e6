/*
 * A failed fsync is not told.
 *
 * finds: unnoticed: when fsync in run fails
 *
 *     def test():
 *         assert lib.run() == 0
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

int run(void)
{
	int result, fd = memfd_create("x", MFD_CLOEXEC);

	if (fd < 0)
		return -1;
	result = fsync(fd);
	close(fd);
#ifdef BUG
	return 0;
#else
	return result;
#endif
}
