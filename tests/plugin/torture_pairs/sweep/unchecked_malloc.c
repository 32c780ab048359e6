/*
 * The result of malloc is not looked at.
 *
 * finds: crash: in run, when malloc in run fails
 *
 *     def test():
 *         lib.run()
 */
#include <stdlib.h>

int run(void)
{
	int *value = malloc(sizeof(*value));

#ifndef BUG
	if (value == NULL)
		return -1;
#endif
	*value = 1;
	free(value);
	return 0;
}
