/*
 * The size is set before the memory is there.
 *
 * finds: failed
 *
 *     def test(clib):
 *         assert lib.resize(8) == 0
 *         with clib.fail("realloc"):
 *             assert lib.resize(64) == -1
 *         assert lib.size() == 8
 *         assert lib.resize(0) == 0
 */
#include <stdlib.h>

static char *buffer;
static int room;

int size(void)
{
	return room;
}

int resize(int wanted)
{
	char *moved;

	if (wanted == 0) {
		free(buffer);
		buffer = NULL;
		room = 0;
		return 0;
	}
#ifdef BUG
	room = wanted;
#endif
	moved = realloc(buffer, (size_t)wanted);
	if (moved == NULL)
		return -1;
	buffer = moved;
	room = wanted;
	return 0;
}
