/*
 * A stream that could not be opened is read from.
 *
 * finds: crash: in run, when fopen in run fails
 *
 *     def test():
 *         lib.run()
 */
#include <stdio.h>

int run(void)
{
	FILE *in = fopen("/proc/self/status", "r");
	int first;

#ifndef BUG
	if (in == NULL)
		return -1;
#endif
	first = fgetc(in);
	fclose(in);
	return first;
}
