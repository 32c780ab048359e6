/*
 * A handler is unlinked, but not freed; the list itself stays in a global.
 *
 * finds: leak: 1 block (24 bytes) lost: malloc in on
 *
 *     def test():
 *         lib.on(1)
 *         lib.on(2)
 *         assert lib.off(1) == 1
 */
#include <stdlib.h>

struct handler {
	struct handler *next;
	long event, calls;
};

static struct handler *handlers;

void on(int event)
{
	struct handler *h = malloc(sizeof(*h));

	h->event = event;
	h->next = handlers;
	handlers = h;
}

int off(int event)
{
	for (struct handler **p = &handlers; *p; p = &(*p)->next) {
		if ((*p)->event == event) {
			struct handler *gone = *p;

			*p = gone->next;
#ifndef BUG
			free(gone);
#endif
			return 1;
		}
	}
	return 0;
}
