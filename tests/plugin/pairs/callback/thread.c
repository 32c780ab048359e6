/*
 * The callback runs in a thread of the library.
 *
 * finds: callback-exception: ValueError in the callback
 *
 *     @c.CFUNCTYPE(None, c.c_int)
 *     def on_done(status):
 *         if status:
 *             raise ValueError(status)
 *
 *     def test():
 *         lib.in_thread(on_done)
 */
#include <pthread.h>

static void *run(void *callback)
{
#ifdef BUG
	((void (*)(int))callback)(1);
#else
	((void (*)(int))callback)(0);
#endif
	return 0;
}

void in_thread(void (*callback)(int))
{
	pthread_t thread;

	pthread_create(&thread, 0, run, callback);
	pthread_join(thread, 0);
}
