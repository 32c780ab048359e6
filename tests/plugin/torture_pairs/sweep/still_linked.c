/*
 * A node that is freed on the error path stays in the list.
 *
 * finds: abort: in run, when strdup in add fails
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>
#include <string.h>

struct node { char room[16]; struct node *next; char *name; };
static struct node *list;

static int add(const char *name)
{
	struct node *node = calloc(1, sizeof(*node));

	if (node == NULL)
		return -1;
#ifdef BUG
	node->next = list;
	list = node;
#endif
	node->name = strdup(name);
	if (node->name == NULL) {
		free(node);
		return -1;
	}
#ifndef BUG
	node->next = list;
	list = node;
#endif
	return 0;
}

int run(void)
{
	struct node *node, *next;
	int result = add("one");

	for (node = list; node != NULL; node = next) {
		next = NULL;
		free(node->name);
		free(node);
	}
	list = NULL;
	return result;
}
