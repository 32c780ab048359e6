/*
 * A temporary buffer is not freed.
 *
 * finds: leak: 1 block (100 bytes) lost: malloc in count_words
 *
 *     def test():
 *         assert lib.count_words(b"one two three") == 3
 */
#include <stdlib.h>
#include <string.h>

int count_words(const char *text)
{
	char *copy = malloc(100), *rest = copy;
	int words = 0;

	strcpy(copy, text);
	while (strsep(&rest, " "))
		words++;
#ifndef BUG
	free(copy);
#endif
	return words;
}
