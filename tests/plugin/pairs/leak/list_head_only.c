/*
 * Only the head of a list is freed: the next node is lost, and with it the others.
 *
 * finds: leak: 4 blocks (64 bytes in all) lost: malloc in sum
 *
 *     def test():
 *         assert lib.sum(5) == 15
 */
#include <stdlib.h>

struct node {
	struct node *next;
	int value;
};

int sum(int n)
{
	struct node *head = NULL;
	int total = 0;

	for (int i = 1; i <= n; i++) {
		struct node *node = malloc(sizeof(*node));

		node->value = i;
		node->next = head;
		head = node;
	}
	for (struct node *node = head; node; node = node->next)
		total += node->value;
#ifdef BUG
	free(head);
#else
	while (head) {
		struct node *next = head->next;

		free(head);
		head = next;
	}
#endif
	return total;
}
