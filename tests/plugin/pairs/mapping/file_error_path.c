/*
 * A file with a wrong beginning stays mapped. (Its descriptor is closed.)
 *
 * finds: mapping-leak: 1 mapping (4096 bytes) lost: mmap in check
 *
 *     def test(tmp_path):
 *         (tmp_path / "file").write_bytes(b"x" * 4096)
 *         assert lib.check(str(tmp_path / "file").encode()) == -1
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int check(const char *path)
{
	int fd = open(path, O_RDONLY);
	char *p = mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0);

	close(fd);
	if (memcmp(p, "MAGIC", 5)) {
#ifndef BUG
		munmap(p, 4096);
#endif
		return -1;
	}
	munmap(p, 4096);
	return 0;
}
