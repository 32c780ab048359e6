/*
 * The error path does not unlock: the next call hangs.
 *
 * finds: hang: in run, when malloc in run fails
 *
 *     def test():
 *         lib.run()
 *         lib.run()
 */
#include <pthread.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int run(void)
{
	void *block;

	pthread_mutex_lock(&lock);
	block = malloc(8);
	if (block == NULL) {
#ifndef BUG
		pthread_mutex_unlock(&lock);
#endif
		return -1;
	}
	free(block);
	pthread_mutex_unlock(&lock);
	return 0;
}
