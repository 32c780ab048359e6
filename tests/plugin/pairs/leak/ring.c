/*
 * Nodes that point to each other are lost all the same.
 *
 * finds: leak: 3 blocks (48 bytes in all) lost: malloc in ring
 *
 *     def test():
 *         assert lib.ring() == 3
 */
#include <stdlib.h>

struct node {
	struct node *next, *previous;
};

int ring(void)
{
	struct node *nodes[3];

	for (int i = 0; i < 3; i++)
		nodes[i] = malloc(sizeof(struct node));
	for (int i = 0; i < 3; i++) {
		nodes[i]->next = nodes[(i + 1) % 3];
		nodes[i]->previous = nodes[(i + 2) % 3];
	}
#ifndef BUG
	for (int i = 0; i < 3; i++)
		free(nodes[i]);
#endif
	return 3;
}
