/*
 * A thousand blocks lost at one place are one finding.
 *
 * finds: leak: 1000 blocks (24000 bytes in all) lost: malloc in churn
 *
 *     def test():
 *         assert lib.churn(1000) == 1000
 */
#include <stdlib.h>

int churn(int times)
{
	void *volatile block;
	int i;

	for (i = 0; i < times; i++) {
		block = malloc(24);
#ifndef BUG
		free(block);
#endif
	}
	block = NULL;
	return i;
}
