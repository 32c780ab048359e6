/*
 * The temporary file stays when it cannot be renamed.
 *
 * finds: failed
 *
 *     def test(clib, tmp_path):
 *         new, old = bytes(tmp_path / "new"), bytes(tmp_path / "old")
 *         with clib.fail("rename", "ENOSPC"):
 *             assert lib.save(new, old) == -1
 *         assert list(tmp_path.iterdir()) == []
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int save(const char *new, const char *old)
{
	int fd = open(new, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	if (fd < 0)
		return -1;
	close(fd);
	if (rename(new, old) != 0) {
#ifndef BUG
		unlink(new);
#endif
		return -1;
	}
	return 0;
}
