/*
 * A table grows by copying, and the old one is forgotten.
 *
 * finds: leak: 3 blocks (56 bytes in all) lost: malloc in add
 *
 *     def test():
 *         for i in range(15):
 *             lib.add(i)
 *         assert lib.size() == 15
 *         lib.clear()
 */
#include <stdlib.h>
#include <string.h>

static int *items, length, room;

void add(int item)
{
	if (length == room) {
		int *old = items;

		room = room ? 2 * room : 2;
		items = malloc(room * sizeof(*items));
		if (old)
			memcpy(items, old, length * sizeof(*items));
#ifndef BUG
		free(old);
#endif
	}
	items[length++] = item;
}

int size(void)
{
	return length;
}

void clear(void)
{
	free(items);
	items = NULL;
	length = room = 0;
}
