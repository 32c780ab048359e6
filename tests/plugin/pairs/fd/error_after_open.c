/*
 * What was opened has the wrong type, and the error path forgets it.
 *
 * finds: fd-leak: 1 descriptor lost: open in open_directory
 *
 *     def test(tmp_path):
 *         (tmp_path / "file").touch()
 *         assert lib.open_directory(str(tmp_path / "file").encode()) == -1
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int open_directory(const char *path)
{
	struct stat status;
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return -2;
	if (fstat(fd, &status) || !S_ISDIR(status.st_mode)) {
#ifndef BUG
		close(fd);
#endif
		return -1;
	}
	close(fd);
	return 0;
}
