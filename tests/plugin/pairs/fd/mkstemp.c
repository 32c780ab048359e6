/*
 * A temporary file is unlinked, but stays open.
 *
 * finds: fd-leak: 1 descriptor lost: mkstemp in scratch
 *
 *     def test(tmp_path):
 *         assert lib.scratch(str(tmp_path / "fileXXXXXX").encode()) == 0
 */
#include <stdlib.h>
#include <unistd.h>

int scratch(char *template)
{
	int fd = mkstemp(template);

	if (fd < 0 || unlink(template))
		return -1;
#ifndef BUG
	close(fd);
#endif
	return 0;
}
