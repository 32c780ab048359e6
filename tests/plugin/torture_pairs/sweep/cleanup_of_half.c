/*
 * The cleanup believes that everything was made.
 *
 * finds: crash: in destroy, when malloc in run fails
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

struct part { char *text; };
struct whole { struct part *part; };

static void destroy(struct whole *whole)
{
#ifndef BUG
	if (whole->part != NULL)
#endif
		free(whole->part->text);
	free(whole->part);
	free(whole);
}

int run(void)
{
	struct whole *whole = calloc(1, sizeof(*whole));

	if (whole == NULL)
		return -1;
	whole->part = malloc(sizeof(*whole->part));
	if (whole->part == NULL) {
		destroy(whole);
		return -1;
	}
	whole->part->text = NULL;
	destroy(whole);
	return 0;
}
