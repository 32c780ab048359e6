/*
 * A zeroed table is not freed.
 *
 * finds: leak: 1 block (1024 bytes) lost: calloc in most_frequent
 *
 *     def test():
 *         assert lib.most_frequent(b"banana") == ord("a")
 */
#include <stdlib.h>

int most_frequent(const unsigned char *text)
{
	int *counts = calloc(256, sizeof(*counts)), best = 0;

	for (; *text; text++)
		if (++counts[*text] > counts[best])
			best = *text;
#ifndef BUG
	free(counts);
#endif
	return best;
}
