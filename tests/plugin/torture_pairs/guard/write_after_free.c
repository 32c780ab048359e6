/*
 * A block that is free is written to.
 *
 * finds: use-after-free: use-after-free of a block of 24 bytes
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

struct node { struct node *next, *before; int value; };

int run(void)
{
	volatile struct node *node = malloc(sizeof(*node));

	if (node == NULL)
		return -1;
#ifdef BUG
	free((void *)node);
	node->value = 1;
#else
	node->value = 1;
	free((void *)node);
#endif
	return 0;
}
