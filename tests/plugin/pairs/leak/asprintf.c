/*
 * A formatted message is not freed.
 *
 * finds: leak: lost: asprintf in message_length
 *
 *     def test():
 *         assert lib.message_length(42) == len("value: 42")
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>

int message_length(int value)
{
	char *message;
	int length = asprintf(&message, "value: %d", value);

#ifndef BUG
	free(message);
#endif
	return length;
}
