/*
 * There is no room for the NUL.
 *
 * finds: overflow: of a block of 16 bytes
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>
#include <string.h>

int run(void)
{
	const char *text = "sixteen letters.";
#ifdef BUG
	char *copy = malloc(strlen(text));
#else
	char *copy = malloc(strlen(text) + 1);
#endif

	if (copy == NULL)
		return -1;
	strcpy(copy, text);
	free(copy);
	return 0;
}
