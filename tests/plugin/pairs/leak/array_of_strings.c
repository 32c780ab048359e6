/*
 * The array is freed, its elements are not.
 *
 * finds: leak: 3 blocks (9 bytes in all) lost: strndup in split
 *
 *     def test():
 *         assert lib.split(b"ab,cd,ef") == 3
 */
#include <stdlib.h>
#include <string.h>

int split(const char *text)
{
	char **parts = calloc(8, sizeof(*parts));
	int n = 0;

	while (*text) {
		size_t length = strcspn(text, ",");

		parts[n++] = strndup(text, length);
		text += length + (text[length] == ',');
	}
#ifndef BUG
	for (int i = 0; i < n; i++)
		free(parts[i]);
#endif
	free(parts);
	return n;
}
