/*
 * A call that was interrupted is not made again.
 *
 * finds: failed
 *
 *     def test(clib, tmp_path):
 *         file = tmp_path / "in"
 *         file.write_bytes(b"abc")
 *         with file.open("rb") as source, clib.fail("read", errno.EINTR):
 *             assert lib.first(source.fileno()) == ord("a")
 */
#include <errno.h>
#include <unistd.h>

int first(int fd)
{
	char byte = 0;
	ssize_t got;

	do
		got = read(fd, &byte, 1);
#ifdef BUG
	while (0);
#else
	while (got < 0 && errno == EINTR);
#endif
	return got == 1 ? byte : -1;
}
