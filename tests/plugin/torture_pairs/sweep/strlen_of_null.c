/*
 * The fault is in libc, and the library's: it passes NULL on.
 *
 * finds: crash: in run, when strdup in run fails
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>
#include <string.h>

size_t run(void)
{
	char *copy = strdup("some text");
	size_t length;

#ifndef BUG
	if (copy == NULL)
		return 0;
#endif
	length = strlen(copy);
	free(copy);
	return length;
}
