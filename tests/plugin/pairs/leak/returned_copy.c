/*
 * A copy belongs to the caller, who gives it back to the library.
 *
 * finds: leak: 1 block (12 bytes) lost: strdup in get_text
 *
 *     def test():
 *         lib.get_text.restype = c.c_void_p
 *         lib.put_text.argtypes = [c.c_void_p]
 *         text = lib.get_text()
 *         assert c.string_at(text) == b"hello world"
 *         lib.put_text(text)
 */
#include <stdlib.h>
#include <string.h>

char *get_text(void)
{
	return strdup("hello world");
}

void put_text(char *text)
{
#ifdef BUG
	text[0] = 0;
#else
	free(text);
#endif
}
