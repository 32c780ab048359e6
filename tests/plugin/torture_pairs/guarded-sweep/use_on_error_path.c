/*
 * The error path frees a block, and then reads from it.
 *
 * finds: use-after-free: when malloc in run fails
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

struct owner { void *part; int state; };

int run(void)
{
	volatile struct owner *owner = calloc(1, sizeof(*owner));
	int state;

	if (owner == NULL)
		return -1;
	owner->part = malloc(8);
	if (owner->part == NULL) {
#ifdef BUG
		free((void *)owner);
		return owner->state - 1;
#else
		state = owner->state;
		free((void *)owner);
		return state - 1;
#endif
	}
	free(owner->part);
	free((void *)owner);
	return 0;
}
