/*
 * What a short write left over is not written.
 *
 * finds: failed
 *
 *     def test(clib, tmp_path):
 *         file = tmp_path / "out"
 *         with file.open("wb") as out, clib.fail("write", short=3) as failure:
 *             assert lib.put(out.fileno(), b"some text", 9) == 0
 *         assert failure.happened == 1
 *         assert file.read_bytes() == b"some text"
 */
#include <errno.h>
#include <unistd.h>

int put(int fd, const char *text, int size)
{
	int done = 0;

	while (done < size) {
		ssize_t put = write(fd, text + done, (size_t)(size - done));

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -1;
#ifdef BUG
		return 0;
#endif
		done += (int)put;
	}
	return 0;
}
