/*
 * -1 from read becomes a huge length.
 *
 * finds: crash: in run, when read in run fails
 *
 *     def test():
 *         lib.run()
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static char kept[64];

int run(void)
{
	char buffer[64];
	ssize_t size;
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	size = read(fd, buffer, sizeof(buffer));
	close(fd);
#ifndef BUG
	if (size < 0)
		return -1;
#endif
	memcpy(kept, buffer, (size_t)size);
	return 0;
}
