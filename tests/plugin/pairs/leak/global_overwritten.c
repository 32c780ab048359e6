/*
 * A global is set twice, and the first value is lost. The second is held.
 *
 * finds: leak: 1 block (6 bytes) lost: strdup in set_name
 *
 *     def test():
 *         lib.set_name(b"first")
 *         lib.set_name(b"the second")
 */
#include <stdlib.h>
#include <string.h>

static char *name;

void set_name(const char *text)
{
#ifndef BUG
	free(name);
#endif
	name = strdup(text);
}
