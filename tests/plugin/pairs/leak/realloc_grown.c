/*
 * What realloc returned last is not freed.
 *
 * finds: leak: 1 block (40 bytes) lost: realloc in sum_of_squares
 *
 *     def test():
 *         assert lib.sum_of_squares(10) == 285
 */
#include <stdlib.h>

int sum_of_squares(int n)
{
	int *squares = NULL, sum = 0;

	for (int i = 0; i < n; i++) {
		squares = realloc(squares, (i + 1) * sizeof(*squares));
		squares[i] = i * i;
	}
	for (int i = 0; i < n; i++)
		sum += squares[i];
#ifndef BUG
	free(squares);
#endif
	return sum;
}
