/*
 * An assertion stands where an error belongs.
 *
 * finds: abort: __assert_fail in run, when open in run fails
 *
 *     def test():
 *         lib.run()
 */
#include <assert.h>
#include <fcntl.h>
#include <unistd.h>

int run(void)
{
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);

#ifdef BUG
	assert(fd >= 0);
#else
	if (fd < 0)
		return -1;
#endif
	close(fd);
	return 0;
}
