/*
 * The second try is not looked at.
 *
 * finds: crash: in run, when malloc in run fails with ENOMEM from then on
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

int run(void)
{
	char *block = NULL;
	int try;

	for (try = 0; try < 2 && block == NULL; try++)
		block = malloc(8);
#ifndef BUG
	if (block == NULL)
		return -1;
#endif
	block[0] = 'x';
	free(block);
	return 0;
}
