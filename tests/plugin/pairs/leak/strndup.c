/*
 * strndup allocates as much as it copies.
 *
 * finds: leak: 1 block (4 bytes) lost: strndup in scheme_is
 *
 *     def test():
 *         assert lib.scheme_is(b"ftp://host", b"ftp") == 1
 */
#include <stdlib.h>
#include <string.h>

int scheme_is(const char *url, const char *scheme)
{
	char *start = strndup(url, strcspn(url, ":"));
	int same = !strcmp(start, scheme);

#ifndef BUG
	free(start);
#endif
	return same;
}
