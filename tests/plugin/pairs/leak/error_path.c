/*
 * The error path returns early.
 *
 * finds: leak: 1 block (64 bytes) lost: malloc in parse
 *
 *     def test():
 *         assert lib.parse(b"12") == 12
 *         assert lib.parse(b"-1") == -1
 */
#include <stdlib.h>
#include <string.h>

int parse(const char *text)
{
	char *copy = malloc(64);
	int value;

	strncpy(copy, text, 63);
	value = atoi(copy);
	if (value < 0) {
#ifndef BUG
		free(copy);
#endif
		return -1;
	}
	free(copy);
	return value;
}
