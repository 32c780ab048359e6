/*
 * A pointer in fresh memory is followed.
 *
 * finds: crash: in run
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

struct box { int *value; };

int run(void)
{
#ifdef BUG
	struct box *box = malloc(sizeof(*box));
#else
	struct box *box = calloc(1, sizeof(*box));
#endif
	int result;

	if (box == NULL)
		return -1;
	result = box->value != NULL ? *box->value : 0;
	free(box);
	return result;
}
