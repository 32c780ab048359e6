/*
 * A thread's result is joined and thrown away.
 *
 * finds: leak: 1 block (8 bytes) lost: malloc in work
 *
 *     def test():
 *         assert lib.answer() == 42
 */
#include <pthread.h>
#include <stdlib.h>

static void *work(void *unused)
{
	long *result = malloc(sizeof(*result));

	*result = 42;
	return result;
}

int answer(void)
{
	pthread_t thread;
	void *result;
	int value;

	pthread_create(&thread, NULL, work, NULL);
	pthread_join(thread, &result);
	value = *(long *)result;
#ifndef BUG
	free(result);
#endif
	result = NULL;
	return value;
}
