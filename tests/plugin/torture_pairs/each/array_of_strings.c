/*
 * The strings made so far are lost when one cannot be had.
 *
 * finds: leak: of strdup
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>
#include <string.h>

int run(void)
{
	char *names[3];
	int made, result = 0;

	for (made = 0; made < 3; made++) {
		names[made] = strdup("name");
		if (names[made] == NULL) {
#ifdef BUG
			return -1;
#else
			result = -1;
			break;
#endif
		}
	}
	while (made > 0)
		free(names[--made]);
	return result;
}
