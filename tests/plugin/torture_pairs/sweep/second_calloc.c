/*
 * The first allocation is checked, the second is not.
 *
 * finds: crash: in run, when calloc in run fails
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

struct table { int *rows; };

int run(void)
{
	struct table *table = malloc(sizeof(*table));

	if (table == NULL)
		return -1;
	table->rows = calloc(8, sizeof(int));
#ifndef BUG
	if (table->rows == NULL) {
		free(table);
		return -1;
	}
#endif
	table->rows[3] = 1;
	free(table->rows);
	free(table);
	return 0;
}
