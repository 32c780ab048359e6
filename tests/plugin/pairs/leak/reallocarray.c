/*
 * reallocarray counts like realloc.
 *
 * finds: leak: 1 block (96 bytes) lost: reallocarray in last_prime
 *
 *     def test():
 *         assert lib.last_prime() == 13
 */
#define _GNU_SOURCE
#include <stdlib.h>

int last_prime(void)
{
	long *primes = reallocarray(NULL, 6, sizeof(*primes)), last;

	primes = reallocarray(primes, 12, sizeof(*primes));
	primes[5] = 13;
	last = primes[5];
#ifndef BUG
	free(primes);
#endif
	return last;
}
