/*
 * On failure the first element is forgotten: the loop that undoes stops too early.
 *
 * finds: leak: 1 block (32 bytes) lost: malloc in build
 *
 *     def test():
 *         assert lib.build(5) == -1
 */
#include <stdlib.h>

int build(int fail_at)
{
	void *parts[8];
	int i;

	for (i = 0; i < 8; i++) {
		if (i == fail_at)
			goto undo;
		parts[i] = malloc(32);
	}
	return 0;
undo:
#ifdef BUG
	while (--i > 0)
#else
	while (--i >= 0)
#endif
		free(parts[i]);
	return -1;
}
