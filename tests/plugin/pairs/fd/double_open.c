/*
 * A log is opened twice; its descriptor is a static variable.
 *
 * finds: fd-leak: 1 descriptor lost: open in log_to
 *
 *     def test(tmp_path):
 *         lib.log_to(str(tmp_path / "one").encode())
 *         lib.log_to(str(tmp_path / "two").encode())
 */
#include <fcntl.h>
#include <unistd.h>

static int log_fd = -1;

void log_to(const char *path)
{
#ifndef BUG
	if (log_fd >= 0)
		close(log_fd);
#endif
	log_fd = open(path, O_CREAT | O_WRONLY, 0600);
}
